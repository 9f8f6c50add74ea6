"""Colour jitter of whole batches: every image has its own factors, and there is no loop over images.

The four adjustments mean what they mean in torchvision's `adjust_brightness`, `adjust_contrast`, `adjust_saturation`
and `adjust_hue` (https://github.com/pytorch/vision), which take one factor for a whole batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["adjust_brightness", "adjust_contrast", "adjust_hue", "adjust_saturation", "jitter"]

_LUMA = (0.2989, 0.587, 0.114)


def jitter(
    images: Tensor,
    generator: torch.Generator,
    *,
    brightness: float,
    contrast: float,
    saturation: float,
    hue: float,
) -> Tensor:
    """Random brightness, contrast, saturation and hue of each image, in this order.

    Args:
        images: N x 3 x H x W, float in [0, 1], on any device.
        generator: on the CPU.
        brightness: factors are uniform in [1 - brightness, 1 + brightness], from 0 on; contrast and saturation alike.
        contrast: see `brightness`.
        saturation: see `brightness`.
        hue: turns of the hue circle are uniform in [-hue, hue]; 1/2 is all of it, and more is taken for 1/2.
    """
    draws = (2 * torch.rand(4, len(images), 1, 1, 1, generator=generator) - 1).to(images.device)
    images = adjust_brightness(images, (1 + brightness * draws[0]).clamp(min=0))
    images = adjust_contrast(images, (1 + contrast * draws[1]).clamp(min=0))
    images = adjust_saturation(images, (1 + saturation * draws[2]).clamp(min=0))
    return adjust_hue(images, min(hue, 0.5) * draws[3])


def adjust_brightness(images: Tensor, factors: Tensor) -> Tensor:
    """Images, N x 3 x H x W in [0, 1], times their factors, N x 1 x 1 x 1."""
    return (images * factors).clamp(0, 1)


def adjust_contrast(images: Tensor, factors: Tensor) -> Tensor:
    """Images moved from (factor above 1) or to (below 1) the mean of their grey values."""
    return _blend(images, _grey(images).mean((1, 2, 3), keepdim=True), factors)


def adjust_saturation(images: Tensor, factors: Tensor) -> Tensor:
    """Pixels moved from (factor above 1) or to (below 1) their grey values."""
    return _blend(images, _grey(images), factors)


def adjust_hue(images: Tensor, turns: Tensor) -> Tensor:
    """Pixels turned on the hue circle of HSV by the image's part of a full turn, N x 1 x 1 x 1."""
    value, brightest = images.max(1, keepdim=True)
    chroma = value - images.amin(1, keepdim=True)
    red, green, blue = images.split(1, 1)
    divisor = chroma.where(chroma > 0, 1.0)
    sextants = torch.cat([(green - blue) / divisor, 2 + (blue - red) / divisor, 4 + (red - green) / divisor], 1)
    sextant = sextants.gather(1, brightest) + 6 * turns
    offsets = torch.tensor([5.0, 3.0, 1.0], device=images.device).view(1, 3, 1, 1)
    place = (sextant + offsets) % 6
    return value - chroma * torch.minimum(place, 4 - place).clamp(0, 1)


def _grey(images: Tensor) -> Tensor:
    weights = torch.tensor(_LUMA, device=images.device).view(1, 3, 1, 1)
    return (images * weights).sum(1, keepdim=True)


def _blend(images: Tensor, other: Tensor, factors: Tensor) -> Tensor:
    return (other + factors * (images - other)).clamp(0, 1)
