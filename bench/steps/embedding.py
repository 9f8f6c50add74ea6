"""Embeds keys into a network by the hooks of their scheme: marked data, an added loss, what is written afterwards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from bench.contract.images import ImageSet
from bench.contract.keys import Key
from bench.contract.networks import Batch, Recipe
from bench.contract.scheme import Host, Scheme
from bench.identity import Rng
from bench.steps import training
from bench.steps.scheme_workspace import SchemeWorkspace

__all__ = ["Embedded", "embedded"]


@dataclass
class Embedded:
    """A marked network.

    Attributes:
        keys: as they are after embedding.
        history: of the training; empty where there was none.
    """

    model: nn.Module
    keys: list[Any]
    history: list[training.Epoch] = field(default_factory=list)


def embedded(
    workspace: SchemeWorkspace,
    model: nn.Module,
    keys: Sequence[Key],
    hosts: Sequence[Host],
    publish: Callable[[Sequence[Key]], ImageSet],
    recipe: Recipe | None,
    rng: Rng,
) -> Embedded:
    """`model` with these keys embedded, in eval mode.

    Args:
        workspace: of the scheme.
        model: trained in place.
        keys: one an owner.
        hosts: what each owner sees of the clean host.
        publish: the training set that these keys mark; asked again for each epoch where keys change.
        recipe: of the training; None for none.
        rng: of the training.
    """
    scheme, found = workspace.scheme, Embedded(model, list(keys))
    if recipe is not None:
        images = (lambda: publish(found.keys)) if scheme.card.refreshes else publish(found.keys)
        hooks = {"extra_loss": _added_loss(scheme, found), "undecayed": _undecayed(scheme, keys)}
        options = {**workspace.training_options, **hooks, "watches": workspace.watched(scheme)}
        epochs = training.train_epochs(model, images, recipe, rng=rng, **options)
        for epoch in epochs:
            found.history.append(epoch)
            if scheme.card.refreshes:
                found.keys = [scheme.refresh(key, model, epoch.epoch) for key in found.keys]
    for key, host in zip(found.keys, hosts, strict=True):
        found.model = scheme.mark_model(found.model, key, host).to(workspace.device)
    found.model.eval()
    return found


def _added_loss(scheme: Scheme[Any], found: Embedded) -> training.ExtraLoss | None:
    """The sum of the keys' losses; None where the scheme adds none."""
    if type(scheme).embedding_loss is Scheme.embedding_loss:
        return None

    def total(model: nn.Module, batch: Batch) -> Tensor | None:
        losses = [loss for key in found.keys if (loss := scheme.embedding_loss(model, key, batch)) is not None]
        return torch.stack(losses).sum() if losses else None

    return total


def _undecayed(scheme: Scheme[Any], keys: Sequence[Key]) -> set[str]:
    return {name for key in keys for name in scheme.undecayed(key)}
