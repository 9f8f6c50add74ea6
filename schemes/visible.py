"""Visible marks that nobody learned: static, of varying opacity, displaced.

Poster: On the Feasibility of Training Neural Networks with Visibly Watermarked Dataset, Sanghyun Hong, Tae-hoon Kim,
Tudor Dumitras, Jonghyun Choi, NDSS 2019, https://arxiv.org/abs/1902.10854 (methods S, O, D of Table I)
O and D after: On the Effectiveness of Visible Watermarks, Tali Dekel, Michael Rubinstein, Ce Liu, William T. Freeman,
CVPR 2017, https://openaccess.thecvf.com/content_cvpr_2017/html/Dekel_On_the_Effectiveness_CVPR_2017_paper.html
Authors' implementation, of the poster: https://github.com/Sanghyun-Hong/DeepStamp

Where ours differs, and why:

* Opacity: the released code draws a factor and never uses it, so that its O is S to the bit. Ours draws one blend
  factor per image from c +- 20/255, as intended. `as_released=true` gives theirs.
* Displacement: the released code also filters over the pair (x, y), and shrinks the offsets to a twentieth of a pixel
  with dx = dy. Besides, its sampling grid divides by half the width where PyTorch 1.0 expected half of one less, so
  that places shrink by 31/32 (0 to 0.97 pixel), and is clamped to the amplitude. Ours smooths x and y apart and scales
  each to the asked amplitude. `as_released=true` gives theirs, grid and all.
* Values are rounded; theirs are truncated, half a grey level darker, which also changes pixels that carry no mark.
* The mark: ours is drawn anew for every owner (the released file is one mark for all), or pasted at a secret place.
* Augmentation follows stamping, as theirs does: the mark is cropped and mirrored with the image.
* What is random is drawn per row of the data set, not per content: the same picture in two rows gets two draws.
* Verification is ours: the poster has a person look at the mark.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bench.api import Field, Host, Rng, SchemeCard, papers, replace
from schemes._visible import (
    CHUNK,
    EXTENSIONS,
    SIGMA,
    VisibleKey,
    VisibleParams,
    VisibleScheme,
    layers,
    painted,
    smooth,
    uniform,
    warp,
)

MARGIN = 8
_CARD = SchemeCard(
    name="visible-static",
    title="Visible mark, static",
    paper=papers.DEEPSTAMP,
    carrier="data",
    access="data set",
    payload="zero-bit",
    situations=("train",),
    also="scores",
    extensions=EXTENSIONS,
    scales={"smoke": {"decoys": 199}, "quick": {"decoys": 199}},
    tiny={"decoys": 39, "probe": 8, "model_decoys": 9, "examined": 500},
)


class OpacityParams(VisibleParams):
    """Opacity that varies from image to image."""

    jitter: float = Field(20.0, ge=0, le=255, description="largest change of the blend factor, 255ths")
    as_released: bool = Field(False, description="as the authors' code does: no change at all")


class DisplacementParams(VisibleParams):
    """A mark whose pixels wander from image to image."""

    amplitude: float = Field(1.0, ge=0, le=16, description="largest displacement in x and in y, pixels")
    as_released: bool = Field(False, description="as the authors' code does: a twentieth of it, places shrunk")


class _Drawn(VisibleScheme[VisibleKey]):
    """A mark that is drawn, or pasted from a file."""

    key_type = VisibleKey

    def keygen(self, host: Host, rng: Rng) -> VisibleKey:
        """Draw the owner's mark; see `draw_key`."""
        return self.measured(self.draw_key(host, rng))


class VisibleStatic(_Drawn):
    """The same mark at the same place in every image (method S)."""

    card = _CARD

    def stamp(self, images: Tensor, key: VisibleKey, first: int = 0) -> Tensor:
        """Blend the mark into every image; see `VisibleScheme.stamp`."""
        colour, alpha = layers(key.mark[None], key.blend)
        return torch.cat([painted(chunk, colour, alpha) for chunk in images.split(CHUNK)])


