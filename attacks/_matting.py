"""What a visible mark is, as far as a collection of images that carry it can tell; and images without it.

The model is J_k = a W + (1 - a) I_k for all images k: a mark W, its opacity a, the same in all, scenes I_k (Dekel et
al. 2017, Eq. 1). Images are float32 in [0, 1] here unless they say uint8; the matte is m = a W.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import conv2d, max_pool2d, pad

from bench.api import pixels

CHUNK = 1024  # images at a time: 25 MB of 3 x 32 x 32 int64
GREYS = 255
LEVELS = 2 * GREYS + 1
MOST_OPAQUE = 0.99
EPSILON = 1e-3  # of the robust norm sqrt(s^2 + epsilon^2), as in the paper
RIDGE = 1e-6


@dataclass(frozen=True)
class Mark:
    """An estimate of a mark.

    Attributes:
        matte: C x H x W, opacity times colour.
        opacity: H x W in [0, 1).
        region: H x W bool, where there is a mark at all.
    """

    matte: Tensor
    opacity: Tensor
    region: Tensor


def find_region(images: Tensor, threshold: float, margin: int = 1) -> Tensor:
    """Where N x C x H x W uint8 images carry a mark in common: H x W bool.

    Args:
        images: the collection.
        threshold: the least relief that counts, as a share of the highest.
        margin: pixels added around, for the faint edge of the mark.
    """
    relief = reconstruct(median(images, _dx), median(images, _dy)).abs().amax(0)
    return dilate(relief > threshold * relief.max(), margin)


def dilate(mask: Tensor, reach: int) -> Tensor:
    """An H x W bool mask and all pixels at most `reach` rows and columns away."""
    return max_pool2d(mask.float()[None], 2 * reach + 1, 1, reach)[0] > 0


def median(images: Tensor, statistic: Callable[[Tensor], Tensor]) -> Tensor:
    """Median over N x C x H x W uint8 images of a statistic in whole grey levels, in units of [0, 1].

    Interpolated within the grey level: most gradients are 0 or 1, and a median of whole numbers would say no more.

    Args:
        images: the collection.
        statistic: of M x C x H x W int64 images, within -255..255.
    """
    counts: Tensor | int = 0
    for part in images.split(CHUNK):
        levels = statistic(part.long()) + GREYS
        shape = levels.shape[1:]
        places = torch.arange(shape.numel(), device=images.device) * LEVELS
        counts = counts + torch.bincount((levels.flatten(1) + places).flatten(), minlength=shape.numel() * LEVELS)
    assert isinstance(counts, Tensor)
    counts, half = counts.view(-1, LEVELS), len(images) / 2
    below = counts.cumsum(1)
    # Where half of the images lie on either side of a gap, the middle of the gap.
    ends = [_within(counts, below, first.sum(1, keepdim=True), half) for first in (below < half, below <= half)]
    return ((ends[0] + ends[1]) / (2 * GREYS)).view(shape).float()


def _within(counts: Tensor, below: Tensor, level: Tensor, half: float) -> Tensor:
    """Where in its grey level the count reaches half, as if the images of one level were spread evenly over it."""
    inside = counts.gather(1, level)
    return level - GREYS - 0.5 + (half - (below.gather(1, level) - inside)) / inside


def reconstruct(across: Tensor, down: Tensor) -> Tensor:
    """The C x H x W image whose gradients come nearest to these (Poisson), 0 at the median of its border.

    Args:
        across: C x H x (W - 1) differences of neighbours in a row.
        down: C x (H - 1) x W differences of neighbours in a column.
    """
    from scipy.fft import dctn, idctn

    # The cosine transform diagonalises the Laplacian with free borders.
    spectrum = dctn((_dx_adjoint(across) + _dy_adjoint(down)).double().cpu().numpy(), axes=(1, 2))
    rows, columns = (2 - 2 * torch.cos(torch.pi * torch.arange(n) / n) for n in spectrum.shape[1:])
    eigenvalues = (rows[:, None] + columns).double()
    eigenvalues[0, 0] = torch.inf
    image = torch.from_numpy(idctn(spectrum / eigenvalues.numpy(), axes=(1, 2)))
    border = torch.cat([image[:, 0], image[:, -1], image[:, :, 0], image[:, :, -1]], 1)
    return (image - border.quantile(0.5, dim=1)[:, None, None]).float().to(across.device)


def from_moments(images: Tensor, region: Tensor, clean: Tensor | None = None) -> Mark:
    """The mark by the first two moments: var J = (1 - a)^2 var I and mean J = m + (1 - a) mean I, pixel by pixel.

    Args:
        images: N x C x H x W uint8 marked images.
        region: H x W bool, outside of which there is no mark.
        clean: unmarked images of the same kind; None takes the moments of I from the unmarked pixels around.
    """
    mean, variance = _moments(images)
    plain_mean, plain_variance = (
        (_background(mean, region), _background(variance, region)) if clean is None else _moments(clean)
    )
    # One opacity for all channels. Pixels that never vary (a black border) get none: their matte says it all.
    kept = ((variance.sum(0) + RIDGE) / (plain_variance.sum(0) + RIDGE)).sqrt().clamp(1 - MOST_OPAQUE, 1)
    opacity = (1 - kept) * region
    return Mark((mean - (1 - opacity) * plain_mean) * region, opacity, region)


def refine(images: Tensor, mark: Mark, rounds: int, reweightings: int = 2, steps: int = 30) -> Mark:
    """Alternate between scenes and marks, the mark in common, and its opacity (Dekel et al., Eq. 7 to 11).

    Args:
        images: K x C x H x W uint8; some tens are enough.
        mark: where to start; the gradients of its matte are the fidelity term.
        rounds: how often to alternate.
        reweightings: of each least squares problem, for the robust norm.
        steps: of conjugate gradients for each.
    """
    shown, opacity = pixels(images), mark.opacity
    colour = (mark.matte / opacity.clamp_min(0.05)).clamp(0, 1)
    scenes, colours = subtract(shown, mark), colour.expand_as(shown)
    for _ in range(rounds):
        residuals, weights = _scene_terms(shown, opacity, colour, mark.matte)
        pair = _robust(residuals, weights, torch.stack([scenes, colours]), reweightings, steps)
        scenes, colours = pair.clamp(0, 1)
        colour = colours.quantile(0.5, dim=0)
        residuals, weights = _opacity_terms(shown, scenes, colour, mark)
        opacity = _robust(residuals, weights, opacity, reweightings, steps).clamp(0, MOST_OPAQUE) * mark.region
    return Mark(opacity * colour, opacity, mark.region)


def subtract(images: Tensor, mark: Mark) -> Tensor:
    """The scenes (J - m) / (1 - a), clipped to [0, 1], of N x C x H x W float images."""
    return ((images - mark.matte) / (1 - mark.opacity)).clamp(0, 1)


def harmonic_fill(images: Tensor, mask: Tensor) -> Tensor:
    """The masked pixels of N x C x H x W float images as the means of their neighbours (Laplace's equation), exactly.

    All images share one H x W bool mask, so one inverse serves all; a mask of all pixels leaves black images.
    """
    cross = torch.tensor([[0.0, 1, 0], [1, 0, 1], [0, 1, 0]], device=images.device)[None, None]
    known = images.masked_fill(mask, 0)
    sums = conv2d(known.flatten(0, 1)[:, None], cross, padding=1).view_as(images)[..., mask]
    # The ridge gives a component of the mask that touches no known pixel the image's mean.
    mean = known.sum((2, 3)) / (~mask).sum().clamp_min(1)
    filled = images.clone()
    filled[..., mask] = (sums + RIDGE * mean[..., None]) @ _inverse_laplacian(mask).to(images)
    return filled


def _inverse_laplacian(mask: Tensor) -> Tensor:
    """M x M float64 on the CPU, over the M masked pixels in storage order."""
    places = mask.cpu().nonzero().double()
    last = torch.tensor(mask.shape).double() - 1
    degree = 4 - ((places == 0) | (places == last)).double().sum(1)
    adjacent = torch.cdist(places, places, p=1).round() == 1
    return torch.linalg.inv(torch.diag(degree + RIDGE) - adjacent.double())


def _background(moment: Tensor, region: Tensor) -> Tensor:
    """C x H x W statistics without the mark: from the mirrored pixel where that is free, else interpolated."""
    guess = torch.where(region, moment.flip(2), moment)
    return harmonic_fill(guess[None], region & region.flip(1))[0]


def _moments(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance over N x C x H x W uint8 images, in units of [0, 1]; sums are exact."""
    total, squares = (sum(part.long().pow(p).sum(0) for part in images.split(CHUNK)) for p in (1, 2))
    assert isinstance(total, Tensor)
    count = len(images)
    spread = (count * squares - total.square()).cpu().double() / (count * max(1, count - 1) * GREYS**2)
    return (total.cpu().double() / (count * GREYS)).to(images.device, torch.float32), spread.to(
        images.device, torch.float32
    )


Residuals = Callable[[Tensor], tuple[Tensor, ...]]


def _scene_terms(shown: Tensor, opacity: Tensor, colour: Tensor, matte: Tensor) -> tuple[Residuals, tuple[float, ...]]:
    """Data, smooth scenes and smooth marks at the mark's edges, the matte's gradients, one mark for all."""
    edge_x, edge_y = _dx(opacity).abs().sqrt(), _dy(opacity).abs().sqrt()

    def residuals(pair: Tensor) -> tuple[Tensor, ...]:
        scenes, colours = pair
        data = opacity * colours + (1 - opacity) * scenes - shown
        smooth = (edge_x * _dx(scenes), edge_y * _dy(scenes), edge_x * _dx(colours), edge_y * _dy(colours))
        layer = opacity * colours - matte
        return data, *smooth, _dx(layer), _dy(layer), colours - colour

    return residuals, (1, 1, 1, 0.005, 0.005, 1, 1, 1)


def _opacity_terms(shown: Tensor, scenes: Tensor, colour: Tensor, mark: Mark) -> tuple[Residuals, tuple[float, ...]]:
    """Data, a smooth opacity, the matte's gradients; summed over the images."""

    def residuals(opacity: Tensor) -> tuple[Tensor, ...]:
        inside = opacity * mark.region
        layer = inside * colour - mark.matte
        return inside * (colour - scenes) + scenes - shown, _dx(inside), _dy(inside), _dx(layer), _dy(layer)

    count = len(shown)
    return residuals, (1, 0.01 * count, 0.01 * count, count, count)


def _robust(residuals: Residuals, weights: tuple[float, ...], start: Tensor, reweightings: int, steps: int) -> Tensor:
    """Minimise the weighted sum of sqrt(r^2 + epsilon^2) over all (affine) residuals by reweighted least squares."""
    found = start
    offset = residuals(torch.zeros_like(start))
    for _ in range(reweightings):
        values, adjoint, *_ = torch.func.vjp(residuals, found)
        scales = [w / (r.square() + EPSILON**2).sqrt() for w, r in zip(weights, values, strict=True)]

        def normal(change: Tensor, adjoint: Callable = adjoint, scales: list[Tensor] = scales) -> Tensor:
            slopes = zip(scales, residuals(change), offset, strict=True)
            return adjoint(tuple(scale * (new - old) for scale, new, old in slopes))[0]

        downhill = adjoint(tuple(-scale * value for scale, value in zip(scales, values, strict=True)))[0]
        found = found + _conjugate_gradients(normal, downhill, steps)
    return found


def _conjugate_gradients(normal: Callable[[Tensor], Tensor], right: Tensor, steps: int) -> Tensor:
    """Solve A x = b for a positive semidefinite A, from x = 0."""
    found, residual, direction = torch.zeros_like(right), right, right
    energy = residual.square().sum()
    for _ in range(steps):
        image = normal(direction)
        rate = energy / (direction * image).sum().clamp_min(1e-30)
        found, residual = found + rate * direction, residual - rate * image
        last, energy = energy, residual.square().sum()
        direction = residual + energy / last.clamp_min(1e-30) * direction
    return found


def _dx(images: Tensor) -> Tensor:
    return images[..., 1:] - images[..., :-1]


def _dy(images: Tensor) -> Tensor:
    return images[..., 1:, :] - images[..., :-1, :]


def _dx_adjoint(slopes: Tensor) -> Tensor:
    return pad(slopes, (1, 0)) - pad(slopes, (0, 1))


def _dy_adjoint(slopes: Tensor) -> Tensor:
    return pad(slopes, (0, 0, 1, 0)) - pad(slopes, (0, 0, 0, 1))
