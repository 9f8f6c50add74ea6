"""Fidelity: what the mark costs, in images. What it costs in accuracy is a difference of two records' numbers."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["psnr_db"]


def psnr_db(images: Tensor, reference: Tensor) -> float:
    """Mean over the images of the peak signal-to-noise ratio in dB; identical images count 100 dB.

    Args:
        images: N x C x H x W uint8.
        reference: the same shape.

    Raises:
        ValueError: the shapes differ.
    """
    if images.shape != reference.shape:
        raise ValueError(f"Expected images of {tuple(reference.shape)}, but got {tuple(images.shape)}.")
    error = (images.float() - reference.float()).square().flatten(1).mean(1)
    decibels = 10 * torch.log10(255.0**2 / error.clamp_min(1e-5))
    return float(decibels.clamp_max(100.0).mean())