class VisibleOpacity(_Drawn):
    """The blend factor differs from image to image (method O)."""

    card = replace(_CARD, name="visible-opacity", title="Visible mark, varying opacity")
    Params = OpacityParams

    def strengths(self, key: VisibleKey, first: int, count: int) -> Tensor:
        """The blend factors of the images first, first + 1, ...: count, uniform in c +- jitter / 255."""
        if self.params.as_released:
            return torch.full((count,), key.blend)
        draws = uniform(key.seed, first, count)
        return (key.blend + (2 * draws - 1) * self.params.jitter / 255).clamp_min(0)

    def stamp(self, images: Tensor, key: VisibleKey, first: int = 0) -> Tensor:
        """Blend the mark with each image's own factor; see `VisibleScheme.stamp`."""
        stamped = []
        for chunk in images.split(CHUNK):
            strengths = self.strengths(key, first, len(chunk)).to(images.device)
            stamped.append(painted(chunk, *layers(key.mark[None], strengths.view(-1, 1, 1, 1))))
            first += len(chunk)
        return torch.cat(stamped)


class VisibleDisplacement(_Drawn):
    """The mark's pixels are displaced smoothly, in each image otherwise (method D)."""

    card = replace(_CARD, name="visible-displacement", title="Visible mark, displaced")
    Params = DisplacementParams

    def offsets(self, key: VisibleKey, first: int, count: int, size: tuple[int, int]) -> Tensor:
        """Displacements of the images first, first + 1, ...: count x 2 x H x W in pixels, x before y."""
        if self.params.as_released:
            return released_offsets(self.params.amplitude, uniform(key.seed, first, count, *size, 2))
        # Smoothed on a larger field, or its border, which is repeated outwards, would wander more than its inside.
        padded = uniform(key.seed, first, count, 2, size[0] + 2 * MARGIN, size[1] + 2 * MARGIN)
        field = smooth(2 * padded - 1)[:, :, MARGIN:-MARGIN, MARGIN:-MARGIN]
        return self.params.amplitude * field / field.abs().amax((2, 3), keepdim=True)

    def stamp(self, images: Tensor, key: VisibleKey, first: int = 0) -> Tensor:
        """Displace the mark for each image, then blend; see `VisibleScheme.stamp`."""
        layer = torch.cat(layers(key.mark[None], key.blend), dim=1)[0]
        stamped = []
        for chunk in images.split(CHUNK):
            offsets = self.offsets(key, first, len(chunk), (images.shape[2], images.shape[3]))
            warped = warp(layer, offsets.to(images.device))
            stamped.append(painted(chunk, warped[:, :3], warped[:, 3:]))
            first += len(chunk)
        return torch.cat(stamped)


def released_offsets(amplitude: float, draws: Tensor) -> Tensor:
    """Displacements of the authors' code: N x 2 x H x W in pixels, x before y.

    Place i of n moves to (n - 1) / 2 * (1 + g), where g = clamp((i + offset) / (n / 2) - 1, -amplitude, amplitude) is
    the coordinate that they hand to PyTorch 1.0, whose -1 and 1 were the centres of the outermost pixels. The offset
    is a draw from U(-amplitude, amplitude), smoothed over height, width and the pair (x, y).

    Args:
        amplitude: d, which their code uses for both.
        draws: N x H x W x 2, uniform in [0, 1).
    """
    from scipy.ndimage import gaussian_filter  # costs a tenth of a second to import

    drawn = amplitude * (2 * draws.numpy() - 1)
    offsets = torch.from_numpy(gaussian_filter(drawn, (0, SIGMA, SIGMA, SIGMA))).movedim(3, 1)
    height, width = draws.shape[1:3]
    moved = []
    for offset, place, length in zip(
        offsets.unbind(1), (torch.arange(width), torch.arange(height)[:, None]), (width, height), strict=True
    ):
        coordinate = ((place + offset) / (length / 2) - 1).clamp(-amplitude, amplitude)
        moved.append((coordinate + 1) / 2 * (length - 1) - place)
    return torch.stack(moved, 1)
