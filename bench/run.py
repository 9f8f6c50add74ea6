"""Who computes it, where? In this process, in worker processes, or on Ray; the same steps, the same store.

Workers write only results of steps. Only the calling process writes records, so a kill loses at most the steps
in flight and leaves no half-written record.
"""

from __future__ import annotations

import os
import threading
import time
import traceback as tracebacks
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol

import torch

from bench.assembly import assemble, failed, not_applicable_record, whereabouts
from bench.estimate import Durations
from bench.job import Job, Place
from bench.matrix import Planned, Step, steps_of
from bench.records import Record, RecordError, load_record, save_record
from bench.registry import RegistryError, attacks, schemes
from bench.sources import closure
from bench.steps import COMPUTE
from bench.store import Store

__all__ = [
    "Outcome",
    "RunDir",
    "Settings",
    "Summary",
    "Task",
    "Watch",
    "compute",
    "execute",
    "pick_device",
    "unsettled",
]

TRIES = 2


class RunDir:
    """Where a run keeps things: `records/`, `store/`, `mlflow.db`, `site/`."""

    def __init__(self, path: Path) -> None:
        path = path.resolve()
        self.path = path
        self.records = path / "records"
        self.store = Store(path / "store")
        self.durations = path / "durations.jsonl"
        self.ledger = path / "mlflow-ledger.json"
        self.site = path / "site"


@dataclass(frozen=True)
class Settings:
    """How to compute; of no influence on what is computed (but for the number of threads, which is recorded).

    Attributes:
        jobs: worker processes; 1 computes in this process.
        executor: `local` or `ray`.
        threads: threads of one worker; 0 lets the workers share the cores that this process may use.
        max_time_s: start no further step after this many seconds; None for no limit.
    """

    place: Place
    jobs: int = 1
    executor: str = "local"
    max_time_s: float | None = None
    threads: int = 0

    def __post_init__(self) -> None:
        if not self.threads:
            cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
            object.__setattr__(self, "threads", max(1, cores // self.jobs))


@dataclass(frozen=True)
class Task:
    """A step as it travels to a worker: names and keys, no code."""

    kind: str
    key: str
    identity: Mapping[str, Any]
    label: str


@dataclass(frozen=True)
class Outcome:
    """What a worker answers; `error` is the traceback of a failure."""

    key: str
    seconds: float
    error: str | None = None


@dataclass
class Summary:
    """How a run ended."""

    records: list[Record] = field(default_factory=list)
    computed: int = 0
    cached: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    stopped: bool = False


class Watch(Protocol):
    """Who is told of the progress."""

    def started(self, step: Step) -> None:
        """`step` was handed to a worker."""

    def finished(self, step: Step, outcome: Outcome) -> None:
        """`step` was computed, or failed."""

    def settled(self, record: Record) -> None:
        """A cell has its record."""


def unsettled(planned: Sequence[Planned], run_dir: RunDir) -> tuple[list[Planned], list[Record]]:
    """The cells still to be computed, and the valid records of the others."""
    todo, done = [], []
    for cell in planned:
        record = _existing(cell, run_dir)
        if record is None or record.status == "failed" or record.cell_key != cell.key:
            todo.append(cell)
        else:
            done.append(record)
    return todo, done


def execute(planned: Sequence[Planned], run_dir: RunDir, settings: Settings, watch: Watch) -> Summary:
    """Compute what is missing and write a record per cell as soon as its steps are settled.

    A step that fails fails its cells, with its traceback, and no others; it is retried by the next run.
    """
    start = time.perf_counter()
    run_dir.store.sweep()
    todo, done = unsettled(planned, run_dir)
    summary = Summary(records=list(done))
    work = _Work(todo, run_dir, settings, watch, summary)
    if settings.jobs == 1 and settings.executor == "local":
        work.drain(_Inline(settings))
    else:
        with _executor(settings) as pool:
            work.drain(pool)
    summary.seconds = time.perf_counter() - start
    return summary


def compute(task: Task, store_root: Path, place: Place) -> Outcome:
    """Compute one step into the store, unless another process has; never raises for what the step does wrong."""
    start = time.perf_counter()
    store = Store(store_root)
    try:
        _same_source(task)
        with store.lock(task.key):
            if not store.has(task.key):
                inputs = {name: store.load(key) for name, key in task.identity["inputs"].items()}
                output = COMPUTE[task.kind](Job(task.identity["spec"], inputs, place, task.identity["data"]))
                meta = {
                    "identity": dict(task.identity),
                    "label": task.label,
                    "seconds": time.perf_counter() - start,
                    "where": whereabouts(place.device, torch.get_num_threads()),
                }
                store.save(task.key, meta, output.result, output.tensors)
    except (Exception, SystemExit):  # whatever a submitted scheme raises must fail its own cells only
        return Outcome(task.key, time.perf_counter() - start, tracebacks.format_exc())
    return Outcome(task.key, time.perf_counter() - start)


def _same_source(task: Task) -> None:
    """A worker that started after an edit must not store its result under the key of the code before."""
    for load in (schemes, attacks):  # a plug-in's module exists once the registry has loaded it
        load()
    known = task.identity["sources"]
    changed = [name for name, hashed in closure(known).items() if known.get(name) != hashed]
    if changed:
        raise RuntimeError(
            f"Expected the source that the run was planned with, but {', '.join(changed)} changed meanwhile: "
            "give the same command again."
        )


def pick_device(asked: str) -> str:
    """`auto` is a GPU where there is one.

    Raises:
        ValueError: the device does not exist here.
    """
    if asked == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=asked)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"Expected a device of this machine, but got {asked!r} ({reason}): try --device auto."
        ) from error
    return asked


