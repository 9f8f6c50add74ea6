"""Filters of whole batches of images: Gaussian, mean, median, wavelet shrinkage, JPEG."""

from __future__ import annotations

import io
from math import ceil
from typing import Annotated

import numpy as np
import torch
from PIL import Image
from pydantic import AfterValidator
from torch import Tensor
from torch.nn import functional as F

from bench.api import Field, Params

__all__ = ["WindowParams", "gaussian", "haar", "haar_inverse", "jpeg", "mean", "median", "normal", "wavelet_denoised"]


def _odd(side: int) -> int:
    if side % 2 == 0:
        raise ValueError("Expected an odd number of pixels, so that a window has a centre")
    return side


class WindowParams(Params):
    """The window of a filter."""

    ladder: tuple[Annotated[int, Field(ge=3, le=31), AfterValidator(_odd)], ...] = Field(
        (3, 5), description="height and width of the window, in pixels; odd"
    )


def gaussian(images: Tensor, sd: float) -> Tensor:
    """Each pixel smoothed by a Gaussian that reaches three standard deviations, or to the border of a small image.

    Args:
        images: N x C x H x W, float or uint8.
        sd: standard deviation, in pixels.
    """
    from torchvision.transforms.v2 import functional as vision  # costs half a second to import

    reach = min(ceil(3 * sd), min(images.shape[2:]) - 1)
    return vision.gaussian_blur(images, [2 * reach + 1] * 2, [sd] * 2)


def mean(images: Tensor, side: int) -> Tensor:
    """The mean of the `side` x `side` pixels around each pixel, reflected at the border.

    Args:
        images: N x C x H x W, float.
        side: odd, below twice the height and the width.
    """
    return F.avg_pool2d(_reflected(images, side), side, stride=1)


def median(images: Tensor, side: int) -> Tensor:
    """The median of the `side` x `side` pixels around each pixel, reflected at the border.

    Args:
        images: N x C x H x W, float or uint8.
        side: odd, below twice the height and the width.
    """
    padded = _reflected(images.float(), side).to(images.dtype)
    windows = padded.unfold(2, side, 1).unfold(3, side, 1).flatten(4)
    return windows.median(4).values


def normal(like: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal numbers of a CPU generator, of the shape, type and device of `like`."""
    return torch.randn(like.shape, generator=generator).to(like)


def _reflected(images: Tensor, side: int) -> Tensor:
    return F.pad(images, [side // 2] * 4, mode="reflect")


def haar(images: Tensor) -> tuple[Tensor, Tensor]:
    """One level of the orthonormal Haar transform of N x C x 2h x 2w images.

    Returns:
        N x C x h x w averages (of 2 x 2 pixels, times 2) and N x C x 3 x h x w details: the differences of rows, of
        columns, and of the diagonals.
    """
    a, b = images[..., ::2, ::2], images[..., ::2, 1::2]
    c, d = images[..., 1::2, ::2], images[..., 1::2, 1::2]
    details = torch.stack([a + b - c - d, a - b + c - d, a - b - c + d], dim=2)
    return (a + b + c + d) / 2, details / 2


def haar_inverse(averages: Tensor, details: Tensor) -> Tensor:
    """The images of whose transform these are the averages and the details."""
    rows, columns, diagonals = details.unbind(2)
    even = torch.stack([averages + rows + columns + diagonals, averages + rows - columns - diagonals], dim=4)
    odd = torch.stack([averages - rows + columns - diagonals, averages - rows - columns + diagonals], dim=4)
    return torch.stack([even.flatten(3), odd.flatten(3)], dim=3).flatten(2, 3) / 2


def wavelet_denoised(images: Tensor, threshold: float, levels: int = 2) -> Tensor:
    """Images whose Haar details were shrunk towards 0: sign(d) max(|d| - t, 0).

    Args:
        images: N x C x H x W, float in [0, 1].
        threshold: t, as a fraction of the image's largest coefficient in absolute value.
        levels: of the transform.
    """
    height, width = images.shape[2:]
    unit = 2**levels
    averages = F.pad(images, [0, -width % unit, 0, -height % unit], mode="replicate")
    found = []
    for _ in range(levels):
        averages, details = haar(averages)
        found.append(details)
    largest = torch.stack([part.abs().flatten(1).amax(1) for part in (averages, *found)]).amax(0)
    limit = threshold * largest[:, None, None, None, None]
    for details in reversed(found):
        averages = haar_inverse(averages, details.sign() * (details.abs() - limit).clamp_min(0))
    return averages[..., :height, :width].clamp(0, 1)


def jpeg(images: Tensor, quality: int) -> Tensor:
    """Images through JPEG files in memory, colour at half resolution as is the default.

    Args:
        images: N x C x H x W, uint8, grey or RGB.
        quality: 1 to 100.
    """
    planes = images.cpu().movedim(1, 3).numpy()
    decoded = np.stack([_recompressed(image, quality) for image in planes])
    return torch.from_numpy(decoded).view(planes.shape).movedim(3, 1).contiguous().to(images.device)


def _recompressed(image: np.ndarray, quality: int) -> np.ndarray:
    """An H x W x C uint8 image through a JPEG file in memory; H x W if it is grey."""
    with io.BytesIO() as file:
        Image.fromarray(image.squeeze(2) if image.shape[2] == 1 else image).save(file, "jpeg", quality=quality)
        return np.asarray(Image.open(file))
