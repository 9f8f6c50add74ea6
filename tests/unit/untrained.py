"""A step whose training is recorded and not done, and what it reads of other steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from bench.api import ImageSet, Recipe, Rng
from bench.steps import training
from bench.steps.scheme_workspace import SchemeWorkspace
from bench.steps.workspace import Place, Workspace
from tests.fakes import on_digits


class Left:
    """What another step left."""

    def __init__(self, model: nn.Module | None = None, spec: Mapping[str, Any] | None = None, **result: Any) -> None:
        self.meta, self.result = {"identity": {"spec": spec or {}}}, result
        self.groups = {} if model is None else {"model": dict(model.state_dict())}

    def tensors(self, group: str) -> dict[str, Tensor]:
        return self.groups[group]


class Untrained(SchemeWorkspace):
    """Keeps what it is asked to train on; moves one weight, and says that it took five seconds."""

    def __init__(self, *words: Any) -> None:
        super().__init__(*words)
        self.asked: list[tuple[nn.Module, ImageSet, Recipe]] = []

    def train(self, model: nn.Module, images: ImageSet, recipe: Recipe, rng: Rng, **extra: Any) -> training.Trained:
        assert not extra
        assert isinstance(rng, Rng)
        self.asked.append((self.same(model), images, recipe))
        with torch.no_grad():
            next(model.parameters()).add_(0.1)
        return training.Trained(model.eval(), [training.Epoch(1, 0.5, None, 0.25, 2.0, 150.0)], 5.0)

    def same(self, model: nn.Module) -> nn.Module:
        copy = self.fresh()
        copy.load_state_dict(model.state_dict())
        return copy.eval()


def untrained(kind: str, changes: Mapping[str, Any] | None = None, **fields: Any) -> Untrained:
    """Such a step on a host of weights by chance."""
    steps = on_digits(**fields).steps
    spec = {**steps[kind].spec, **(changes or {})}
    host = Workspace(spec, {}, Place()).build(Rng("another host"))
    return Untrained(spec, {"host": Left(host, steps["host"].spec)}, Place())


def equal(one: nn.Module, other: nn.Module) -> bool:
    return all(map(torch.equal, one.state_dict().values(), other.state_dict().values()))


def holds(tensors: Mapping[str, Tensor], model: nn.Module) -> bool:
    return tensors.keys() == model.state_dict().keys() and all(
        torch.equal(tensor, tensors[name]) for name, tensor in model.state_dict().items()
    )
