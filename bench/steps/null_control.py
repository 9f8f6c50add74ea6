"""Trains null models further, without a mark, as long as a mark's embedding takes: what marked weights compare with."""

from __future__ import annotations

from bench.contract.images import ImageSet
from bench.steps import training
from bench.steps.workspace import Output, Workspace

__all__ = ["train_null_control"]


def train_null_control(workspace: Workspace) -> Output:
    """The weights of one null model (the input `host`) after the embedding's training, from a stream of its own."""
    rng = workspace.rng("null control", workspace.spec["situation"], workspace.spec["index"])
    trained = workspace.train(workspace.start(), _unmarked(workspace), workspace.recipe, rng)
    return Output({"time_s": trained.time_s}, {"model": dict(trained.model.state_dict())})


def _unmarked(workspace: Workspace) -> ImageSet:
    """The owner's images; distilling, with the null model's own answers as labels."""
    images = workspace.data.owner
    if workspace.spec["situation"] != "distill":
        return images
    return ImageSet(images.images, images.labels, training.soft_targets(workspace.model("host"), images))
