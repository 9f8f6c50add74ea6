"""What do all visible marks share? Drawing, blending, resampling, and finding a mark in a data set.

A mark is an RGBA image, 4 x H x W float32 in [0, 1]. Whoever has no mark of their own gets one drawn here, after the
one that the DeepStamp authors publish: three red signs on a diagonal, a letter in a ring. Place, size, turn, letter
and tint are the owner's secret; so are place, size and turn of a mark that comes from a file. Without a secret every
owner of the same file would be as right as the next one, and no claim could have a p-value.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.nn import functional as F

from bench.api import (
    Field,
    Host,
    ImageSet,
    Key,
    Params,
    Rng,
    Scheme,
    Suspect,
    Verdict,
    pixels,
    rank_p_value,
    replace,
    sequential_p_value,
)
from schemes._glyphs import LETTERS
from schemes._users import finite

__all__ = [
    "EXTENSIONS",
    "VisibleKey",
    "VisibleParams",
    "VisibleScheme",
    "draw_mark",
    "layers",
    "load_mark",
    "match",
    "mean_image",
    "over",
    "painted",
    "smooth",
    "uniform",
    "visibility",
    "warp",
]

EXTENSIONS = (
    "a secret place, size, turn, letter and tint of the mark",
    "verification: matched filter on the mean image, a rank among other marks",
    "a model's losses on the mark, ranked among other marks (details)",
)
RED = (244 / 255, 67 / 255, 54 / 255)
OPAQUE = 0.97
MOST_PIXELS = 1 << 24
SIGMA = 2.0
CHUNK = 256


@dataclass(frozen=True)
class VisibleKey(Key):
    """The owner's secrets.

    Attributes:
        mark: 4 x H x W float32, RGBA in [0, 1].
        probe, probe_labels: held-out images that visibility is measured on and a model is asked with.
        base: the mark of a file before it was placed; None for a drawn one.
        blend: factor that the mark's alpha is multiplied by.
        seed: of what differs between images.
        decoys: seed of the marks that a claim is ranked against.
        visibility: contrast energy of the mark on the probe images.
    """

    mark: Tensor
    probe: Tensor
    probe_labels: Tensor
    base: Tensor | None
    blend: float
    seed: int
    decoys: int
    visibility: float = 0.0

    def decoy(self, number: int) -> Tensor:
        """A mark of nobody, drawn as the owner's was: 4 x H x W on the CPU."""
        size, base = self.mark.shape[1:], self.base
        generator = Rng("visible decoys", self.decoys).torch(number, "mark")
        return draw_mark(size[0], size[1], generator, None if base is None else base.cpu())


VK = TypeVar("VK", bound=VisibleKey)


class VisibleParams(Params):
    """What all visible marks have."""

    blend: float = Field(0.5, gt=0, le=1, description="blend factor c, which the mark's alpha is multiplied by")
    watermark: str | None = Field(None, max_length=4096, description="path of an RGBA image; none: a mark is drawn")
    decoys: int = Field(999, ge=1, le=9_999, description="most other marks that a claim is ranked against")
    search: int = Field(4, ge=0, le=16, description="largest shift at which a mark is looked for, pixels")
    examined: int = Field(2_000, ge=1, le=100_000, description="most images of a suspect data set to look at")
    probe: int = Field(64, ge=1, le=1_024, description="held-out images to measure visibility and ask a model with")
    model_decoys: int = Field(19, ge=1, le=999, description="other marks to compare a model's answers on")


