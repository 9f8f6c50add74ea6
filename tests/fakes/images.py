"""Small images made by chance: noise without any structure, and smooth ones that are a little like photographs."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.api import ImageSet

__all__ = ["CLASSES", "cloudy_images", "grey", "noise_images", "rows_of"]

CLASSES = 4


def noise_images(count: int, seed: int, side: int = 16, channels: int = 3) -> ImageSet:
    """Independent pixels; the classes 0, 1, 2, 3 in turn."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (count, channels, side, side), generator=generator, dtype=torch.uint8)
    return ImageSet(images, torch.arange(count) % CLASSES)


def cloudy_images(
    count: int,
    seed: int,
    height: int = 32,
    width: int = 32,
    *,
    cells: int = 8,
    classes: int = CLASSES,
    shade: float = 0,
    mode: str = "bicubic",
) -> ImageSet:
    """Smooth fields of `cells` x `cells` independent values; the last class is brighter than the first by `shade`."""
    coarse = torch.rand(count, 3, cells, cells, generator=torch.Generator().manual_seed(seed))
    labels = torch.arange(count) % classes
    light = (1 - shade) * coarse + shade * (labels / (classes - 1))[:, None, None, None]
    images = F.interpolate(light, size=(height, width), mode=mode).clamp(0, 1)
    return ImageSet(images.mul(255).round().to(torch.uint8), labels)


def grey(level: int, count: int = 1, side: int = 4) -> Tensor:
    """Images of one level everywhere: count x 3 x side x side, uint8."""
    return torch.full((count, 3, side, side), level, dtype=torch.uint8)


def rows_of(images: Tensor) -> set[bytes]:
    """The images as comparable values."""
    return {image.tobytes() for image in images.contiguous().numpy()}
