"""Image sets as plain folders of pictures: Tiny ImageNet's, CUB-200-2011's, Caltech-101's own layouts, anybody's own.

Caltech-101 has no test part of its own: 30 training and at most 40 test pictures a class are drawn at random, as
Uchida et al. (2017, section 4) do. A folder of one's own without a test folder is split 80 / 20 within each class.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath

import torch

from bench.data.catalog import Spec
from bench.data.decode import SUFFIXES, decode
from bench.data.errors import DataError
from bench.data.layout import class_root, part_folders
from bench.data.source import Found, Part, Source
from bench.data.walking import class_folders, shown, walk
from bench.identity import Rng

__all__ = ["find"]

CALTECH_TRAIN, CALTECH_TEST = 30, 40
OWN_TRAIN = 0.8

Pictures = list[tuple[Path, int]]


@dataclass
class Listing:
    """Pictures by part, with their class numbers; the text files that told them; files of zero bytes."""

    classes: tuple[str, ...]
    train: Pictures = field(default_factory=list)
    test: Pictures = field(default_factory=list)
    tables: list[Path] = field(default_factory=list)
    empty: list[Path] = field(default_factory=list)

    def pictures(self, folder: Path) -> list[Path]:
        """The pictures below a folder, sorted; files of zero bytes are noted."""
        found = [
            folder / place / name
            for place, names in walk(folder, lambda name: self.empty.append(folder / name))
            for name in names
            if PurePosixPath(name).suffix.lower() in SUFFIXES
        ]
        return sorted(found)


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
            _announce(listing)
            files = [*listing.tables, *(path for path, _ in listing.train + listing.test)]
            return Found("folder", base, files, partial(_read, listing, spec))
    return None


def _read(listing: Listing, spec: Spec) -> Source:
    source = Source(listing.classes, _part(listing.train, spec), _part(listing.test, spec))
    if spec.own:
        _check_apart(listing, source)
    return source


def _check_apart(listing: Listing, source: Source) -> None:
    """Refuse a folder of one's own in which a picture of the test part is one of the training part, too.

    Raises:
        DataError: there are such pictures; the message counts them and names the first two.
    """
    first = {image.tobytes(): path for image, (path, _) in zip(source.train.images.numpy(), listing.train, strict=True)}
    both = [
        (first[image.tobytes()], path)
        for image, (path, _) in zip(source.test.images.numpy(), listing.test, strict=True)
        if image.tobytes() in first
    ]
    if both:
        trained, tested = (shown(path) for path in both[0])
        raise DataError(
            f"Expected no picture both among training and test pictures, but {len(both)} are there twice, the first as "
            f"{trained} and {tested}: remove one of each two."
        )


def _announce(listing: Listing) -> None:
    """Warn of files of zero bytes, once for each folder."""
    if listing.empty:
        warnings.warn(
            f"{len(listing.empty)} empty files are no pictures and left out, the first {shown(listing.empty[0])}: "
            "copy them again if they should be.",
            stacklevel=2,
        )


def _part(pictures: Pictures, spec: Spec) -> Part:
    images = decode(((str(path), path) for path, _ in pictures), len(pictures), spec)
    return Part(images, torch.tensor([label for _, label in pictures], dtype=torch.int64))


def _in_card_order(listing: Listing, spec: Spec) -> Listing:
    """Class numbers as in the card, where the folders have the card's names."""
    if set(listing.classes) != set(spec.card.classes):
        return listing
    number = [spec.card.classes.index(name) for name in listing.classes]
    train, test = ([(path, number[label]) for path, label in part] for part in (listing.train, listing.test))
    return Listing(spec.card.classes, train, test, listing.tables, listing.empty)


def _class_folders(base: Path) -> Listing | None:
    """`train/CLASS/...` beside `test/CLASS/...` or `val/CLASS/...`."""
    train, test = part_folders(base) if base.is_dir() else (None, None)
    if train is None or test is None:
        return None
    classes = class_folders(train)
    strange = sorted(set(class_folders(test)) - set(classes))
    if strange:
        raise DataError(
            f"Expected the class folders of {shown(train)} in {shown(test)}, but got {shown(strange[0])}: rename it."
        )
    listing = Listing(tuple(map(shown, classes)))
    for label, name in enumerate(classes):
        listing.train += [(path, label) for path in listing.pictures(train / name)]
        if (test / name).is_dir():
            listing.test += [(path, label) for path in listing.pictures(test / name)]
    return listing


def _drawn(base: Path, classes: list[str], name: str, sizes: Callable[[int], tuple[int, int]]) -> Listing:
    """A seeded draw within each class; `sizes` tells how many of n pictures are for training and for testing."""
    listing = Listing(tuple(map(shown, classes)))
    for label, folder in enumerate(classes):
        paths = listing.pictures(base / folder)
        order = torch.randperm(len(paths), generator=Rng("data", name, "test part").torch(folder)).tolist()
        train, test = sizes(len(paths))
        listing.train += [(paths[row], label) for row in sorted(order[:train])]
        listing.test += [(paths[row], label) for row in sorted(order[train : train + test])]
    return listing


def _unsplit(base: Path, spec: Spec) -> Listing | None:
    """`CLASS/...` of anybody's own, without a test part."""
    if not base.is_dir():
        return None

    def sizes(count: int) -> tuple[int, int]:
        train = round(OWN_TRAIN * count)
        return train, count - train

    return _drawn(class_root(base), class_folders(class_root(base)), spec.card.name, sizes)


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
    listing = Listing(tuple(classes), tables=[table])
    for name, label in number.items():
        listing.train += [(path, label) for path in listing.pictures(base / "train" / name)]
    try:
        listing.test = [(base / "val" / "images" / row[0], number[row[1]]) for row in _table(table)]
    except (KeyError, IndexError) as error:
        raise DataError(
            f"Expected {table} to name classes of {base / 'train'}, but got {error}: unpack it again."
        ) from error
    return listing


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
