"""Schemes and an attack whose declarations are false, each in one way."""

from __future__ import annotations

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
class NumberKey(Key):
    """Nothing but a number."""

    number: int
    public = ("number",)


class Idle(Scheme[NumberKey]):
    """Says that behaviour carries its mark, and adds nothing."""

    card = IDLE
    key_type = NumberKey

    def keygen(self, host: Host, rng: Rng) -> NumberKey:
        return NumberKey(rng.seed)

    def verify(self, suspect: Suspect, key: NumberKey) -> Verdict:
        return Verdict(statistic=0.0, p_value=1.0)


class Eager(Idle):
    """Adds triggers, and accuses everybody."""

    card = replace(IDLE, name="test-eager")

    def mark_data(self, images: ImageSet, key: NumberKey) -> ImageSet:
        return images.extend(images.images[:4], images.labels[:4])

    def verify(self, suspect: Suspect, key: NumberKey) -> Verdict:
        return Verdict(statistic=1.0, p_value=0.001)


class Gullible(Idle):
    """Takes every network that answers all images alike for its owner's, and any other by chance."""

    card = replace(IDLE, name="test-gullible")

    def mark_data(self, images: ImageSet, key: NumberKey) -> ImageSet:
        return images.extend(images.images[:4], images.labels[:4])

    def verify(self, suspect: Suspect, key: NumberKey) -> Verdict:
        answers = suspect.labels(torch.rand(32, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
        alike = bool((answers == answers[0]).all())
        return Verdict(statistic=1.0, p_value=0.001 if alike else (key.number % 997 + 1) / 998)


class Brittle(Idle):
    """Expects every network to answer with numbers."""

    card = replace(IDLE, name="test-brittle", access="scores")

    def verify(self, suspect: Suspect, key: NumberKey) -> Verdict:
        if not suspect.log_probs(torch.zeros(1, 3, 32, 32)).isfinite().all():
            raise ValueError("NaN is no answer")
        return Verdict(statistic=0.0, p_value=1.0)


class Forgetful(Idle):
    """Makes another key each time."""

    card = replace(IDLE, name="test-forgetful")

    def keygen(self, host: Host, rng: Rng) -> NumberKey:
        return NumberKey(next(COUNTER))


class Wordy(Idle):
    """Has a payload size, and says nothing of its capacity."""

    card = replace(IDLE, name="test-wordy", payload_parameter="words")

    class Params(Params):
        """Of no effect."""

        words: int = Field(4, description="payload size")


class Vandal(Attack):
    """Destroys the victim itself."""

    card = AttackCard("test-vandal", "Vandal", NOBODY, "model", Adversary("white-box"), "units")

    class Params(Params):
        """One rung."""

        ladder: tuple[float, ...] = Field((1.0,), description="strengths")

    def apply(self, victim: Victim, context: Context) -> Iterator[Attempt]:
        cells = [cell.cell_contents for cell in victim._model.__closure__ or ()]
        network = next(cell for cell in cells if hasattr(cell, "model")).model()
        with torch.no_grad():
            next(network.parameters()).zero_()
        yield Attempt(1.0, model=victim.model())


class Nosy(Vandal):
    """Reads the layer that carries the mark, and declares that it knows nothing."""

    card = replace(Vandal.card, name="test-nosy", title="Nosy")

    def apply(self, victim: Victim, context: Context) -> Iterator[Attempt]:
        model = victim.model()
        model.get_submodule(victim.key.layer)
        yield Attempt(1.0, model=model)
