"""How do encoded pictures become one uint8 tensor?"""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from bench.data.catalog import DataError, Spec

__all__ = ["decode", "pad"]


def decode(pictures: Iterable[tuple[str, bytes | Path]], count: int, spec: Spec) -> Tensor:
    """Decode `count` pictures into count x 3 x S x S uint8; grey, palette and RGBA pictures become RGB.

    Args:
        pictures: a name for messages, and the encoded bytes or their file.
        count: how many there are.
        spec: tells S = `spec.size`, and whether pictures of another size are resized or refused.

    Raises:
        DataError: a picture cannot be decoded or has the wrong size; the message names it.
    """
    images = torch.empty(count, 3, spec.size, spec.size, dtype=torch.uint8)
    rows = images.numpy()
    for row, (name, picture) in enumerate(pictures):
        try:
            rows[row] = _one(picture, spec).transpose(2, 0, 1)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            if isinstance(error, DataError):
                raise DataError(f"{name}: {error}") from error
            raise DataError(
                f"Expected {name} to be a picture of {spec.card.title}, but cannot decode it ({error}): copy it again."
            ) from error
    return images


def pad(images: Tensor, size: int) -> Tensor:
    """N x H x W or N x 3 x H x W uint8 images in the middle of a black N x 3 x `size` x `size`."""
    if images.ndim == 3:
        images = images[:, None].expand(-1, 3, -1, -1)
    margin = (size - images.shape[-1]) // 2
    return torch.nn.functional.pad(images, [margin] * 4).contiguous()


def _one(picture: bytes | Path, spec: Spec) -> np.ndarray:
    """One picture as S x S x 3 uint8."""
    with Image.open(io.BytesIO(picture) if isinstance(picture, bytes) else picture) as opened:
        image: Image.Image = opened if opened.mode == "RGB" else _rgb(opened)
        if spec.side is None:
            if image.size != (spec.size, spec.size):
                image = image.resize((spec.size, spec.size), Image.Resampling.BILINEAR)
            return np.asarray(image)
        if image.size != (spec.side, spec.side):
            raise DataError(
                f"Expected pictures of {spec.card.title} to be {spec.side} x {spec.side}, but got "
                f"{image.width} x {image.height}: see whether this is another data set."
            )
        margin = (spec.size - spec.side) // 2
        return np.pad(np.asarray(image), ((margin, margin), (margin, margin), (0, 0))) if margin else np.asarray(image)


def _rgb(image: Image.Image) -> Image.Image:
    # Pillow clips 16-bit grey at 255 instead of scaling it, which would make most pictures white.
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image.convert("RGB")
