"""Augmentation of whole batches on the device: no loop over images, no synchronisation with the device."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from bench.data.errors import DataError

__all__ = ["AUGMENTATIONS", "augment", "crop", "flip"]


def crop(images: Tensor, generator: torch.Generator) -> Tensor:
    """A random window of each image after padding it with zeros by an eighth of its side."""
    count, _, height, width = images.shape
    margin_y, margin_x = height // 8, width // 8
    top = torch.randint(2 * margin_y + 1, (count,), generator=generator).to(images.device, non_blocking=True)
    left = torch.randint(2 * margin_x + 1, (count,), generator=generator).to(images.device, non_blocking=True)
    padded = torch.nn.functional.pad(images, (margin_x, margin_x, margin_y, margin_y))
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)
    return windows[torch.arange(count, device=images.device), :, top, left]


def flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirrors each image, left to right, with probability 1/2."""
    mirrored = torch.randint(2, (len(images), 1, 1, 1), generator=generator, dtype=torch.bool)
    return torch.where(mirrored.to(images.device, non_blocking=True), images.flip(3), images)


AUGMENTATIONS: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {"crop": crop, "flip": flip}


def augment(images: Tensor, names: Sequence[str], generator: torch.Generator, exact: Tensor | None = None) -> Tensor:
    """The batch after the named augmentations, in their order.

    Args:
        images: N x C x H x W, float or uint8, on any device.
        names: keys of `AUGMENTATIONS`.
        generator: on the CPU, so that the same numbers are drawn for every device; as many for exact rows as for
            the others.
        exact: N, bool: rows that come back untouched.

    Raises:
        DataError: an augmentation is unknown.
    """
    changed = images
    for name in names:
        if name not in AUGMENTATIONS:
            near = difflib.get_close_matches(name, AUGMENTATIONS, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise DataError(f'Expected an augmentation, but got "{name}": {hint}Known: {", ".join(AUGMENTATIONS)}.')
        changed = AUGMENTATIONS[name](changed, generator)
    if exact is None or changed is images:
        return changed
    return torch.where(exact.to(images.device)[:, None, None, None], images, changed)
