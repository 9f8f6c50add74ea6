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

from bench.checks.agreement import disagreement, drift_pp, exact, together
from bench.checks.replay import COMPUTED, DONE, OUTCOMES, UNKNOWN
from bench.checks.sandbox import Ended, Limits, run_confined
from bench.checks.source import beside, harness_digest
from bench.identity import Rng
from bench.plan.fingerprint import tree
from bench.records.files import load_record
from bench.records.record import FRESH_KEY, CellRecord, RecordError
from bench.records.strictjson import StrictJSONError, read_strict
from bench.records.submission import Rerun, Submission

__all__ = ["BUDGET_S", "Finding", "chosen", "expected_s", "replayed"]

BUDGET_S = 120.0  # no further cell is begun that would end later; the process is ended a minute after it
GRACE_S = 60.0
MOST_CELLS = 6
LEAST_S, MOST_NULL_KEYS = 5.0, 200


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


def chosen(submission: Submission, salt: str = "") -> list[str]:
    """All records that can be computed again, in the order in which they are tried.

    Each draws an exponential waiting time at a rate of one over its cost, from a seed of the submission's content: the
    order is a draw without replacement, with probabilities proportional to the rates (Efraimidis and Spirakis 2006).

    Args:
        submission: what was handed in.
        salt: what the submitter could not know, so that trying many variants of a submission is of no use.
    """

    def waiting(name: str) -> float:
        draw = Rng("canary", submission.content, salt, name).seed / 2**63
        return -math.log(max(draw, 1e-18)) * expected_s(submission.records[name])

    return sorted((n for n, record in submission.records.items() if _replayable(record)), key=waiting)


def expected_s(record: CellRecord) -> float:
    """Seconds that a cell took, as its record says; kept within bounds, so that no claim of a record excludes it."""
    spent = sum(record.timings_s.values()) + max((p.attack_time_s for p in record.points), default=0.0)
    spent += sum(point.verify_time_s for point in record.points)
    return min(max(spent, LEAST_S), 4 * BUDGET_S)


def replayed(
    submission: Submission, folder: Path, *, budget_s: float = BUDGET_S, data_root: Path | None = None, salt: str = ""
) -> Finding:
    """Compute cells again, in a confined process, and compare.

    Args:
        submission: what was handed in.
        folder: an empty one, to compute in.
        budget_s: no cell is begun that is expected to end later.
        data_root: where real data sets are.
        salt: of the choice.
    """
    names = chosen(submission, salt)[: 4 * MOST_CELLS]
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
    same = submission.envelope.source.harness == harness_digest()
    failure = next((f"{n}: {why}" for n, pair in pairs.items() if (why := disagreement(*pair, same=same))), None)
    rerun = tuple(_rerun(name, *pair, same=same) for name, pair in pairs.items())
    failure = failure or together(rerun)
    if failure and not same:  # which proves nothing: honest records of another harness may differ as well
        why = f"another version of the harness computed the records, and they disagree: run them again ({failure})"
        return Finding(nothing=why, isolated=ended.isolated)
    return Finding(rerun, failure, isolated=ended.isolated)


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
    return {n: (_plain(v[0])[:40], _plain(v[1])[:500]) for n, v in pairs if isinstance(v, list) and len(v) == 2}


def _plain(text: object) -> str:
    """A stranger's words as a terminal can show them: without anything that steers it."""
    return "".join(letter if letter.isprintable() else " " for letter in str(text))


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
    if ended.status is None or found or not asked or (ended.status == 0 and outcomes):
        return None  # time that was up proves nothing
    (last,) = ended.said.strip().splitlines()[-1:] or ["nothing"]
    how = f"ended with status {ended.status} and computed nothing"
    return f"The method's process {how}; it said last: {_plain(last)[:300]}"


def _nothing(outcomes: Mapping[str, tuple[str, str]], ended: Ended, names: list[str]) -> str:
    if not names:
        return "no record can be computed again"
    if ended.status is None:
        return "the method's process was not done in time"
    states = [f"{name}: {state}, {why}" for name, (state, why) in outcomes.items()]
    return "; ".join(states[:3]) or f"the process left nothing: {_plain(ended.said)[-300:]}"


def _rerun(name: str, reported: CellRecord, again: CellRecord, *, same: bool) -> Rerun:
    return Rerun(
        record=name, profile=reported.cell.profile, exact=exact(reported, again, same),
        drift_pp=drift_pp(reported.marked, again.marked),
    )  # fmt: skip
