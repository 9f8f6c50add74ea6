"""Records as a flat table: one row per rung (and owner), in the contract's columns."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from typing import Any

from bench.contract.verdict import Point, Verdict
from bench.records.record import Record

__all__ = ["COLUMNS", "as_csv", "as_json", "as_parquet", "rows"]

COLUMNS = (
    "scheme", "attack", "arch", "dataset", "situation", "profile", "seed", "strength", "unit", "status", "reason",
    "test_accuracy", "clean_accuracy", "fidelity_pp", "statistic", "p_value", "detected", "ber", "matched", "queries",
    "embed_time_s", "attack_time_s", "verify_time_s", "cell_key", "owner",
    "inferred", "protection_advantage",
)  # fmt: skip


def rows(records: Iterable[Record]) -> list[dict[str, Any]]:
    """A dict of `COLUMNS` per rung and owner; strength 0 is the marked model before the attack.

    A cell that failed or is not applicable has one row, with its reason and no numbers. With several owners
    a rung has a row for each, numbered in `owner`; `protection_advantage` is that of the rung, over its owners.
    """
    return [row for record in records for row in _rows(record)]


def as_csv(table: Iterable[dict[str, Any]]) -> str:
    """Comma-separated values with a header; every number in full, what is missing empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    return text.getvalue()


def as_json(table: Iterable[dict[str, Any]]) -> str:
    """A list of objects; what is missing is null."""
    return json.dumps(list(table), indent=1, allow_nan=False) + "\n"


def as_parquet(table: Iterable[dict[str, Any]]) -> bytes:
    """A Parquet file whose whole numbers stay whole where some are missing."""
    import pandas as pd

    frame = pd.DataFrame(list(table), columns=list(COLUMNS)).convert_dtypes()
    content = io.BytesIO()
    frame.to_parquet(content, index=False)
    return content.getvalue()


def _rows(record: Record) -> Iterator[dict[str, Any]]:
    if record.status != "ok":
        yield _row(record)
    for point in record.points:
        for owner, verdict in enumerate(point.verdicts):
            yield _row(record, point, verdict, owner)


def _row(
    record: Record, point: Point | None = None, verdict: Verdict | None = None, owner: int | None = None
) -> dict[str, Any]:
    reason = record.reason
    if record.traceback:
        reason = record.traceback.strip().splitlines()[-1]
    values: dict[str, Any] = record.cell.model_dump()
    values |= {"unit": record.unit, "status": record.status, "reason": reason, "cell_key": record.cell_key}
    values |= {"clean_accuracy": record.clean_accuracy, "owner": owner}
    if point is not None and verdict is not None:
        values |= point.model_dump(exclude={"verdicts"}) | verdict.model_dump(exclude={"search", "details"})
        values |= {"fidelity_pp": _difference_pp(point.test_accuracy, record.clean_accuracy)}
        values |= {"embed_time_s": record.timings_s.get("embed")}
        protection = record.protection(point)
        values |= {"protection_advantage": protection and protection.advantage}
    return {name: values.get(name) for name in COLUMNS}


def _difference_pp(accuracy: float | None, clean: float | None) -> float | None:
    return None if accuracy is None or clean is None else 100 * (accuracy - clean)
