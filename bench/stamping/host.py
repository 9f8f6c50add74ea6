"""The host that key generation sees of a person's own folder: its pictures, and a classifier where one is needed."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from bench.api import DatasetCard, Host, ImageSet, Key, Rng, Scheme
from bench.data import Data, DataError
from bench.data.layout import TEST_NAMES, TRAIN_NAMES
from bench.plan.profiles import Profile
from bench.stamping import Size, StampError, sample
from bench.steps import training
from bench.steps.scheme_workspace import HostView
from bench.steps.workspace import Place, Workspace

__all__ = ["KeyMaker"]

Say = Callable[[str], None]

TRAIN_SIDE, TRAIN_IMAGES, TRAIN_HELDOUT = 32, 2000, 0.2
KEY_IMAGES = 16
PSEUDO_CLASSES, THUMB = 10, 4


class _FolderWorkspace(Workspace):
    """A step whose data set is a person's folder: its networks are built and trained as all others."""

    def __init__(self, folder: Data, arch: str, profile: Profile, device: str) -> None:
        spec = {"dataset": folder.card.name, "arch": arch, "width": profile.width(arch), "seed": 0}
        super().__init__(spec, {}, Place(device=device))
        self._folder = folder

    @property
    def data(self) -> Data:
        """The folder's pictures."""
        return self._folder


def _dealt(images: ImageSet, classes: Sequence[str], rng: Rng, device: str) -> Data:
    """Labelled pictures of a folder as a data set, of which a fifth is held out; the adversary has none."""
    order = torch.randperm(len(images), generator=rng.torch("split"))
    held = min(max(1, round(TRAIN_HELDOUT * len(images))), len(images) - 1)
    heldout, owner = (images[rows.sort().values].to(device) for rows in (order[:held], order[held:]))
    card = DatasetCard("folder", "A person's own pictures", tuple(classes), "objects")
    return Data(card, owner, owner[:0], heldout, heldout, checksum="", split={})


@dataclass(frozen=True)
class KeyMaker:
    """What key generation from a person's folder depends on.

    Attributes:
        images, total: the folder, and how many files should be pictures.
        size: height and width of the mark.
        arch, profile: of the classifier, if the key trains against one.
        rng: of everything.
        say: told what takes time.
    """

    images: Path
    total: int
    size: Size
    arch: str
    profile: Profile
    rng: Rng
    device: str
    say: Say

    def make(self, scheme: Scheme) -> Key:
        """The owner's key.

        A mark that is trained learns on small labelled pictures, and is then drawn again, by the same secrets, at the
        size that the pictures have.

        Raises:
            StampError: the scheme cannot make a key of this folder or of this watermark.
        """
        rng, trains = self.rng.child("key"), scheme.card.keygen_trains
        try:
            key = scheme.keygen(self.host(trains), rng)
            if trains and isinstance(scheme, _Draws):
                key = scheme.redraw(key, self.host(False), rng)
        except (ValueError, training.Diverged) as error:
            raise error if isinstance(error, DataError) else StampError(str(error)) from error
        return key

    def host(self, trains: bool) -> Host:
        """What key generation is given: a few pictures at `size`, or, if it trains, many small labelled ones.

        Labels are the class folders where all pictures lie in two or more of them. Else k-means over a picture's
        coarse colours makes them up: a classifier of those needs the picture's structure, which is all that the
        mark's training takes from it.
        """
        count, size = (TRAIN_IMAGES, (TRAIN_SIDE, TRAIN_SIDE)) if trains else (KEY_IMAGES, self.size)
        pictures, names, _ = sample(self.images, self.total, count, self.rng.child("host", size[0], size[1]), size)
        labels, classes = torch.zeros(len(pictures), dtype=torch.int64), ["all"]
        if trains:
            labels, classes, how = _labels(pictures, names, self.rng)
            self.say(f"Labels: {how}.")
        rng = self.rng.child("host")
        data = _dealt(ImageSet(pictures, labels), classes, rng, self.device)
        workspace = _FolderWorkspace(data, self.arch, self.profile, self.device)
        recipe = self.profile.recipe("host", self.arch)

        @cache
        def classifier() -> nn.Module:
            self.say(
                f"Training a classifier ({self.arch}, {len(classes)} classes) on {len(data.owner)} pictures at "
                f"{TRAIN_SIDE} x {TRAIN_SIDE}."
            )
            return host.train(data.owner, rng.child("host"))

        host = HostView(workspace, data.owner, data.owner, 0, lambda: copy.deepcopy(classifier()), recipe)
        return host


@runtime_checkable
class _Draws(Protocol):
    """A scheme that can draw its mark again, at another size, without training."""

    def redraw(self, key: Any, host: Host, rng: Rng) -> Key:
        """The same key with its mark drawn at the size of this host's images."""


def _labels(pictures: Tensor, names: Sequence[str], rng: Rng) -> tuple[Tensor, list[str], str]:
    """A class for each picture, the names of the classes, and a sentence on where they come from."""
    if len(pictures) < 2 * PSEUDO_CLASSES:
        raise StampError(
            f"Expected at least {2 * PSEUDO_CLASSES} pictures to train a mark on, but got {len(pictures)}: try "
            "--scheme visible-static, which needs no training."
        )
    folders = [_class_folder(name) for name in names]
    classes = sorted(set(folders))
    if "" not in classes and len(classes) > 1:
        return torch.tensor([classes.index(name) for name in folders]), classes, f"{len(classes)} class folders"
    from sklearn.cluster import KMeans

    colours = nn.functional.adaptive_avg_pool2d(pictures.float() / 255, THUMB).flatten(1).numpy()
    found = KMeans(PSEUDO_CLASSES, n_init=4, random_state=rng.child("k-means").seed % 2**32).fit_predict(colours)
    classes = [f"cluster {i}" for i in range(PSEUDO_CLASSES)]
    return torch.from_numpy(found).long(), classes, f"no class folders, so {len(classes)} clusters of coarse colours"


def _class_folder(name: str) -> str:
    """The first folder of a relative path that is not the name of a split; empty if there is none."""
    folders = PurePosixPath(name).parts[:-1]
    return next((folder for folder in folders if folder.lower() not in TRAIN_NAMES + TEST_NAMES), "")
