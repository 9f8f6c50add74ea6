"""Image sets in the files that torchvision keeps and can download."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch

from bench.data.catalog import Spec
from bench.data.decode import pad
from bench.data.errors import DataError
from bench.data.source import Found, Part, Source

__all__ = ["download", "find"]


def find(spec: Spec, root: Path) -> Found | None:
    """Finds torchvision's own files in one of the data set's folders or in the root."""
    if spec.loader is None or spec.files is None:
        return None
    for base in spec.bases(root):
        folder = base / spec.files
        if folder.is_dir():
            return Found("torchvision", folder, sorted(folder.iterdir()), partial(_read, spec, base))
    return None


def download(spec: Spec, root: Path) -> None:
    """Let torchvision fetch a data set into `root`.

    Raises:
        DataError: torchvision cannot fetch it, or the network failed.
    """
    if spec.loader is None:
        raise DataError(
            f"Expected {spec.card.title} below {root}, but it cannot be downloaded by itself: unpack its archive there."
        )
    try:
        root.mkdir(parents=True, exist_ok=True)
        _loader(spec)(root, download=True)
    except Exception as error:  # network, disk, archive and quota problems each have a class of their own
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise DataError(f"Expected to download {spec.card.title} into {root}, but could not: {reason}") from error


def _loader(spec: Spec) -> Any:
    import torchvision.datasets

    return getattr(torchvision.datasets, str(spec.loader))


def _read(spec: Spec, base: Path) -> Source:
    try:
        # CIFAR's files are pickles: torchvision opens them only after their MD5 sums have matched the originals'.
        train, test = (_loader(spec)(base, train=training) for training in (True, False))
    except (OSError, RuntimeError, ValueError, EOFError, AssertionError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise DataError(
            f"Expected torchvision's files of {spec.card.title} in {base / str(spec.files)} to be whole, but got "
            f"'{reason}': remove them and add --download."
        ) from error
    classes = tuple(train.classes) if len(train.classes) == len(spec.card.classes) else spec.card.classes
    return Source(classes, _part(train, spec), _part(test, spec))


def _part(loaded: Any, spec: Spec) -> Part:
    images = torch.as_tensor(loaded.data)
    if images.ndim == 4:
        images = images.permute(0, 3, 1, 2)
    labels = torch.as_tensor(loaded.targets, dtype=torch.int64)
    return Part(pad(images, spec.size), labels)
