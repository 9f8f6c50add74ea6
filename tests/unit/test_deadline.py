"""Deadlines: a step that is not expected to end in time does not start."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from bench.plan.plan import Plan
from bench.runner import coordinator
from bench.runner.coordinator import Summary, execute
from bench.runner.deadline import GRACE_S, deadline
from bench.runner.estimate import Durations
from bench.runner.executors import Settings
from bench.runner.rundir import RunDir
from bench.runner.worker import Outcome
from bench.steps.workspace import Place
from tests.fakes import planned, record


@pytest.mark.parametrize(
    ("asked_s", "slurm_s", "cause", "left_s"),
    [
        (None, None, None, 0.0),
        (600.0, None, "--max-time", 600.0),
        (None, 600, "SLURM_JOB_END_TIME", 600 - GRACE_S),
        (600.0, 6000, "--max-time", 600.0),
        (6000.0, 600, "SLURM_JOB_END_TIME", 600 - GRACE_S),
        (None, -600, "SLURM_JOB_END_TIME", 0.0),
    ],
)
def test_the_earlier_counts(asked_s: float | None, slurm_s: int | None, cause: str | None, left_s: float) -> None:
    told = {} if slurm_s is None else {"SLURM_JOB_END_TIME": str(int(time.time()) + slurm_s)}
    found = deadline(asked_s, told)
    assert (found and found.cause) == cause
    assert found is None or found.left_s() == pytest.approx(left_s, abs=2)


@pytest.mark.parametrize("told", ["", "soon", "0", "-1", "1.5", "NaN"])
def test_what_is_no_time_is_passed_over(told: str) -> None:
    assert deadline(None, {"SLURM_JOB_END_TIME": told}) is None


class Silent:
    """Watches and says nothing."""

    def started(self, step: object) -> None: ...
    def finished(self, step: object, outcome: object) -> None: ...
    def settled(self, record: object) -> None: ...


def ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected_s: dict[str, float], **settings: float) -> Summary:
    """A run whose steps are expected to take so long, by kind, and take no time at all."""
    monkeypatch.setattr(coordinator, "compute", lambda task, *_: Outcome(task.key, 0.0))
    monkeypatch.setattr(coordinator, "assemble", lambda cell, store: record(cell=cell.cell, cell_key=cell.key))
    run_dir = RunDir(tmp_path)
    durations = Durations(run_dir.durations, probe=lambda: 1.0)
    monkeypatch.setattr(durations, "seconds", lambda step: expected_s.get(step.kind, 1.0))
    plan = Plan.make([planned()], run_dir.records, lambda key: False)
    return execute(plan, run_dir, Settings(Place(), threads=1, **settings), Silent(), durations)


def test_a_step_that_is_too_long_does_not_start_and_shorter_ones_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    summary = ended(tmp_path, monkeypatch, {"attack": 500.0}, max_time_s=300.0)
    assert summary.stopped
    assert summary.late is not None
    assert (summary.late.cause, summary.late.steps, summary.late.shortest_s) == ("--max-time", 1, 500.0)
    assert summary.late.left_s == pytest.approx(300, abs=20)
    assert summary.computed == len(planned().steps) - 1
    assert summary.records == []


def test_what_fits_ends_as_without_a_deadline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(int(time.time()) + 3600))
    summary = ended(tmp_path, monkeypatch, {})
    assert (summary.stopped, summary.late, len(summary.records)) == (False, None, 1)


def test_in_a_job_that_is_about_to_end_nothing_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(int(time.time()) + 10))
    summary = ended(tmp_path, monkeypatch, {})
    assert (summary.computed, summary.stopped) == (0, True)
    assert summary.late is not None
    assert summary.late.cause == "SLURM_JOB_END_TIME"
    assert summary.late.left_s == 0
