"""Records as a flat table: one row per rung (and owner), in the contract's columns."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from bench.contract.verdict import Point, Verdict
from bench.metrics import DEFAULT_FPR
from bench.metrics.fidelity import fidelity_pp
from bench.metrics.protection import protection
from bench.metrics.robustness import detected
from bench.records.record import CellRecord

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["COLUMNS", "as_csv", "as_frame", "as_json", "as_parquet", "rows"]

COLUMNS = (
    "scheme", "attack", "arch", "dataset", "situation", "profile", "seed", "strength", "unit", "status", "reason",
    "test_accuracy", "clean_accuracy", "fidelity_pp", "statistic", "p_value", "detected", "ber", "matched", "queries",
    "embed_time_s", "attack_time_s", "verify_time_s", "cell_key", "owner",
    "inferred", "protection_advantage",
)  # fmt: skip


def rows(records: Iterable[CellRecord], fpr: float = DEFAULT_FPR) -> list[dict[str, Any]]:
    """A dict of `COLUMNS` per rung and owner; strength 0 is the marked model before the attack.

    `detected` says whether the claim holds at the false positive rate `fpr`.

    A cell that failed or is not applicable has one row, with its reason and no numbers. With several owners
    a rung has a row for each, numbered in `owner`; `protection_advantage` is that of the rung, over its owners.
    """
    return [row for record in records for row in _rows(record, fpr)]


def as_csv(table: Iterable[dict[str, Any]]) -> str:
    """Comma-separated values with a header; every number in full, what is missing empty.

    A text that a spreadsheet would run as a formula gets an apostrophe before it.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _inert(value) for name, value in row.items()} for row in table)
    return text.getvalue()


def as_json(table: Iterable[dict[str, Any]]) -> str:
    """A list of objects; what is missing is null."""
    return json.dumps(list(table), indent=1, allow_nan=False) + "\n"


def as_parquet(table: Iterable[dict[str, Any]]) -> bytes:
    """A Parquet file of `as_frame`."""
    content = io.BytesIO()
    as_frame(table).to_parquet(content, index=False)
    return content.getvalue()


def as_frame(table: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """A data frame whose whole numbers stay whole where some are missing."""
    import pandas as pd

    return pd.DataFrame(list(table), columns=list(COLUMNS)).convert_dtypes()


def _inert(value: Any) -> Any:
    return "'" + value if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def _rows(record: CellRecord, fpr: float) -> Iterator[dict[str, Any]]:
    common = _of_cell(record)
    if record.status != "ok":
        yield _in_columns(common)
    for point in record.points:
        rung = common | _of_rung(record, point, fpr)
        for owner, verdict in enumerate(point.verdicts):
            yield _in_columns(rung | _of_verdict(verdict, fpr) | {"owner": owner})


def _of_cell(record: CellRecord) -> dict[str, Any]:
    last = (record.traceback or "").strip().rpartition("\n")[2]
    return {
        **record.cell.model_dump(),
        "unit": record.unit,
        "status": record.status,
        "reason": last or record.reason,
        "cell_key": record.cell_key,
        "clean_accuracy": record.clean_accuracy,
    }


def _of_rung(record: CellRecord, point: Point, fpr: float) -> dict[str, Any]:
    found = protection(record, point, fpr)
    return {
        **point.model_dump(exclude={"verdicts"}),
        "fidelity_pp": fidelity_pp(record, point),
        "embed_time_s": record.timings_s.get("embed"),
        "protection_advantage": found and found.advantage,
    }


def _of_verdict(verdict: Verdict, fpr: float) -> dict[str, Any]:
    return verdict.model_dump(exclude={"search", "details"}) | {"detected": detected(verdict, fpr)}


def _in_columns(values: dict[str, Any]) -> dict[str, Any]:
    return {name: values.get(name) for name in COLUMNS}
