"""Options that several commands share, and the plan that they describe."""

from __future__ import annotations

import errno
import functools
import math
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from bench.metrics import DEFAULT_FPR

if TYPE_CHECKING:
    from rich.console import Console

    from bench.plan.plan import Plan

__all__ = [
    "FiniteRange",
    "calibration_selectors",
    "capacity_selectors",
    "console",
    "data_options",
    "detection_selectors",
    "fpr_option",
    "own_store",
    "remarks",
    "run_dir_option",
    "selected",
    "selectors",
    "sentences",
]

Command = Callable[..., Any]

WIDE = 240  # columns of output that goes to a file
_ELSEWHERE = "Choose another place, for instance with --run-dir."
_ROOM = "Make room there, or choose another place, for instance with --run-dir."
_SHORTER = "Choose a shorter path, for instance with --run-dir."
ADVICE = {
    errno.EACCES: _ELSEWHERE, errno.EPERM: _ELSEWHERE, errno.EROFS: _ELSEWHERE, errno.ENOTDIR: _ELSEWHERE,
    errno.EISDIR: _ELSEWHERE, errno.EEXIST: _ELSEWHERE, errno.ENOENT: _ELSEWHERE, errno.EIO: _ELSEWHERE,
    errno.ESTALE: _ELSEWHERE, errno.ENOLCK: _ELSEWHERE, errno.ENOSYS: _ELSEWHERE,
    errno.ENOSPC: _ROOM, errno.EDQUOT: _ROOM, errno.EFBIG: _ROOM, errno.ENAMETOOLONG: _SHORTER,
}  # fmt: skip

SELECT = "names, globs, comma lists, `all`, or @tags"


