"""Whose images are whose? The owners' shares of the training set, what they publish, and users whom nobody knows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.api import ImageSet, Key, Scheme
from bench.data.image_quality import quality
from bench.steps import training
from bench.steps.workspace import Job, host_for

__all__ = ["Published", "attackers_view", "fresh_keys", "heldout_users", "owner_shares", "published_images"]


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


def _rows(job: Job, scheme: Scheme) -> list[Tensor] | None:
    """Each owner's rows of the training set, disjoint, or None where every owner has all of it."""
    share, total = scheme.share, len(job.data.owner)
    count = share if isinstance(share, int) else round(share * total)
    owners = job.spec.get("owners", 1)
    if scheme.owns_all and (owners == 1 or scheme.card.carrier != "data"):
        return None
    if count < 1 or count * owners > total:
        raise ValueError(
            f"Expected {owners} owners with shares of {share} to fit into {total} training images, but they need "
            f"{count * owners}: lower --owners or the share."
        )
    order = torch.randperm(total, generator=job.rng("shares").torch())
    return [order[i * count : (i + 1) * count].to(job.device) for i in range(owners)]


def owner_shares(job: Job, scheme: Scheme) -> list[ImageSet]:
    """Each owner's own images; all of the training set where owners do not divide it."""
    rows, images = _rows(job, scheme), job.data.owner
    return [images] * job.spec.get("owners", 1) if rows is None else [images[part] for part in rows]


def published_images(job: Job, scheme: Scheme, keys: Sequence[Key]) -> Published:
    """The training set with every owner's share marked."""
    images = job.data.owner
    if job.spec["situation"] == "distill":
        soft = training.soft_targets(job.model("host"), images)
        images = ImageSet(images.images, images.labels, soft)
    rows = _rows(job, scheme) if keys else None
    if rows is None:
        marked = images
        for key in keys:
            marked = scheme.mark_data(marked, key).to(job.device)
        return Published(marked, images.images)
    rest = torch.ones(len(images), dtype=torch.bool, device=job.device)
    rest[torch.cat(rows)] = False
    shares = [images[part] for part in rows]
    parts = [scheme.mark_data(share, key).to(job.device) for share, key in zip(shares, keys, strict=True)]
    originals = torch.cat([images.images[rest], *(share.images for share in shares)])
    return Published(ImageSet.join([images[rest], *parts]), originals)


def attackers_view(job: Job, images: ImageSet) -> ImageSet | None:
    """The owner's images, if this attack may have them."""
    card = job.attack.card
    return images if card.owner_data or card.stage in ("data", "training") else None


def heldout_users(job: Job, scheme: Scheme, count: int) -> Iterator[Key]:
    """Keys of users whom the learner does not know; `fresh_keys` tells what is raised."""
    return fresh_keys(job, scheme, count, "held-out user", scheme.heldout_share)


def fresh_keys(
    job: Job, scheme: Scheme, count: int, stream: str = "fresh key", share: float | int | None = None
) -> Iterator[Key]:
    """Keys of owners whose images, where a scheme has a share, were in nobody's training set.

    Checked at once, made one by one.

    Raises:
        ValueError: there are too few unseen images for one such owner.
    """
    total, share = len(job.data.owner), scheme.share if share is None else share
    size, most = share if isinstance(share, int) else round(share * total), len(job.data.unseen)
    if not scheme.owns_all and not 1 <= size <= most:
        what = "share" if share == scheme.share else "heldout"
        raise ValueError(
            f"Expected a user whom nobody trained on to own 1 to {most} images, as many as are unseen, but got {size}: "
            f"change {scheme.card.name}.{what}."
        )
    return (_fresh_key(job, scheme, stream, i, size) for i in range(count))


def _fresh_key(job: Job, scheme: Scheme, stream: str, number: int, size: int) -> Key:
    """One of them. Their images are disjoint as long as there are unseen ones; then all are dealt out anew."""
    own, unseen = job.data.owner, job.data.unseen
    if not scheme.owns_all:
        deal, place = divmod(number, len(unseen) // size)
        order = torch.randperm(len(unseen), generator=job.rng(stream, job.spec["scheme"], "deal", deal).torch())
        own = unseen[order[place * size : (place + 1) * size].to(job.device)]
    rng = job.rng(stream, job.spec["scheme"], number)
    return scheme.keygen(host_for(job, own, number), rng).to(job.device)
