"""`bench push`, `bench pull` and `bench merge`: results and records that several machines share."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from bench.cli.common import console, run_dir_option, sentences

if TYPE_CHECKING:
    from bench.runner.exchange import Traffic

__all__ = ["COMMANDS"]

quiet_option = click.option("-q", "--quiet", is_flag=True, help="Print the last line alone.")


@click.command()
@click.argument("url")
@run_dir_option
@quiet_option
@sentences
def push(url: str, run_dir: Path, quiet: bool) -> None:
    """Send results of steps and records to a URL: what it lacks, and nothing is overwritten.

    URL is a folder or anything that fsspec opens: s3://bucket/folder, gs://..., file:///shared. Interrupted, the same
    command goes on. Exit status 1 if something here was damaged and left out.
    """
    from bench.cli.report import existing
    from bench.runner.exchange import push as send
    from bench.runner.remote import Remote
    from bench.runner.rundir import RunDir

    _say("Sent", send(RunDir(existing(run_dir)), Remote(url), _telling(quiet)))


@click.command()
@click.argument("url")
@run_dir_option
@quiet_option
@sentences
def pull(url: str, run_dir: Path, quiet: bool) -> None:
    """Fetch results of steps and records from a URL: what is lacking here, and nothing is overwritten.

    URL is as for `bench push`. A record that did not fail replaces one that failed. Interrupted, the same command goes
    on. Exit status 1 if something there was damaged and left out.
    """
    from bench.runner.exchange import pull as fetch
    from bench.runner.remote import Remote
    from bench.runner.rundir import RunDir

    _say("Fetched", fetch(RunDir(run_dir), Remote(url), _telling(quiet)))


@click.command()
@click.argument("dirs", nargs=-1, required=True, type=click.Path(path_type=Path, file_okay=False))
@run_dir_option
@sentences
def merge(dirs: tuple[Path, ...], run_dir: Path) -> None:
    """Merge run directories that were computed apart, such as those of shards, into --run-dir.

    Of two records of one cell, one that did not fail wins over one that failed, then one whose steps are all at hand,
    then the one that was finished earlier; what is dropped is named. Rows of `bench calibrate` and `bench detect`, and
    pictures, are added where --run-dir has none about the same. The same command again changes nothing. Exit
    status 1 if something was damaged and left out.
    """
    from bench.cli.report import existing
    from bench.runner.merging import merge as join
    from bench.runner.rundir import RunDir

    done = join([RunDir(existing(folder)) for folder in dirs], RunDir(run_dir))
    out = console()
    for line in done.dropped:
        out.print(line, soft_wrap=True)
    _complain(done.left_out)
    counted = f"{done.results} results, {done.records} records, {done.rows} rows and {done.durations} durations"
    out.print(f"Merged {counted} into {run_dir}; {done.there} were there already.", soft_wrap=True)
    sys.exit(1 if done.left_out else 0)


COMMANDS = (push, pull, merge)


def _telling(quiet: bool) -> Callable[[str], None]:
    err = console(stderr=True)
    return (lambda label: None) if quiet else lambda label: err.print(label, soft_wrap=True, style="dim")


def _say(what: str, done: Traffic) -> None:
    from bench.cli.keep import size_of

    _complain(done.left_out)
    counted = f"{done.results} results and {done.records} records, {size_of(done.size)}"
    console().print(f"{what} {counted}; {done.there} were there already.", soft_wrap=True)
    sys.exit(1 if done.left_out else 0)


def _complain(left_out: Iterable[str]) -> None:
    for line in left_out:
        console(stderr=True).print(f"left out: {line}", style="yellow", soft_wrap=True)
