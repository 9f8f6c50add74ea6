"""Trains the clean host, and the control that fidelity is measured against."""

from __future__ import annotations

from dataclasses import asdict

import torch
from torch import Tensor

from bench.contract.fields import Share
from bench.contract.images import ImageSet
from bench.steps import training
from bench.steps.workspace import Output, Workspace

__all__ = ["left_out_rows", "train_control", "train_host", "train_without"]


def train_host(workspace: Workspace) -> Output:
    """The clean host's weights and accuracies."""
    images = workspace.data
    trained = workspace.train(workspace.fresh(), images.owner, workspace.recipe, workspace.rng("host training"))
    result = {
        **workspace.accuracies(trained.model),
        "history": [asdict(epoch) for epoch in trained.history],
        "time_s": trained.time_s,
        "split": images.split,
    }
    return Output(result, {"model": dict(trained.model.state_dict())})


def train_control(workspace: Workspace) -> Output:
    """The clean host after the same further training without a mark: what fidelity is measured against."""
    rng, published = workspace.rng("embedding", "control"), _unmarked(workspace)
    trained = workspace.train(workspace.start(), published, workspace.recipe, rng)
    return Output({**workspace.accuracies(trained.model), "time_s": trained.time_s})


def _unmarked(workspace: Workspace) -> ImageSet:
    images = workspace.data.owner
    if workspace.spec["situation"] != "distill":
        return images
    return ImageSet(images.images, images.labels, training.soft_targets(workspace.model("host"), images))


def left_out_rows(workspace: Workspace) -> list[Tensor]:
    """Each left-out owner's rows of the training set, disjoint, drawn as owners' shares are.

    Raises:
        ValueError: they would leave fewer than two images to train on.
    """
    total, owners = len(workspace.data.owner), workspace.spec["users"]
    count = Share.parse(workspace.spec["share"]).count(total)
    if count < 1 or total - count * owners < 2:
        raise ValueError(
            f"Expected {owners} left-out owners of {count} images each to leave some of {total} to train on: lower the "
            "share, or give --null-keys 0."
        )
    order = torch.randperm(total, generator=workspace.rng("left-out owners").torch())
    return [order[i * count : (i + 1) * count].to(workspace.device) for i in range(owners)]


def train_without(workspace: Workspace) -> Output:
    """The learner's network on the training set without the left-out owners' images."""
    images = workspace.data.owner
    kept = torch.ones(len(images), dtype=torch.bool, device=workspace.device)
    kept[torch.cat(left_out_rows(workspace))] = False
    rng = workspace.rng("training without owners")
    trained = workspace.train(workspace.fresh(), images[kept], workspace.recipe, rng)
    return Output({"time_s": trained.time_s}, {"model": dict(trained.model.state_dict())})
