"""A data set once it is decoded, and where it lies before."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from bench.data.catalog import Spec
from bench.data.errors import DataError
from bench.identity import digest

__all__ = ["Found", "Part", "Source"]

FORMAT = 2  # of decoded images; a new number makes every cache file stale
FEWEST = 10  # training images of a class


@dataclass(frozen=True)
class Part:
    """Decoded images of a training or test part: N x 3 x S x S uint8 and N int64."""

    images: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Source:
    """A whole decoded data set.

    Attributes:
        owner_rows: how many leading training rows are the owner's by construction; None where any row may be.
    """

    classes: tuple[str, ...]
    train: Part
    test: Part
    owner_rows: int | None = None

    def checksum(self) -> str:
        """SHA-256 over shapes, pixels and labels, in hex."""
        sha = hashlib.sha256()
        for part in (self.train, self.test):
            for tensor in (part.images, part.labels):
                sha.update(f"{tuple(tensor.shape)}{tensor.dtype}".encode())
                sha.update(tensor.contiguous().numpy().data)
        return sha.hexdigest()

    def check(self, spec: Spec, where: Path) -> None:
        """Refuse what cannot be the data set.

        Raises:
            DataError: a part is empty, a label has no class, a class has nearly no images, or none in the test part.
        """
        title, known = spec.card.title, len(spec.card.classes)
        if len(self.classes) != known:
            raise DataError(
                f"Expected {known} classes of {title} in {where}, but found {len(self.classes)}: copy it again."
            )
        for name, part in (("training", self.train), ("test", self.test)):
            if not len(part.labels):
                raise DataError(f"Expected {name} images of {title} in {where}, but found none: {_advice(spec)}.")
            low, high = int(part.labels.min()), int(part.labels.max())
            if low < 0 or high >= known:
                raise DataError(
                    f"Expected {name} labels of {title} in {where} to be in 0..{known - 1}, but got {low}..{high}: "
                    "see whether this is another data set."
                )
        self._check_classes(spec, where)

    def _check_classes(self, spec: Spec, where: Path) -> None:
        """Refuse a class with nearly no training images, or with no test image: its accuracy could not be measured."""
        for name, part, fewest in (("training", self.train, FEWEST), ("test", self.test, 1)):
            counts = torch.bincount(part.labels, minlength=len(self.classes))
            if counts.min() < fewest:
                poorest = self.classes[int(counts.argmin())]
                raise DataError(
                    f"Expected at least {fewest} {name} image{'s' * (fewest > 1)} a class of {spec.card.title} in "
                    f"{where}, but class {poorest} has {int(counts.min())}: {_advice(spec)}."
                )


def _advice(spec: Spec) -> str:
    """What the owner of a folder can do, and what somebody can who copied a public data set."""
    return "add pictures to it, or remove the class" if spec.own else "copy it again"


@dataclass(frozen=True)
class Found:
    """A data set that lies on disk in a known layout, not read yet.

    Attributes:
        where: the folder that messages name.
        files: all files that it is read from.
        read: decodes it.
    """

    layout: str
    where: Path
    files: Sequence[Path]
    read: Callable[[], Source]

    def stamp(self, spec: Spec) -> str:
        """A digest of the files' names, sizes and times of change, and of how they are decoded.

        Raises:
            DataError: one of the files is missing.
        """
        try:
            states = [(str(path), path.stat()) for path in self.files]
        except OSError as error:
            raise DataError(
                f"Expected {spec.card.title} in {self.where} to be whole, but {error.filename} is missing: copy it."
            ) from error
        rows = [[name, state.st_size, state.st_mtime_ns] for name, state in states]
        return digest([FORMAT, self.layout, spec.card.name, spec.size, list(spec.card.classes), rows])
