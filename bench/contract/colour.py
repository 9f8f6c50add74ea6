"""Linear colour transformations (LCT): a rotation by an angle in a colour space that a 3 x 3 matrix T gives.

Zou, Gong, Wang, Anti-Neuron Watermarking, 2022, section 4.1. Their Eq. 5 prints T R T^-1, which would apply T^-1 to
an RGB vector and turn grey into colour; what rotates the hue is T^-1 R T.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bench.contract.images import pixels

__all__ = ["YIQ", "colour_rotations", "recoloured", "rotate_hue"]

YIQ = torch.tensor([[0.299, 0.587, 0.114], [0.596, -0.275, -0.321], [0.212, -0.523, 0.311]], dtype=torch.float64)


def colour_rotations(space: Tensor, degrees: Tensor) -> Tensor:
    """The maps T^-1 R(k) T of RGB pixels, K x 3 x 3 float64, differentiable in the angles.

    Args:
        space: T, 3 x 3: its first coordinate is kept, the other two are rotated (Eq. 3, 4).
        degrees: K angles.
    """
    angle = degrees.double() * (math.pi / 180)
    zero, one = torch.zeros_like(angle), torch.ones_like(angle)
    rows = [one, zero, zero, zero, angle.cos(), -angle.sin(), zero, angle.sin(), angle.cos()]
    turn = torch.stack(rows, -1).unflatten(-1, (3, 3))
    space = space.to(turn)
    return torch.linalg.solve(space, turn @ space)


def recoloured(images: Tensor, maps: Tensor) -> Tensor:
    """Images after a map of their colours, clipped to [0, 1].

    Args:
        images: N x 3 x H x W, float in [0, 1].
        maps: 3 x 3 for all, or N x 3 x 3, one an image.
    """
    changed = torch.matmul(maps.to(images), images.flatten(2))
    return changed.clamp(0, 1).view(images.shape)


def rotate_hue(images: Tensor, degrees: float) -> Tensor:
    """Images whose hue is rotated in YIQ: uint8 are rounded to uint8, floats in [0, 1] stay floats."""
    turned = recoloured(pixels(images), colour_rotations(YIQ, torch.tensor(float(degrees))))
    return turned.mul_(255).round_().to(torch.uint8) if images.dtype == torch.uint8 else turned
