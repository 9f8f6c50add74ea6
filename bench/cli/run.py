"""`bench plan` and `bench run`."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from bench.cli.common import FiniteRange, console, fpr_option, own_store, plan_of, selectors, sentences

if TYPE_CHECKING:
    from bench.plan.matrix import Planned, Step
    from bench.runner.coordinator import Summary
    from bench.runner.executors import Settings
    from bench.runner.rundir import RunDir

__all__ = ["COMMANDS"]

jobs_option = click.option(
    "--jobs", type=click.IntRange(1, 1024), default=1, help="Worker processes; they share the cores."
)


@click.command()
@selectors
@jobs_option
@click.option("--keys", is_flag=True, help="Also list the key of every step to compute (for `bench why`).")
@click.option("--format", "style", type=click.Choice(["table", "json"]), default="table")
@sentences
def plan(jobs: int, keys: bool, style: str, **options: Any) -> None:
    """Say what a run would compute and how long it would take, and compute nothing."""
    from bench.plan.matrix import steps_of
    from bench.runner.coordinator import unsettled
    from bench.runner.estimate import Durations
    from bench.runner.rundir import RunDir
    from bench.runner.why import remember

    run_dir = RunDir(options["run_dir"])
    cells = plan_of(options)
    todo, _ = unsettled(cells, run_dir)
    steps, missing = steps_of(cells), _missing(cells, run_dir)
    remember(missing, run_dir)
    estimate_s = Durations(run_dir.durations).total_s(missing, jobs)
    meaningless = [cell for cell in cells if cell.reason is not None]
    answer: dict[str, Any] = {
        "steps": len(missing),
        "cached": len(steps) - len(missing),
        "cells": {"run": sum(c.reason is None for c in todo), "not_applicable": len(meaningless)},
        "estimate_s": round(estimate_s, 1),
    }
    if style == "json":
        click.echo(json.dumps(answer))
        return
    kinds = ", ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in Counter(s.kind for s in missing).items())
    out = console()
    out.print(f"{len(cells)} cells: {answer['cells']['run']} to compute, {len(meaningless)} not applicable.")
    out.print(f"{len(missing)} steps to compute ({kinds or 'none'}), {answer['cached']} cached.")
    out.print(f"About {duration(estimate_s)}, learned from past runs where there are any.")
    for cell in meaningless:
        out.print(f"not applicable: {cell.reason}", style="dim", markup=False)
    for step in missing if keys else ():
        out.print(f"{step.key[:16]}  {step.label}")


@click.command()
@selectors
@click.option("--device", default="auto", help="cpu, cuda, cuda:1 ...; auto takes a GPU where there is one.")
@jobs_option
@click.option(
    "--threads",
    type=click.IntRange(0, 1024),
    default=0,
    envvar="BENCH_THREADS",
    help="Threads of one worker; 0 shares the cores. Part of the record: another number may round differently.",
)
@click.option("--executor", type=click.Choice(["local", "ray"]), default="local", help="ray needs the extra `ray`.")
@click.option("--max-time", type=FiniteRange(0), default=None, metavar="MINUTES", help="Start no step after this time.")
@click.option("--tracking-uri", default=None, help="MLflow store.  [default: mlflow.db in the run directory]")
@fpr_option
@click.option("--no-mlflow", is_flag=True, help="Leave MLflow alone; `bench sync` can fill it later.")
@sentences
def run(
    device: str,
    jobs: int,
    threads: int,
    executor: str,
    max_time: float | None,
    tracking_uri: str | None,
    no_mlflow: bool,
    fpr: float,
    **options: Any,
) -> None:
    """Compute every selected cell. The same command again resumes, and computes nothing twice.

    Ends with a table, the leaderboard page and the MLflow command line. Exit status: 0 all cells settled,
    1 some failed, 2 usage.
    """
    from bench.runner.coordinator import execute
    from bench.runner.executors import Settings, pick_device
    from bench.runner.rundir import RunDir
    from bench.runner.why import remember
    from bench.steps.workspace import Place

    run_dir = RunDir(options["run_dir"])
    cells = plan_of(options)
    try:
        place = Place(pick_device(device), options["data_root"], options["download"])
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    settings = Settings(place, jobs, executor, None if max_time is None else 60 * max_time, threads)
    remember(_missing(cells, run_dir), run_dir)
    uri = None if no_mlflow else tracking_uri or own_store(run_dir.path)
    with _progress(cells, run_dir, settings) as watch:
        try:
            summary = execute(cells, run_dir, settings, watch)
        except KeyboardInterrupt:
            console(stderr=True).print("Interrupted. What is finished is kept: the same command goes on from there.")
            sys.exit(130)
    _publish(run_dir, summary, uri, fpr)
    failed = sum(record.status == "failed" for record in summary.records)
    sys.exit(1 if failed or summary.stopped else 0)


COMMANDS = (plan, run)


def duration(seconds: float) -> str:
    """Seconds as people say them: `48 s`, `3 min 20 s`, `2 h 5 min`."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s" if seconds < 600 else f"{seconds // 60} min"
    return f"{seconds // 3600} h {seconds % 3600 // 60} min"


def _missing(cells: list[Planned], run_dir: RunDir) -> list[Step]:
    """The steps that unsettled cells still need."""
    from bench.plan.matrix import steps_of
    from bench.runner.coordinator import unsettled

    todo, _ = unsettled(cells, run_dir)
    return [step for step in steps_of(todo) if not run_dir.store.has(step.key)]


def _progress(cells: list[Planned], run_dir: RunDir, settings: Settings) -> Any:
    from bench.cli.progress import Progress
    from bench.plan.matrix import steps_of
    from bench.runner.coordinator import unsettled
    from bench.runner.estimate import Durations

    todo, done = unsettled(cells, run_dir)
    steps, missing = steps_of(todo), _missing(cells, run_dir)
    progress = Progress(missing, Durations(run_dir.durations), settings.jobs, console(stderr=True))
    progress.say(
        f"{len(cells)} cells ({len(done)} already settled), {len(missing)} steps to compute, "
        f"{len(steps) - len(missing)} cached, about {duration(progress.left_s())}, on {settings.place.device}"
    )
    return progress


def _publish(run_dir: RunDir, summary: Summary, uri: str | None, fpr: float) -> None:
    """The table, the page, MLflow, and the commands to open them."""
    from bench import tracking
    from bench.cli.report import write_page
    from bench.cli.tables import results_table

    out = console()
    out.print(results_table(summary.records, out, fpr))
    for record in summary.records:
        if record.status == "failed" and record.traceback:
            last = record.traceback.strip().splitlines()[-1]
            where = run_dir.records / "failed" / record.filename
            words = f"failed: {record.cell.scheme} x {record.cell.attack}: {last}\n  traceback in {where}"
            out.print(words, style="red", soft_wrap=True, markup=False)
    out.print(
        f"{summary.computed} steps computed, {summary.cached} cached, in {duration(summary.seconds)}."
        + (" Stopped at --max-time: the same command goes on." if summary.stopped else "")
    )
    page = write_page(run_dir, run_dir.site, fpr)
    out.print(f"Leaderboard: {Path(page).resolve()}", soft_wrap=True)
    if uri is None:
        return
    try:
        tracking.sync(summary.records, uri, ledger=run_dir.ledger, fpr=fpr)
    except tracking.TrackingError as error:
        words = f"MLflow was not filled; the records are safe, and `bench sync` tries again: {error}"
        out.print(words, style="red", markup=False)
    else:
        out.print(f"MLflow:      {tracking.ui_command(uri)}", soft_wrap=True)
