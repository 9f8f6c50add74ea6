"""Trains null models: networks of the clean host's recipe that no key had any part in."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench.contract.images import ImageSet
from bench.records.record import OTHER_DATA, OWN_DATA, PERMUTED, RIVAL_DATA
from bench.steps.workspace import Output, Workspace

__all__ = ["other_images", "train_null_host"]


def train_null_host(workspace: Workspace) -> Output:
    """The weights of one null model, from streams of its own; no scheme has any part in them."""
    learns, number = workspace.spec["learns"], workspace.spec["index"]
    images = {OWN_DATA: _own, PERMUTED: _permuted, OTHER_DATA: other_images, RIVAL_DATA: _rivals}[learns](workspace)
    rng = workspace.rng("null host", learns, number)
    model = workspace.build(rng.child("init"))
    trained = workspace.train(model, images.to(workspace.device), workspace.recipe, rng.child("training"))
    return Output({"time_s": trained.time_s}, {"model": dict(trained.model.state_dict())})


def _own(workspace: Workspace) -> ImageSet:
    return workspace.data.owner


def _rivals(workspace: Workspace) -> ImageSet:
    return workspace.data.adversary


def _permuted(workspace: Workspace) -> ImageSet:
    """The owner's images with labels moved around one random cycle of all classes: no class keeps its name."""
    images, classes = workspace.data.owner, len(workspace.data.card.classes)
    rng = workspace.rng("null host", PERMUTED, workspace.spec["index"])
    cycle = torch.randperm(classes, generator=rng.torch("classes"))
    moved = torch.empty(classes, dtype=torch.int64)
    moved[cycle] = cycle.roll(-1)
    return ImageSet(images.images, moved.to(images.labels.device)[images.labels])


def other_images(workspace: Workspace) -> ImageSet:
    """Another data set at the host's image size; its labels are counted modulo the host's number of classes."""
    ((name, checksum),) = workspace.spec["auxiliary"].items()
    images, data = workspace.load(name, checksum).owner, workspace.data
    resized = _resized(images.images, data.owner.images.shape[2:])
    return ImageSet(resized, images.labels % len(data.card.classes))


def _resized(images: Tensor, size: torch.Size) -> Tensor:
    if images.shape[2:] == size:
        return images
    resized = nn.functional.interpolate(images.float(), size=size, mode="bilinear", antialias=True)
    return resized.round().clamp(0, 255).to(images.dtype)
