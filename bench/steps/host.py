"""Trains the clean host, and the control that fidelity is measured against."""

from __future__ import annotations

from dataclasses import asdict

from bench.contract.images import ImageSet
from bench.steps import training
from bench.steps.workspace import Output, Workspace

__all__ = ["train_control", "train_host"]


def train_host(workspace: Workspace) -> Output:
    """The clean host's weights and accuracies."""
    images = workspace.data
    trained = workspace.train(workspace.fresh(), images.owner, workspace.recipe, workspace.rng("host training"))
    result = {
        "test_accuracy": training.accuracy(trained.model, images.heldout),
        "train_accuracy": training.accuracy(trained.model, images.owner),
        "history": [asdict(epoch) for epoch in trained.history],
        "time_s": trained.time_s,
        "split": images.split,
    }
    return Output(result, {"model": dict(trained.model.state_dict())})


def train_control(workspace: Workspace) -> Output:
    """The clean host after the same further training without a mark: what fidelity is measured against."""
    rng, published = workspace.rng("embedding", "control"), _unmarked(workspace)
    trained = workspace.train(workspace.start(), published, workspace.recipe, rng)
    return Output({"test_accuracy": training.accuracy(trained.model, workspace.data.heldout), "time_s": trained.time_s})


def _unmarked(workspace: Workspace) -> ImageSet:
    images = workspace.data.owner
    if workspace.spec["situation"] != "distill":
        return images
    return ImageSet(images.images, images.labels, training.soft_targets(workspace.model("host"), images))
