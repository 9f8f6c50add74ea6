"""Loads a data set by name: locates it, decodes it or takes it from the cache, deals it out, moves it to the device."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from bench.api import DatasetCard, ImageSet
from bench.data import cache as kept
from bench.data import folders, parquet, torchvision_files
from bench.data.catalog import Spec, default_cache, resolve_root, spec
from bench.data.digits import digits_m
from bench.data.errors import DataError
from bench.data.photographs import photographs
from bench.data.source import Found, Part, Source
from bench.data.split import share

__all__ = ["Data", "checksum", "load"]

EMBEDDED = {"digits-m": digits_m, "photographs": photographs}
RECENT = 4  # results of `load` that a process keeps


@dataclass(frozen=True)
class Data:
    """A data set, dealt out.

    Attributes:
        card: its card, with the class names that the source tells.
        owner, adversary, unseen: disjoint image sets on the device asked for.
        heldout: the first of the unseen images, on which accuracy is measured.
        checksum: SHA-256 over the decoded pixels and labels of the whole source, before anything was left out.
        split: `owner`, `adversary`, `heldout`, `unseen`: numbers of images; `split_seed`. As in the provenance.
    """

    card: DatasetCard
    owner: ImageSet
    adversary: ImageSet
    unseen: ImageSet
    heldout: ImageSet
    checksum: str
    split: dict[str, int]


def load(
    name: str,
    *,
    data_root: Path | None = None,
    download: bool = False,
    owner: int | None = None,
    adversary: int | None = None,
    heldout: int | None = None,
    device: torch.device | str = "cpu",
    cache: Path | None = None,
) -> Data:
    """Load a data set and deal it out; `bench.data.split.share` tells how.

    The last few results are kept and given out again: treat the tensors as read-only.

    Args:
        name: a key of `DATASETS`, or `folder:NAME` for the folder NAME of pictures in the data root.
        data_root: where data sets lie; default `BENCH_DATA_ROOT`.
        download: let torchvision fetch what is missing.
        owner: how many images the owner gets; None for the usual share.
        adversary: how many the adversary gets.
        heldout: how many of the unseen images accuracy is measured on.
        device: where the tensors shall live.
        cache: where decoded images are kept; default `BENCH_CACHE`, else the user's cache directory.

    Raises:
        DataError: there is no such data set, it is broken, or it holds too few images.
    """
    opened = _open(name, resolve_root(data_root, cache), download, cache)
    return _dealt(opened, (owner, adversary, heldout), str(torch.device(device)))


def checksum(name: str, *, data_root: Path | None = None, download: bool = False, cache: Path | None = None) -> str:
    """The checksum that `load` would give, from the cache's header where the data set has been decoded before.

    Raises:
        DataError: as `load`.
    """
    return _open(name, resolve_root(data_root, cache), download, cache).checksum()


@dataclass(frozen=True)
class _Opened:
    """A data set that was located; two are equal if they decode to the same images.

    Attributes:
        path: its cache file, whose name tells the state of its files; None for the embedded data sets.
    """

    spec: Spec
    path: Path | None = None
    found: Found | None = field(default=None, compare=False)

    def checksum(self) -> str:
        if self.path is None:
            return _embedded_checksum(self.spec.card.name)
        return kept.stored_checksum(self.path) or self.decoded()[1]

    def decoded(self) -> tuple[Source, str]:
        """The data set and its checksum, from the cache if it is there."""
        if self.path is None or self.found is None:
            name = self.spec.card.name
            return EMBEDDED[name](), _embedded_checksum(name)
        stored = kept.read(self.path)
        if stored is not None:
            return stored
        source = self.found.read()
        source.check(self.spec, self.found.where)
        checksum = source.checksum()
        kept.write(self.path, source, checksum)
        return source, checksum


def _open(name: str, root: Path, download: bool, cache: Path | None) -> _Opened:
    known = spec(name, root)
    if known.card.name in EMBEDDED:
        return _Opened(known)
    found = _locate(known, root, download)
    path = default_cache(cache) / f"{known.card.name}-{found.stamp(known)[:24]}.safetensors"
    return _Opened(known, path, found)


@functools.lru_cache(maxsize=RECENT)
def _dealt(opened: _Opened, sizes: tuple[int | None, int | None, int | None], device: str) -> Data:
    source, checksum = opened.decoded()
    card = replace(opened.spec.card, classes=source.classes)
    shares = share(card.name, source, *sizes)

    def images(part: Part, rows: torch.Tensor) -> ImageSet:
        return ImageSet(part.images[rows], part.labels[rows]).to(device)

    split = {name: len(getattr(shares, name)) for name in ("owner", "adversary", "heldout", "unseen")}
    unseen = images(source.test, shares.unseen)
    return Data(
        card=card,
        owner=images(source.train, shares.owner),
        adversary=images(shares.adversary_part, shares.adversary),
        unseen=unseen,
        heldout=unseen[: len(shares.heldout)],
        checksum=checksum,
        split={**split, "split_seed": shares.seed},
    )


@functools.cache
def _embedded_checksum(name: str) -> str:
    return EMBEDDED[name]().checksum()


def _locate(known: Spec, root: Path, download: bool) -> Found:
    """Where the data set lies: Parquet, else torchvision's files, else folders of pictures."""
    for attempt in range(2):
        for found in _layouts(known, root):
            return found
        if not download or attempt:
            break
        torchvision_files.download(known, root)
    raise DataError(_missing(known, root, download))


def _layouts(known: Spec, root: Path) -> Iterator[Found]:
    finders = (folders.find,) if known.own else (parquet.find, torchvision_files.find, folders.find)
    for find in finders:
        found = find(known, root)
        if found:
            yield found


_OWN_LAYOUTS = {
    "caltech101": "101_ObjectCategories",
    "tiny-imagenet": "tiny-imagenet-200 with train and val/val_annotations.txt",
    "cub200": "CUB_200_2011 with images.txt",
}


def _missing(known: Spec, root: Path, download: bool) -> str:
    """The one sentence for a data set that is not there."""
    name = known.folders[0]
    looked = [f"{name}/train-*.parquet", known.files, _OWN_LAYOUTS.get(known.card.name), f"{name}/train/CLASS"]
    places = ", ".join(filter(None, looked[:-1])) + f" or {looked[-1]}"
    advice = "put it there or give another --data-root"
    if known.loader and not download:
        advice = f"add --download, {advice}"
    state = "found none of them" if root.is_dir() else "there is no such folder"
    return f"Expected {known.card.title} below {root} as {places}, but {state}: {advice}."
