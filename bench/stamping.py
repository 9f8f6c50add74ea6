"""How does a person's own folder of pictures get a visible mark, and how is a folder examined for one?

Streaming: pictures are read, stamped and written in small batches, so that memory does not grow with the folder.
What a picture gets depends on the key and on its place in the sorted folder, so a resumed command writes the same.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn

from bench.api import ContractError, Key, Rng
from bench.data import DataError

__all__ = [
    "Entry",
    "Report",
    "StampError",
    "Stamper",
    "Survey",
    "check_apart",
    "fitted",
    "key_size",
    "sample",
    "stamp_all",
    "survey",
    "walk",
]  # fmt: skip

Size = tuple[int, int]

FORMATS = {
    ".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".bmp": "BMP", ".tif": "TIFF", ".tiff": "TIFF",
}  # fmt: skip
KINDS = sorted(set(FORMATS.values()))
SAVE: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"lossless": True},
    "TIFF": {"compression": "tiff_adobe_deflate"},
}
BATCH_PIXELS = 1 << 21
SAMPLE_PIXELS = 1 << 27
NAMED = 5
KEY_SIDE, HEADERS = 256, 200


class StampError(DataError):
    """The folder cannot be stamped or examined as asked; one sentence says why and what to do."""


@runtime_checkable
class Stamper(Protocol):
    """A scheme that marks pictures one by one."""

    def stamp(self, images: Tensor, key: Key, first: int = 0) -> Tensor:
        """N x 3 x H x W uint8 in and out; `first` is the place of the first of them in the folder."""


@dataclass(frozen=True)
class Entry:
    """A file of the folder that should be a picture.

    Attributes:
        index: its place among all of them, sorted.
        source: its path relative to the folder.
        target: the relative path of the stamped picture.
    """

    index: int
    source: str
    target: str


@dataclass
class Report:
    """What became of the files.

    Attributes:
        stamped, kept: written now, and found written.
        skipped: files that are no pictures.
        named: the first few of them, with the reason.
        converted: how often which property of a picture was given up.
    """

    stamped: int = 0
    kept: int = 0
    skipped: int = 0
    named: list[str] = field(default_factory=list)
    converted: Counter[str] = field(default_factory=Counter)

    def skip(self, name: str, reason: str = "") -> None:
        """One more file that is no picture."""
        self.skipped += 1
        if self.skipped <= NAMED:
            self.named.append(f"{name} ({reason})" if reason else name)


@dataclass(frozen=True)
class Survey:
    """A folder, looked at once before anything is written.

    Attributes:
        total: files that should be pictures.
        digest: of their relative paths, in order.
        others: files of other kinds.
        written: outputs that exist already.
    """

    total: int
    digest: str
    others: Report
    written: int = 0


@dataclass(frozen=True)
class _Picture:
    """Decoded: 3 x H x W uint8, what was given up, the colour profile that still holds, whether it was resized."""

    pixels: np.ndarray
    notes: tuple[str, ...]
    icc: bytes | None
    resized: bool

    @property
    def size(self) -> Size:
        return self.pixels.shape[1], self.pixels.shape[2]


def check_apart(images: Path, out: Path) -> None:
    """Refuse folders of which one holds the other: an output could replace an input.

    Raises:
        StampError: they are the same, or one lies within the other.
    """
    inner, outer = out.resolve(), images.resolve()
    if inner == outer or outer in inner.parents or inner in outer.parents:
        raise StampError(
            f"Expected --out to lie apart from --images, but got {out} and {images}: choose a folder beside it, "
            "inputs are never overwritten."
        )


def walk(root: Path, form: Literal["png", "keep"] = "png", others: Report | None = None) -> Iterator[Entry]:
    """The files below `root` that should be pictures, folder by folder in sorted order.

    Hidden files and folders, and links to folders, are left out. Where two files of one folder would be written to one
    name (`a.jpg`, `a.bmp`), the later one keeps its suffix (`a.bmp`, `a.jpg.png`).

    Args:
        root: the folder.
        form: written as PNG, or in the format of each.
        others: collects the files of other kinds.

    Raises:
        StampError: a folder cannot be listed.
    """
    index = 0
    for place, names in _folders(root, PurePosixPath()):
        pictures = [name for name in names if PurePosixPath(name).suffix.lower() in FORMATS]
        for name in sorted(set(names) - set(pictures)) if others is not None else ():
            others.skip((place / name).as_posix())  # type: ignore[union-attr]  # not None
        targets = _targets(pictures, form)
        for name in pictures:
            yield Entry(index, (place / name).as_posix(), (place / targets[name]).as_posix())
            index += 1


def _folders(root: Path, place: PurePosixPath) -> Iterator[tuple[PurePosixPath, list[str]]]:
    try:
        with os.scandir(root / place) as listed:
            items = sorted((item for item in listed if not item.name.startswith(".")), key=lambda item: item.name)
    except OSError as error:
        raise StampError(f"Expected a folder of pictures in {root / place}, but cannot list it: {error}.") from error
    yield place, [item.name for item in items if item.is_file()]
    for name in [item.name for item in items if item.is_dir(follow_symlinks=False)]:
        yield from _folders(root, place / name)


def _targets(names: Sequence[str], form: str) -> dict[str, str]:
    """The name that each picture of one folder is written to; no two alike, even where case does not count."""
    if form == "keep":
        return {name: name for name in names}
    targets = {name: name for name in names if name.endswith(".png")}
    taken = {name.casefold() for name in targets}
    for name in names:
        if name not in targets:
            stem = PurePosixPath(name).stem
            numbered = (f"{name}-{i}.png" for i in range(2, len(names) + 3))
            targets[name] = next(n for n in (f"{stem}.png", f"{name}.png", *numbered) if n.casefold() not in taken)
            taken.add(targets[name].casefold())
    return targets


def survey(images: Path, out: Path | None = None, form: Literal["png", "keep"] = "png") -> Survey:
    """Count the files, and the outputs that exist.

    Raises:
        StampError: there is no picture, or a folder cannot be listed.
    """
    others, total, written, digest = Report(), 0, 0, hashlib.sha256()
    for entry in walk(images, form, others):
        total += 1
        digest.update(entry.source.encode("utf-8", "surrogateescape") + b"\0")
        written += out is not None and (out / entry.target).is_file()
    if not total:
        kinds = ", ".join(suffix[1:] for suffix in FORMATS)
        raise StampError(f"Expected pictures ({kinds}) in {images}, but found none: see --images.")
    return Survey(total, digest.hexdigest(), others, written)


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
    read = partial(_read, size=None if side is None else (side, side))
    writer = _Writer(images, out, form)
    with ThreadPoolExecutor(_workers()) as pool:
        writing: list[Future[None]] = []
        for run in _runs(
            _decoded(pool, _todo(walk(images, form), out, overwrite, report), images, read, report), batch
        ):
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


def _workers() -> int:
    return min(8, os.cpu_count() or 1)


def _todo(entries: Iterable[Entry], out: Path, overwrite: bool, report: Report) -> Iterator[Entry]:
    for entry in entries:
        if not overwrite and (out / entry.target).is_file():
            report.kept += 1
        else:
            yield entry


def _decoded(
    pool: ThreadPoolExecutor, entries: Iterable[Entry], root: Path, read: Callable[[Path], _Picture], report: Report
) -> Iterator[tuple[Entry, _Picture]]:
    """Pictures in order, a few decoded ahead; what is no picture goes into the report."""
    ahead: deque[tuple[Entry, Future[_Picture]]] = deque()

    def taken() -> Iterator[tuple[Entry, _Picture]]:
        entry, future = ahead.popleft()
        try:
            yield entry, future.result()
        except StampError as error:
            report.skip(entry.source, str(error))

    for entry in entries:
        ahead.append((entry, pool.submit(read, root / entry.source)))
        if len(ahead) > _workers() + 1:
            yield from taken()
    while ahead:
        yield from taken()


def _runs(pictures: Iterable[tuple[Entry, _Picture]], batch: int) -> Iterator[list[tuple[Entry, _Picture]]]:
    """Neighbours of one size: what can be stamped in one call, whose places follow each other."""
    run: list[tuple[Entry, _Picture]] = []
    for entry, picture in pictures:
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
    def __call__(self, run: Sequence[tuple[Entry, _Picture]]) -> np.ndarray:
        """N x 3 x H x W uint8."""
        size = run[0][1].size
        if self._fitted is None or self._fitted[0] != size:
            self._fitted = size, fitted(self.key, size)
        images = torch.from_numpy(np.stack([picture.pixels for _, picture in run])).to(self.device)
        stamped = self.scheme.stamp(images, self._fitted[1], run[0][0].index)
        if stamped.dtype != torch.uint8 or stamped.shape != images.shape:
            raise ContractError(
                f"Expected stamp to return uint8 images of {tuple(images.shape)}, but got {stamped.dtype} of "
                f"{tuple(stamped.shape)}."
            )
        return stamped.cpu().numpy()


def fitted(key: Key, size: Size) -> Key:
    """The key with its visible mark, a tensor `mark` of 4 x H x W (RGBA in [0, 1]), resized to pictures of `size`."""
    mark = key.tensors.get("mark")
    if mark is None or tuple(mark.shape[-2:]) == size:
        return key
    # Colours are weighted by alpha: what is transparent has none that could bleed into the edges.
    weighted = torch.cat([mark[:3] * mark[3:], mark[3:]])[None]
    resized = nn.functional.interpolate(weighted, size=size, mode="bilinear", antialias=True)[0].clamp(0, 1)
    colours = (resized[:3] / resized[3:].clamp_min(1e-6)).clamp(0, 1)
    return replace(key, tensors={**key.tensors, "mark": torch.cat([colours, resized[3:]])})


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
            raise StampError(f"Expected to write {target}, but cannot ({error}): see --out.") from error

    def _prepare(self, folder: Path) -> None:
        if folder in self._safe:
            return
        folder.mkdir(parents=True, exist_ok=True)
        real = folder.resolve()
        if real == self.images or self.images in real.parents:
            raise StampError(
                f"Expected {folder} to lie apart from --images, but it is a link into it: remove the link."
            )
        self._safe.add(folder)


def _read(path: Path, size: Size | None = None) -> _Picture:
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
    return _Picture(np.asarray(image).transpose(2, 0, 1).copy(), notes, icc, resized)


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
    with ThreadPoolExecutor(_workers()) as pool:
        for entry, picture in _decoded(pool, entries, images, partial(_read, size=size), report):
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
