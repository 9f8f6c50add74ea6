"""How visible marks are in the weights: the rows of `detectability.json` in a run directory.

A row is about several seeds and the clean networks beside them, so it is part of no cell's record.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from bench.contract.fields import Finite, Fraction, Hex, Name, Strict, Text
from bench.records.record import Params, RecordError
from bench.records.strictjson import StrictJSONError, read_strict

__all__ = ["DETECTABILITY", "SUBJECT", "DetectabilityRow", "Test", "load_rows", "merge_rows"]

DETECTABILITY = "detectability.json"
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


ROWS: TypeAdapter[list[DetectabilityRow]] = TypeAdapter(list[DetectabilityRow])


def load_rows(folder: Path) -> list[DetectabilityRow]:
    """The rows in a run directory; none where nothing was measured.

    Raises:
        RecordError: the file is not as it was written.
    """
    path = folder / DETECTABILITY
    if not path.exists():
        return []
    try:
        return ROWS.validate_python(read_strict(path), strict=True)
    except (StrictJSONError, ValidationError) as error:
        first = str(error).splitlines()[0][:500]
        raise RecordError(f"Expected rows of `bench detect` in {path}, but: {first}. Remove the file.") from error


def merge_rows(rows: Iterable[DetectabilityRow], folder: Path) -> None:
    """Write rows into a run directory's file, atomically, in the place of earlier ones about the same.

    Raises:
        RecordError: as `load_rows`.
    """
    merged = {row.about: row for row in [*load_rows(folder), *rows]}
    path = folder / DETECTABILITY
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_bytes(ROWS.dump_json(list(merged.values()), indent=1) + b"\n")
    temporary.replace(path)
