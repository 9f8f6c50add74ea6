"""Computing for a command: where and how, with a progress bar, until done or stopped; what failed; the exit status."""

from __future__ import annotations

import gc
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, NoReturn

import rich_click as click

from bench.cli.common import console, remarks

if TYPE_CHECKING:
    from rich.console import Console

    from bench.cli.progress import Progress
    from bench.plan.plan import Plan
    from bench.plan.step import Step
    from bench.runner.coordinator import Summary, Watch
    from bench.runner.estimate import Durations
    from bench.runner.executors import Settings
    from bench.runner.rundir import RunDir

__all__ = [
    "collecting",
    "complaints",
    "computed_steps",
    "device_option",
    "duration",
    "executed",
    "jobs_option",
    "leave",
    "precision_option",
    "settings_of",
    "threads_option",
    "until_sigterm",
]

USUALLY = 700  # Python's own: networks that hang on cycles are not left lying about
jobs_option = click.option(
    "--jobs", type=click.IntRange(1, 1024), default=1, help="Worker processes; they share the cores."
)
device_option = click.option(
    "--device", default="auto", help="cpu, cuda, cuda:1 ...; auto takes a GPU where there is one."
)
precision_option = click.option(
    "--precision", type=click.Choice(["auto", "float32", "half"]), default="auto",
    help="Of training; auto is half on a GPU alone. Half is faster on a CPU with AVX512-BF16, too. Part of the record.",
)  # fmt: skip
threads_option = click.option(
    "--threads", type=click.IntRange(0, 1024), default=0, envvar="BENCH_THREADS",
    help="Threads of one worker; 0 shares the cores. Part of the record: another number may round differently.",
)  # fmt: skip


def settings_of(
    options: Mapping[str, Any], device: str, jobs: int, executor: str = "local", max_time: float | None = None,
    threads: int = 0, address: str | None = None, precision: str = "auto",
) -> Settings:  # fmt: skip
    """Where and how to compute.

    Args:
        options: of the command; where data sets are is read from them.
        device: as it was typed.
        jobs: worker processes.
        executor: `local` or `ray`.
        max_time: minutes within which every step is expected to end.
        threads: of one worker; 0 shares the cores.
        address: of a Ray cluster.
        precision: of training.

    Raises:
        click.UsageError: the device does not exist here.
    """
    from bench.runner.executors import KINDS, Settings, pick_device
    from bench.steps.workspace import Place

    try:
        found = device if executor == "ray" and device in KINDS else pick_device(device)  # of nodes, not of this one
        place = Place(found, options["data_root"], options["download"], precision=precision)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    return Settings(place, jobs, executor, None if max_time is None else 60 * max_time, threads, address)


def executed(
    made: Plan,
    run_dir: RunDir,
    settings: Settings,
    quiet: bool,
    owners: int = 1,
    also: Callable[[Watch], AbstractContextManager[Watch]] = nullcontext,
) -> Summary:
    """Compute what is missing of a plan, with a progress bar.

    Args:
        made: the plan.
        run_dir: where it is kept.
        settings: where and how.
        quiet: without the bar.
        owners: that were asked for.
        also: what else is told of the progress, around the bar.
    """
    from bench.runner.coordinator import execute
    from bench.runner.estimate import Durations

    durations = Durations(run_dir.durations, probe=lambda: probe_of(settings))
    with (
        collecting(USUALLY) if made.missing else nullcontext(),
        _watching(made, durations, settings, owners, quiet, run_dir.store.epoch) as watch,
        also(watch) as both,
    ):
        return execute(made, run_dir, settings, both, durations)


@contextmanager
def collecting(objects: int) -> Iterator[None]:
    """Look for cycles of garbage whenever so many objects more are alive."""
    before = gc.get_threshold()
    gc.set_threshold(objects)
    try:
        yield
    finally:
        gc.set_threshold(*before)


