"""The owners' shares of the training set, what they publish, and the keys of owners whose images nobody trains on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bench.contract.fields import Share
from bench.contract.images import ImageSet
from bench.contract.keys import Key
from bench.contract.scheme import Scheme
from bench.data.image_quality import quality
from bench.steps import training
from bench.steps.scheme_workspace import SchemeWorkspace, host_for

__all__ = ["Published", "fresh_keys", "heldout_users", "owner_shares", "published_images"]


@dataclass(frozen=True)
class Published:
    """The training set as its learner finds it.

    Attributes:
        images: with every owner's share marked.
        originals: uint8, the same rows before they were marked; rows that a mark added have none.
    """

    images: ImageSet
    originals: Tensor

    @property
    def quality(self) -> dict[str, float]:
        """How well the marked images were kept; nothing where none was changed."""
        kept = self.images.images[: len(self.originals)]
        changed = (kept != self.originals).flatten(1).any(1)
        if not changed.any():
            return {}
        return quality(kept[changed], self.originals[changed])


def _rows(workspace: SchemeWorkspace, scheme: Scheme[Any]) -> list[Tensor] | None:
    """Each owner's rows of the training set, disjoint, or None where every owner has all of it."""
    total, owners = len(workspace.data.owner), workspace.spec.get("owners", 1)
    count = scheme.share.count(total)
    if scheme.share.whole and (owners == 1 or scheme.card.carrier != "data"):
        return None
    if count < 1 or count * owners > total:
        raise ValueError(
            f"Expected {owners} owners with shares of {scheme.share} to fit into {total} training images, but they "
            f"need {count * owners}: lower --owners or the share."
        )
    order = torch.randperm(total, generator=workspace.rng("shares").torch())
    return [order[i * count : (i + 1) * count].to(workspace.device) for i in range(owners)]


def owner_shares(workspace: SchemeWorkspace, scheme: Scheme[Any]) -> list[ImageSet]:
    """Each owner's own images; all of the training set where owners do not divide it.

    Raises:
        ValueError: the shares do not fit into the training set.
    """
    rows, images = _rows(workspace, scheme), workspace.data.owner
    return [images] * workspace.spec.get("owners", 1) if rows is None else [images[part] for part in rows]


def published_images(workspace: SchemeWorkspace, scheme: Scheme[Any], keys: Sequence[Key]) -> Published:
    """The training set with every owner's share marked."""
    images = workspace.data.owner
    if workspace.spec.get("situation") == "distill":
        images = ImageSet(images.images, images.labels, training.soft_targets(workspace.model("host"), images))
    rows = _rows(workspace, scheme) if keys else None
    if rows is None:
        marked = images
        for key in keys:
            marked = scheme.mark_data(marked, key).to(workspace.device)
        return Published(marked, images.images)
    rest = torch.ones(len(images), dtype=torch.bool, device=workspace.device)
    rest[torch.cat(rows)] = False
    shares = [images[part] for part in rows]
    parts = [scheme.mark_data(share, key).to(workspace.device) for share, key in zip(shares, keys, strict=True)]
    originals = torch.cat([images.images[rest], *(share.images for share in shares)])
    return Published(ImageSet.join([images[rest], *parts]), originals)


def heldout_users(workspace: SchemeWorkspace, scheme: Scheme[Any], count: int) -> Iterator[Key]:
    """Keys of held-out users, whose images come from the test part; `fresh_keys` tells what is raised."""
    return fresh_keys(workspace, scheme, count, "held-out user", scheme.heldout_share)


def fresh_keys(
    workspace: SchemeWorkspace,
    scheme: Scheme[Any],
    count: int,
    stream: str = "fresh key",
    share: Share | None = None,
) -> Iterator[Key]:
    """Keys that no network has seen, of owners whose images, where a scheme has a share, nobody trained on.

    Checked at once, made one by one.

    Raises:
        ValueError: there are too few unseen images for one such owner.
    """
    share = share or scheme.share
    size, most = share.count(len(workspace.data.owner)), len(workspace.data.unseen)
    if not scheme.share.whole and not 1 <= size <= most:
        name = "share" if share == scheme.share else "heldout"
        raise ValueError(
            f"{scheme.card.name}.{name} = {share} needs {size} unseen images per user, but {most} exist: set it so "
            f"that a user has 1 to {most}."
        )
    return (_fresh_key(workspace, scheme, stream, i, size) for i in range(count))


def _fresh_key(workspace: SchemeWorkspace, scheme: Scheme[Any], stream: str, number: int, size: int) -> Key:
    """One of them. Their images are disjoint as long as there are unseen ones; then all are dealt out anew."""
    own, unseen, name = workspace.data.owner, workspace.data.unseen, workspace.spec["scheme"]
    if not scheme.share.whole:
        deal, place = divmod(number, len(unseen) // size)
        order = torch.randperm(len(unseen), generator=workspace.rng(stream, name, "deal", deal).torch())
        own = unseen[order[place * size : (place + 1) * size].to(workspace.device)]
    rng = workspace.rng(stream, name, number)
    key: Key = scheme.keygen(host_for(workspace, own, number), rng)
    return key.to(workspace.device)
