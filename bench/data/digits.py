"""The embedded data set `digits-m`: real handwritten digits over real photographs, with nothing to download.

scikit-learn's 1,797 digits of 8 x 8 pixels, enlarged to 32 x 32 and blended over random crops of scikit-learn's two
sample photographs by the absolute difference, as Ganin et al. made MNIST-M (2016, JMLR 17(59), section 5.2.1).
Every digit is blended once: were there several blends of one, a user whose images nobody trained on would have siblings
of them in the training set, and held-out images would not.
"""

from __future__ import annotations

import functools
import gzip
import importlib.util
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from bench.data.catalog import DATASETS
from bench.data.errors import DataError
from bench.data.source import Part, Source
from bench.data.split import stratified
from bench.identity import Rng

__all__ = ["SIZE", "digits_m", "sample_photographs"]

SIZE = 32
OWNER, ADVERSARY = 0.5, 0.25  # shares of the digits; the rest is held out


@functools.lru_cache(maxsize=1)
def digits_m() -> Source:
    """The data set: 898 images of the owner's digits, 449 of the adversary's, 450 held out."""
    digits, labels = _digits()
    large, photographs = _enlarge(digits), sample_photographs()
    rng = Rng("digits-m", "blend")
    owner, adversary, heldout = (
        _blend(large, labels, own[stratified(labels[own], rng.torch(name, "order"))], photographs, rng.child(name))
        for name, own in zip(("owner", "adversary", "heldout"), _share_digits(labels), strict=True)
    )
    train = Part(*(torch.cat([getattr(part, name) for part in (owner, adversary)]) for name in ("images", "labels")))
    return Source(DATASETS["digits-m"].classes, train, heldout, owner_rows=len(owner.labels))


def _share_digits(labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Disjoint sets of digits for the owner, the adversary and the held-out part."""
    order = stratified(labels, Rng("digits-m", "split").torch())
    first, second = int(OWNER * len(order)), int((OWNER + ADVERSARY) * len(order))
    return order[:first], order[first:second], order[second:]


def _blend(digits: Tensor, labels: Tensor, rows: Tensor, photographs: Tensor, rng: Rng) -> Part:
    """Images of the given digits (N x 1 x 32 x 32 uint8), each over a crop of its own."""
    generator = rng.torch("crop")
    windows = photographs.unfold(2, SIZE, 1).unfold(3, SIZE, 1)
    which, top, left = (torch.randint(windows.shape[axis], (len(rows),), generator=generator) for axis in (0, 2, 3))
    front, back = digits[rows], windows[which, :, top, left]
    # The absolute difference of two uint8 without a wider type.
    return Part(torch.maximum(front, back) - torch.minimum(front, back), labels[rows])


def _enlarge(digits: Tensor) -> Tensor:
    """N x 8 x 8 grey levels in 0..16 as N x 1 x 32 x 32 uint8 in 0..255."""
    large = torch.nn.functional.interpolate(digits[:, None] * (255 / 16), size=(SIZE, SIZE), mode="bilinear")
    return large.round().to(torch.uint8)


def _digits() -> tuple[Tensor, Tensor]:
    """scikit-learn's digits, N x 8 x 8 float32 in 0..16, and their labels."""
    with gzip.open(_shipped("data/digits.csv.gz"), "rt") as file:
        table = torch.from_numpy(np.loadtxt(file, delimiter=",", dtype=np.float32))
    return table[:, :-1].reshape(-1, 8, 8), table[:, -1].long()


def sample_photographs() -> Tensor:
    """scikit-learn's two photographs, 2 x 3 x 427 x 640 uint8."""
    pictures = []
    for name in ("china.jpg", "flower.jpg"):
        with Image.open(_shipped(f"images/{name}")) as picture:
            pictures.append(torch.from_numpy(np.array(picture.convert("RGB"))))
    return torch.stack(pictures).permute(0, 3, 1, 2).contiguous()


def _shipped(name: str) -> Path:
    # Importing sklearn.datasets takes seconds; the files that it ships are all that is needed.
    found = importlib.util.find_spec("sklearn")
    path = Path(str(found.origin)).parent / "datasets" / name if found else Path(name)
    if not path.is_file():
        raise DataError(f"Expected scikit-learn's {name} in {path.parent}, but found none: install scikit-learn again.")
    return path
