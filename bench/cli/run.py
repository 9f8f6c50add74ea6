"""`bench plan` and `bench run`."""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from bench.cli.common import FiniteRange, console, fpr_option, own_store, remarks, selected, selectors, sentences
from bench.cli.computing import (
    collecting,
    complaints,
    device_option,
    duration,
    executed,
    jobs_option,
    leave,
    precision_option,
    settings_of,
    threads_option,
    until_sigterm,
)

if TYPE_CHECKING:
    from bench.plan.matrix import Planned
    from bench.plan.plan import Plan
    from bench.records.record import CellRecord
    from bench.runner.coordinator import Summary, Watch
    from bench.runner.rundir import RunDir
    from bench.tracking.mirror import Mirror

__all__ = ["COMMANDS"]

# Modules, cells and records live as long as the command: looking for cycles among them took an eighth of its time.
SELDOM = 1_000_000


@click.command()
@selectors
@jobs_option
@click.option("--keys", is_flag=True, help="Also list the key of every step to compute (for `bench why`).")
@click.option("--format", "style", type=click.Choice(["table", "json"]), default="table")
@sentences
def plan(jobs: int, keys: bool, style: str, **options: Any) -> None:
    """Say what a run would compute and how long it would take, and compute nothing.

    SUITE.yaml holds selectors, as for `bench run`.
    """
    from bench import library
    from bench.runner.estimate import Durations
    from bench.runner.rundir import RunDir

    made = library.plan(**selected(options), store=options["store"])
    estimate_s = Durations(RunDir(options["run_dir"]).durations).total_s(made.missing, jobs)
    to_run, meaningless = (sum(c.reason is None for c in made.todo), [c for c in made.cells if c.reason is not None])
    if style == "json":
        cells = {"run": to_run, "not_applicable": len(meaningless)}
        answer = {"steps": len(made.missing), "cached": made.cached, "cells": cells, "estimate_s": round(estimate_s, 1)}
        click.echo(json.dumps(answer))
        return
    kinds = Counter(step.kind.replace("_", " ") for step in made.missing)
    counted = ", ".join(f"{count} {kind}" for kind, count in kinds.items()) or "none"
    out = console()
    out.print(f"{len(made.cells)} cells: {to_run} to compute, {len(meaningless)} not applicable.")
    out.print(f"{len(made.missing)} steps to compute ({counted}), {made.cached} cached.")
    out.print(f"About {duration(estimate_s)}, learned from past runs where there are any.")
    for line in [*remarks(made, options["owners"]), *_reasons(meaningless)]:
        out.print(line, style="dim", soft_wrap=True)
    for step in made.missing if keys else ():
        out.print(f"{step.key[:16]}  {step.label}", soft_wrap=True)


