"""Computes what is missing of a plan and writes a record per cell; a failed step fails its own cells only.

Workers write only results of steps. Only the calling process writes records, so a kill loses at most the steps
in flight and leaves no half-written record.
"""

from __future__ import annotations

import signal
import time
import traceback as tracebacks
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import active_children
from typing import Any, Protocol

from bench.plan.matrix import Planned
from bench.plan.plan import Plan
from bench.plan.step import Step
from bench.records.files import save_record
from bench.records.record import CellRecord
from bench.runner.assembly import assemble, failed, not_applicable_record
from bench.runner.deadline import deadline
from bench.runner.estimate import Durations
from bench.runner.executors import Inline, NodesLostError, Settings, pool_for
from bench.runner.machine import killed_for_memory
from bench.runner.order import ordered
from bench.runner.pending import OpenCells, Pending
from bench.runner.rundir import RunDir
from bench.runner.store import StoreError
from bench.runner.worker import LOWER, Outcome, Task, compute

__all__ = ["Late", "Summary", "Terminated", "Watch", "execute"]

DIED = "The worker process died (killed, or out of memory): try fewer --jobs."
# Of a cluster, whose nodes are not counted yet when the first step starts.
MANY = 1_000
STARVED = "The worker process died, and the system killed a process for want of memory meanwhile: "


class Terminated(KeyboardInterrupt):
    """The process was asked to end by SIGTERM, as schedulers do."""


