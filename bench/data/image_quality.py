"""Fidelity: what the mark costs, in images. What it costs in accuracy is a difference of two records' numbers."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

__all__ = ["marked_pixels", "masked_psnr_db", "psnr_db", "quality", "residual_energy", "ssim"]

PEAK = 255.0
BEST_DB = 100.0
WINDOW, SIGMA = 11, 1.5
C1, C2 = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2
CHUNK = 512  # images at a time: 6 MB of 3 x 32 x 32 float32


def psnr_db(images: Tensor, reference: Tensor) -> float:
    """Mean over the images of the peak signal-to-noise ratio in dB; identical images count 100 dB.

    Args:
        images: N x C x H x W uint8.
        reference: the same shape.

    Raises:
        ValueError: the shapes differ.
    """
    errors = [(a - b).square().flatten(1).mean(1) for a, b in _chunks(images, reference)]
    return float(_decibels(torch.cat(errors)).mean())


def masked_psnr_db(clean: Tensor, other: Tensor, mask: Tensor) -> float:
    """Mean over the images of the PSNR in dB on the pixels of the mask alone; identical pixels count 100 dB.

    Over whole images a failed removal hides behind the pixels that never carried a mark.

    Args:
        clean: N x C x H x W uint8.
        other: the same shape.
        mask: bool, H x W or N x 1 x H x W; images without a pixel in it are left out.

    Raises:
        ValueError: the shapes differ, or the mask is empty.
    """
    errors = torch.cat([(a - b).square().mean(1, keepdim=True) for a, b in _chunks(clean, other)])
    inside = mask.to(errors.device).expand_as(errors).flatten(1)
    counts = inside.sum(1)
    if not counts.any():
        raise ValueError("Expected a mask of at least one pixel, but it is empty: are the images marked?")
    means = (errors.flatten(1) * inside).sum(1)[counts > 0] / counts[counts > 0]
    return float(_decibels(means).mean())


def marked_pixels(clean: Tensor, marked: Tensor) -> Tensor:
    """Where a mark changed an image in any channel: N x 1 x H x W bool, of N x C x H x W uint8 images."""
    return (clean != marked).any(1, keepdim=True)


def residual_energy(clean: Tensor, marked: Tensor, cleaned: Tensor) -> float:
    """How much of a mark is left on the marked pixels: squared error after removal over that before.

    0 is a perfect removal, 1 as much error as the mark itself made; above 1 the attack does more harm than the mark.

    Args:
        clean: N x C x H x W uint8, before marking.
        marked: the same shape, as published.
        cleaned: the same shape, after the attack.

    Raises:
        ValueError: the shapes differ, or nothing is marked.
    """
    left, whole = 0.0, 0.0
    for a, b, c in _chunks(clean, marked, cleaned):
        whole += float((b - a).square().sum(dtype=torch.float64))
        left += float(((c - a).square() * (a != b).any(1, keepdim=True)).sum(dtype=torch.float64))
    if whole == 0:
        raise ValueError("Expected marked images that differ from the clean ones, but they are equal: is there a mark?")
    return left / whole


def ssim(a: Tensor, b: Tensor) -> float:
    """Mean structural similarity over the images (Wang et al. 2004, https://doi.org/10.1109/TIP.2003.819861, Eq. 13).

    Gaussian windows of 11 x 11 and standard deviation 1.5, inside the image only; each channel for itself.

    Args:
        a: N x C x H x W uint8, H and W at least 11.
        b: the same shape.

    Raises:
        ValueError: the shapes differ, or the images are smaller than a window.
    """
    if min(a.shape[2:]) < WINDOW:
        raise ValueError(f"Expected images of at least {WINDOW} x {WINDOW} for SSIM, but got {tuple(a.shape)}.")
    means = [_similarity(x.flatten(0, 1), y.flatten(0, 1)) for x, y in _chunks(a, b)]
    return float(torch.cat(means).mean())


def _similarity(x: Tensor, y: Tensor) -> Tensor:
    """The mean over the windows of each plane; planes are M x H x W."""
    # Centred planes: float32 squares of values around 128 lose the variance of flat windows.
    shift = 128.0
    x, y = x - shift, y - shift
    mean_x, mean_y, xx, yy, xy = (_blur(plane) for plane in (x, y, x * x, y * y, x * y))
    covariance = xy - mean_x * mean_y
    spread = xx - mean_x.square() + yy - mean_y.square()
    mean_x, mean_y = mean_x + shift, mean_y + shift
    luminance = (2 * mean_x * mean_y + C1) / (mean_x.square() + mean_y.square() + C1)
    return (luminance * (2 * covariance + C2) / (spread + C2)).flatten(1).mean(1, dtype=torch.float64)


def _blur(planes: Tensor) -> Tensor:
    """The Gaussian window's weighted mean at each place where it fits, one axis after the other."""
    rows, columns = (_window(side, planes) for side in planes.shape[1:])
    return rows @ planes @ columns.T


def _window(side: int, like: Tensor) -> Tensor:
    """(side - 10) x side: the window's weights at each place; a matrix, faster than a convolution here."""
    offsets = torch.arange(side, device=like.device) - torch.arange(side - WINDOW + 1, device=like.device)[:, None]
    taps = torch.exp(-(offsets - WINDOW // 2).square() / (2 * SIGMA**2)) * ((offsets >= 0) & (offsets < WINDOW))
    return (taps / taps.sum(1, keepdim=True)).to(like)


def _chunks(*sets: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """A bounded number of images at a time, as float32."""
    first = sets[0]
    for other in sets[1:]:
        if other.shape != first.shape:
            raise ValueError(f"Expected images of {tuple(first.shape)}, but got {tuple(other.shape)}.")
    for parts in zip(*(images.split(CHUNK) for images in sets), strict=True):
        yield tuple(part.float() for part in parts)


def _decibels(squared_error: Tensor) -> Tensor:
    return (10 * torch.log10(PEAK**2 / squared_error.clamp_min(1e-9))).clamp_max(BEST_DB)


def quality(images: Tensor, reference: Tensor) -> dict[str, float]:
    """`psnr_db` and `ssim` by name; images too small for SSIM's window have the first alone."""
    found = {"psnr_db": psnr_db(images, reference)}
    return found | {"ssim": ssim(images, reference)} if min(images.shape[2:]) >= WINDOW else found
