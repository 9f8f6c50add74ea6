"""Computes what is missing of a plan and writes a record per cell; a failed step fails its own cells only.

Workers write only results of steps. Only the calling process writes records, so a kill loses at most the steps
in flight and leaves no half-written record.
"""

from __future__ import annotations

import signal
import time
import traceback as tracebacks
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import active_children
from typing import Any, Protocol

from bench.plan.matrix import Planned, Step
from bench.plan.plan import Plan
from bench.records.files import save_record
from bench.records.record import CellRecord
from bench.runner.assembly import assemble, failed, not_applicable_record
from bench.runner.estimate import Durations
from bench.runner.executors import Inline, Settings, pool_for
from bench.runner.rundir import RunDir
from bench.runner.store import StoreError
from bench.runner.worker import Outcome, Task, compute

__all__ = ["Summary", "Terminated", "Watch", "execute"]


class Terminated(KeyboardInterrupt):
    """The process was asked to end by SIGTERM, as schedulers do."""


@dataclass
class Summary:
    """How a run ended.

    Attributes:
        records: of all cells that are settled.
        computed, cached: numbers of steps.
        failures: step's key -> traceback.
        notes: what a person should know and no record says.
        stopped: whether steps are left because time was up or a signal came.
        signal: SIGINT or SIGTERM, where that ended it.
    """

    records: list[CellRecord] = field(default_factory=list)
    computed: int = 0
    cached: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0
    stopped: bool = False
    signal: int | None = None


class Watch(Protocol):
    """Who is told of the progress."""

    def started(self, step: Step) -> None:
        """`step` was handed to a worker."""

    def finished(self, step: Step, outcome: Outcome) -> None:
        """`step` was computed, or failed."""

    def settled(self, record: CellRecord) -> None:
        """A cell has its record."""


def execute(plan: Plan, run_dir: RunDir, settings: Settings, watch: Watch, durations: Durations) -> Summary:
    """Compute what is missing and write a record per cell as soon as its steps are settled.

    A step that fails fails its cells, with its traceback, and no others; it is retried by the next run. SIGINT and
    `Terminated` end the run and the worker processes; what is settled is in the summary.

    Args:
        plan: what to compute.
        run_dir: where it is kept.
        settings: how to compute it.
        watch: told of the progress.
        durations: told what each step took.
    """
    start = time.perf_counter()
    run_dir.store.prepare()
    summary = Summary(records=list(plan.settled), cached=plan.cached)
    work = _Work(plan, run_dir, settings, watch, durations, summary)
    try:
        if settings.jobs == 1 and settings.executor == "local":
            work.drain(partial(Inline, settings))
        else:
            with ExitStack() as pools:
                work.drain_or_kill(lambda: pools.enter_context(pool_for(settings)))
    except KeyboardInterrupt as error:
        summary.signal = signal.SIGTERM if isinstance(error, Terminated) else signal.SIGINT
        summary.stopped = True
    summary.seconds = time.perf_counter() - start
    return summary


