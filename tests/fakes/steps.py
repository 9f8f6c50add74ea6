"""Steps opened for a test, and what an attack acts on and is lent."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from bench.api import Attack, Context, ImageSet, Key, Recipe, Rng, Victim
from bench.data import checksum
from bench.plan.matrix import Planned, expand
from bench.plan.profiles import PROFILES
from bench.plan.step import Step
from bench.runner.store import Store
from bench.runner.worker import Task, compute
from bench.steps.scheme_workspace import SchemeWorkspace
from bench.steps.workspace import Place
from tests.fakes.records import request

FEW = replace(PROFILES["smoke"], owner=300)
__all__ = ["FakeContext", "on_digits", "opened", "victim_of"]


def opened(step: Step, store: Store, computed: bool = True) -> SchemeWorkspace:
    """The workspace of a step whose inputs are computed, or (`computed=False`) were."""
    for needed in step.inputs.values() if computed else ():
        opened(needed, store)
        outcome = compute(Task(needed.kind, needed.key, needed.identity, needed.label), store.root, Place())
        assert outcome.error is None, outcome.error
    return SchemeWorkspace(step.spec, {name: store.load(needed.key) for name, needed in step.inputs.items()}, Place())


def on_digits(**fields: Any) -> Planned:
    """The one cell of such a request, on the embedded data set as it is, of which the owner has 300 images."""
    (one,) = expand(request(**{"profile": FEW, **fields}), {"digits-m": checksum("digits-m")})
    return one


class FakeContext(Context):
    """Lends a random stream, a recipe and what images it is given; a test overrides what else its attack needs."""

    def __init__(self, seed: int = 0, recipe: Recipe | None = None, own: ImageSet | None = None) -> None:
        self.rng = Rng("attack", seed)
        self.recipe = recipe or Recipe(epochs=1, lr=0.1)
        self.device = torch.device("cpu")
        self.own = own

    @property
    def data(self) -> ImageSet:
        assert self.own is not None, "this attack needs no images of its own"
        return self.own

    def auxiliary(self, name: str) -> ImageSet:
        raise AssertionError("this attack needs no other data set")

    def fresh(self, name: str = "surrogate", arch: str | None = None) -> nn.Module:
        raise AssertionError("this attack needs no other network")

    def epochs(
        self, images: ImageSet, recipe: Recipe, *, model: nn.Module | None = None, name: str = "training"
    ) -> Iterator[nn.Module]:
        raise AssertionError("this attack does not train")

    def embed(self, model: nn.Module, recipe: Recipe, name: str = "embedding", **params: Any) -> tuple[nn.Module, Key]:
        raise AssertionError("this attack embeds nothing")

    def keygen(self, model: nn.Module, name: str = "key", **params: Any) -> Key:
        raise AssertionError("this attack makes no key")

    def copies(self, count: int) -> list[nn.Module]:
        raise AssertionError("this attack needs no copies")

    def innocent(self, name: str = "innocent") -> nn.Module:
        raise AssertionError("this attack needs no innocent network")

    def layer(self, group: str) -> str:
        raise AssertionError("this attack needs no layer")

    @property
    def head(self) -> str:
        raise AssertionError("this attack needs no head")


def victim_of(
    attack: Attack, model: nn.Module | None = None, key: Key | None = None, images: ImageSet | None = None
) -> Victim:
    """What an attack acts on, as its own card's adversary may."""
    network = model or nn.Identity()
    return Victim(attack.card.adversary, lambda: deepcopy(network), key or Key(), images)