def _shard(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, int] | None:
    from bench.runner.shards import parse

    try:
        return None if value is None else parse(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@click.command()
@selectors
@device_option
@precision_option
@jobs_option
@threads_option
@click.option(
    "--executor", type=click.Choice(["local", "ray"]), default="local",
    help="ray needs the extra `ray`; --jobs is then the most steps at a time on each node.",
)  # fmt: skip
@click.option(
    "--address", default=None, metavar="HOST:PORT",
    help="Ray cluster to join, or `auto`.  [default: RAY_ADDRESS, else a cluster of this machine alone]",
)  # fmt: skip
@click.option(
    "--max-time", type=FiniteRange(0), default=None, metavar="MINUTES",
    help="Start no step that is expected to end later; in a Slurm job, nor one that would outlast the job.",
)  # fmt: skip
@click.option(
    "--shard", default=None, metavar="I/N", callback=_shard,
    help="Compute the cells of shard I of N alone, for array jobs; every shard takes the same other options.",
)  # fmt: skip
@click.option("--tracking-uri", default=None, help="MLflow store.  [default: mlflow.db in the run directory]")
@fpr_option
@click.option("--no-mlflow", is_flag=True, help="Leave MLflow alone; `bench sync` can fill it later.")
@click.option("-q", "--quiet", is_flag=True, help="Print only what went wrong; the exit status says the rest.")
@sentences
def run(
    device: str,
    precision: str,
    jobs: int,
    threads: int,
    executor: str,
    address: str | None,
    max_time: float | None,
    shard: tuple[int, int] | None,
    tracking_uri: str | None,
    no_mlflow: bool,
    fpr: float,
    quiet: bool,
    **options: Any,
) -> None:
    """Compute every selected cell. The same command again resumes, and computes nothing twice.

    SUITE.yaml holds selectors: the options from --scheme to --run-dir by name, without the hyphens before it; lists
    stand for comma lists. What is typed besides counts more.

    Ends with a table, the leaderboard page and the MLflow command line. Exit status: 0 all cells settled,
    1 some failed, 2 usage.
    """
    from bench.runner.rundir import RunDir

    with until_sigterm(), collecting(SELDOM):
        run_dir = RunDir(options["run_dir"], options["store"])
        settings = settings_of(options, device, jobs, executor, max_time, threads, address, precision)
        uri = None if no_mlflow else tracking_uri or own_store(run_dir.path)
        made, elsewhere = _planned(options, shard)
        summary = executed(made, run_dir, settings, quiet, options["owners"], lambda watch: _mirrored(watch, uri, fpr))
        _publish(run_dir, made, summary, None if summary.signal else uri, fpr, quiet)
        if elsewhere and not quiet:
            console().print(elsewhere, soft_wrap=True)
    leave(summary)


COMMANDS = (plan, run)


def _planned(options: dict[str, Any], shard: tuple[int, int] | None) -> tuple[Plan, str]:
    """The plan, or this shard's part of it, and what to say of the rest."""
    from bench import library

    made = library.plan(**selected(options), store=options["store"])
    if shard is None:
        return made, ""
    from bench.runner.shards import shard_of

    mine = shard_of(made, *shard)
    left, (index, count) = len(made.todo) - len(mine.todo), shard
    others = "the other shard" if count == 2 else f"the other {count - 1} shards"
    return mine, f"Shard {index} of {count}: {left} of {len(made.cells)} cells are left to {others}."


def _reasons(meaningless: Iterable[Planned]) -> list[str]:
    """Why cells are not applicable: each reason once, with the number of its cells and the pairs that it is about."""
    groups: dict[str, Counter[str]] = {}
    for cell in meaningless:
        scheme, attack = cell.scheme.name, cell.cell.attack
        general = (cell.reason or "").replace(attack, "the attack").replace(scheme, "the scheme")
        groups.setdefault(general[:1].upper() + general[1:], Counter())[f"{scheme} x {attack}"] += 1
    lines = []
    for reason, pairs in sorted(groups.items(), key=lambda group: -group[1].total()):
        named = ", ".join(list(pairs)[:3]) + (f" and {len(pairs) - 3} more pairs" if len(pairs) > 3 else "")
        lines.append(f"{pairs.total()} not applicable: {reason} ({named})")
    return lines


@contextmanager
def _mirrored(progress: Watch, uri: str | None, fpr: float) -> Iterator[Watch]:
    """What watches, with MLflow told of every record besides, so that runs appear while others are computed."""
    if uri is None:
        yield progress
        return
    from bench.tracking.mirror import Mirror

    with Mirror(uri, fpr) as mirror:
        yield _Both(progress, mirror)


class _Both:
    """Tells the first everything, and the mirror what is settled."""

    def __init__(self, progress: Watch, mirror: Mirror) -> None:
        self.started, self.finished, self._progress, self._mirror = (
            progress.started, progress.finished, progress, mirror
        )  # fmt: skip

    def settled(self, record: CellRecord) -> None:
        """A cell has its record."""
        self._progress.settled(record)
        self._mirror.add(record)


def _publish(run_dir: RunDir, made: Plan, summary: Summary, uri: str | None, fpr: float, quiet: bool) -> None:
    """The page, MLflow, the table, and the commands to open them; quietly, only what went wrong is printed."""
    from bench.cli.report import print_ranks, records_of, write_page
    from bench.cli.tables import results_table

    out, trouble = console(stderr=False), console(stderr=quiet)
    if not quiet:
        out.print(results_table(summary.records, out.width, fpr))
        print_ranks(summary.records, fpr)
    complaints(trouble, run_dir, summary)
    ended = f"{summary.computed} steps computed, {summary.cached} cached, in {duration(summary.seconds)}."
    if not quiet or summary.stopped:
        on = f" {_stopped(summary)}: the same command goes on." if summary.stopped else ""
        trouble.print(ended + on, soft_wrap=True)
    everything = records_of(run_dir, made.settled)  # earlier commands' records, too
    page = write_page(run_dir, run_dir.site, fpr, everything)
    if not quiet:
        out.print(f"Leaderboard: {Path(page).resolve()}", soft_wrap=True)
    if uri is not None:
        _track(summary, everything, uri, run_dir, fpr, quiet)


def _track(summary: Summary, ranked: list[CellRecord], uri: str, run_dir: RunDir, fpr: float, quiet: bool) -> None:
    from bench import tracking
    from bench.cli.report import measured_beside

    try:
        beside = measured_beside(run_dir, fpr)
        synced = tracking.sync(summary.records, uri, fpr=fpr, ranked=ranked, beside=beside)
    except tracking.TrackingError as error:
        words = f"MLflow was not filled; the records are safe, and `bench sync` tries again: {error}"
        console(stderr=quiet).print(words, style="red", soft_wrap=True)
    else:
        shown = filter(None, (tracking.ui_command(uri), tracking.ui_link(uri, synced.experiment_id)))
        if not quiet:
            console().print("MLflow:      " + "\n             ".join(shown), soft_wrap=True)


def _stopped(summary: Summary) -> str:
    if summary.late is not None and not summary.signal:
        late = summary.late
        steps = "1 step is" if late.steps == 1 else f"{late.steps} steps are"
        why = f"the shortest takes about {duration(late.shortest_s)}, and {duration(late.left_s)} remained"
        return f"Stopped by {late.cause}: {steps} left ({why})"
    names = {int(signal.SIGINT): "Interrupted", int(signal.SIGTERM): "Stopped by SIGTERM"}
    return names.get(summary.signal or 0, "Stopped")
