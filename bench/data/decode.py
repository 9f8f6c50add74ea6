"""Decodes pictures, for data sets and for stamping alike: upright RGB of one byte a channel, opaque, or a refusal."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from bench.data.catalog import Spec
from bench.data.errors import DataError
from bench.data.walking import shown

__all__ = ["SUFFIXES", "Picture", "decode", "pad", "read_picture", "upright_size"]

SUFFIXES = {
    ".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".bmp": "BMP", ".tif": "TIFF", ".tiff": "TIFF",
    ".gif": "GIF", ".ppm": "PPM", ".pgm": "PPM",
}  # fmt: skip
KINDS = sorted(set(SUFFIXES.values()))
ORIENTATION, BITS_PER_SAMPLE = 0x0112, 258  # tags of EXIF and TIFF
UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)


@dataclass(frozen=True)
class Picture:
    """A decoded picture.

    Attributes:
        pixels: H x W x 3, uint8.
        notes: what was given up, in a few words each.
        icc: the colour profile, where it still holds.
    """

    pixels: np.ndarray
    notes: tuple[str, ...]
    icc: bytes | None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.pixels.shape[0], self.pixels.shape[1]

    def resized(self, size: tuple[int, int]) -> Picture:
        """The same picture at another height and width; the aspect ratio is not kept."""
        if size == self.size:
            return self
        image = Image.fromarray(self.pixels).resize((size[1], size[0]), Image.Resampling.BILINEAR)
        return Picture(np.asarray(image), self.notes, self.icc)


def read_picture(source: bytes | Path) -> Picture:
    """One picture as it is seen: turned as EXIF says, transparency over white, the first frame of several.

    Of 16 bits the upper eight are kept.

    Raises:
        DataError: it cannot be decoded, or its pixels have no known range; the message is a reason of a few words.
    """
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=KINDS) as opened:
            notes, icc, mode = _notes(opened), opened.info.get("icc_profile"), opened.mode
            upright = opened if _orientation(opened) == 1 else ImageOps.exif_transpose(opened)
            pixels = np.asarray(_rgb(upright, opened))
    except UNREADABLE as error:
        if isinstance(source, Path) and not source.exists():
            raise DataError("is gone") from error
        raise error if isinstance(error, DataError) else DataError("cannot be decoded") from error
    return Picture(pixels, notes, icc if mode in ("RGB", "RGBA", "P") else None)


def upright_size(path: Path) -> tuple[int, int] | None:
    """Height and width of a picture turned as EXIF says, from its header; None if it is no picture."""
    try:
        with Image.open(path, formats=KINDS) as opened:
            width, height = opened.size
            return (width, height) if _orientation(opened) >= 5 else (height, width)
    except UNREADABLE:
        return None


def decode(pictures: Iterable[tuple[str, bytes | Path]], count: int, spec: Spec) -> Tensor:
    """Decode `count` pictures into count x 3 x S x S uint8.

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
        rows[row] = _one(name, picture, spec).transpose(2, 0, 1)
    return images


def pad(images: Tensor, size: int) -> Tensor:
    """N x H x W or N x 3 x H x W uint8 images in the middle of a black N x 3 x `size` x `size`."""
    if images.ndim == 3:
        images = images[:, None].expand(-1, 3, -1, -1)
    margin = (size - images.shape[-1]) // 2
    return torch.nn.functional.pad(images, [margin] * 4).contiguous()


def _one(name: str, source: bytes | Path, spec: Spec) -> np.ndarray:
    """One picture of a data set as S x S x 3 uint8."""
    try:
        picture = read_picture(source)
    except DataError as error:
        advice = "save it anew or remove it" if spec.own else "copy it again"
        raise DataError(
            f"Expected {shown(name)} to be a picture of {spec.card.title}, but it {error}: {advice}."
        ) from error
    if spec.side is None:
        return picture.resized((spec.size, spec.size)).pixels
    if picture.size != (spec.side, spec.side):
        height, width = picture.size
        raise DataError(
            f"Expected {shown(name)} to be {spec.side} x {spec.side} like all pictures of {spec.card.title}, but it is "
            f"{width} x {height}: see whether this is another data set."
        )
    margin = (spec.size - spec.side) // 2
    return np.pad(picture.pixels, ((margin, margin), (margin, margin), (0, 0))) if margin else picture.pixels


def _orientation(image: Image.Image) -> int:
    told = image.getexif().get(ORIENTATION, 1)
    return told if isinstance(told, int) and 1 <= told <= 8 else 1


def _notes(image: Image.Image) -> tuple[str, ...]:
    """What RGB of one byte, upright and still, cannot keep."""
    if image.mode == "RGB" and image.format == "JPEG" and _orientation(image) == 1:
        return ()
    given_up = {
        "transparency laid over white": image.has_transparency_data,
        "16 bits reduced to 8": image.mode.startswith("I"),
        "grey made RGB": image.mode in ("1", "L", "LA") or image.mode.startswith("I"),
        "CMYK made RGB": image.mode == "CMYK",
        "turned as EXIF says": _orientation(image) != 1,
        # Phones store a preview beside the picture (MPO); nothing moves.
        "only the first frame": image.format != "MPO" and getattr(image, "is_animated", False),
    }
    return tuple(note for note, so in given_up.items() if so)


def _rgb(image: Image.Image, opened: Image.Image) -> Image.Image:
    """An upright picture as opaque RGB; `opened`, the same before it was turned, tells its file's format."""
    if image.mode.startswith("I"):
        return _from_16_bits(image, opened)
    if image.mode == "F":
        raise DataError("has floating-point pixels, whose range no file tells")
    if image.has_transparency_data:
        key = image.info.get("transparency")
        if isinstance(key, tuple) and max(key) > 255:  # Pillow keeps eight bits of the pixels and sixteen of the key
            raise DataError("makes a colour of 16 bits transparent, which cannot be told from its neighbours in 8")
        # What transparency hid must not come to light.
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return image.convert("RGB")


def _from_16_bits(image: Image.Image, opened: Image.Image) -> Image.Image:
    # Pillow clips 16-bit grey at 255 instead of scaling it, which would make most pictures white.
    bits = getattr(opened, "tag_v2", {}).get(BITS_PER_SAMPLE, (16,))
    if bits != (16,) or (image.mode == "I" and opened.format not in ("PNG", "PPM")):
        raise DataError(f"has integers of {bits[0]} bits, whose range no file tells")
    values = np.asarray(image).astype(np.int64)
    levels = (values.clip(0, 65_535) >> 8).astype(np.uint8)
    levels[values == opened.info.get("transparency", -1)] = 255
    return Image.fromarray(levels).convert("RGB")
