"""`bench results`, `bench sync` and `bench leaderboard`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import rich_click as click

from bench.cli.common import console, fpr_option, own_store, run_dir_option, sentences
from bench.metrics import DEFAULT_FPR

if TYPE_CHECKING:
    from pydantic import BaseModel

    from bench.api import Adversary, AttackCard, SchemeCard
    from bench.metrics.beside import Beside
    from bench.records.record import CellRecord
    from bench.records.rowfile import RowFile
    from bench.runner.rundir import RunDir

__all__ = [
    "COMMANDS",
    "existing",
    "measured_beside",
    "print_ranks",
    "print_rungs",
    "records_in",
    "records_of",
    "write_page",
]

Measured = TypeVar("Measured", bound="BaseModel")


@click.command()
@run_dir_option
@fpr_option
@click.option("--format", "style", type=click.Choice(["table", "csv", "json", "parquet"]), default="table")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), default=None, help="Write to this file.")
@sentences
def results(run_dir: Path, fpr: float, style: str, out: Path | None) -> None:
    """Print every result, one row per rung of an attack's ladder; strength 0 is the marked model.

    As a table, of several seeds the schemes' ranks follow.
    """
    from bench.metrics.flat import as_csv, as_json, as_parquet, rows

    records = records_in(run_dir)
    table = rows(records, fpr)
    if style == "table":
        print_rungs(table)
        print_ranks(records, fpr)
    elif style == "parquet":
        if out is None and sys.stdout.isatty():
            raise click.UsageError("Expected --out FILE for parquet on a terminal: it is binary.")
        content = as_parquet(table)
        out.write_bytes(content) if out else sys.stdout.buffer.write(content)
    else:
        text = as_csv(table) if style == "csv" else as_json(table)
        out.write_text(text, encoding="utf-8") if out else click.echo(text, nl=False)


@click.command()
@run_dir_option
@fpr_option
@click.option("--tracking-uri", default=None, help="MLflow store or server.  [default: mlflow.db in the run directory]")
@sentences
def sync(run_dir: Path, fpr: float, tracking_uri: str | None) -> None:
    """Copy all records into an MLflow store, which is asked what it holds: a second call changes nothing."""
    from bench import tracking
    from bench.runner.rundir import RunDir

    RunDir(run_dir).lend_home()
    uri = tracking_uri or own_store(run_dir)
    try:
        records = records_in(run_dir)
        beside = measured_beside(RunDir(run_dir), fpr)
        synced = tracking.sync(records, uri, fpr=fpr, ranked=records, beside=beside)
    except tracking.TrackingError as error:
        raise click.UsageError(str(error)) from error
    out = console()
    out.print(f"MLflow runs: {synced.created} created, {synced.updated} updated, {synced.unchanged} unchanged.")
    for line in filter(None, (tracking.ui_command(uri), tracking.ui_link(uri, synced.experiment_id))):
        out.print(line, soft_wrap=True, markup=False)


@click.command()
@run_dir_option
@fpr_option
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=None, help="[default: RUN_DIR/site]")
@click.option("--open", "show", is_flag=True, help="Open the page in a browser.")
@sentences
def leaderboard(run_dir: Path, fpr: float, out: Path | None, show: bool) -> None:
    """Render all records and submissions into one self-contained index.html."""
    from bench.runner.rundir import RunDir

    place = RunDir(existing(run_dir))
    page = write_page(place, out or place.site, fpr)
    console().print(str(page.resolve()), soft_wrap=True)
    if show:
        click.launch(page.resolve().as_uri())


COMMANDS = (results, sync, leaderboard)


def write_page(
    run_dir: RunDir, out: Path, fpr: float = DEFAULT_FPR, records: Sequence[CellRecord] | None = None
) -> Path:
    """The leaderboard of a run directory and of the repository's submissions.

    Args:
        run_dir: where pictures and what was measured beside the records stand.
        out: the page's folder.
        fpr: false positive rate at which a claim holds.
        records: those of the run directory, where they were read before.
    """
    import leaderboard as site
    from bench.checks.source import today
    from bench.records.submission import load_submissions

    submissions = load_submissions(Path(site.__file__).parent / "submissions", today, _complain)
    own = records_of(run_dir) if records is None else records
    _add_pictures(own, run_dir)
    return site.build(own, out, submitted=submissions, cards=_cards(), fpr=fpr, beside=measured_beside(run_dir, fpr))


def _add_pictures(records: Sequence[CellRecord], run_dir: RunDir) -> None:
    """Keep pictures of the sample images that are in the store; a folder that cannot be written has none."""
    from contextlib import suppress

    from bench.records.pictures import PICTURES
    from bench.runner.pictures import pictures

    known = {row.about for row in _rows_of(PICTURES, run_dir)}
    if new := list(pictures(records, run_dir.store, known)):
        with suppress(OSError):
            PICTURES.merge(new, run_dir.path)


def measured_beside(run_dir: RunDir, fpr: float) -> Beside:
    """What `bench calibrate` and `bench detect` left in the run directory, or among its records.

    A file that cannot be read is named and passed over, as unreadable records are.
    """
    from bench.metrics.beside import Beside
    from bench.records.calibration import CALIBRATION
    from bench.records.detectability import DETECTABILITY
    from bench.records.pictures import PICTURES

    pictures = _rows_of(PICTURES, run_dir)
    return Beside(_rows_of(CALIBRATION, run_dir), _rows_of(DETECTABILITY, run_dir), fpr, pictures)


def _rows_of(file: RowFile[Measured], run_dir: RunDir) -> list[Measured]:
    from bench.records.record import RecordError

    folders = (run_dir.path, run_dir.records)
    try:
        return file.load(next((folder for folder in folders if (folder / file.name).exists()), run_dir.path))
    except RecordError as error:
        _complain(error)
        return []


def _cards() -> dict[str, dict[str, dict[str, Any]]]:
    """What the page says of schemes and attacks that no record holds; nothing where a plug-in cannot be imported."""
    from bench.registry import RegistryError, attacks, schemes

    try:
        return {
            "schemes": {name: _card(scheme.card) for name, scheme in schemes().items()},
            "attacks": {name: _card(attack.card) for name, attack in attacks().items()},
        }
    except RegistryError as error:
        _complain(error)
        return {}


def _card(card: SchemeCard | AttackCard) -> dict[str, Any]:
    paper = card.paper
    return {
        "title": card.title,
        "paper": f"{paper.authors}: {paper.title} ({paper.year})",
        "link": paper.link,
        "code": paper.code,
        "extensions": list(card.extensions),
        "adversary": str(getattr(card, "adversary", "")),
        "stage": getattr(card, "stage", None),
        "needs": _needs(card.adversary) if hasattr(card, "adversary") else None,
    }


def _needs(adversary: Adversary) -> dict[str, Any]:
    """What an attack's adversary must have, in the terms in which the page asks its reader."""
    return {
        "access": adversary.access,
        "images": list(adversary.images),
        "knows": list(adversary.knows),
        "copies": adversary.copies,
    }


