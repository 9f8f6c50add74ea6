"""How does a file become an upright RGB picture of one byte a channel, and which pictures stand for a folder?"""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from bench.api import Rng
from bench.stamping.walking import FORMATS, Entry, Report, StampError, walk

__all__ = ["Picture", "Size", "decoded", "key_size", "read_picture", "sample", "workers"]

Size = tuple[int, int]

KINDS = sorted(set(FORMATS.values()))
SAMPLE_PIXELS = 1 << 27
KEY_SIDE, HEADERS = 256, 200


@dataclass(frozen=True)
class Picture:
    """Decoded: 3 x H x W uint8, what was given up, the colour profile that still holds, whether it was resized."""

    pixels: np.ndarray
    notes: tuple[str, ...]
    icc: bytes | None
    resized: bool

    @property
    def size(self) -> Size:
        """Height and width."""
        return self.pixels.shape[1], self.pixels.shape[2]


def workers() -> int:
    """Threads that read and write: these wait for disks and for codecs, which hold no lock."""
    return min(8, os.cpu_count() or 1)


def read_picture(path: Path, size: Size | None = None) -> Picture:
    """One picture as RGB, upright, without transparency; resized if `size` says another one.

    Raises:
        StampError: it is no picture; the message is a reason of a few words.
    """
    try:
        with Image.open(path, formats=KINDS) as opened:
            icc, notes = opened.info.get("icc_profile"), _notes(opened)
            upright = ImageOps.exif_transpose(opened)
            icc = icc if upright.mode in ("RGB", "RGBA", "P") else None
            image = _rgb(upright)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise StampError("cannot be decoded" if path.exists() else "is gone") from error
    resized = size is not None and (image.height, image.width) != size
    if size is not None and resized:
        image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return Picture(np.asarray(image).transpose(2, 0, 1).copy(), notes, icc, resized)


def _notes(image: Image.Image) -> tuple[str, ...]:
    """What RGB of one byte, upright and still, cannot keep."""
    given_up = {
        "transparency laid over white": image.has_transparency_data,
        "16 bits reduced to 8": image.mode.startswith("I"),
        "grey made RGB": image.mode in ("1", "L", "LA") or image.mode.startswith("I"),
        "CMYK made RGB": image.mode == "CMYK",
        "turned as EXIF says": image.getexif().get(0x0112, 1) != 1,
        # Phones store a preview beside the picture (MPO); nothing moves.
        "only the first frame": image.format != "MPO" and getattr(image, "is_animated", False),
    }
    return tuple(note for note, so in given_up.items() if so)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # Pillow clips 16-bit grey at 255 instead of scaling it, which would make most pictures white.
        image = Image.fromarray((np.asarray(image).astype(np.int64).clip(0, 65_535) >> 8).astype(np.uint8))
    if image.mode == "F":
        raise ValueError("floating-point pictures have no known range")
    if image.has_transparency_data:
        # What transparency hid must not come to light in a published picture.
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return image.convert("RGB")


def decoded(
    pool: ThreadPoolExecutor, entries: Iterable[Entry], root: Path, read: Callable[[Path], Picture], report: Report
) -> Iterator[tuple[Entry, Picture]]:
    """Pictures in order, a few decoded ahead; what is no picture goes into the report."""
    ahead: deque[tuple[Entry, Future[Picture]]] = deque()

    def taken() -> Iterator[tuple[Entry, Picture]]:
        entry, future = ahead.popleft()
        try:
            yield entry, future.result()
        except StampError as error:
            report.skip(entry.source, str(error))

    for entry in entries:
        ahead.append((entry, pool.submit(read, root / entry.source)))
        if len(ahead) > workers() + 1:
            yield from taken()
    while ahead:
        yield from taken()


def sample(
    images: Path, total: int, count: int, rng: Rng, size: Size, report: Report | None = None
) -> tuple[Tensor, list[str], int]:
    """At most `count` pictures drawn from the folder, all brought to `size`, in the order of the folder.

    Args:
        images: the folder.
        total: how many files it has.
        count: fewer are drawn if they are large, so that they fit into memory.
        rng: of the draw.
        size: height and width.
        report: collects what is no picture.

    Returns:
        N x 3 x H x W uint8, the relative paths, and how many had another size.

    Raises:
        StampError: none of the drawn files is a picture.
    """
    report = Report() if report is None else report
    count = min(count, max(8, SAMPLE_PIXELS // (size[0] * size[1])))
    entries = _drawn(images, total, count, rng)
    rows, names, resized = [], [], 0
    with ThreadPoolExecutor(workers()) as pool:
        for entry, picture in decoded(pool, entries, images, partial(read_picture, size=size), report):
            rows.append(torch.from_numpy(picture.pixels))
            names.append(entry.source)
            resized += picture.resized
    if not rows:
        raise StampError(
            f"Expected pictures in {images}, but none of {len(entries)} files can be decoded: see --images."
        )
    return torch.stack(rows), names, resized


def _drawn(images: Path, total: int, count: int, rng: Rng) -> list[Entry]:
    """`count` of the folder's files, or all of them."""
    if total <= count:
        return list(walk(images))
    chosen = set(rng.numpy("sample").choice(total, count, replace=False).tolist())
    return [entry for entry in walk(images) if entry.index in chosen]


def key_size(images: Path, total: int, rng: Rng, side: int | None = None) -> Size:
    """The most frequent height and width among some pictures of the folder, the larger one if two are equally so.

    Reduced to at most 256 pixels: verification compares a mark of this size with hundreds of others.

    Args:
        images: the folder.
        total: how many files it has.
        rng: of the pictures that are looked at.
        side: of all pictures, if they will be resized; none is looked at then.

    Raises:
        StampError: none of them is a picture.
    """
    if side is not None:
        return min(side, KEY_SIDE), min(side, KEY_SIDE)
    found: Counter[Size] = Counter()
    for entry in _drawn(images, total, HEADERS, rng.child("size")):
        try:
            with Image.open(images / entry.source, formats=KINDS) as opened:
                width, height = opened.size
                found[(width, height) if opened.getexif().get(0x0112, 1) >= 5 else (height, width)] += 1
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            continue
    if not found:
        raise StampError(f"Expected pictures in {images}, but none that was tried can be decoded: see --images.")
    height, width = max(found, key=lambda size: (found[size], size))
    scale = min(1.0, KEY_SIDE / max(height, width))
    return max(1, round(scale * height)), max(1, round(scale * width))
