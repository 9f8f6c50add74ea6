"""How visible marks are in the weights: the rows of `detectability.json` in a run directory.

A row is about several seeds and the clean networks beside them, so it is part of no cell's record.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from bench.contract.fields import Finite, Fraction, Hex, Name, Strict, Text
from bench.records.record import Params
from bench.records.rowfile import RowFile

__all__ = ["DETECTABILITY", "SUBJECT", "DetectabilityRow", "Test"]

SUBJECT = {"scheme", "scheme_params", "arch", "dataset", "situation", "profile", "owners"}
Test = Literal["ks", "variance", "classifier"]
Count = Annotated[int, Field(ge=0, le=1_000_000)]


class DetectabilityRow(Strict):
    """One test of one scheme's marks on one architecture; see `bench.metrics.detectability.Detection`.

    Attributes:
        test: two-sample tests of weights (`ks`, `variance`), or property inference (`classifier`).
        seeds: marked networks, one a seed.
        clean: clean twins of all seeds together.
        reason: why there is no result; then all that follows is None.
        networks: hash of the keys of all networks.
    """

    scheme: Name
    scheme_params: Params
    arch: Name
    dataset: Name
    situation: Name
    profile: Name
    owners: Count
    test: Test
    seeds: Count
    clean: Count
    networks: Hex
    reason: Text | None = None
    auc: Fraction | None = None
    interval_low: Fraction | None = None
    interval_high: Fraction | None = None
    p_value: Fraction | None = None
    least_p_value: Fraction | None = None
    part: Text | None = None
    effect: Finite | None = None
    clean_effect: Finite | None = None

    @property
    def subject(self) -> str:
        """The marks that the row is about."""
        return self.model_dump_json(include=SUBJECT)

    @property
    def about(self) -> str:
        """The marks and the test: a later row about the same takes this one's place."""
        return self.model_dump_json(include=SUBJECT | {"test"})


DETECTABILITY: RowFile[DetectabilityRow] = RowFile(
    "detectability.json", "bench detect", TypeAdapter(list[DetectabilityRow]), lambda row: row.about
)