class _Work:
    """The steps to do and the cells that wait for them."""

    def __init__(
        self, plan: Plan, run_dir: RunDir, settings: Settings, watch: Watch, durations: Durations, summary: Summary
    ) -> None:
        self.run_dir, self.settings, self.watch, self.summary = run_dir, settings, watch, summary
        self.durations = durations
        self.cells = list(plan.todo)
        self.steps = {step.key: step for step in plan.steps}
        self.pending = list(plan.missing)
        self.done = set(self.steps) - {step.key for step in plan.missing}
        self.repaired: set[str] = set()
        self.alone: set[str] = set()
        self.deadline = None if settings.max_time_s is None else time.monotonic() + settings.max_time_s

    def drain_or_kill(self, start: Callable[[], Executor]) -> None:
        """`drain`; whatever interrupts it ends the worker processes, too, in the middle of their steps."""
        try:
            self.drain(start)
        except BaseException:
            for child in active_children():
                child.terminate()
            raise

    def drain(self, start: Callable[[], Executor]) -> None:
        """Submit what is ready, take what is finished, until nothing is left.

        Args:
            start: gives the workers, and others in their place where one of them died.
        """
        pool, running = start(), dict[Future[Outcome], Step]()
        self._settle()
        while True:
            pool = self._submit(pool, start, running)
            if not running:
                break
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                self._take(running.pop(future), future)
            self._settle()
        self.summary.stopped = bool(self.pending)

    def _submit(self, pool: Executor, start: Callable[[], Executor], running: dict[Future[Outcome], Step]) -> Executor:
        store = self.run_dir.store
        while len(running) < (1 if self.alone else self.settings.jobs) and not self._late():
            step = next((s for s in self.pending if all(i.key in self.done for i in s.inputs.values())), None)
            if step is None:
                break
            self.pending.remove(step)
            self.watch.started(step)
            task = Task(step.kind, step.key, step.identity, step.label)
            try:
                future = pool.submit(compute, task, store.root, self.settings.place, store.url)
            except BrokenProcessPool:
                pool = start()
                future = pool.submit(compute, task, store.root, self.settings.place, store.url)
            running[future] = step
        return pool

    def _late(self) -> bool:
        return self.deadline is not None and time.monotonic() > self.deadline

    def _take(self, step: Step, future: Future[Outcome]) -> None:
        try:
            outcome = future.result()
        except BrokenProcessPool:  # every step in flight is lost with the one whose worker died: which was it?
            if step.key not in self.alone:
                self.alone.add(step.key)
                self.pending.insert(0, step)
                return
            outcome = Outcome(step.key, 0.0, "The worker process died (killed, or out of memory): try fewer --jobs.")
        except Exception:  # an executor's own trouble is this step's failure, not the run's
            outcome = Outcome(step.key, 0.0, tracebacks.format_exc())
        self.alone.discard(step.key)
        if outcome.note is not None and outcome.note not in self.summary.notes:
            self.summary.notes.append(outcome.note)
        if outcome.damaged is not None and self._repair(outcome.damaged):
            self.pending.append(step)
            return
        self.watch.finished(step, outcome)
        if outcome.error is None:
            self.done.add(step.key)
            if outcome.found:  # the time of waiting for another process says nothing of the step
                self.summary.cached += 1
            else:
                self.summary.computed += 1
                self.durations.add(step, outcome.seconds)
        else:
            self._fail(step, outcome.error)

    def _repair(self, key: str) -> bool:
        """See to it that a step whose stored result was damaged is computed again, once; false if that is hopeless."""
        if key not in self.steps or (key in self.repaired and key in self.done):
            return False
        if key not in self.repaired:
            self.repaired.add(key)
            self.done.discard(key)
            self.pending.insert(0, self.steps[key])
            label = self.steps[key].label
            self.summary.notes.append(
                f"The stored result of '{label}' was damaged: it was set aside, and computed again."
            )
        return True

    def _fail(self, step: Step, error: str) -> None:
        self.summary.failures[step.key] = error
        hopeless = [s for s in self.pending if step.key in {i.key for i in s.inputs.values()}]
        self.pending = [s for s in self.pending if s not in hopeless]
        for dependent in hopeless:
            self._fail(dependent, error)

    def _settle(self) -> None:
        """Write the records of cells whose steps are all done or failed."""
        waiting = []
        for cell in self.cells:
            record = self._record(cell)
            if record is None:
                waiting.append(cell)
                continue
            save_record(record, self.run_dir.records)
            self.summary.records.append(record)
            self.watch.settled(record)
        self.cells = waiting

    def _record(self, cell: Planned) -> CellRecord | None:
        where: dict[str, Any] = {"device": self.settings.place.device, "threads": self.settings.threads}
        if cell.reason is not None:
            return not_applicable_record(cell)
        errors = [self.summary.failures[s.key] for s in cell.steps.values() if s.key in self.summary.failures]
        if errors:
            return failed(cell, errors[0], **where)
        if not all(step.key in self.done for step in cell.steps.values()):
            return None
        try:
            return assemble(cell, self.run_dir.store)
        except Exception as error:  # a damaged result, or one that no record can hold: this cell's failure alone
            if isinstance(error, StoreError) and error.key is not None and self._repair(error.key):
                return None
            return failed(cell, tracebacks.format_exc(), **where)
