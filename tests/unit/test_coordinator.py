"""Steps that several processes want: one computes, the others take what it left."""

from __future__ import annotations

import gc
from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from bench.plan.plan import Plan
from bench.runner import coordinator, worker
from bench.runner.coordinator import execute
from bench.runner.estimate import Durations
from bench.runner.executors import Settings
from bench.runner.machine import killed_for_memory
from bench.runner.rundir import RunDir
from bench.runner.worker import Outcome, Task, compute
from bench.steps.workspace import Output, Place
from tests.fakes import on_digits, planned, record


class Silent:
    """Watches and says nothing."""

    def started(self, step: object) -> None: ...
    def finished(self, step: object, outcome: object) -> None: ...
    def settled(self, record: object) -> None: ...


def test_what_another_process_stored_is_found_and_not_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = on_digits().steps["host"]
    task = Task(step.kind, step.key, step.identity, step.label)
    monkeypatch.setitem(worker.COMPUTE, "host", lambda workspace: Output({"time_s": 1.0}))
    assert not compute(task, tmp_path, Place()).found
    monkeypatch.setitem(worker.COMPUTE, "host", lambda workspace: pytest.fail("computed again"))
    assert compute(task, tmp_path, Place()) == Outcome(step.key, pytest.approx(0, abs=5), found=True)


@pytest.mark.parametrize("found", [True, False])
def test_waiting_for_another_process_teaches_no_duration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: bool
) -> None:
    cell = planned()
    monkeypatch.setattr(coordinator, "compute", lambda task, *_: Outcome(task.key, 9.0, found=found))
    monkeypatch.setattr(coordinator, "assemble", lambda cell, store: record(cell=cell.cell, cell_key=cell.key))
    run_dir = RunDir(tmp_path)
    durations = Durations(run_dir.durations)
    plan = Plan.make([cell], run_dir.records, lambda key: False)
    summary = execute(plan, run_dir, Settings(Place(), threads=1), Silent(), durations)
    steps = len(plan.steps)
    assert (summary.computed, summary.cached) == ((0, steps) if found else (steps, 0))
    assert run_dir.durations.exists() != found


class Pool(Executor):
    """Computes nothing; the first one is found broken when it is asked."""

    made: ClassVar[list[Pool]] = []

    def __init__(self) -> None:
        self.broken, self.ended = not self.made, False
        self.made.append(self)

    def submit(self, fn: Any, /, task: Task, *args: Any) -> Future[Outcome]:
        """An outcome at once."""
        if self.broken:
            raise BrokenProcessPool("a worker died")
        future: Future[Outcome] = Future()
        future.set_result(Outcome(task.key, 1.0))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Remembered."""
        self.ended = True


def test_workers_that_were_replaced_are_ended_as_those_that_took_their_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = planned()
    monkeypatch.setattr(Pool, "made", [])
    monkeypatch.setattr(coordinator, "pool_for", lambda settings: Pool())
    monkeypatch.setattr(coordinator, "assemble", lambda cell, store: record(cell=cell.cell, cell_key=cell.key))
    run_dir = RunDir(tmp_path)
    plan = Plan.make([cell], run_dir.records, lambda key: False)
    summary = execute(plan, run_dir, Settings(Place(), jobs=2, threads=1), Silent(), Durations(run_dir.durations))
    assert summary.computed == len(plan.steps)
    assert [pool.ended for pool in Pool.made] == [True, True]


@pytest.mark.parametrize(("jobs", "second"), [(1, "keys"), (2, "attacked_nulls")])
def test_several_workers_begin_with_what_takes_longest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jobs: int, second: str
) -> None:
    cell, begun = planned(), list[str]()
    monkeypatch.setattr(Pool, "made", [Pool.__new__(Pool)])  # none of these is the broken one
    monkeypatch.setattr(coordinator, "pool_for", lambda settings: Pool())
    monkeypatch.setattr(coordinator, "compute", lambda task, *_: Outcome(task.key, 0.0))
    monkeypatch.setattr(coordinator, "assemble", lambda cell, store: record(cell=cell.cell, cell_key=cell.key))
    monkeypatch.setattr(Silent, "started", lambda self, step: begun.append(step.kind))
    run_dir = RunDir(tmp_path)
    durations = Durations(run_dir.durations, probe=lambda: 1.0)
    monkeypatch.setattr(durations, "seconds", lambda step: 100.0 if step.kind == "attacked_nulls" else 1.0)
    plan = Plan.make([cell], run_dir.records, lambda key: False)
    execute(plan, run_dir, Settings(Place(), jobs=jobs, threads=1), Silent(), durations)
    assert begun[:2] == ["host", second]


def test_short_of_memory_the_collector_comes_before_the_allocator(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a dead network still holds of a GPU cannot be given back before it is found."""
    done: list[str] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: done.append("emptied"))
    monkeypatch.setattr(gc, "collect", lambda: done.append("collected"))
    assert worker._starved(MemoryError())
    assert not worker._starved(ValueError())
    assert done == ["collected", "emptied"]


@pytest.mark.parametrize(
    ("error", "starved"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (MemoryError(), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."), True),
        (RuntimeError("boom"), False),
    ],
)
def test_memory_that_is_short_is_named_with_what_to_lower(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, starved: bool
) -> None:
    def fail(workspace: object) -> Output:
        raise error

    step = on_digits().steps["host"]
    monkeypatch.setitem(worker.COMPUTE, "host", fail)
    outcome = compute(Task(step.kind, step.key, step.identity, step.label), tmp_path, Place())
    assert outcome.starved == starved
    last = (outcome.error or "").splitlines()[-1]
    assert last.startswith("Out of memory on cpu: give fewer --jobs") == starved


def test_the_kernels_count_of_processes_killed_for_memory(tmp_path: Path) -> None:
    (tmp_path / "vmstat").write_text("nr_free 1\noom_kill 7\nx 2\n")
    assert killed_for_memory(tmp_path / "vmstat") == 7
    assert killed_for_memory(tmp_path / "absent") == 0