class VisibleScheme(Scheme[VK]):
    """A mark on every published image; a scheme says how it is stamped."""

    Params: ClassVar[type[VisibleParams]] = VisibleParams

    @abstractmethod
    def stamp(self, images: Tensor, key: VK, first: int = 0) -> Tensor:
        """Stamp a chunk of a data set; chunk by chunk gives the same as all at once.

        Args:
            images: N x 3 x H x W, uint8.
            key: of the owner.
            first: index, in the whole data set, of the chunk's first image. What is random is drawn per index.

        Returns:
            N x 3 x H x W, uint8, rounded.
        """

    def draw_key(self, host: Host, rng: Rng) -> VisibleKey:
        """The owner's mark, a seed for what differs between images, and held-out images to probe with.

        Raises:
            ValueError: the images have not three channels, or the file holds no mark.
        """
        channels, height, width = host.images.images.shape[1:]
        if channels != 3:
            raise ValueError(f"Expected images of 3 channels for a visible mark, but got {channels}.")
        base = None if self.params.watermark is None else load_mark(self.params.watermark, height, width)
        probe = host.heldout[_spread(len(host.heldout), self.params.probe).to(host.heldout.images.device)]
        mark = draw_mark(height, width, rng.torch("mark"), base)
        seeds = rng.child("stamping").seed, rng.child("decoys").seed
        return VisibleKey(mark, probe.images, probe.labels, base, self.params.blend, *seeds).to(host.device)

    def redraw(self, key: VK, host: Host, rng: Rng) -> VK:
        """The same key with its mark drawn, by the same secrets, at the size of this host's images."""
        return replace(key, **{**vars(self.draw_key(host, rng)), "visibility": key.visibility})

    def measured(self, key: VK) -> VK:
        """The same key, with the visibility of its mark on the probe images."""
        return replace(key, visibility=visibility(key.probe, self.stamp(key.probe, key)))

    def mark_data(self, images: ImageSet, key: VK) -> ImageSet:
        """Every image stamped, whatever its label."""
        return images.with_images(self.stamp(images.images, key))

    def verify(self, suspect: Suspect, key: VK) -> Verdict:
        """Does the data set's mean image hold this mark more than other marks, drawn as this one was?

        A null data set does not depend on the key, so the key's mark is one more draw from the decoys' distribution.
        """
        size, numbers = (key.mark.shape[1], key.mark.shape[2]), iter(range(self.params.decoys))
        mean = suspect.memo(f"visible mean {size}", lambda: self._mean(suspect, size))

        def draw(count: int) -> list[float]:
            marks = torch.stack([key.decoy(next(numbers)) for _ in range(count)])
            return match(mean, marks.to(key.mark.device), self.params.search)

        (own,) = match(mean, key.mark[None], self.params.search)
        p_value, others = sequential_p_value(own, draw, self.params.decoys)
        details: dict[str, Any] = {
            "visibility": key.visibility,
            "decoys_asked": len(others),
            "decoy_max": max(others, default=None),
        }
        if suspect.offers("scores") and len(key.probe):
            details |= self._ask(suspect, key)
        return Verdict(statistic=own, p_value=p_value, details=details)

    def _mean(self, suspect: Suspect, size: tuple[int, int]) -> Tensor:
        return mean_image(suspect.images.images, self.params.examined, size)

    def _ask(self, suspect: Suspect, key: VK) -> dict[str, float]:
        """Does the model lose less on this mark than on other marks, blended plainly into unseen images?

        Plainly whatever the scheme: a mark synthesised to suit a classifier would be no draw like the decoys.
        """

        def loss(image: Tensor) -> float:
            stamped = painted(key.probe, *layers(image.to(key.probe.device)[None], key.blend))
            return float(finite(suspect.losses(stamped, key.probe_labels)).mean())

        clean = float(finite(suspect.losses(key.probe, key.probe_labels)).mean())
        own, null = loss(key.mark), [loss(key.decoy(number)) for number in range(self.params.model_decoys)]
        p_value = rank_p_value(-own, [-other for other in null])
        return {"model_statistic": clean - own, "model_p_value": p_value, "model_decoy_max": clean - min(null)}


def layers(rgba: Tensor, strength: float | Tensor) -> tuple[Tensor, Tensor]:
    """What to lay over an image: colour times a, N x 3 x H x W, and a = strength * alpha (at most 1), N x 1 x H x W.

    Args:
        rgba: N x 4 x H x W in [0, 1].
        strength: the blend factor c, or N x 1 x 1 x 1 of them.
    """
    alpha = (strength * rgba[:, 3:]).clamp(max=1)
    return alpha * rgba[:, :3], alpha


def over(images: Tensor, colour: Tensor, alpha: Tensor) -> Tensor:
    """x_w = a w + (1 - a) x, where `colour` is a w already; floats of one range, N x 3 x H x W."""
    return colour + (1 - alpha) * images


def painted(images: Tensor, colour: Tensor, alpha: Tensor) -> Tensor:
    """`over` on uint8 images, rounded: where alpha is 0 a pixel keeps its bits."""
    return over(images.float(), 255 * colour, alpha).round().clamp(0, 255).to(torch.uint8)


