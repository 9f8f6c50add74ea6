"""The image sets that are known, before any of them is loaded, and how a name becomes one of them."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bench.api import DatasetCard
from bench.data.errors import DataError
from bench.data.layout import class_root
from bench.data.walking import class_folders, shown
from bench.identity import digest, unknown

__all__ = ["DATASETS", "SPECS", "DataError", "Spec", "card", "default_cache", "resolve_root", "spec"]


@dataclass(frozen=True)
class Spec:
    """How one data set is found and brought to one size.

    Attributes:
        size: height and width of its images as tensors.
        side: height and width that the source's images must have; the difference to `size` is padded with zeros.
            None: any, resized to `size` without keeping the aspect ratio.
        folders: names below the data root where its files may lie; the root itself is tried last.
        loader: name of its class in `torchvision.datasets`, None if it has none.
        files: the folder in which that class keeps its files.
    """

    card: DatasetCard
    size: int
    side: int | None = None
    folders: tuple[str, ...] = ()
    loader: str | None = None
    files: str | None = None

    @property
    def own(self) -> bool:
        """Anybody's own folder, whose classes are not known beforehand."""
        return self.card.name.startswith("folder@")

    def bases(self, root: Path) -> list[Path]:
        """Where its files may lie, in the order in which to look."""
        return [*(root / folder for folder in self.folders), *([] if self.own else [root])]


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_DIGITS = tuple(map(str, range(10)))
_STRIPS = tuple(f"{picture}-{strip}" for picture in ("china", "flower") for strip in range(1, 6))
_CIFAR10 = _words("airplane automobile bird cat deer dog frog horse ship truck")
_CIFAR100 = _words(
    """apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
    caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant
    flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree
    motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate
    poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider
    squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle
    wardrobe whale willow_tree wolf woman worm"""
)


def _numbered(classes: int) -> tuple[str, ...]:
    return tuple(f"{number:03d}" for number in range(1, classes + 1))


# Classes that are only numbered here get their names from the source when it is loaded.
SPECS: dict[str, Spec] = {
    spec.card.name: spec
    for spec in (
        Spec(DatasetCard("digits-m", "Handwritten digits over photographs", _DIGITS, "digits", ("crop",)), 32),
        Spec(DatasetCard("photographs", "Tiles of two photographs", _STRIPS, "objects"), 32),
        Spec(
            DatasetCard("cifar10", "CIFAR-10", _CIFAR10, "objects"),
            32,
            32,
            ("cifar10", "cifar-10"),
            "CIFAR10",
            "cifar-10-batches-py",
        ),
        Spec(
            DatasetCard("cifar100", "CIFAR-100", _CIFAR100, "objects"),
            32,
            32,
            ("cifar100", "cifar-100"),
            "CIFAR100",
            "cifar-100-python",
        ),
        Spec(
            DatasetCard("mnist", "MNIST", _DIGITS, "digits", ("crop",)),
            32,
            28,
            ("mnist",),
            "MNIST",
            "MNIST/raw",
        ),
        Spec(
            DatasetCard("caltech101", "Caltech-101", _numbered(101), "objects"),
            32,
            None,
            ("caltech101", "caltech-101"),
            "Caltech101",
        ),
        Spec(
            DatasetCard("tiny-imagenet", "Tiny ImageNet", _numbered(200), "objects"),
            64,
            64,
            ("tiny-imagenet", "tiny-imagenet/tiny-imagenet-200", "tiny-imagenet-200"),
        ),
        Spec(
            DatasetCard("cub200", "CUB-200-2011", _numbered(200), "objects"),
            64,
            None,
            ("cub200", "cub200/CUB_200_2011", "CUB_200_2011"),
        ),
    )
}
DATASETS: dict[str, DatasetCard] = {name: known.card for name, known in SPECS.items()}


def default_cache(cache: Path | None = None) -> Path:
    """Where decoded images are kept: `cache`, `BENCH_CACHE`, the user's cache directory, or else `runs/cache`."""
    if cache is not None:
        return Path(cache)
    if os.environ.get("BENCH_CACHE"):
        return Path(os.environ["BENCH_CACHE"])
    return _users_cache() or Path(os.environ.get("BENCH_RUN_DIR") or "runs", "cache")


def _users_cache() -> Path | None:
    """The user's cache directory; None for a user without a home, as in many containers."""
    import platformdirs

    try:
        found = Path(platformdirs.user_cache_dir("watermark-bench"))
    except RuntimeError:
        return None
    return found if found.is_absolute() else None


def resolve_root(data_root: Path | None, cache: Path | None = None) -> Path:
    """Where data sets lie: `data_root`, else `BENCH_DATA_ROOT`, else `data` below the cache (for downloads)."""
    given = data_root or os.environ.get("BENCH_DATA_ROOT")
    return (Path(given).expanduser() if given else default_cache(cache) / "data").resolve()


def spec(name: str, root: Path) -> Spec:
    """The specification of `name`, which is a known data set or `folder:NAME`.

    Raises:
        DataError: there is no such data set.
    """
    if name in SPECS:
        return SPECS[name]
    if name.startswith(("folder:", "folder@")):
        return _own_folder(name[len("folder:") :], root)
    raise DataError(unknown(name, [*SPECS, "folder:NAME"], "a data set"))


def card(name: str, *, data_root: Path | None = None) -> DatasetCard:
    """The card of a data set, without loading it; for `folder:NAME` the class folders are listed.

    The card of `folder:NAME` is named `folder@NAME`, which is accepted as a name too: records and file names take
    no colon.

    Raises:
        DataError: there is no such data set; the message names those that are near.
    """
    return spec(name, resolve_root(data_root)).card


def _own_folder(name: str, root: Path) -> Spec:
    base = _named(name, root)
    classes = class_folders(class_root(base))
    if len(classes) < 2:
        raise DataError(
            f"Expected one folder of pictures for each class in {shown(class_root(base))}, but found {len(classes)}: "
            "sort them."
        )
    names = tuple(map(shown, classes))
    return Spec(DatasetCard(f"folder@{_slug(base.name)}", shown(base.name), names, "objects"), 32, None, (base.name,))


def _named(name: str, root: Path) -> Path:
    """The folder of this name in the data root, or the one that records call so.

    Raises:
        DataError: there is none, or the name is a path.
    """
    if not name or Path(name).name != name or name.startswith(".") or "\0" in name:
        raise DataError(
            f'Expected folder:NAME with the plain name of a folder in {root}, but got "{shown(name)}": '
            "choose the folder above it with --data-root."
        )
    if (root / name).is_dir():
        return root / name
    known = class_folders(root) if root.is_dir() else []
    for other in known:
        if _slug(other) == name:
            return root / other
    state = _listed(map(shown, known)) if root.is_dir() else "no such folder"
    raise DataError(
        f"Expected a folder of images in {shown(root / name)}, but there is none ({root}: {state}): see --data-root."
    )


def _slug(name: str) -> str:
    """The name of a folder as records and file names can carry it: itself where it is plain, else with a digest."""
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,59}", name):
        return name
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    plain = re.sub(r"[^A-Za-z0-9]+", "-", plain).strip("-")[:40]
    return "-".join(filter(None, (plain, digest(unicodedata.normalize("NFC", name))[:8])))


def _listed(names: Iterable[str]) -> str:
    ordered = sorted(names)
    return ", ".join(ordered[:5]) + (", ..." if len(ordered) > 5 else "") if ordered else "empty"
