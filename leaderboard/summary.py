"""How are many numbers said as one? Means and counts with their intervals, and what stands for a list of values."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import Any, TypeVar

from bench.contract.verdict import Point, Verdict
from bench.records.record import Record
from bench.stats import Interval, student_interval, wilson_interval

__all__ = [
    "Item",
    "Row",
    "brief",
    "canonical",
    "detected",
    "ends",
    "first_known",
    "if_any",
    "loss_pp",
    "mean",
    "one_a_seed",
    "proportion",
    "short",
    "thin",
    "unattacked",
]

MAX_RUNGS = 40
MAX_TEXT = 500
Row = dict[str, Any]
Item = TypeVar("Item")


def canonical(value: Any) -> str:
    """JSON text that is the same for equal values: it groups records and names rows."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def first_known(values: Iterable[str | None]) -> str | None:
    """The first that is known, or None."""
    return next((value for value in values if value is not None), None)


def short(value: Any) -> str:
    """Its text, JSON unless it is one; cut where a stranger's record goes on and on."""
    text = value if isinstance(value, str) else canonical(value)
    return text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + "..."


def mean(values: Sequence[float]) -> dict[str, Any] | None:
    """Their mean with its Student-t interval and the values themselves; None of nothing."""
    if not values:
        return None
    return {"mean": fmean(values), **ends(student_interval(values)), "values": list(values)}


def proportion(hits: int, trials: int) -> dict[str, Any] | None:
    """Hits of trials with Wilson's interval; None of nothing."""
    return {"hits": hits, "trials": trials, **ends(wilson_interval(hits, trials))} if trials else None


def ends(interval: Interval | None) -> dict[str, float | None]:
    """The ends of an interval, None where there is none."""
    return {"low": interval.low, "high": interval.high} if interval else {"low": None, "high": None}


def if_any(summary: Any, values: Sequence[float]) -> float | None:
    """A summary of the values; None of nothing."""
    return summary(values) if values else None


def thin(points: Sequence[Item], wanted: int = MAX_RUNGS) -> list[Item]:
    """At most `wanted` of them, evenly, with the first and the last."""
    if len(points) <= wanted:
        return list(points)
    step = (len(points) - 1) / (wanted - 1)
    return [points[round(i * step)] for i in range(wanted)]


def brief(values: Sequence[float]) -> list[float]:
    """To four digits: a drawing shows no more, and the page has to carry them."""
    return [float(f"{value:.4g}") for value in values]


def unattacked(record: Record) -> Point:
    """The marked model before any attack."""
    return record.points[0]


def detected(verdict: Verdict, fpr: float) -> bool:
    """Whether the claim holds: from the p-value, so that no record can claim what its evidence does not bear out."""
    return verdict.p_value <= fpr


def loss_pp(before: float | None, point: Point) -> float | None:
    """Lost test accuracy in percentage points; None where one of the two was not measured."""
    if before is None or point.test_accuracy is None:
        return None
    return 100 * (before - point.test_accuracy)


def one_a_seed(done: Sequence[Record], field: str) -> list[Record]:
    """Of each seed the first record that has the field, because every attack of a seed meets the same marked model."""
    found = {record.cell.seed: record for record in reversed(done) if getattr(record, field)}
    return [found[seed] for seed in sorted(found)]