def computed_steps(steps: Iterable[Step], run_dir: RunDir, settings: Settings, quiet: bool, owners: int = 1) -> Summary:
    """Compute what is missing of steps that settle no cell, and say which failed; a signal ends the command.

    Args:
        steps: in any order; what they read is computed besides.
        run_dir: where it is kept.
        settings: where and how.
        quiet: without the bar.
        owners: that were asked for.
    """
    from bench.plan.plan import Plan
    from bench.runner.why import remember

    run_dir.lend_home()
    made = Plan.of_steps(steps, run_dir.store.has)
    remember(made.missing, run_dir)
    summary = executed(made, run_dir, settings, quiet, owners)
    if summary.signal:
        leave(summary)
    out, labels = console(stderr=True), {step.key: step.label for step in made.steps}
    for key, traceback in summary.failures.items():
        out.print(f"failed: {labels[key]}: {traceback.strip().splitlines()[-1]}", style="red", soft_wrap=True)
    for note in summary.notes:
        out.print(note, style="yellow", soft_wrap=True)
    return summary


@contextmanager
def until_sigterm() -> Iterator[None]:
    """Turn SIGTERM into an exception, as SIGINT is one; exit status 143 where nobody else takes it."""
    from bench.runner.coordinator import Terminated

    def terminate(number: int, frame: object) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    except Terminated:
        console(stderr=True).print("Stopped by SIGTERM before anything was computed.")
        sys.exit(128 + signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)


def leave(summary: Summary) -> NoReturn:
    """End with the status that says how it went: 0 all cells settled, 1 some failed, 128 + a signal's number."""
    if summary.signal:
        sys.exit(128 + summary.signal)
    failed = sum(record.status == "failed" for record in summary.records)
    sys.exit(1 if failed or summary.stopped else 0)


def complaints(out: Console, run_dir: RunDir, summary: Summary) -> None:
    """Failed cells, and what the run noticed."""
    for record in summary.records:
        if record.status == "failed" and record.traceback:
            last = record.traceback.strip().splitlines()[-1]
            where = run_dir.records / "failed" / record.filename
            words = f"failed: {record.cell.scheme} x {record.cell.attack}: {last}\n  traceback in {where}"
            out.print(words, style="red", soft_wrap=True)
    for note in summary.notes:
        out.print(note, style="yellow", soft_wrap=True)


def duration(seconds: float) -> str:
    """Seconds as people say them: `48 s`, `3 min 20 s`, `2 h 5 min`."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s" if seconds < 600 else f"{seconds // 60} min"
    return f"{seconds // 3600} h {seconds % 3600 // 60} min"


def probe_of(settings: Settings) -> float:
    """The speed of this machine as one worker will have it; of its processor, where only other nodes have a GPU."""
    import torch

    from bench.runner.estimate import probe_s

    here = torch.cuda.is_available() or not settings.place.device.startswith("cuda")
    return probe_s(settings.place.device if here else "cpu", settings.threads)


def _progress(
    made: Plan, durations: Durations, settings: Settings, owners: int, epoch: Callable[[str], str]
) -> Progress:
    from bench.cli.progress import Progress

    progress = Progress(made.missing, durations, settings.jobs, console(stderr=True), epoch)
    left = f"about {duration(progress.left_s())}, on {settings.place.device}"
    cells = f"{len(made.cells)} cells ({len(made.settled)} already settled), " if made.cells else ""
    counted = f"{len(made.missing)} steps to compute, {made.cached} cached"
    progress.say(cells + counted + (f", {left}" if made.missing else ""))
    for remark in remarks(made, owners):
        progress.say(remark)
    return progress


def _watching(
    made: Plan, durations: Durations, settings: Settings, owners: int, quiet: bool, epoch: Callable[[str], str]
) -> AbstractContextManager[Watch]:
    """The progress bar, or nothing."""
    from bench.library import Silent

    return nullcontext(Silent()) if quiet else _progress(made, durations, settings, owners, epoch)
