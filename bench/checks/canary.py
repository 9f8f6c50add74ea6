"""The canary: a few cells of a submission, chosen by its content, computed again and compared.

Which cells depends on a hash of the whole submission, so that nobody can choose them: whoever changes a number changes
the choice. Cheap cells are likelier, none is impossible.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.checks.replay import COMPUTED, DONE, OUTCOMES, UNKNOWN
from bench.checks.sandbox import Ended, Limits, run_confined
from bench.checks.source import beside
from bench.contract.verdict import Point
from bench.identity import Rng
from bench.metrics import DEFAULT_FPR
from bench.plan.fingerprint import tree
from bench.records.files import load_record
from bench.records.record import FRESH_KEY, CellRecord, RecordError
from bench.records.strictjson import StrictJSONError, read_strict
from bench.records.submission import Rerun, Submission

__all__ = ["BUDGET_S", "DRIFT_PP", "Finding", "chosen", "disagreement", "expected_s", "replayed", "together"]

BUDGET_S = 120.0  # no further cell is begun that would end later; the process is ended a minute after it
GRACE_S = 60.0
MOST_CELLS = 6
LEAST_S, MOST_NULL_KEYS = 5.0, 200
# How far a replay on another processor may lie off (docs/protocol.md): of the marked model, and its verdict the same.
DRIFT_PP = 2.0
SLACK = 1e-9
ENVIRONMENT = ("cpu_model", "cpu_capability", "math_library", "device", "threads", "packages")


@dataclass(frozen=True)
class Finding:
    """What the canary found.

    Attributes:
        rerun: the cells that were computed again and agree.
        failure: which number disagrees, in one sentence.
        nothing: why nothing could be computed again.
        isolated: what the method's process was kept from.
    """

    rerun: tuple[Rerun, ...] = ()
    failure: str | None = None
    nothing: str | None = None
    isolated: tuple[str, ...] = ()


def chosen(submission: Submission) -> list[str]:
    """All records that can be computed again, in the order in which they are tried.

    Each draws an exponential waiting time at a rate of one over its cost, from a seed of the submission's content: the
    order is a draw without replacement, with probabilities proportional to the rates (Efraimidis and Spirakis 2006).
    """

    def waiting(name: str) -> float:
        draw = Rng("canary", submission.content, name).seed / 2**63
        return -math.log(max(draw, 1e-18)) * expected_s(submission.records[name])

    return sorted((n for n, record in submission.records.items() if _replayable(record)), key=waiting)


def expected_s(record: CellRecord) -> float:
    """Seconds that a cell took, as its record says; kept within bounds, so that no claim of a record excludes it."""
    spent = sum(record.timings_s.values()) + max((p.attack_time_s for p in record.points), default=0.0)
    spent += sum(point.verify_time_s for point in record.points)
    return min(max(spent, LEAST_S), 4 * BUDGET_S)


def replayed(
    submission: Submission, folder: Path, *, budget_s: float = BUDGET_S, data_root: Path | None = None
) -> Finding:
    """Compute cells again, in a confined process, and compare.

    Args:
        submission: what was handed in.
        folder: an empty one, to compute in.
        budget_s: no cell is begun that is expected to end later.
        data_root: where real data sets are.
    """
    names = chosen(submission)[: 4 * MOST_CELLS]
    task = folder / "task.json"
    asked = {
        "kind": submission.envelope.kind, "name": submission.envelope.name, "budget": budget_s, "most": MOST_CELLS,
        "seconds": budget_s + GRACE_S, "memory": Limits(0).memory,
        "data_root": None if data_root is None else str(data_root.resolve()),
        "cells": [_asked(name, submission.records[name]) for name in names],
    }  # fmt: skip
    task.write_text(json.dumps(asked), encoding="utf-8")
    ended = _run(submission, task, folder, budget_s + GRACE_S)
    outcomes = _outcomes(folder / OUTCOMES)
    found = {n: record for n in names if (record := _again(folder, outcomes.get(n), submission.records[n])) is not None}
    broken = _broken(outcomes, ended, bool(found), set(names))
    if broken:
        return Finding(failure=broken, isolated=ended.isolated)
    if not found:
        return Finding(nothing=_nothing(outcomes, ended, names), isolated=ended.isolated)
    pairs = {name: (submission.records[name], record) for name, record in found.items()}
    same = submission.envelope.source.harness == _harness()
    failure = next((f"{n}: {why}" for n, pair in pairs.items() if (why := disagreement(*pair, same=same))), None)
    rerun = tuple(_rerun(name, *pair, same=same) for name, pair in pairs.items())
    return Finding(rerun, failure or together(rerun), isolated=ended.isolated)


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
    if _exact(reported, again, same):
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


def _replayable(record: CellRecord) -> bool:
    names = [applied.name for applied in record.cell.attacks]
    return record.status == "ok" and len(set(names)) == len(names)


def _asked(name: str, record: CellRecord) -> dict[str, object]:
    """What the confined process is told of a cell: the question, and no answer."""
    nulls = sum(len(null.p_values) for null in record.nulls if null.kind == FRESH_KEY)
    threads = min(record.provenance.threads, max(2, os.cpu_count() or 1))
    return {
        "record": name, "cell": record.cell.model_dump(mode="json"), "null_keys": min(nulls, MOST_NULL_KEYS),
        "threads": threads,
    }  # fmt: skip


def _run(submission: Submission, task: Path, folder: Path, seconds: float) -> Ended:
    root = tree().root
    plugins = os.pathsep.join(str(path.resolve()) for path in _copied(submission, folder))
    settings = {"BENCH_PLUGINS": plugins} if plugins else {}
    return run_confined(
        "bench.checks.replay", [str(task), str(folder)], folder, Limits(seconds), root=root,
        hidden=[root / ".git", root / "leaderboard", root / "runs", submission.folder], settings=settings,
    )  # fmt: skip


def _copied(submission: Submission, folder: Path) -> Iterator[Path]:
    """The sources beside the envelope, copied to where its records cannot be seen."""
    for path in beside(submission.folder, submission.envelope):
        copy = folder / path.name
        copy.write_bytes(path.read_bytes())
        yield copy


def _outcomes(path: Path) -> dict[str, tuple[str, str]]:
    """Record -> what became of it, as the confined process says; nothing where it says nothing usable."""
    try:
        found = read_strict(path, 1 << 20)
    except StrictJSONError:
        return {}
    pairs = found.items() if isinstance(found, dict) else ()
    return {n: (str(v[0])[:40], str(v[1])[:500]) for n, v in pairs if isinstance(v, list) and len(v) == 2}


def _again(folder: Path, outcome: tuple[str, str] | None, reported: CellRecord) -> CellRecord | None:
    if outcome is None or outcome[0] != COMPUTED:
        return None
    places = [folder / DONE / "records" / part / reported.filename for part in ("", "failed")]
    for path in places:
        try:
            record = load_record(path) if path.is_file() and not path.is_symlink() else None
        except RecordError:
            continue
        if record is not None and record.cell == reported.cell:
            return record
    return None


def _broken(outcomes: Mapping[str, tuple[str, str]], ended: Ended, found: bool, asked: set[str]) -> str | None:
    """Why what came back is worth nothing."""
    unknown = next((why for name, (state, why) in outcomes.items() if state == UNKNOWN and name in {"", *asked}), None)
    if unknown:
        return f"A cell cannot be made of its record: {unknown}"
    if ended.status != 0 and not found:
        how = "was not done in time" if ended.status is None else f"ended with status {ended.status}"
        last = ended.said.strip().splitlines()[-1:] or ["nothing"]
        return f"The method's process {how}; it said last: {last[0][:300]}"
    return None


def _nothing(outcomes: Mapping[str, tuple[str, str]], ended: Ended, names: list[str]) -> str:
    if not names:
        return "no record can be computed again"
    states = [f"{name}: {state}, {why}" for name, (state, why) in outcomes.items()]
    return "; ".join(states[:3]) or f"the process left nothing: {ended.said[-300:]}"


def _rerun(name: str, reported: CellRecord, again: CellRecord, *, same: bool) -> Rerun:
    return Rerun(
        record=name, profile=reported.cell.profile, exact=_exact(reported, again, same),
        drift_pp=_drift_pp(reported.marked, again.marked),
    )  # fmt: skip


def _harness() -> str:
    from bench.checks.source import harness_digest

    return harness_digest()


def _exact(reported: CellRecord, again: CellRecord, same: bool) -> bool:
    ours, theirs = again.provenance, reported.provenance
    return same and all(getattr(ours, name) == getattr(theirs, name) for name in ENVIRONMENT)


def _drift_pp(reported: Point | None, again: Point | None) -> float | None:
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
    found = [("marked model", _drift_pp(reported.marked, again.marked))]
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
