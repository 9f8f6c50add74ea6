"""A few images for people to look at: originals, marked ones, triggers, and what an attack made of them."""

from __future__ import annotations

from torch import Tensor

from bench.contract.images import ImageSet
from bench.steps.ownership import Published

__all__ = ["SAMPLES", "attacked", "published"]

SAMPLES = "samples"  # the group of tensors that steps leave them in
SHOWN = 4


def published(images: Published) -> dict[str, Tensor]:
    """The first images that a mark changed, `before` and `after` it, and the first `triggers` that it added.

    Returns:
        By name, up to `SHOWN` x C x H x W uint8 each; without names that have no images.
    """
    found, rows = {}, _changed(images)
    if len(rows):
        found = {"before": images.originals[rows], "after": images.images.images[rows]}
    added = images.images.images[len(images.originals) :][:SHOWN]
    return {**found, "triggers": added} if len(added) else found


def attacked(images: Published, left: ImageSet) -> dict[str, Tensor]:
    """What an attack left of the images that the mark changed, `attacked`; nothing where it left them alone."""
    rows = _changed(images)
    if left is images.images or left.images.shape != images.images.images.shape or not len(rows):
        return {}
    return {"attacked": left.images.to(rows.device)[rows]}


def _changed(images: Published) -> Tensor:
    kept = images.images.images[: len(images.originals)]
    return (kept != images.originals).flatten(1).any(1).nonzero().flatten()[:SHOWN]
