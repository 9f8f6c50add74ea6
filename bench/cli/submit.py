"""`bench submit` and `bench verify-submission`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from bench.cli.common import FiniteRange, console, run_dir_option, sentences

if TYPE_CHECKING:
    from bench.checks.verification import Outcome

__all__ = ["COMMANDS"]

INTO = Path("leaderboard", "submissions")
data_root_option = click.option(
    "--data-root", type=click.Path(path_type=Path), envvar="BENCH_DATA_ROOT", default=None,
    help="Folder with real data sets (not needed for digits-m).",
)  # fmt: skip


@click.command()
@click.argument("name")
@run_dir_option
@click.option(
    "--records", type=click.Path(path_type=Path, exists=True, file_okay=False), default=None,
    help="Take the records of this folder instead of the run directory's.",
)  # fmt: skip
@click.option("--who", default=None, help="As you want to be named.  [default: git's user.name]")
@click.option(
    "--into", type=click.Path(path_type=Path, file_okay=False), default=INTO, help="The folder of all submissions."
)
@data_root_option
@sentences
def submit(name: str, run_dir: Path, records: Path | None, who: str | None, into: Path, data_root: Path | None) -> None:
    """Pack the records of a scheme or attack for a pull request, as self-reported.

    A source file from outside the project is copied beside the records. Records that other source computed, and numbers
    that cannot be, are refused.
    """
    from bench.checks.packing import pack, records_of
    from bench.cli.report import existing
    from bench.runner.rundir import RunDir

    folder = records or RunDir(existing(run_dir)).records
    made = pack(name, records_of(name, folder), who or _named(), into, data_root)
    say = console().print
    say(f"Wrote {len(made.records)} records of {name} into {made.folder}.", soft_wrap=True)
    say(f"  bench verify-submission {made.folder}", soft_wrap=True)


@click.command("verify-submission")
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--budget", type=FiniteRange(1, 1e6), default=120.0, metavar="SECONDS", help="Begin no cell that would end later."
)
@click.option("--isolated", is_flag=True, help="Refuse where the kernel cannot keep the method's process in.")
@click.option("--salt", default="", help="Mixed into the choice of cells: a word that the submitter could not know.")
@click.option("--no-stamp", is_flag=True, help="Write no verification.json.")
@data_root_option
@sentences
def verify_submission(
    path: Path, budget: float, isolated: bool, salt: str, no_stamp: bool, data_root: Path | None
) -> None:
    """Check a submission, compute some of its cells again, and stamp it: verified or failed.

    PATH is the submission's folder or its submission.json. Which cells are computed again follows from a hash of the
    whole submission and of --salt. Exit status: 0 verified, 1 failed, 2 usage, or nothing could be computed again.
    """
    from bench.checks.sandbox import NotIsolatedError
    from bench.checks.verification import verify
    from bench.records.submission import ENVELOPE, SubmissionError

    folder = path.parent if path.name == ENVELOPE else path
    if not folder.is_dir():
        raise click.UsageError(
            f"Expected the folder of a submission, but there is no {folder}: `bench submit` makes one."
        )
    salt = "".join(filter(str.isprintable, salt))[:200]
    try:
        found = verify(folder, budget_s=budget, data_root=data_root, isolated=isolated, stamp=not no_stamp, salt=salt)
    except SubmissionError as error:
        console().print(f"failed: envelope: {error}", soft_wrap=True)
        sys.exit(1)
    except NotIsolatedError as error:
        raise click.UsageError(str(error)) from error
    sys.exit(_told(found))


COMMANDS = (submit, verify_submission)


def _told(found: Outcome) -> int:
    """Print what was found; the exit status."""
    out = console()
    if found.isolated:
        out.print(f"The method ran apart: {', '.join(found.isolated)}.", soft_wrap=True)
    for each in found.rerun:
        how = "every number had to agree" if each.exact else "in another environment, within the tolerance"
        out.print(f"computed again: {each.record} ({how})", soft_wrap=True)
    if found.failure:
        out.print(f"failed: {found.failure}", soft_wrap=True)
        return 1
    if not found.rerun:
        out.print(f"Nothing could be computed again ({found.nothing}): it stays self-reported.", soft_wrap=True)
        return 2
    rest = f"; rows of {', '.join(found.remaining)} stay self-reported" if found.remaining else ""
    out.print(
        f"verified: {len(found.rerun)} of {len(found.submission.records)} records computed again{rest}.", soft_wrap=True
    )
    return 0


def _named() -> str:
    """The name that git knows.

    Raises:
        click.UsageError: it knows none.
    """
    try:
        asked = subprocess.run(["git", "config", "user.name"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        asked = None
    if asked is None or not asked.stdout.strip():
        raise click.UsageError('Expected --who "Your Name", because git knows no user.name.')
    return asked.stdout.strip()
