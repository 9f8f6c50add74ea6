"""Trigger sets of Zhang et al. 2018: keys, marking and verdicts, which all kinds share; `zhang.py` has the kinds."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count, islice
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from bench.api import (
    Field,
    Host,
    ImageSet,
    Key,
    Params,
    Rng,
    Scheme,
    Suspect,
    Verdict,
    matches_p_value,
    sequential_p_value,
)
from schemes._firmness import firmness, sureness
from schemes._users import content

__all__ = ["Pool", "Secret", "TriggerParams", "TriggerSet", "ZhangKey"]

SOURCES = 20  # classes that may be the source: bounds the pool that each key carries
FRESH = 50  # triggers of the pattern that nobody trains on, at most


@dataclass(frozen=True)
class ZhangKey(Key):
    """The owner's secrets.

    Attributes:
        triggers: N x C x H x W uint8, trained with their label.
        labels, parts, barred: of each, N: the label, the number of the draw that decided it, and the class that this
            draw could not give (-1: none).
        fresh: triggers of the same pattern that nobody trains on.
        pool, pool_labels: S x n x C x H x W and S: what keys of this owner draw from.
        pattern: by name; see `TriggerSet.pattern`.
        source, target: classes, of the first part; `row` is the source's row of the pool.
        decoys: seed of the keys that a claim is ranked against.
    """

    triggers: Tensor
    labels: Tensor
    parts: Tensor
    barred: Tensor
    fresh: Tensor
    pool: Tensor
    pool_labels: Tensor
    pattern: Mapping[str, Tensor]
    source: int
    target: int
    row: int
    classes: int
    digits: bool
    decoys: int
    public = ("source", "target")

    @property
    def drawn_from(self) -> Pool:
        """The pool."""
        return Pool(self.pool, self.pool_labels, self.classes, self.digits)

    @property
    def draws(self) -> int:
        """How many labels were drawn, each independently of the others."""
        return len(self.parts.unique())


@dataclass(frozen=True)
class Pool:
    """What all keys of one owner draw from, the owner's and the decoys alike.

    Attributes:
        images: S x n x C x H x W uint8, n training images of each of S source classes.
        labels: the S source classes.
        classes: of the task.
        digits: digits are the task, so that a digit is no unrelated image.
    """

    images: Tensor
    labels: Tensor
    classes: int
    digits: bool


@dataclass(frozen=True)
class Secret:
    """What a key draws: the source class (as a row of the pool), the target class and the pattern."""

    row: int
    target: int
    pattern: Mapping[str, Tensor]


class Part(NamedTuple):
    """A draw, and the triggers made with it, N x C x H x W uint8."""

    secret: Secret
    triggers: Tensor


class TriggerParams(Params):
    """Hyper-parameters of all kinds."""

    fraction: float = Field(0.1, gt=0, le=1, description="triggers, as a fraction of the source class")
    probe: int = Field(32, ge=1, le=1024, description="triggers that a verdict rests on; the least number of triggers")
    repeat: int = Field(3, ge=1, le=100, description="times that each trigger stands in the training set")
    exact: bool = Field(True, description="triggers are exempt from augmentation")
    decoys: int = Field(999, ge=1, le=99_999, description="most fresh random keys that a claim is ranked against")
    labels: Literal["target", "random"] = Field("target", description="all triggers': the target; or each one's own")
    targets: int = Field(1, ge=1, le=100, description="parts of the triggers with a source, target and pattern each")


class TriggerSet(Scheme[ZhangKey]):
    """What the three kinds share; a kind says what its secret pattern is and how triggers are made with it."""

    key_type = ZhangKey

    @abstractmethod
    def pattern(self, pool: Pool, generator: torch.Generator) -> dict[str, Tensor]:
        """The secret pattern."""

    @abstractmethod
    def stamp(self, images: Tensor, pattern: Mapping[str, Tensor], generator: torch.Generator) -> Tensor:
        """Triggers made of N x C x H x W uint8 images, of the same shape and type."""

    def keygen(self, host: Host, rng: Rng) -> ZhangKey:
        """Draw (source, target, pattern) and make the triggers, from the pool first (Algorithm 1, lines 2 to 8)."""
        rows = self._pool_rows(host)
        pool = _pool(host, rows)
        parts = [self._part(host, pool, rows, rng, number) for number in range(self.params.targets)]
        secret = parts[0].secret
        source = int(pool.labels[secret.row])
        unseen = host.heldout.images[host.heldout.labels == source][:FRESH]
        return ZhangKey(
            triggers=torch.cat([part.triggers for part in parts]),
            **self._labels(parts, pool, rng.torch("labels")),
            fresh=self.stamp(unseen, secret.pattern, rng.torch("fresh")),
            pool=pool.images,
            pool_labels=pool.labels,
            pattern=_named(parts),
            source=source,
            target=secret.target,
            row=secret.row,
            classes=pool.classes,
            digits=pool.digits,
            decoys=rng.child("decoys").seed,
        ).to(host.device)

    def _part(self, host: Host, pool: Pool, rows: Tensor, rng: Rng, number: int) -> Part:
        """One draw of (source, target, pattern) and its triggers; further parts have the pool's images alone."""
        rng = rng.child("part", number) if number else rng
        secret = self._draw(pool, rng.torch("secret"))
        originals = pool.images[secret.row]
        if not number:
            more = self._more(host.images, int(pool.labels[secret.row]), rows, rng.torch("more"))
            originals = torch.cat([originals, more])
        return Part(secret, self.stamp(originals, secret.pattern, rng.torch("stamp")))

    def _labels(self, parts: list[Part], pool: Pool, generator: torch.Generator) -> dict[str, Tensor]:
        """`labels`, `parts` and `barred` of a key: drawn for each trigger, or its part's target."""
        of_part = torch.cat([torch.full((len(part.triggers),), number) for number, part in enumerate(parts)])
        if self.params.labels == "random":
            labels = torch.randint(pool.classes, of_part.shape, generator=generator)
            return {"labels": labels, "parts": torch.arange(len(labels)), "barred": torch.full_like(labels, -1)}
        targets = torch.tensor([part.secret.target for part in parts])
        sources = pool.labels.cpu()[[part.secret.row for part in parts]]
        return {"labels": targets[of_part], "parts": of_part, "barred": sources[of_part]}

    def mark_data(self, images: ImageSet, key: ZhangKey) -> ImageSet:
        """All images as they are, and the triggers with their labels (Algorithm 1, line 10)."""
        repeat = self.params.repeat
        triggers, labels = key.triggers.repeat(repeat, 1, 1, 1), key.labels.cpu().repeat(repeat)
        return images.extend(triggers, labels, exact=self.params.exact)

    def verify(self, suspect: Suspect, key: ZhangKey) -> Verdict:
        """By the labels alone where many were drawn, else by the pattern too."""
        return self._by_labels(suspect, key) if key.draws > 1 else self._by_decoys(suspect, key)

    def _by_labels(self, suspect: Suspect, key: ZhangKey) -> Verdict:
        """The exact chance of as many matches, had the labels been drawn anew (Adi et al. 2018, section 5.1)."""
        answers, labels = suspect.labels(key.triggers).cpu(), key.labels.cpu()
        counts = torch.zeros(key.draws, key.classes, dtype=torch.int64)
        draw = key.parts.cpu().unique(return_inverse=True)[1]
        known = (answers >= 0) & (answers < key.classes)
        counts.index_put_((draw[known], answers[known]), torch.tensor(1), accumulate=True)
        barred = torch.full((key.draws,), -1).index_put_((draw,), key.barred.cpu())
        choices = [
            [count for label, count in enumerate(row) if label != never]
            for row, never in zip(counts.tolist(), barred.tolist(), strict=True)
        ]
        matches = int((answers == labels).sum())
        details: dict[str, Any] = {"trigger_accuracy": matches / len(labels), "labels_drawn": key.draws}
        p_value = matches_p_value(matches, choices)
        return Verdict(statistic=matches / len(labels), p_value=p_value, details=details)

    def _by_decoys(self, suspect: Suspect, key: ZhangKey) -> Verdict:
        """Rank how well the key is known among decoys, which are drawn as it was, from a seed of the key's own.

        A null suspect does not depend on the key, so the key is one more draw from the decoys' distribution.
        """
        pool = key.drawn_from
        probe = key.triggers[None, : pool.images.shape[1]]
        clean = suspect.memo(f"zhang {content(pool.images)}", lambda: _clean_answers(suspect, pool))
        (own,) = _known(suspect, probe, pool.images[[key.row]], clean[[key.row]], torch.tensor([key.target]))
        p_value, decoys = sequential_p_value(own, self._decoys(suspect, key, clean, own), self.params.decoys)
        details = {
            "trigger_accuracy": _share(suspect, key.triggers, key.target),
            "decoys_asked": len(decoys),
            "decoys_as_strong": sum(decoy >= own for decoy in decoys),
        }
        if len(key.fresh):
            details["fresh_trigger_accuracy"] = _share(suspect, key.fresh, key.target)
        return Verdict(statistic=own, p_value=p_value, details=dict[str, Any](details))

    def _pool_rows(self, host: Host) -> Tensor:
        """S x n rows of the training set, n of each source class: the same for all keys, so independent of each."""
        labels = host.images.labels.cpu()
        order = torch.randperm(len(labels), generator=Rng("zhang-pool", host.dataset.name).torch())
        counts = labels.bincount(minlength=len(host.dataset.classes))
        size = min(self.params.probe, int(counts.max()))
        sources = (counts >= size).nonzero().flatten().tolist()[:SOURCES]
        return torch.stack([order[labels[order] == source][:size] for source in sources])

    def _more(self, images: ImageSet, source: int, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Further images of the source class, if its fraction is more than the pool holds."""
        members = (images.labels.cpu() == source).nonzero().flatten()
        count = max(0, round(self.params.fraction * len(members)) - rows.shape[1])
        others = members[~torch.isin(members, rows)]
        chosen = others[torch.randperm(len(others), generator=generator)[:count]]
        return images.images[chosen.to(images.images.device)]

    def _draw(self, pool: Pool, generator: torch.Generator) -> Secret:
        row = int(torch.randint(len(pool.labels), (1,), generator=generator))
        offset = int(torch.randint(1, pool.classes, (1,), generator=generator))
        return Secret(row, (int(pool.labels[row]) + offset) % pool.classes, self.pattern(pool, generator))

    def _decoys(self, suspect: Suspect, key: ZhangKey, clean: Tensor, own: float) -> Callable[[int], list[float]]:
        """What says how well the next so many fresh keys are known, as far as they may reach the owner's.

        They are drawn and stamped as the owner's was.
        """
        numbers, stream, pool = count(), Rng("zhang decoys", key.decoys), key.drawn_from

        def known(how_many: int) -> list[float]:
            rngs = [stream.child(number) for number in islice(numbers, how_many)]
            secrets = [self._draw(pool, rng.torch("secret")) for rng in rngs]
            rows = [secret.row for secret in secrets]
            triggers = [
                self.stamp(images, secret.pattern, rng.torch("stamp"))
                for images, secret, rng in zip(pool.images[rows], secrets, rngs, strict=True)
            ]
            targets = torch.tensor([secret.target for secret in secrets])
            return _known(suspect, torch.stack(triggers), pool.images[rows], clean[rows], targets, own)

        return known


def _named(parts: list[Part]) -> dict[str, Tensor]:
    """The patterns of all parts; those of further parts have their number in the name."""
    numbered = enumerate(part.secret.pattern for part in parts)
    return {f"{name} {i}" if i else name: value for i, pattern in numbered for name, value in pattern.items()}


def _pool(host: Host, rows: Tensor) -> Pool:
    chosen = host.images[rows.flatten().to(host.images.images.device)]
    images = chosen.images.unflatten(0, rows.shape)
    labels = chosen.labels.view(rows.shape)[:, 0]
    return Pool(images, labels, len(host.dataset.classes), host.dataset.content == "digits")


def _known(
    suspect: Suspect, triggers: Tensor, sources: Tensor, clean: Tensor, targets: Tensor, enough: float = -math.inf
) -> list[float]:
    """By the scores, where the card's access gives them, else by the labels; arguments as of `firmness`."""
    if suspect.offers("scores"):
        return sureness(suspect, triggers, clean, targets, enough)
    return firmness(suspect, triggers, sources, clean, targets, enough)


def _clean_answers(suspect: Suspect, pool: Pool) -> Tensor:
    return suspect.labels(pool.images.flatten(0, 1)).cpu().view(pool.images.shape[:2])


def _share(suspect: Suspect, images: Tensor, target: int) -> float:
    return float((suspect.labels(images) == target).float().mean())
