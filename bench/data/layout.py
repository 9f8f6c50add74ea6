"""The training and the test part of a folder of pictures, told by the names of its folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.data.errors import DataError
from bench.data.walking import class_folders, shown

__all__ = ["TEST_NAMES", "TRAIN_NAMES", "class_root", "part_folders"]

TRAIN_NAMES = ("train", "training")
TEST_NAMES = ("test", "testing", "val", "valid", "validation")


def part_folders(base: Path) -> tuple[Path | None, Path | None]:
    """The folders of the training and of the test part; None for one that is not there.

    Upper and lower case are alike. A folder called `train` is a part only if it holds folders of its own: beside other
    classes, a class may be called so.

    Raises:
        DataError: two folders could be the same part, or all folders are called like parts and hold no classes.
    """
    names = class_folders(base)
    known = [name for name in names if name.lower() in TRAIN_NAMES + TEST_NAMES]
    holding = [name for name in known if class_folders(base / name)]
    if known == names and len(names) > 1 and not holding:
        raise DataError(
            f"Expected one folder of pictures for each class in {shown(base / known[0])}, but found 0: sort them."
        )
    train, test = _first(base, holding, TRAIN_NAMES), _first(base, holding, TEST_NAMES)
    return (train, test) if train else (None, None)


def class_root(base: Path) -> Path:
    """The folder that holds the class folders: the training part, or `base` itself."""
    return part_folders(base)[0] or base


def _first(base: Path, names: Sequence[str], wanted: Sequence[str]) -> Path | None:
    for part in wanted:
        found = [name for name in names if name.lower() == part]
        if len(found) > 1:
            raise DataError(f"Expected one folder called {part} in {shown(base)}, but got {' and '.join(found)}.")
        if found:
            return base / found[0]
    return None
