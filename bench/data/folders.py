"""Image sets as plain folders of pictures: Tiny ImageNet's, CUB-200-2011's, Caltech-101's own layouts, anybody's own.

Caltech-101 has no test part of its own: 30 training and at most 40 test pictures a class are drawn at random, as
Uchida et al. (2017, section 4) do. A folder of one's own without a test folder is split 80 / 20 within each class.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch

from bench.data.catalog import DataError, Spec, class_folders
from bench.data.decode import decode
from bench.data.source import Found, Part, Source
from bench.identity import Rng

__all__ = ["find"]

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".ppm", ".pgm", ".tif", ".tiff"}
TEST_NAMES = ("test", "val", "valid", "validation")
CALTECH_TRAIN, CALTECH_TEST = 30, 40
OWN_TRAIN = 0.8

Pictures = list[tuple[Path, int]]


@dataclass
class Listing:
    """Pictures by part, with their class numbers, and the text files that told them."""

    classes: tuple[str, ...]
    train: Pictures = field(default_factory=list)
    test: Pictures = field(default_factory=list)
    tables: list[Path] = field(default_factory=list)


def find(spec: Spec, root: Path) -> Found | None:
    """The pictures of a data set in its own layout, or in one folder per class.

    Raises:
        DataError: the layout is there, but its tables or folders contradict each other.
    """
    special = LAYOUTS.get(spec.card.name)
    for base in spec.bases(root):
        listing = special(base) if special else None
        if listing is None and base != root:
            listing = _class_folders(base) or (_unsplit(base, spec) if spec.own else None)
        if listing:
            listing = _in_card_order(listing, spec)
            files = [*listing.tables, *(path for path, _ in listing.train + listing.test)]
            return Found("folder", base, files, partial(_read, listing, spec))
    return None


def _read(listing: Listing, spec: Spec) -> Source:
    return Source(listing.classes, _part(listing.train, spec), _part(listing.test, spec))


def _part(pictures: Pictures, spec: Spec) -> Part:
    images = decode(((str(path), path) for path, _ in pictures), len(pictures), spec)
    return Part(images, torch.tensor([label for _, label in pictures], dtype=torch.int64))


def _in_card_order(listing: Listing, spec: Spec) -> Listing:
    """Class numbers as in the card, where the folders have the card's names."""
    if set(listing.classes) != set(spec.card.classes):
        return listing
    number = [spec.card.classes.index(name) for name in listing.classes]
    train, test = ([(path, number[label]) for path, label in part] for part in (listing.train, listing.test))
    return Listing(spec.card.classes, train, test, listing.tables)


def _pictures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)


def _class_folders(base: Path) -> Listing | None:
    """`train/CLASS/...` beside `test/CLASS/...` or `val/CLASS/...`."""
    tests = [base / name for name in TEST_NAMES if (base / name).is_dir()]
    if not tests or not (base / "train").is_dir():
        return None
    classes = class_folders(base / "train")
    strange = sorted(set(class_folders(tests[0])) - set(classes))
    if strange:
        raise DataError(
            f"Expected the class folders of {base / 'train'} in {tests[0]}, but got {strange[0]}: rename it."
        )
    train, test = (
        [(path, label) for label, name in enumerate(classes) for path in _pictures(part / name)]
        for part in (base / "train", tests[0])
    )
    return Listing(tuple(classes), train, test)


def _drawn(base: Path, classes: list[str], name: str, sizes: Callable[[int], tuple[int, int]]) -> Listing:
    """A seeded draw within each class; `sizes` tells how many of n pictures are for training and for testing."""
    listing = Listing(tuple(classes))
    for label, folder in enumerate(classes):
        paths = _pictures(base / folder)
        order = torch.randperm(len(paths), generator=Rng("data", name, "test part").torch(folder)).tolist()
        train, test = sizes(len(paths))
        listing.train += [(paths[row], label) for row in sorted(order[:train])]
        listing.test += [(paths[row], label) for row in sorted(order[train : train + test])]
    return listing


def _unsplit(base: Path, spec: Spec) -> Listing | None:
    """`CLASS/...` of anybody's own, without a test part."""
    if not base.is_dir():
        return None
    base = base / "train" if (base / "train").is_dir() else base

    def sizes(count: int) -> tuple[int, int]:
        train = round(OWN_TRAIN * count)
        return train, count - train

    return _drawn(base, class_folders(base), spec.card.name, sizes)


def _caltech(base: Path) -> Listing | None:
    folder = base / "101_ObjectCategories"
    if not folder.is_dir():
        return None
    classes = [name for name in class_folders(folder) if name != "BACKGROUND_Google"]

    def sizes(count: int) -> tuple[int, int]:
        if count <= CALTECH_TRAIN:
            raise DataError(
                f"Expected more than {CALTECH_TRAIN} pictures a class in {folder}, but got {count}: unpack it again."
            )
        return CALTECH_TRAIN, min(CALTECH_TEST, count - CALTECH_TRAIN)

    return _drawn(folder, classes, "caltech101", sizes)


def _tiny_imagenet(base: Path) -> Listing | None:
    """`train/WNID/images/*.JPEG`; `val/images/*.JPEG` with their classes in `val/val_annotations.txt`."""
    table = base / "val" / "val_annotations.txt"
    if not table.is_file():
        return None
    classes = class_folders(base / "train") if (base / "train").is_dir() else []
    number = {name: label for label, name in enumerate(classes)}
    train = [(path, label) for name, label in number.items() for path in _pictures(base / "train" / name)]
    try:
        test = [(base / "val" / "images" / row[0], number[row[1]]) for row in _table(table)]
    except (KeyError, IndexError) as error:
        raise DataError(
            f"Expected {table} to name classes of {base / 'train'}, but got {error}: unpack it again."
        ) from error
    return Listing(tuple(classes), train, test, [table])


def _cub(base: Path) -> Listing | None:
    """`images/` with `images.txt`, `image_class_labels.txt`, `train_test_split.txt` and `classes.txt`."""
    tables = [base / f"{name}.txt" for name in ("images", "image_class_labels", "train_test_split", "classes")]
    if not tables[0].is_file():
        return None
    try:
        paths, labels, training, names = ({row[0]: row[1] for row in _table(table)} for table in tables)
        number = {identity: label for label, identity in enumerate(names)}
        listing = Listing(tuple(names.values()), tables=tables)
        for identity, path in paths.items():
            part = listing.train if training[identity] == "1" else listing.test
            part.append((base / "images" / path, number[labels[identity]]))
    except (KeyError, IndexError, OSError) as error:
        raise DataError(
            f"Expected the four tables of CUB-200-2011 in {base} to agree, but got {error!r}: unpack it again."
        ) from error
    return listing


def _table(path: Path) -> list[list[str]]:
    return [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


LAYOUTS: dict[str, Callable[[Path], Listing | None]] = {
    "caltech101": _caltech,
    "tiny-imagenet": _tiny_imagenet,
    "cub200": _cub,
}