def visibility(clean: Tensor, stamped: Tensor) -> float:
    """Contrast energy: mean squared difference on the pixels that the mark changed, of images in [0, 1].

    Args:
        clean: N x C x H x W, uint8 (or float in [0, 1]).
        stamped: the same images with the mark.
    """
    squares = (pixels(stamped) - pixels(clean)).square()
    marked = squares.amax(1) > 0
    return float(squares.mean(1)[marked].mean()) if bool(marked.any()) else 0.0


def load_mark(path: str, height: int, width: int) -> Tensor:
    """The RGBA image in a file, resized: 4 x H x W in [0, 1].

    Raises:
        ValueError: there is no such image, it is too large, or it is transparent everywhere.
    """
    try:
        with Image.open(Path(path).expanduser()) as image:
            if image.width * image.height > MOST_PIXELS:
                raise ValueError(f"Expected a mark of at most {MOST_PIXELS} pixels, but got {image.size}: reduce it.")
            resized = image.convert("RGBA").resize((width, height), Image.Resampling.BILINEAR)
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise ValueError(f"Expected an RGBA image at {path!r}, but got {error}.") from error
    mark = torch.from_numpy(np.array(resized)).movedim(-1, 0).float().div(255)
    if not bool(mark[3].any()):
        raise ValueError(f"Expected a mark in {path!r}, but it is transparent everywhere: give an image with alpha.")
    return mark


def draw_mark(height: int, width: int, generator: torch.Generator, base: Tensor | None = None) -> Tensor:
    """One owner's mark: secret signs, or `base` (4 x H x W) at a secret place. 4 x H x W in [0, 1]."""
    if base is not None:
        return _placed(base, generator)
    side = min(height, width)
    letter = sorted(LETTERS)[int(torch.randint(len(LETTERS), (1,), generator=generator))]
    draws = torch.rand(12, generator=generator)
    radius = side * 5 / 32 * (0.8 + 0.25 * float(draws[0]))
    turn = math.radians(60 * float(draws[1]) - 30)
    mirrored = bool(draws[2] < 0.5)
    tint = (torch.tensor(RED) + 0.3 * draws[3:6] - 0.15).clamp(0, 1)
    alpha = torch.zeros(height, width)
    for part, (dy, dx) in zip((1 / 6, 1 / 2, 5 / 6), (0.2 * draws[6:] - 0.1).view(3, 2).tolist(), strict=True):
        y, x = (part + dy) * height, ((1 - part if mirrored else part) + dx) * width
        centre = min(max(y, radius), height - radius), min(max(x, radius), width - radius)
        alpha = torch.maximum(alpha, _sign(alpha.shape, centre, radius, turn, letter))
    return torch.cat([tint[:, None, None].expand(3, height, width), OPAQUE * alpha[None]])


def mean_image(images: Tensor, most: int, size: tuple[int, int]) -> Tensor:
    """The mean of at most `most` evenly spread images, resized to H x W: 3 x H x W in [0, 1]."""
    rows = _spread(len(images), most).to(images.device)
    total = sum(images[part].sum(0, dtype=torch.int64) for part in rows.split(CHUNK))
    mean = (torch.as_tensor(total).float() / (255 * max(1, len(rows))))[None]
    same = tuple(images.shape[2:]) == size
    return (mean if same else F.interpolate(mean, size=size, mode="bilinear", antialias=True))[0]


def match(mean: Tensor, marks: Tensor, search: int) -> list[float]:
    """How much of each mark is in a mean image: the largest normalised correlation over shifts, in [-1, 1].

    What a mark adds to the mean is a (w - background). Both are freed of what is smooth, which images share.

    Args:
        mean: 3 x H x W in [0, 1].
        marks: K x 4 x H x W.
        search: largest shift to each side, pixels.
    """
    background = mean.mean((1, 2), keepdim=True)
    residual = _detail(mean[None])
    templates = _detail(marks[:, 3:] * (marks[:, :3] - background))
    products = F.conv2d(residual, templates, padding=search)
    inside = F.conv2d(torch.ones_like(residual), templates.square(), padding=search)
    norms = residual.norm() * inside.clamp_min(0).sqrt()
    return [float(value) for value in (products / norms.clamp_min(1e-9))[0].amax((1, 2))]


