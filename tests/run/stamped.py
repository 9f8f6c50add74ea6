"""Folders of pictures to be stamped, and what is in them afterwards."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from bench.api import Key
from bench.stamping.keyfile import About
from schemes._visible import VisibleKey

SECRET = 77
ABOUT = About(scheme="visible-static", params={"blend": 0.5, "watermark": None}, size=(8, 9), options={"seed": 3})
KEY = VisibleKey(
    mark=torch.rand(4, 8, 9), probe=torch.zeros(3, 3, 8, 9, dtype=torch.uint8), probe_labels=torch.arange(3), base=None,
    blend=0.5, seed=2**62, decoys=7,
)  # fmt: skip


class Numbered:
    """Writes each picture's place in the folder into its first two pixels, and touches nothing else."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def stamp(self, images: torch.Tensor, key: Key, first: int = 0) -> torch.Tensor:
        self.batches.append(len(images))
        stamped = images.clone()
        places = torch.arange(first, first + len(images))
        stamped[:, 0, 0, 0], stamped[:, 1, 0, 0] = (places % 256).byte(), (places // 256).byte()
        return stamped


def write(path: Path, size: tuple[int, int] = (8, 8), seed: int = 0, **save: object) -> Path:
    """A picture of H x W with a smooth gradient and a seeded colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    y, x = np.mgrid[: size[0], : size[1]]
    base = np.random.default_rng(seed).integers(40, 180, 3)
    rows = base + 40 * np.stack([y / size[0], x / size[1], (x + y) / sum(size)], -1)
    Image.fromarray(rows.astype(np.uint8)).save(path, **save)
    return path


def rows(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.mode == "RGB"
        return np.asarray(image)


def contents(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*.png"))}
