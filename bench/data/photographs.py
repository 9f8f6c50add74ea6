"""The embedded data set `photographs`: tiles of two photographs, told apart by where they come from; no download.

scikit-learn's two sample photographs, each cut into five upright strips of equal width, and those into tiles of 32 x 32
that do not overlap. The strip is the class. A small task of its own for adversaries who train on another one.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from bench.data.catalog import DATASETS
from bench.data.digits import SIZE, sample_photographs
from bench.data.source import Part, Source
from bench.data.split import stratified
from bench.identity import Rng

__all__ = ["photographs"]

STRIPS = 5  # of each photograph
TRAINING = 0.75  # share of the tiles


@functools.lru_cache(maxsize=1)
def photographs() -> Source:
    """The data set: 390 training and 130 test tiles of 10 classes."""
    tiles = torch.cat([_tiles(strip) for picture in sample_photographs() for strip in picture.chunk(STRIPS, dim=2)])
    classes = DATASETS["photographs"].classes
    labels = torch.arange(len(classes)).repeat_interleave(len(tiles) // len(classes))
    order = stratified(labels, Rng("photographs", "split").torch())
    border = int(TRAINING * len(order))
    train, test = (Part(tiles[rows], labels[rows]) for rows in (order[:border], order[border:]))
    return Source(classes, train, test)


def _tiles(picture: Tensor) -> Tensor:
    """C x H x W as N x C x 32 x 32, row by row; what is left over at the right and the bottom is left out."""
    tiles = picture.unfold(1, SIZE, SIZE).unfold(2, SIZE, SIZE)
    return tiles.permute(1, 2, 0, 3, 4).flatten(0, 1).contiguous()
