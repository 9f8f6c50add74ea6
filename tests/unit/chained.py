"""What tests of chains and of what they lend share: a network with triggers, its weights, its judge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bench.api import Key
from bench.runner.store import Store
from bench.steps.judge import Judge
from bench.steps.ownership import published_images
from bench.steps.scheme_workspace import SchemeWorkspace
from tests.fakes import on_digits, opened

ZHANG = {"schemes": ("zhang-content",), "overrides": {"zhang-content": {"probe": 8, "decoys": 19}}}


def weights(model: nn.Module) -> list[Tensor]:
    return [tensor.detach().clone() for tensor in model.state_dict().values()]


def equal(first: nn.Module, second: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(weights(first), weights(second), strict=True))


def judge_of(workspace: SchemeWorkspace, scheme: Any = None, keys: Sequence[Key] | None = None) -> Judge:
    keys = workspace.keys() if keys is None else keys
    return Judge(workspace, scheme or workspace.scheme, keys, published_images(workspace, workspace.scheme, []))


def triggered(store: Store) -> SchemeWorkspace:
    """An attack step on a model that carries triggers."""
    return opened(on_digits(**ZHANG).steps["attack"], store)