class FiniteRange(click.FloatRange):
    """A number within bounds; NaN and infinity, which no comparison refuses, are refused."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"Expected a finite number, but got {value}.", param, ctx)
        return number


fpr_option = click.option(
    "--fpr", type=FiniteRange(0, 1, True, True), default=DEFAULT_FPR,
    help="False positive rate that p-values are held to when results are shown; records keep every p-value.",
)  # fmt: skip
run_dir_option = click.option(
    "--run-dir", type=click.Path(path_type=Path, file_okay=False), default=Path("runs"), envvar="BENCH_RUN_DIR",
    help="Where records, results of steps, the MLflow store and the page are kept.",
)  # fmt: skip
store_option = click.option(
    "--store", default=None, envvar="BENCH_STORE", metavar="URL",
    help="Share results of steps with other machines: a folder or anything that fsspec opens, such as s3://bucket/x.",
)  # fmt: skip

PROFILES_SAY = "[default: the profile's]"


def _attack_option(default: str) -> Callable[[Command], Command]:
    return click.option(
        "--attack",
        default=default,
        help=f"Attacks: {SELECT} such as @fine-tuning, @extraction, @pipeline; a=50+b applies two in a row.",
    )


scheme_option = click.option("--scheme", default="all", help=f"Schemes: {SELECT} such as @weights, @behaviour.")
AXES = (
    click.option("--arch", default=None, help=f"Architectures: {SELECT}; wrn-16-2 and the like.  {PROFILES_SAY}"),
    click.option("--dataset", default=None, help=f"Data sets, comma-separated.  {PROFILES_SAY}"),
    click.option("--profile", default="quick", help="What the numbers mean: smoke, quick, small, standard or paper."),
    click.option(
        "--situation", default=None, help=f"Embedding while: train, fine-tune, distill, or all.  {PROFILES_SAY}"
    ),
    click.option("--seeds", type=click.IntRange(1, 10_000), default=None, help=f"Number of seeds.  {PROFILES_SAY}"),
    click.option("--owners", type=click.IntRange(1, 10_000), default=1, help="Owners a host carries at once."),
)
ONE_OWNER = AXES[:-1]
NULLS = (
    click.option(
        "--null-keys",
        type=click.IntRange(0, 10_000),
        default=None,
        help=f"At most so many fresh keys claim clean hosts; 0 leaves the false claims out.  {PROFILES_SAY}",
    ),
    click.option(
        "--null-hosts",
        type=click.IntRange(0, 200),
        default=None,
        help=f"Null models of each kind, trained for fresh keys to claim; 0 for none.  {PROFILES_SAY}",
    ),
)
set_option = click.option(
    "--set", "settings", multiple=True, metavar="NAME.PARAM=VALUE", help="Set a scheme's or attack's parameter."
)

DATA_OPTIONS = (
    click.option(
        "--data-root", type=click.Path(path_type=Path), envvar="BENCH_DATA_ROOT", default=None,
        help="Folder with real data sets (not needed for digits-m).",
    ),
    click.option("--download", is_flag=True, help="Let torchvision fetch a missing data set into --data-root."),
)  # fmt: skip


def _apply(options: Iterable[Callable[[Command], Command]]) -> Callable[[Command], Command]:
    def decorate(function: Command) -> Command:
        for option in reversed(tuple(options)):
            function = option(function)
        return function

    return decorate


def _from_file(ctx: click.Context, param: click.Parameter, path: Path | None) -> None:
    """Take the selectors of a file as defaults: what is typed besides counts more."""
    if path is not None:
        from bench.cli.suitefile import read_suite

        names = {str(option.opts[0]).lstrip("-"): str(option.name) for option in _selecting(ctx.command)}
        ctx.default_map = {**(ctx.default_map or {}), **read_suite(path, names)}


def _selecting(command: click.Command) -> list[click.Parameter]:
    """The options that `selectors` gave to a command."""
    from bench.plan.selection import DEFAULTS

    return [param for param in command.params if param.name in (*DEFAULTS, "run_dir")]


data_options = _apply(DATA_OPTIONS)
suite_argument = click.argument(
    "suite", required=False, is_eager=True, expose_value=False, metavar="[SUITE.yaml]", callback=_from_file,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
)  # fmt: skip
PLACES = (*DATA_OPTIONS, run_dir_option, store_option)
selectors = _apply((suite_argument, scheme_option, _attack_option("pruning"), *AXES, *NULLS, set_option, *PLACES))
# Calibration is about nulls alone, and has options of its own for their numbers.
calibration_selectors = _apply((suite_argument, scheme_option, _attack_option("none"), *AXES, set_option, *PLACES))
# A search for the capacity is about marks alone, one on a host.
capacity_selectors = _apply((suite_argument, scheme_option, *ONE_OWNER, set_option, *PLACES))
# Detection is about marked networks before any attack.
detection_selectors = _apply((suite_argument, scheme_option, *AXES, set_option, *PLACES))


def sentences(function: Command) -> Command:
    """Let a mistake in what was typed, in the data or in a place end as one sentence and exit status 2."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        from bench.data import DataError
        from bench.records.record import RecordError
        from bench.registry import RegistryError
        from bench.runner.objects import RemoteError

        try:
            return function(*args, **kwargs)
        except (RegistryError, DataError, RecordError, RemoteError) as error:
            raise click.UsageError(str(error)) from error
        except OSError as error:
            if error.errno not in ADVICE:
                raise
            raise click.UsageError(_place(error)) from error

    return wrapped


def _place(error: OSError) -> str:
    """What a folder or a disk refuses, and what to do about it."""
    what = error.filename or "a file"
    return f"Expected to use {what}, but: {error.strerror}. {ADVICE[error.errno or 0]} What was computed is kept."


def own_store(run_dir: Path) -> str:
    """The MLflow store of a run directory."""
    from bench import tracking

    try:
        return tracking.default_uri(run_dir)
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def console(stderr: bool = False) -> Console:
    """A console that prints square brackets as they are, and is wide in a file unless COLUMNS says how wide."""
    from rich.console import Console

    made = Console(stderr=stderr, highlight=False, markup=False, emoji=False)
    told = made.is_terminal or os.environ.get("COLUMNS", "").isdecimal()
    return made if told else Console(stderr=stderr, highlight=False, markup=False, emoji=False, width=WIDE)


def selected(options: dict[str, Any]) -> dict[str, Any]:
    """The options that `bench.library.plan` takes: the run directory and the selectors."""
    from bench.plan.selection import DEFAULTS

    return {name: options[name] for name in ("run_dir", *DEFAULTS) if name in options}


def remarks(plan: Plan, owners: int) -> list[str]:
    """What was asked for and is not done."""
    alone = sorted({cell.scheme.name for cell in plan.cells if cell.scheme.stand_alone})
    if owners == 1 or not alone:
        return []
    return [f"--owners {owners} has no effect on {', '.join(alone)}: a host carries one such mark."]
