"""Signatures of Zou et al. 2022 in a user's images: keys, marking, both searches and verdicts, which all kinds share.

`anw.py` has the kinds.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from bench.api import (
    Capacity,
    Field,
    Host,
    ImageSet,
    Key,
    Params,
    Rng,
    Scheme,
    Search,
    Share,
    Suspect,
    Verdict,
    pixels,
    rank_p_value,
)
from schemes._users import ROUNDING, contained, content, finite, split_heldout, subset_means

__all__ = ["VIEWS", "AntiNeuron", "AnwKey", "AnwParams", "View", "seen"]

View = tuple[bool, int, int]  # mirrored or not, and by how many sixteenths of the side it is moved down and right
# As crop and flip show an image to whoever learns it.
VIEWS: tuple[View, ...] = ((False, 0, 0), (True, 0, 0), (False, 1, 1), (True, -1, -1), (False, -1, 1), (True, 1, -1))
REDRAWN = 99_999  # signatures drawn anew: they cost no query
TINY = 1e-6  # keeps the ratio of two vanishing losses finite


@dataclass(frozen=True)
class AnwKey(Key):
    """What the user keeps and, but for space and places, tells the arbitrator.

    Attributes:
        images, labels: the user's originals, N x 3 x H x W uint8, and their classes.
        pool, pool_labels: images that nobody trained on.
        unseen: M bool: rows of the pool that are not the user's own.
        signature: in the scheme's unit; of the first part, where the images have several.
        signatures, parts: G and N: where the images have several, these, and which of them each image bears.
        decoys: seed of the random image sets.
        space: T, 3 x 3 float64, of `anw-user-lct`.
        places: H x W int8, of `anw-blue`.
    """

    images: Tensor
    labels: Tensor
    pool: Tensor
    pool_labels: Tensor
    unseen: Tensor
    signature: float
    decoys: int
    space: Tensor | None = None
    places: Tensor | None = None
    signatures: Tensor | None = None
    parts: Tensor | None = None
    public = (
        "images", "labels", "pool", "pool_labels", "unseen", "signature", "signatures", "parts", "decoys", "places",
    )  # fmt: skip


class AnwParams(Params):
    """Hyper-parameters of all kinds."""

    share: Share = Field(Share(0.01), description="the user's part of the training set, or a number of images")
    signature: Literal["draw", "spread"] | float = Field(
        "draw", description="one for all users; or each draws one; or each takes the next, which covers the space"
    )
    groups: int = Field(1, ge=1, le=1000, description="parts of the user's images with a signature each")
    heldout: int = Field(0, ge=0, description="images of a user whom nobody trained on; 0: as many as the share")
    pool: int = Field(500, ge=1, le=100_000, description="unseen images that the user's are compared with")
    decoys: int = Field(999, ge=9, le=99_999, description="random image sets that the user's is ranked among")
    starts: int = Field(4, ge=0, le=64, description="starting points of the gradient search; 0 leaves it out")
    steps: int = Field(300, ge=1, le=10_000, description="steps of the gradient search")
    probe: int = Field(100, ge=1, le=10_000, description="images that the gradient search uses at most")
    views: int = Field(
        1, ge=1, le=len(VIEWS), description="crops and mirror images of each that are asked about; 1: as it is"
    )


class AntiNeuron(Scheme[AnwKey]):
    """What the kinds share; a kind says what its signatures are and how an image bears one.

    Attributes:
        signatures: that a user may have; one more, 0, says that there is no watermark.
        unit: of the signatures.
        step: the gradient search's step at its start, in that unit.
    """

    signatures: ClassVar[tuple[float, ...]]
    unit: ClassVar[str]
    step: ClassVar[float]
    span: ClassVar[tuple[float, float]]

    key_type = AnwKey

    @property
    def heldout_share(self) -> Share:
        """What a held-out user has: the fewer images, the further may the least loss lie from 0."""
        return Share(self.params.heldout) if self.params.heldout else self.share

    @abstractmethod
    def secret(self, host: Host, rng: Rng) -> dict[str, Tensor]:
        """What else the user draws, and tells the arbitrator."""

    @abstractmethod
    def bearing(self, images: Tensor, signatures: Tensor, key: AnwKey) -> Tensor:
        """N x 3 x H x W images in [0, 1] that bear N signatures (or one for all); differentiable in these."""

    def distance(self, a: float, b: float) -> float:
        """How far two signatures lie apart."""
        return abs(a - b)

    @property
    def _views(self) -> Sequence[View]:
        return VIEWS[: self.params.views]

    @property
    def candidates(self) -> tuple[float, ...]:
        """All slots of the signature space: no watermark, and every signature."""
        return (0.0, *self.signatures)

    def keygen(self, host: Host, rng: Rng) -> AnwKey:
        """A signature, the user's original images, and unseen images to compare them with."""
        count = min(self.params.groups, len(host.share))
        drawn = [self._signature(host.number, rng.child("group", i) if i else rng) for i in range(count)]
        parts = torch.arange(len(host.share)) * count // len(host.share)
        several = {"signatures": torch.tensor(drawn, dtype=torch.float64), "parts": parts} if count > 1 else {}
        pool, _ = split_heldout(host, "anw-pool", self.params.pool)
        return AnwKey(
            host.share.images, host.share.labels, pool.images, pool.labels, ~contained(pool, host.share),
            drawn[0], rng.child("decoys").seed, **self.secret(host, rng), **several,
        ).to(host.device)  # fmt: skip

    def _signature(self, number: int, rng: Rng) -> float:
        """The given one, the owner's in turn, or a random one."""
        signature = self.params.signature
        if signature == "draw":
            signature = self.signatures[int(torch.randint(len(self.signatures), (1,), generator=rng.torch("draw")))]
        elif signature == "spread":
            signature = self.signatures[number % len(self.signatures)]
        self._column(float(signature))
        return float(signature)

    def mark_data(self, images: ImageSet, key: AnwKey) -> ImageSet:
        """The user's images bearing their signatures, clipped and rounded (Eq. 2, section 5.1).

        Raises:
            ValueError: the images have several signatures, and are not as many as the key was made for.
        """
        signatures = torch.full((len(images),), key.signature)
        if key.signatures is not None and key.parts is not None:
            signatures = key.signatures[key.parts]
        if len(signatures) != len(images):
            raise ValueError(f"Expected the {len(signatures)} images that have signatures, but got {len(images)}.")
        batches = zip(images.images.split(1024), signatures.float().split(1024), strict=True)
        marked = [self.bearing(pixels(batch), own, key) for batch, own in batches]
        return images.with_images(torch.cat(marked).mul_(255).round_().to(torch.uint8))

    def verify(self, suspect: Suspect, key: AnwKey) -> Verdict:
        """Infer the signature by grid search (Eq. 6), and rank how clearly it is the user's."""
        images, labels, true = key.images, key.labels, key.signature
        losses, right = self.grid_search(suspect, images, labels, key)
        if key.signatures is not None and key.parts is not None:
            return self._by_redrawing(losses, key.signatures.tolist(), key.parts.cpu(), key.decoys)
        mean = losses.mean(1)
        inferred = self.candidates[int(mean.argmin())]
        column = self._column(true)
        gaps = self._decoy_gaps(suspect, losses, column, key)
        best, second = mean.sort().values[:2].tolist()
        details = {
            "own_accuracy": float(right[column].float().mean()),
            "second_best_gap": second - best,
            "unmarked_gap": float(mean[0] - mean[column]),
            "slots_p_value": float((mean[1:] <= mean[column]).sum()) / len(self.signatures),
            **self._found_by_gradient(suspect, key),
        }
        own = float(_gaps(mean[:, None], column))
        return Verdict(
            statistic=own,
            p_value=rank_p_value(own - ROUNDING, gaps),
            inferred=inferred,
            matched=self.distance(inferred, true) < self.params.tau,
            chance=1 / len(self.candidates),
            search=Search(candidates=list(self.candidates), losses=mean.tolist(), true=true, unit=self.unit),
            details=dict[str, Any](details),
        )

    def _by_redrawing(self, losses: Tensor, signatures: list[float], parts: Tensor, seed: int) -> Verdict:
        """Rank the advantage of the parts' signatures among signatures drawn anew.

        The advantage of a signature is the mean log loss at all signatures less that at this one, summed over images.
        """
        logs = (losses[1:] + TINY).log()
        table = torch.zeros(len(signatures), len(logs), dtype=torch.float64)
        table.index_add_(0, parts, (logs.mean(0) - logs).T)
        drawn = torch.tensor([self._column(signature) - 1 for signature in signatures])
        own = float(table.gather(1, drawn[:, None]).sum())
        anew = torch.randint(len(logs), (REDRAWN, len(table)), generator=torch.Generator().manual_seed(seed))
        p_value = rank_p_value(own - ROUNDING, table.T.gather(0, anew).sum(1).tolist())
        sums = torch.zeros(len(signatures), len(losses), dtype=torch.float64).index_add_(0, parts, losses.T)
        inferred = [self.candidates[column] for column in sums.argmin(1).tolist()]
        matched = [self.distance(*pair) < self.params.tau for pair in zip(inferred, signatures, strict=True)]
        details = {"parts": len(table), "parts_matched": sum(matched)}
        return Verdict(statistic=own / len(parts), p_value=p_value, details=dict[str, Any](details))

    def capacity(self, host: Host) -> Capacity:
        """Bits of the signatures: of one, or of all parts."""
        return Capacity(self.params.groups * math.log2(len(self.signatures)))

    def grid_search(self, suspect: Suspect, images: Tensor, labels: Tensor, key: AnwKey) -> tuple[Tensor, Tensor]:
        """Cross-entropy of N original images bearing each candidate, and whether they are classified right.

        Both are candidates x N, on the CPU, by the mean log-probabilities of all views; every image is sent once for
        each candidate and view. An answer that is not finite is wrong, and its loss the largest there is.
        """
        x, rows = pixels(images), labels.to(images.device)[:, None]
        losses, right = [], []
        for candidate in self.candidates:
            bearing = self.bearing(x, torch.tensor(candidate), key)
            log_probs = torch.stack([suspect.log_probs(seen(bearing, view)) for view in self._views]).mean(0)
            losses.append(finite(-log_probs.gather(1, rows).squeeze(1)))
            right.append((log_probs.argmax(1) == rows.squeeze(1)) & log_probs.isfinite().any(1))
        return torch.stack(losses), torch.stack(right).cpu()

    def gradient_search(self, model: nn.Module, key: AnwKey) -> tuple[float, float]:
        """The signature of least loss by descending along its gradient, and that loss (section 4.2, white box).

        All starts, spread evenly over the space, go at once; each has the same images, each step the next view.
        """
        count = self.params.starts
        images = pixels(key.images[: self.params.probe])
        labels = key.labels[: self.params.probe].repeat(count)
        low, high = self.span
        at = (low + (high - low) * (torch.arange(count, device=images.device) + 0.5) / count).requires_grad_()
        optimizer = torch.optim.Adam([at], lr=self.step)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.params.steps)
        many = images.repeat(count, 1, 1, 1)
        for step in range(self.params.steps):
            view = VIEWS[step % self.params.views]
            losses = self._losses_at(model, many, labels, at, key, [view])
            (at.grad,) = torch.autograd.grad(losses.sum(), at)
            optimizer.step()
            schedule.step()
        with torch.no_grad():
            losses = self._losses_at(model, many, labels, at, key, self._views)
        found = int(losses.argmin())
        return self.wrapped(float(at.detach()[found])), float(losses[found])

    def wrapped(self, signature: float) -> float:
        """The signature within its space."""
        return signature

    def _losses_at(
        self, model: nn.Module, images: Tensor, labels: Tensor, at: Tensor, key: AnwKey, views: Sequence[View]
    ) -> Tensor:
        """Mean loss for each of the starts."""
        each = at.repeat_interleave(len(images) // len(at))
        bearing = self.bearing(images, each, key)
        logits = [model(seen(bearing, view).contiguous(memory_format=torch.channels_last)).float() for view in views]
        losses = [nn.functional.cross_entropy(answers, labels, reduction="none") for answers in logits]
        return torch.stack(losses).view(len(views), len(at), -1).mean((0, 2))

    def _found_by_gradient(self, suspect: Suspect, key: AnwKey) -> dict[str, float | bool]:
        if not self.params.starts or not suspect.offers("white-box"):
            return {}
        found, loss = self.gradient_search(suspect.model, key)
        if not (math.isfinite(found) and math.isfinite(loss)):
            return {"gradient_matched": False}
        error = self.distance(found, key.signature)
        return {
            "gradient_inferred": found,
            "gradient_loss": loss,
            "gradient_error": error,
            "gradient_matched": error < self.params.tau,
        }

    def _column(self, signature: float) -> int:
        """The slot of a signature.

        Raises:
            ValueError: no slot lies at it.
        """
        near = min(range(len(self.candidates)), key=lambda i: self.distance(self.candidates[i], signature))
        if near == 0 or self.distance(self.candidates[near], signature) >= self.params.tau:
            known = ", ".join(f"{k:g}" for k in self.signatures)
            raise ValueError(f"Expected a signature near one of {known} {self.unit}, but got {signature:g}.")
        return near

    def _decoy_gaps(self, suspect: Suspect, own: Tensor, column: int, key: AnwKey) -> list[float]:
        """The gap of as many images, drawn at random from the user's own and the unseen ones together."""
        unseen = self._unseen_losses(suspect, key)
        generator = torch.Generator().manual_seed(key.decoys)
        means = subset_means(torch.cat([own, unseen], 1), own.shape[1], self.params.decoys, generator)
        return torch.cat([_gaps(block, column).clamp_min(0) for block in means]).tolist()

    def _unseen_losses(self, suspect: Suspect, key: AnwKey) -> Tensor:
        """Losses of the pool without the user's own images; computed once for all users who look alike."""
        pool, labels = key.pool, key.pool_labels
        name = content(pool, labels, *(secret for secret in (key.space, key.places) if secret is not None))
        losses: Tensor = suspect.memo(
            f"anw pool {self.params.views} {name}", lambda: self.grid_search(suspect, pool, labels, key)[0]
        )
        return losses[:, key.unseen.cpu()]


def seen(images: Tensor, view: View) -> Tensor:
    """N x C x H x W images in that view: what is moved out of sight is filled with zeros."""
    mirrored, down, right = view
    height, width = (max(1, side // 16) for side in images.shape[2:])
    turned = images.flip(3) if mirrored else images
    return nn.functional.pad(turned, (right * width, -right * width, down * height, -down * height))


def _gaps(means: Tensor, column: int) -> Tensor:
    """Log of the loss without a signature over that at `column`, for candidates x sets; up to 0 it is no evidence."""
    return ((means[0] + TINY) / (means[column] + TINY)).log()