@dataclass(frozen=True)
class Late:
    """Why steps were left that nobody interrupted.

    Attributes:
        cause: `--max-time`, or the scheduler's variable.
        steps: how many are left.
        shortest_s: expected duration of the shortest that was ready.
        left_s: seconds that were left when it was passed over.
    """

    cause: str
    steps: int
    shortest_s: float
    left_s: float


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
        late: what did not fit into the time, where that ended it.
    """

    records: list[CellRecord] = field(default_factory=list)
    computed: int = 0
    cached: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0
    stopped: bool = False
    signal: int | None = None
    late: Late | None = None


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
        if (settings.jobs == 1 and settings.executor == "local") or not plan.missing:
            work.drain(partial(Inline, settings))
        else:
            with ExitStack() as pools:
                work.drain_or_kill(lambda: pools.enter_context(_workers(plan, run_dir, settings, summary)))
    except KeyboardInterrupt as error:
        summary.signal = signal.SIGTERM if isinstance(error, Terminated) else signal.SIGINT
        summary.stopped = True
    summary.seconds = time.perf_counter() - start
    return summary


def _workers(plan: Plan, run_dir: RunDir, settings: Settings, summary: Summary) -> Executor:
    if settings.executor == "local":
        return pool_for(settings)
    from bench.runner.ray import Nodes

    return Nodes(settings, run_dir.store, plan.missing, summary.notes.append)


class _Work:
    """The steps to do and the cells that wait for them."""

    def __init__(
        self, plan: Plan, run_dir: RunDir, settings: Settings, watch: Watch, durations: Durations, summary: Summary
    ) -> None:
        self.run_dir, self.settings, self.watch, self.summary = run_dir, settings, watch, summary
        self.durations = durations
        self.steps = {step.key: step for step in plan.steps}
        workers = settings.jobs if settings.executor == "local" else MANY
        missing = ordered(plan.missing, durations.seconds, workers)
        self.pending = Pending(missing, set(self.steps) - {step.key for step in missing})
        self.cells = OpenCells(plan.todo, self.pending.done)
        self.repaired: set[str] = set()
        self.alone: set[str] = set()
        self.deadline = deadline(settings.max_time_s)
        self.left_s: dict[str, float] = {}
        self.lost = False
        self.killed = killed_for_memory()

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
        self._settle(self.cells.ready())
        while True:
            pool = self._submit(pool, start, running)
            if not running:
                break
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                self._take(running.pop(future), future)
        self._say_late()

    def _submit(self, pool: Executor, start: Callable[[], Executor], running: dict[Future[Outcome], Step]) -> Executor:
        store = self.run_dir.store
        while len(running) < (1 if self.alone else getattr(pool, "slots", self.settings.jobs)) and not self.lost:
            step = self.pending.take(self._fits)
            if step is None:
                break
            self.watch.started(step)
            task = Task(step.kind, step.key, step.identity, step.label)
            try:
                future = pool.submit(compute, task, store.root, self.settings.place, store.url)
            except BrokenProcessPool:
                pool = start()
                future = pool.submit(compute, task, store.root, self.settings.place, store.url)
            running[future] = step
        return pool

    def _fits(self, step: Step) -> bool:
        """Whether a step is expected to end in time."""
        if self.deadline is None:
            return True
        left_s = self.deadline.left_s()
        fits = 0 < left_s >= self.durations.seconds(step)
        if not fits:
            self.left_s[step.key] = left_s
        return fits

    def _say_late(self) -> None:
        late = self.pending.late()
        self.summary.stopped = bool(self.pending)
        if self.deadline is not None and late:
            shortest_s, key = min((self.durations.seconds(step), step.key) for step in late)
            self.summary.late = Late(self.deadline.cause, len(self.pending), shortest_s, self.left_s[key])

    def _take(self, step: Step, future: Future[Outcome]) -> None:
        try:
            outcome = future.result()
        except BrokenProcessPool:  # every step in flight is lost with the one whose worker died: which was it?
            if step.key not in self.alone:
                self.alone.add(step.key)
                self.pending.back(step)
                return
            starved = killed_for_memory() > self.killed
            outcome = Outcome(step.key, 0.0, STARVED + LOWER if starved else DIED)
        except NodesLostError as error:  # nothing is wrong with the step, nor with those that wait
            self.summary.notes += [] if self.lost else [str(error)]
            self.lost = True
            self.pending.back(step)
            return
        except Exception:  # an executor's own trouble is this step's failure, not the run's
            outcome = Outcome(step.key, 0.0, tracebacks.format_exc())
        self.alone.discard(step.key)
        if outcome.note is not None and outcome.note not in self.summary.notes:
            self.summary.notes.append(outcome.note)
        if outcome.damaged is not None and self._repair(outcome.damaged):
            self.pending.back(step)
            return
        self.watch.finished(step, outcome)
        if outcome.error is None:
            self.pending.finish(step)
            if outcome.found:  # the time of waiting for another process says nothing of the step
                self.summary.cached += 1
            else:
                self.summary.computed += 1
                self.durations.add(step, outcome.seconds)
            self._settle(self.cells.finish(step.key))
        else:
            self._fail(step, outcome.error)

    def _repair(self, key: str) -> bool:
        """See to it that a step whose stored result was damaged is computed again, once; false if that is hopeless."""
        if key not in self.steps or (key in self.repaired and key in self.pending.done):
            return False
        if key not in self.repaired:
            self.repaired.add(key)
            self.pending.again(self.steps[key])
            self.cells.again(key)
            label = self.steps[key].label
            self.summary.notes.append(
                f"The stored result of '{label}' was damaged: it was set aside, and computed again."
            )
        return True

    def _fail(self, step: Step, error: str) -> None:
        for hopeless in (step, *self.pending.drop_readers(step)):
            self.summary.failures[hopeless.key] = error
            self._settle(self.cells.failing(hopeless.key))

    def _settle(self, cells: Iterable[Planned]) -> None:
        """Write the records of cells whose steps are all done, or of which one failed."""
        for cell in cells:
            record = self._record(cell)
            if record is None:
                continue
            save_record(record, self.run_dir.records)
            self.cells.close(cell)
            self.summary.records.append(record)
            self.watch.settled(record)

    def _record(self, cell: Planned) -> CellRecord | None:
        where: dict[str, Any] = {"place": self.settings.place, "threads": self.settings.threads}
        if cell.reason is not None:
            return not_applicable_record(cell)
        errors = [self.summary.failures[s.key] for s in cell.steps.values() if s.key in self.summary.failures]
        if errors:
            return failed(cell, errors[0], **where)
        try:
            return assemble(cell, self.run_dir.store)
        except Exception as error:  # a damaged result, or one that no record can hold: this cell's failure alone
            if isinstance(error, StoreError) and error.key is not None and self._repair(error.key):
                return None
            return failed(cell, tracebacks.format_exc(), **where)
