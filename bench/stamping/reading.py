"""Reads the pictures of a folder, a few ahead, and draws those that stand for it."""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from bench.api import Rng
from bench.data import DataError
from bench.data.decode import Picture, read_picture, upright_size
from bench.stamping.walking import Entry, Report, StampError, walk

__all__ = ["Size", "decoded", "key_size", "read_at", "sample", "workers"]

Size = tuple[int, int]
Read = Callable[[Path], tuple[Picture, bool]]

SAMPLE_PIXELS = 1 << 27
KEY_SIDE, HEADERS = 256, 200


def workers() -> int:
    """Threads that read and write: these wait for disks and for codecs, which hold no lock."""
    return min(8, os.cpu_count() or 1)


def read_at(path: Path, size: Size | None = None) -> tuple[Picture, bool]:
    """One picture, resized if `size` says another one; whether it was.

    Raises:
        StampError: it is no picture; the message is a reason of a few words.
    """
    try:
        picture = read_picture(path)
    except DataError as error:
        raise StampError(str(error)) from error
    wanted = size or picture.size
    return picture.resized(wanted), wanted != picture.size


def decoded(
    pool: ThreadPoolExecutor, entries: Iterable[Entry], root: Path, read: Read, report: Report
) -> Iterator[tuple[Entry, Picture, bool]]:
    """Pictures in order, a few decoded ahead, and whether each was resized; what is no picture goes into the report."""
    ahead: deque[tuple[Entry, Future[tuple[Picture, bool]]]] = deque()

    def taken() -> Iterator[tuple[Entry, Picture, bool]]:
        entry, future = ahead.popleft()
        try:
            yield entry, *future.result()
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
        for entry, picture, changed in decoded(pool, entries, images, partial(read_at, size=size), report):
            rows.append(torch.tensor(picture.pixels).permute(2, 0, 1))
            names.append(entry.source)
            resized += changed
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
        size = upright_size(images / entry.source)
        if size is not None:
            found[size] += 1
    if not found:
        raise StampError(f"Expected pictures in {images}, but none that was tried can be decoded: see --images.")
    height, width = max(found, key=lambda size: (found[size], size))
    scale = min(1.0, KEY_SIDE / max(height, width))
    return max(1, round(scale * height)), max(1, round(scale * width))
