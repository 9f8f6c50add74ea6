"""The files of a person's folder that should be pictures, and where each is written."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal

from bench.data import DataError, walking
from bench.data.walking import shown

__all__ = ["FORMATS", "Entry", "Report", "StampError", "Survey", "check_apart", "survey", "walk"]

FORMATS = {
    ".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".bmp": "BMP", ".tif": "TIFF", ".tiff": "TIFF",
}  # fmt: skip
NAMED = 5


class StampError(DataError):
    """The folder cannot be stamped or examined as asked; one sentence says why and what to do."""


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
        named: the first few of them as they can be printed, with the reason.
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
            self.named.append(f"{shown(name)} ({reason})" if reason else shown(name))


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

    What `bench.data.walking` leaves out is left out here too. Where two files of one folder would be written to one
    name (`a.jpg`, `a.bmp`), the later one keeps its suffix (`a.bmp`, `a.jpg.png`).

    Args:
        root: the folder.
        form: written as PNG, or in the format of each.
        others: collects the files of other kinds.

    Raises:
        StampError: a folder cannot be listed.
    """
    others, index = Report() if others is None else others, 0
    try:
        for place, names in walking.walk(root, lambda name: others.skip(name, "empty")):
            pictures = [name for name in names if PurePosixPath(name).suffix.lower() in FORMATS]
            for name in sorted(set(names) - set(pictures)):
                others.skip((place / name).as_posix())
            targets = _targets(pictures, form)
            for name in pictures:
                yield Entry(index, (place / name).as_posix(), (place / targets[name]).as_posix())
                index += 1
    except OSError as error:
        raise StampError(f"Expected a folder of pictures in {shown(root)}, but cannot list it: {error}.") from error


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
