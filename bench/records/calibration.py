"""How often false claims are accepted: the rows of `calibration.json` in a run directory.

A row is about several networks and keys, most of which no cell has met, so it is part of no cell's record.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, TypeAdapter, model_validator

from bench.contract.fields import Fraction, Name, Strict
from bench.records.record import AttackName, Params
from bench.records.rowfile import RowFile

__all__ = ["CALIBRATION", "CalibrationRow"]

Count = Annotated[int, Field(ge=0, le=10_000_000)]


class CalibrationRow(Strict):
    """The false claims of one scheme on one kind of null, held to one nominal rate.

    Attributes:
        datasets: that the networks were trained on.
        seeds: how many; each has networks and keys of its own.
        attack: that the hosts went through; `none` for claims before any attack.
        nominal: the rate that p-values were held to.
        accepted: false claims with a p-value of at most the nominal rate.
        n: all false claims: pairs of a key and a network.
        networks, keys: how many different ones made them; 0 networks where no chance went into the suspect.
        interval_low, interval_high: 95 % interval of the rate.
        p_value: chance of as many accepted claims from a valid scheme: `bench.metrics.calibration.excess_p_value`.
        beyond: whether that is more than chance explains.
    """

    scheme: Name
    scheme_params: Params
    arch: Name
    datasets: Annotated[list[Name], Field(min_length=1, max_length=100)]
    profile: Name
    seeds: Count
    attack: AttackName
    null: Name
    nominal: Fraction
    accepted: Count
    n: Count
    networks: Count
    keys: Count
    false_positive_rate: Fraction
    interval_low: Fraction
    interval_high: Fraction
    p_value: Fraction
    beyond: bool

    @model_validator(mode="after")
    def _possible(self) -> CalibrationRow:
        if not (self.n > 0 and abs(self.false_positive_rate * self.n - self.accepted) < 1e-6):
            raise ValueError(f"Expected {self.accepted} of {self.n} claims, but got a rate {self.false_positive_rate}.")
        if not self.interval_low <= self.false_positive_rate <= self.interval_high:
            raise ValueError("Expected a rate within its interval.")
        return self

    @property
    def about(self) -> str:
        """What was measured: a later row about the same takes this one's place."""
        names = {"scheme", "scheme_params", "arch", "datasets", "profile", "attack", "null", "nominal"}
        return self.model_dump_json(include=names)


CALIBRATION: RowFile[CalibrationRow] = RowFile(
    "calibration.json", "bench calibrate", TypeAdapter(list[CalibrationRow]), lambda row: row.about
)
