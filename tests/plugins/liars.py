"""Schemes and an attack whose declarations are false, each in one way."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from bench.api import (
    Adversary,
    Attack,
    AttackCard,
    Attempt,
    Context,
    Field,
    Host,
    ImageSet,
    Key,
    Paper,
    Params,
    Rng,
    Scheme,
    SchemeCard,
    Suspect,
    Verdict,
    Victim,
    replace,
)

NOBODY = Paper("None", "Nobody", 2026, "https://example.org")
IDLE = SchemeCard("test-idle", "Adds no triggers", NOBODY, "behaviour", "labels", "zero-bit")
COUNTER = itertools.count()


@dataclass(frozen=True)
class Number(Key):
    """A number."""

    number: int


class Idle(Scheme[Number]):
    """Says that behaviour carries its mark, and adds nothing."""

    card = IDLE
    key_type = Number

    def keygen(self, host: Host, rng: Rng) -> Number:
        return Number(rng.seed)

    def verify(self, suspect: Suspect, key: Number) -> Verdict:
        return Verdict(statistic=0.0, p_value=1.0)


class Eager(Idle):
    """Adds triggers, and accuses everybody."""

    card = replace(IDLE, name="test-eager")

    def mark_data(self, images: ImageSet, key: Number) -> ImageSet:
        return images.extend(images.images[:4], images.labels[:4])

    def verify(self, suspect: Suspect, key: Number) -> Verdict:
        return Verdict(statistic=1.0, p_value=0.001)


class Forgetful(Idle):
    """Makes another key each time."""

    card = replace(IDLE, name="test-forgetful")

    def keygen(self, host: Host, rng: Rng) -> Number:
        return Number(next(COUNTER))


class Ladder(Params):
    """One rung."""

    ladder: tuple[float, ...] = Field((1.0,), description="strengths")


class Vandal(Attack):
    """Destroys the victim itself, by going behind the copies that it is handed."""

    card = AttackCard("test-vandal", "Vandal", NOBODY, "model", Adversary("white-box"), "units")
    Params = Ladder

    def apply(self, victim: Victim, context: Context) -> Iterator[Attempt]:
        copied = inspect.getclosurevars(victim._model).nonlocals["state"]
        with torch.no_grad():
            next(copied.model().parameters()).zero_()
        yield Attempt(1.0, model=victim.model())


class Nosy(Attack):
    """Says that it sees labels, and asks for the weights."""

    card = AttackCard("test-nosy", "Nosy", NOBODY, "model", Adversary("labels"), "units")
    Params = Ladder

    def apply(self, victim: Victim, context: Context) -> Iterator[Attempt]:
        yield Attempt(1.0, model=victim.model())
