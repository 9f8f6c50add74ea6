"""Trains the clean host: one per architecture, data set, recipe and seed."""

from __future__ import annotations

from dataclasses import asdict

from bench.steps import training
from bench.steps.workspace import Output, Workspace

__all__ = ["train_host"]


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
