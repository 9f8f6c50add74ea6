"""Stamps and writes every picture of a folder, in memory that does not grow with the folder.

What a picture gets depends on the key and on its place in the sorted folder, so a resumed command writes the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from bench.api import ContractError, Key
from bench.data.decode import Picture
from bench.data.walking import shown
from bench.stamping.reading import Size, decoded, read_at, workers
from bench.stamping.walking import FORMATS, Entry, Report, StampError, check_apart, walk

__all__ = ["Stamper", "fitted", "stamp_all"]

SAVE: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"lossless": True},
    "TIFF": {"compression": "tiff_adobe_deflate"},
}
BATCH_PIXELS = 1 << 21


@runtime_checkable
class Stamper(Protocol):
    """A scheme that marks pictures one by one."""

    def stamp(self, images: Tensor, key: Key, first: int = 0) -> Tensor:
        """N x 3 x H x W uint8 in and out; `first` is the place of the first of them in the folder."""


def stamp_all(
    scheme: Stamper,
    key: Key,
    images: Path,
    out: Path,
    *,
    form: Literal["png", "keep"] = "png",
    side: int | None = None,
    batch: int = 256,
    device: str = "cpu",
    overwrite: bool = False,
    tell: Callable[[int], None] = lambda done: None,
) -> Report:
    """Stamp every picture below `images` into `out`, under the same relative path.

    Args:
        scheme: stamps a batch of equal size.
        key: the owner's.
        images: read only.
        out: apart from `images`.
        form: write PNG, or the format of each input (JPEG is lossy).
        side: resize every picture to side x side first; None keeps its size.
        batch: at most so many pictures at once, fewer if they are large.
        device: where the scheme computes.
        overwrite: write again what is there.
        tell: called with the number of files dealt with.

    Raises:
        StampError: an output cannot be written, or would be written into `images`.
        ContractError: the scheme returns something else than uint8 images of the same shape.
    """
    check_apart(images, out)
    report, stamps = Report(), _Stamps(scheme, key, device)
    read = partial(read_at, size=None if side is None else (side, side))
    writer = _Writer(images, out, form)
    with ThreadPoolExecutor(workers()) as pool:
        writing: list[Future[None]] = []
        for run in _runs(decoded(pool, _todo(walk(images, form), out, overwrite, report), images, read, report), batch):
            stamped = stamps(run)
            for future in writing:
                future.result()
            writing = [
                pool.submit(writer, entry, rows, picture.icc)
                for (entry, picture), rows in zip(run, stamped, strict=True)
            ]
            report.stamped += len(run)
            for _, picture in run:
                report.converted.update(picture.notes)
            tell(report.stamped + report.kept + report.skipped)
        for future in writing:
            future.result()
    return report


def _todo(entries: Iterable[Entry], out: Path, overwrite: bool, report: Report) -> Iterator[Entry]:
    for entry in entries:
        if not overwrite and (out / entry.target).is_file():
            report.kept += 1
        else:
            yield entry


def _runs(pictures: Iterable[tuple[Entry, Picture, bool]], batch: int) -> Iterator[list[tuple[Entry, Picture]]]:
    """Neighbours of one size: what can be stamped in one call, whose places follow each other."""
    run: list[tuple[Entry, Picture]] = []
    for entry, picture, _ in pictures:
        height, width = picture.size
        full = len(run) >= max(1, min(batch, BATCH_PIXELS // (height * width)))
        if run and (full or picture.size != run[0][1].size or entry.index != run[-1][0].index + 1):
            yield run
            run = []
        run.append((entry, picture))
    if run:
        yield run


class _Stamps:
    """Stamps runs of pictures, with the key's mark brought to their size."""

    def __init__(self, scheme: Stamper, key: Key, device: str) -> None:
        self.scheme, self.key, self.device = scheme, key.to(device), device
        self._fitted: tuple[Size, Key] | None = None

    @torch.no_grad()
    def __call__(self, run: Sequence[tuple[Entry, Picture]]) -> np.ndarray:
        """N x 3 x H x W uint8."""
        size = run[0][1].size
        if self._fitted is None or self._fitted[0] != size:
            self._fitted = size, fitted(self.key, size)
        images = torch.from_numpy(np.stack([picture.pixels for _, picture in run]).transpose(0, 3, 1, 2).copy())
        images = images.to(self.device)
        stamped = self.scheme.stamp(images, self._fitted[1], run[0][0].index)
        if stamped.dtype != torch.uint8 or stamped.shape != images.shape:
            raise ContractError(
                f"Expected stamp to return uint8 images of {tuple(images.shape)}, but got {stamped.dtype} of "
                f"{tuple(stamped.shape)}."
            )
        return stamped.cpu().numpy()


def fitted(key: Key, size: Size) -> Key:
    """The key with its visible mark, a tensor `mark` of 4 x H x W (RGBA in [0, 1]), resized to pictures of `size`."""
    mark: Tensor | None = getattr(key, "mark", None)
    if mark is None or tuple(mark.shape[-2:]) == size:
        return key
    # Colours are weighted by alpha: what is transparent has none that could bleed into the edges.
    weighted = torch.cat([mark[:3] * mark[3:], mark[3:]])[None]
    resized = nn.functional.interpolate(weighted, size=size, mode="bilinear", antialias=True)[0].clamp(0, 1)
    colours = (resized[:3] / resized[3:].clamp_min(1e-6)).clamp(0, 1)
    fields: dict[str, Any] = {"mark": torch.cat([colours, resized[3:]])}
    return replace(key, **fields)


class _Writer:
    """Writes one stamped picture, whole or not at all."""

    def __init__(self, images: Path, out: Path, form: str) -> None:
        self.images, self.out, self.form = images.resolve(), out, form
        self._safe: set[Path] = set()

    def __call__(self, entry: Entry, rows: np.ndarray, icc: bytes | None) -> None:
        target = self.out / entry.target
        part = target.with_name(f".{target.name}.part")
        kind = "PNG" if self.form == "png" else FORMATS[target.suffix.lower()]
        try:
            self._prepare(target.parent)
            picture = Image.fromarray(np.ascontiguousarray(rows.transpose(1, 2, 0)))
            picture.save(part, format=kind, icc_profile=icc, **SAVE.get(kind, {}))
            part.replace(target)
        except OSError as error:
            raise StampError(f"Expected to write {shown(target)}, but cannot ({error}): see --out.") from error

    def _prepare(self, folder: Path) -> None:
        if folder in self._safe:
            return
        folder.mkdir(parents=True, exist_ok=True)
        real = folder.resolve()
        if real == self.images or self.images in real.parents:
            raise StampError(
                f"Expected {shown(folder)} to lie apart from --images, but it is a link into it: remove the link."
            )
        self._safe.add(folder)