def smooth(images: Tensor, sigma: float = SIGMA) -> Tensor:
    """Gaussian blur of N x C x H x W over H and W, edges replicated.

    Tap by tap, so that an image's result is the same to the bit in a batch of any size.
    """
    reach = math.ceil(4 * sigma)
    taps = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, dtype=torch.float64) / sigma) ** 2)
    weights = (taps / taps.sum()).tolist()
    for dim, border in ((3, (reach, reach, 0, 0)), (2, (0, 0, reach, reach))):
        length, padded = images.shape[dim], F.pad(images, border, mode="replicate")
        images = torch.zeros_like(images)
        for start, weight in enumerate(weights):
            images = images + weight * padded.narrow(dim, start, length)
    return images


def warp(layer: Tensor, offsets: Tensor) -> Tensor:
    """Sample `layer` (C x H x W) at every pixel's own place plus its offset, bilinearly: N x C x H x W.

    Args:
        layer: what lies outside counts as 0.
        offsets: N x 2 x H x W in pixels, x before y.
    """
    height, width = layer.shape[1:]
    x = torch.arange(width, device=layer.device) + 0.5 + offsets[:, 0]
    y = torch.arange(height, device=layer.device)[:, None] + 0.5 + offsets[:, 1]
    grid = torch.stack([2 * x / width - 1, 2 * y / height - 1], dim=-1)
    return F.grid_sample(layer[None].expand(len(offsets), -1, -1, -1), grid, align_corners=False)


def uniform(seed: int, first: int, count: int, *shape: int) -> Tensor:
    """Uniform numbers in [0, 1), count x shape: of the images first, first + 1, ..., each from a seed of its own."""
    generator, drawn = torch.Generator(), torch.empty(count, *shape)
    for number, part in enumerate(drawn):
        torch.rand(shape, generator=generator.manual_seed(seed + first + number), out=part)
    return drawn


def _detail(images: Tensor) -> Tensor:
    return images - smooth(images)


def _spread(length: int, most: int) -> Tensor:
    """At most `most` rows of `length`, evenly spread."""
    count = min(length, most)
    return torch.arange(count) * length // max(1, count)


def _sign(size: torch.Size, centre: tuple[float, float], radius: float, turn: float, letter: str) -> Tensor:
    """Cover, H x W in [0, 1], of a letter in a ring, edges one pixel soft."""
    y = torch.arange(size[0])[:, None] + 0.5 - centre[0]
    x = torch.arange(size[1])[None] + 0.5 - centre[1]
    stroke = max(1.2, radius / 4)
    ring = (stroke / 2 + 0.5 - (torch.hypot(x, y) - radius + stroke / 2).abs()).clamp(0, 1)
    across, down = x * math.cos(turn) + y * math.sin(turn), y * math.cos(turn) - x * math.sin(turn)
    dots = torch.tensor([[float(dot) for dot in f"{int(row, 32):05b}"] for row in LETTERS[letter]])
    places = torch.stack([across / (0.45 * radius), down / (0.63 * radius)], dim=-1)
    return torch.maximum(ring, F.grid_sample(dots[None, None], places[None], align_corners=False)[0, 0])


def _placed(base: Tensor, generator: torch.Generator) -> Tensor:
    """`base` shrunk to 0.5 to 0.9, turned by up to 20 degrees, anywhere in the frame; 4 x H x W."""
    height, width = base.shape[1:]
    size, turn, right, down = torch.rand(4, generator=generator).tolist()
    scale, angle = 0.5 + 0.4 * size, math.radians(40 * turn - 20)
    x = (2 * torch.arange(width)[None] + 1) / width - 1 - (1 - scale) * (2 * right - 1)
    y = ((2 * torch.arange(height)[:, None] + 1) / height - 1 - (1 - scale) * (2 * down - 1)) * height / width
    across = (x * math.cos(angle) + y * math.sin(angle)) / scale
    along = (y * math.cos(angle) - x * math.sin(angle)) / scale * width / height
    painted_base = torch.cat([base[:3] * base[3:], base[3:]])[None]
    placed = F.grid_sample(painted_base, torch.stack([across, along], dim=-1)[None], align_corners=False)[0]
    # Bilinear sampling of colour times alpha leaves no dark rim of the colour that transparent pixels happen to have.
    return torch.cat([(placed[:3] / placed[3:].clamp_min(1e-6)).clamp(0, 1), placed[3:]]).clamp(0, 1)
