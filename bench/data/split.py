"""Deals out a data set: disjoint, seeded shares for the owner and the adversary; the test part is held out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bench.data.errors import DataError
from bench.data.source import Part, Source
from bench.identity import Rng

__all__ = ["Shares", "share", "stratified"]


@dataclass(frozen=True)
class Shares:
    """The rows of each share: of the training part, of `adversary_part`, and of the test part.

    `unseen` are all test rows that neither owner nor adversary has; `heldout`, on which accuracy is measured, are the
    first of them.
    """

    owner: Tensor
    adversary: Tensor
    unseen: Tensor
    heldout: Tensor
    adversary_part: Part
    seed: int


def stratified(labels: Tensor, generator: torch.Generator) -> Tensor:
    """A random order in which every prefix and every suffix holds the classes in nearly their proportions."""
    order = torch.randperm(len(labels), generator=generator)
    grouped = order[torch.argsort(labels[order], stable=True)]
    counts = torch.bincount(labels)
    starts = counts.cumsum(0) - counts
    own = labels[grouped]
    place = torch.empty(len(labels), dtype=torch.float64)
    place[grouped] = (torch.arange(len(labels)) - starts[own] + 0.5).double() / counts[own]
    return order[torch.argsort(place[order], stable=True)]


def share(
    name: str, source: Source, owner: int | None = None, adversary: int | None = None, heldout: int | None = None
) -> Shares:
    """Deal out a data set. Smaller shares are prefixes of larger ones; owner and adversary never overlap.

    By default the owner has two thirds of the training part, the adversary the rest, and all of the test part is
    held out (Lukas et al. 2022). An owner who asks for more leaves less to the adversary; one who asks for the whole
    training part leaves the adversary half of the test part, and the other half is held out (Zhang et al. 2018).

    Raises:
        DataError: more images were asked for than there are.
    """
    if source.owner_rows is not None:
        return _dealt(name, source, source.owner_rows, owner, adversary, heldout)
    rng = Rng("split", name)
    train = stratified(source.train.labels, rng.torch("train"))
    test = stratified(source.test.labels, rng.torch("test"))
    default = 2 * len(train) // 3
    mine = _limit(train, default if owner is None else owner, f"the owner's share of {name}")
    if len(mine) == len(train):
        half = len(test) // 2
        theirs, part, test, usual = test.flip(0)[:half], source.test, test[: len(test) - half], half
    else:
        theirs, part, usual = train.flip(0)[: len(train) - len(mine)], source.train, len(train) - default
        usual = min(usual, len(theirs))
    theirs = _limit(theirs, usual if adversary is None else adversary, f"the adversary's share of {name}")
    return Shares(mine, theirs, test, _limit(test, heldout, f"the held-out share of {name}"), part, rng.seed)


def _dealt(
    name: str, source: Source, border: int, owner: int | None, adversary: int | None, heldout: int | None
) -> Shares:
    """Shares that the source itself has dealt out: the first `border` training rows are the owner's."""
    rows, test = torch.arange(len(source.train.labels)), torch.arange(len(source.test.labels))
    return Shares(
        _limit(rows[:border], owner, f"the owner's share of {name}"),
        _limit(rows[border:], adversary, f"the adversary's share of {name}"),
        test,
        _limit(test, heldout, f"the held-out share of {name}"),
        source.train,
        Rng(name, "split").seed,
    )


def _limit(rows: Tensor, wanted: int | None, whose: str) -> Tensor:
    if wanted is None:
        return rows
    if not 1 <= wanted <= len(rows):
        raise DataError(
            f"Expected {whose} to be between 1 and {len(rows)} images, but got {wanted}: choose another size."
        )
    return rows[:wanted]
