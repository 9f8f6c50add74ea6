"""Schemes and an attack whose declarations are false, each in one way."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch

from bench.api import (
    Attack,
    AttackCard,
    Claim,
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


class Idle(Scheme):
    """Says that behaviour carries its mark, and adds nothing."""

    card = IDLE

    def keygen(self, host: Host, rng: Rng) -> Key:
        return Key(values={"seed": rng.seed})

    def verify(self, suspect: Suspect, key: Key) -> Verdict:
        return Verdict(statistic=0.0, p_value=1.0)


class Eager(Idle):
    """Adds triggers, and accuses everybody."""

    card = replace(IDLE, name="test-eager")

    def mark_data(self, images: ImageSet, key: Key) -> ImageSet:
        return images.extend(images.images[:4], images.labels[:4])

    def verify(self, suspect: Suspect, key: Key) -> Verdict:
        return Verdict(statistic=1.0, p_value=0.001)


class Forgetful(Idle):
    """Makes another key each time."""

    card = replace(IDLE, name="test-forgetful")

    def keygen(self, host: Host, rng: Rng) -> Key:
        return Key(values={"number": next(COUNTER)})


class Vandal(Attack):
    """Destroys the victim itself."""

    card = AttackCard("test-vandal", "Vandal", NOBODY, "model", "nothing", "units")

    class Params(Params):
        """One rung."""

        ladder: tuple[float, ...] = Field((1.0,), description="strengths")

    def apply(self, victim: Victim, context: Context) -> Iterator[Claim]:
        with torch.no_grad():
            next(victim._model.parameters()).zero_()
        yield Claim(1.0, model=victim.model())