class _Work:
    """The steps to do and the cells that wait for them."""

    def __init__(
        self, todo: Sequence[Planned], run_dir: RunDir, settings: Settings, watch: Watch, summary: Summary
    ) -> None:
        self.run_dir, self.settings, self.watch, self.summary = run_dir, settings, watch, summary
        self.cells = list(todo)
        self.durations = Durations(run_dir.durations)
        steps = steps_of(todo)
        self.done = {step.key for step in steps if run_dir.store.has(step.key)}
        self.pending = [step for step in steps if step.key not in self.done]
        self.alone: set[str] = set()
        self.deadline = None if settings.max_time_s is None else time.monotonic() + settings.max_time_s
        summary.cached = len(self.done)

    def drain(self, pool: Executor) -> None:
        """Submit what is ready, take what is finished, until nothing is left."""
        running: dict[Future[Outcome], Step] = {}
        self._settle()
        while True:
            pool = self._submit(pool, running)
            if not running:
                break
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                self._take(running.pop(future), future)
            self._settle()
        self.summary.stopped = bool(self.pending)

    def _submit(self, pool: Executor, running: dict[Future[Outcome], Step]) -> Executor:
        while len(running) < (1 if self.alone else self.settings.jobs) and not self._late():
            step = next((s for s in self.pending if all(i.key in self.done for i in s.inputs.values())), None)
            if step is None:
                break
            self.pending.remove(step)
            self.watch.started(step)
            task = Task(step.kind, step.key, step.identity, step.label)
            try:
                future = pool.submit(compute, task, self.run_dir.store.root, self.settings.place)
            except BrokenProcessPool:
                pool = _executor(self.settings)
                future = pool.submit(compute, task, self.run_dir.store.root, self.settings.place)
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
        self.watch.finished(step, outcome)
        if outcome.error is None:
            self.done.add(step.key)
            self.summary.computed += 1
            self.durations.add(step, outcome.seconds)
        else:
            self._fail(step, outcome.error)

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

    def _record(self, cell: Planned) -> Record | None:
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
        except Exception:  # a damaged result, or one that no record can hold: this cell's failure alone
            return failed(cell, tracebacks.format_exc(), **where)


class _Inline(Executor):
    """Computes at once, in this process."""

    def __init__(self, settings: Settings) -> None:
        torch.set_num_threads(settings.threads)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


class _Ray(Executor):
    """The same steps as Ray tasks: fractional GPUs, retries when a node dies."""

    def __init__(self, settings: Settings) -> None:
        try:
            import ray
        except ImportError as error:
            raise RegistryError(
                'Expected Ray to be installed for --executor ray: pip install "watermark-bench[ray]".'
            ) from error
        if not ray.is_initialized():
            ray.init(log_to_driver=False, include_dashboard=False)
        gpus = ray.cluster_resources().get("GPU", 0) / settings.jobs
        self._compute = ray.remote(compute).options(
            num_cpus=settings.threads, num_gpus=min(1.0, gpus), max_retries=TRIES
        )
        self._shutdown = ray.shutdown

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = self._compute.remote(*args).future()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._shutdown()


def _executor(settings: Settings) -> Executor:
    if settings.executor == "ray":
        return _Ray(settings)
    context = get_context("spawn")
    slots = context.Value("i", 0)
    arguments = (settings.threads, settings.place.device, slots, os.getpid())
    return ProcessPoolExecutor(settings.jobs, mp_context=context, initializer=_start_worker, initargs=arguments)


def _start_worker(threads: int, device: str, slots: Any, parent: int) -> None:
    """Share the cores and the GPUs, and go when the parent goes, even if it was killed."""
    torch.set_num_threads(threads)
    if device == "cuda":
        with slots.get_lock():
            torch.cuda.set_device(slots.value % torch.cuda.device_count())
            slots.value += 1

    def watch_parent() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch_parent, daemon=True).start()


def _existing(cell: Planned, run_dir: RunDir) -> Record | None:
    """The record that an earlier run left for this cell, if it is readable."""
    name = Record.name_of(cell.cell)
    for folder in (run_dir.records, run_dir.records / "failed"):
        try:
            return load_record(folder / name)
        except RecordError:
            continue
    return None
