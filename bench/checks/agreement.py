"""How far a cell that is computed again may lie off its record."""

from __future__ import annotations

import math
from collections.abc import Iterator

from bench.contract.verdict import Point
from bench.metrics import DEFAULT_FPR
from bench.records.record import CellRecord
from bench.records.submission import Rerun

__all__ = ["DRIFT_PP", "disagreement", "drift_pp", "exact", "together"]

# On another processor (docs/protocol.md): of the marked model, and its verdict is the same.
DRIFT_PP = 2.0
SLACK = 1e-9
ENVIRONMENT = ("cpu_model", "cpu_capability", "math_library", "device", "threads", "packages")


def disagreement(reported: CellRecord, again: CellRecord, *, same: bool) -> str | None:
    """Where a replay disagrees with a record, in one sentence; None where it agrees.

    In the record's own environment, with the same source, every number must be the same. Elsewhere the marked model's
    accuracy may differ by `DRIFT_PP` points, its verdicts at 1 % may not; neither may those of clean networks.

    Args:
        reported: as it was handed in.
        again: the same cell, computed here.
        same: whether the harness is that of the record.
    """
    if again.status != reported.status:
        return f"status {reported.status!r}, but computed again it is {again.status!r}."
    if exact(reported, again, same):
        return next(_unequal(reported, again), None)
    return next(_far(reported, again), None)


def together(rerun: tuple[Rerun, ...]) -> str | None:
    """Whether all replays together lie off to one side: the mean of n drifts may be 1 / sqrt(n) of what one may be."""
    drifts = [each.drift_pp for each in rerun if each.drift_pp is not None and not each.exact]
    if len(drifts) < 2:
        return None
    mean, limit = sum(drifts) / len(drifts), DRIFT_PP / math.sqrt(len(drifts))
    if abs(mean) <= limit:
        return None
    return f"accuracies of {len(drifts)} marked models are {mean:+.2f} points off in the mean; {limit:.2f} may be."


def exact(reported: CellRecord, again: CellRecord, same: bool) -> bool:
    """Whether a replay was computed in the record's environment, with the same harness if `same`."""
    ours, theirs = again.provenance, reported.provenance
    return same and all(getattr(ours, name) == getattr(theirs, name) for name in ENVIRONMENT)


def drift_pp(reported: Point | None, again: Point | None) -> float | None:
    """Accuracy as reported less as computed again, in percentage points; None where one is not known."""
    if reported is None or again is None or reported.test_accuracy is None or again.test_accuracy is None:
        return None
    return 100 * (reported.test_accuracy - again.test_accuracy)


def _unequal(reported: CellRecord, again: CellRecord) -> Iterator[str]:
    """The first number that is not the same, named; null claims where as many were computed."""
    ours, theirs = again.findings(), reported.findings()
    for name in ("cell_key", "reason", "traceback"):
        ours.pop(name), theirs.pop(name)
    if [len(n.p_values) for n in again.nulls] != [len(n.p_values) for n in reported.nulls]:
        ours.pop("nulls"), theirs.pop("nulls")
    if again.provenance.data_checksum != reported.provenance.data_checksum:
        yield "it names other data than the data set's."
    for where, one, other in _differences(theirs, ours):
        yield f"{where} is {one}, but computed again in the same environment {other}."


def _differences(one: object, other: object, where: str = "") -> Iterator[tuple[str, str, str]]:
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        for name, value in one.items():
            yield from _differences(value, other[name], f"{where}.{name}".lstrip("."))
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for number, (left, right) in enumerate(zip(one, other, strict=True)):
            yield from _differences(left, right, f"{where}[{number}]")
    elif one != other:
        yield where, str(one)[:60], str(other)[:60]


def _far(reported: CellRecord, again: CellRecord) -> Iterator[str]:
    """Where a replay in another environment lies further off than was measured between processors."""
    if [point.strength for point in again.points] != [point.strength for point in reported.points]:
        yield "the ladder has other rungs than the attack's."
    found = [("marked model", drift_pp(reported.marked, again.marked))]
    for name in ("clean_accuracy", "control_accuracy"):
        one, other = getattr(reported, name), getattr(again, name)
        found.append((name.replace("_", " "), None if one is None or other is None else 100 * (one - other)))
    for what, drift in found:
        if drift is not None and abs(drift) > DRIFT_PP + SLACK:
            yield f"the {what} is {drift:+.2f} points off; {DRIFT_PP:g} may be."
    for what, one, other in (
        ("marked model", reported.marked.verdicts, again.marked.verdicts) if reported.marked and again.marked else
        ("marked model", [], []),
        ("clean host", reported.clean_verdicts, again.clean_verdicts),
    ):  # fmt: skip
        if [v.p_value <= DEFAULT_FPR for v in one] != [v.p_value <= DEFAULT_FPR for v in other]:
            yield f"the verdicts on the {what} at a false positive rate of 1 % are others."
