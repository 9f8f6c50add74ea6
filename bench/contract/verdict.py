"""Verdicts, the searches behind them, and judged rungs."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated

from pydantic import Field, model_validator

from bench.contract.fields import Detail, Finite, Fraction, Seconds, Strict

__all__ = ["Point", "Search", "Verdict"]


class Search(Strict):
    """What a verifier saw that searched a space of signatures.

    Attributes:
        candidates: the signatures tried, increasing.
        losses: of the suspect, one a candidate; the least is where the signature is inferred.
        true: the owner's own signature, which the search does not use.
        unit: of the signatures, for instance `degrees`.
    """

    candidates: Annotated[list[Finite], Field(min_length=1, max_length=1000)]
    losses: Annotated[list[Finite], Field(min_length=1, max_length=1000)]
    true: Finite | None = None
    unit: Annotated[str, Field(max_length=40)] = ""

    @model_validator(mode="after")
    def _paired(self) -> Search:
        if len(self.candidates) != len(self.losses):
            raise ValueError(f"Expected {len(self.candidates)} losses, one a candidate, but got {len(self.losses)}.")
        if any(b <= a for a, b in pairwise(self.candidates)):
            raise ValueError("Expected the candidates to increase, but they do not: sort them, with their losses.")
        return self

    @property
    def best(self) -> int:
        """Index of the candidate with the least loss, of equals the first."""
        return self.losses.index(min(self.losses))

    @property
    def unmarked(self) -> bool | None:
        """Whether 0, which says that there is no watermark, has the least loss; None where it was not tried."""
        return self.candidates[self.best] == 0 if 0 in self.candidates else None


class Verdict(Strict):
    """What a scheme says about one suspect and one key.

    Attributes:
        statistic: the scheme's own evidence, larger is stronger.
        p_value: chance of a statistic this strong from a null model (one that never saw the key).
        ber: bit error rate, 0..1; an erased bit counts one half.
        payload: the payload as read, for instance "0110".
        inferred: an inferred signature, in the scheme's own unit.
        matched: did an identification match (the recovered signature is the owner's)?
        chance: probability that `matched` is true by guessing (Eq. 7 of Anti-Neuron Watermarking).
        search: losses over the signatures that were tried.
        queries: images sent to the suspect; filled in by the harness.
        details: further named numbers.
    """

    statistic: Finite
    p_value: Fraction
    ber: Fraction | None = None
    payload: Annotated[str, Field(max_length=100_000)] | None = None
    inferred: Finite | None = None
    matched: bool | None = None
    chance: Fraction | None = None
    search: Search | None = None
    queries: Annotated[int, Field(ge=0, lt=2**63)] = 0
    details: Annotated[dict[str, Detail], Field(max_length=1000)] = {}


class Point(Strict):
    """One rung of an attack's ladder, judged: one verdict per owner.

    Attributes:
        strength: in the attack's unit; 0 is the victim before the attack.
        test_accuracy: fraction of the held-out images classified correctly.
        unseen_accuracy: fraction of all images that neither owner nor adversary has, the held-out ones among them;
            None where they are no more, and at the rungs of a ladder.
        measures: further utility measures, for instance `psnr_db`.
        attack_time_s: seconds the attacker has spent up to this rung.
        verify_time_s: seconds the verdicts took.
    """

    strength: Finite
    test_accuracy: Fraction | None = None
    unseen_accuracy: Fraction | None = None
    verdicts: Annotated[list[Verdict], Field(max_length=10_000)] = []
    measures: Annotated[dict[str, Finite], Field(max_length=1000)] = {}
    attack_time_s: Seconds = 0.0
    verify_time_s: Seconds = 0.0