def _complain(error: Exception) -> None:
    """One unreadable file must not hide all the others."""
    console(stderr=True).print(f"Passed over: {error}", style="red", soft_wrap=True)


def existing(run_dir: Path) -> Path:
    """`run_dir`, if it is there.

    Raises:
        click.UsageError: it is not.
    """
    if not run_dir.is_dir():
        raise click.UsageError(
            f"Expected a run directory, but there is no {run_dir}: give --run-dir, or run `bench run` first."
        )
    return run_dir


def records_in(run_dir: Path) -> list[CellRecord]:
    """The records of a run directory; those that cannot be read are named.

    Raises:
        click.UsageError: there is no such folder.
    """
    from bench.runner.rundir import RunDir

    return records_of(RunDir(existing(run_dir)))


def records_of(run_dir: RunDir, known: Iterable[CellRecord] = ()) -> list[CellRecord]:
    """The records that a run has written so far, if any; those that cannot be read are named.

    Args:
        run_dir: of the run.
        known: records of it that were read just now.
    """
    from bench.records.files import load_records

    return list(load_records(run_dir.records, _complain, known=known))


AXES = ("scheme", "attack", "arch", "situation", "seed")
MEASURES = (
    "strength", "status", "test_accuracy", "fidelity_pp", "statistic", "p_value", "detected", "ber", "queries",
)  # fmt: skip
# What is left out on a narrow terminal, the least important first.
LEAVE_OUT = (
    "queries", "statistic", "ber", "fidelity_pp", "situation", "seed", "arch", "test_accuracy", "status", "detected",
    "attack",
)  # fmt: skip


def print_rungs(table: Iterable[dict[str, Any]], axes: bool = True) -> None:
    """One line per rung; without the axes where all are of one cell."""
    from bench.cli.fitting import plain_table

    shown = [*(AXES if axes else ()), *MEASURES]
    digits = {"strength": "g", "test_accuracy": ".3f", "fidelity_pp": "+.1f", "statistic": ".3f", "p_value": ".2g",
              "ber": ".3f"}  # fmt: skip
    lines = [
        [
            None if row[name] is None else format(row[name], digits[name]) if name in digits else row[name]
            for name in shown
        ]
        for row in table
    ]
    out, numbers = console(), ["seed", *(name for name in MEASURES if name != "status")]
    out.print(plain_table(shown, lines, width=out.width, numbers=numbers, leave_out=LEAVE_OUT))


def print_ranks(records: Iterable[CellRecord], fpr: float) -> None:
    """The schemes' ranks, where there are several seeds."""
    from bench.cli.ranks import ranks_table

    out = console()
    table = ranks_table(records, out.width, fpr)
    if table is not None:
        out.print()
        out.print(table)
