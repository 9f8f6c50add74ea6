"""Trains the clean host."""

from __future__ import annotations

from dataclasses import asdict

from bench.steps import training
from bench.steps.workspace import Job, Output

__all__ = ["train_host"]


def train_host(job: Job) -> Output:
    """The clean host: one per architecture, data set, recipe and seed."""
    images = job.data
    trained = job.train(job.fresh(), images.owner, job.recipe, job.rng("host training"))
    result = {
        "test_accuracy": training.accuracy(trained.model, images.heldout),
        "train_accuracy": training.accuracy(trained.model, images.owner),
        "history": [asdict(epoch) for epoch in trained.history],
        "time_s": trained.time_s,
        "split": images.split,
    }
    return Output(result, {"model": dict(trained.model.state_dict())})
