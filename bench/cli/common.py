"""Options that several commands share, and the plan that they describe."""

from __future__ import annotations

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

    from bench.plan.matrix import Planned, Request
    from bench.plan.plan import Plan
    from bench.runner.rundir import RunDir

__all__ = [
    "FiniteRange",
    "cells_of",
    "console",
    "data_options",
    "fpr_option",
    "own_store",
    "plan_of",
    "remarks",
    "run_dir_option",
    "selectors",
    "sentences",
]

Command = Callable[..., Any]

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

PROFILES_SAY = "[default: the profile's]"
SELECTORS = (
    click.option("--scheme", default="all", help=f"Schemes: {SELECT} such as @weights, @behaviour."),
    click.option("--attack", default="pruning", help=f"Attacks: {SELECT} such as @model."),
    click.option("--arch", default=None, help=f"Architectures: {SELECT}; wrn-16-2 and the like.  {PROFILES_SAY}"),
    click.option("--dataset", default=None, help=f"Data sets, comma-separated.  {PROFILES_SAY}"),
    click.option("--profile", default="quick", help="What the numbers mean: smoke, quick, small, standard or paper."),
    click.option(
        "--situation", default=None, help=f"Embedding while: train, fine-tune, distill, or all.  {PROFILES_SAY}"
    ),
    click.option("--seeds", type=click.IntRange(1, 10_000), default=None, help=f"Number of seeds.  {PROFILES_SAY}"),
    click.option("--owners", type=click.IntRange(1, 10_000), default=1, help="Owners a host carries at once."),
    click.option(
        "--null-keys",
        type=click.IntRange(0, 10_000),
        default=None,
        help=f"At most so many fresh keys claim clean hosts; 0 leaves the false claims out.  {PROFILES_SAY}",
    ),
    click.option(
        "--set", "settings", multiple=True, metavar="NAME.PARAM=VALUE", help="Set a scheme's or attack's parameter."
    ),
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


data_options = _apply(DATA_OPTIONS)
selectors = _apply((*SELECTORS, *DATA_OPTIONS, run_dir_option))


def sentences(function: Command) -> Command:
    """Let a mistake in what was typed, or in the data, end as one sentence and exit status 2."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        from bench.data import DataError
        from bench.records.record import RecordError
        from bench.registry import RegistryError

        try:
            return function(*args, **kwargs)
        except (RegistryError, DataError, RecordError) as error:
            raise click.UsageError(str(error)) from error

    return wrapped


def own_store(run_dir: Path) -> str:
    """The MLflow store of a run directory."""
    from bench import tracking

    try:
        return tracking.default_uri(run_dir)
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def console(stderr: bool = False) -> Console:
    """A console that does not squeeze tables when the output goes to a file, unless COLUMNS says how wide it is."""
    from rich.console import Console

    made = Console(stderr=stderr, highlight=False)
    told = made.is_terminal or os.environ.get("COLUMNS", "").isdecimal()
    return made if told else Console(stderr=stderr, highlight=False, width=240)


def cells_of(options: dict[str, Any]) -> list[Planned]:
    """All cells that the selectors ask for, each with its steps."""
    from bench.data import checksum
    from bench.plan.matrix import expand

    request = request_of(options)
    where = {name: options[name] for name in ("data_root", "download")}
    return expand(request, {name: checksum(name, **where) for name in request.datasets})


def plan_of(options: dict[str, Any], run_dir: RunDir) -> Plan:
    """What of the selected cells is settled in this run directory, and what is missing; remembered for `bench why`."""
    from bench.runner.why import remember

    plan = run_dir.plan(cells_of(options))
    remember(plan.missing, run_dir)
    return plan


def remarks(plan: Plan, options: dict[str, Any]) -> list[str]:
    """What was asked for and is not done."""
    alone = sorted({cell.scheme.name for cell in plan.cells if cell.scheme.stand_alone})
    if options["owners"] == 1 or not alone:
        return []
    return [f"--owners {options['owners']} has no effect on {', '.join(alone)}: a host carries one such mark."]


def request_of(options: dict[str, Any]) -> Request:
    """The request that the selectors describe.

    Raises:
        RegistryError: a name or a parameter does not exist.
    """
    from bench.plan.matrix import Request
    from bench.plan.profiles import PROFILES
    from bench.registry import choose, schemes, tags

    profile = PROFILES[choose(options["profile"], dict.fromkeys(PROFILES, ()), "a profile")[0]]
    situations = dict.fromkeys(("train", "fine-tune", "distill"), ())
    chosen_schemes = choose(options["scheme"], {n: tags(c) for n, c in schemes().items()}, "a scheme")
    chosen_attacks = _attacks(options["attack"])
    return Request(
        schemes=tuple(chosen_schemes),
        attacks=tuple(chosen_attacks),
        archs=_archs(options["arch"]) if options["arch"] else profile.archs,
        datasets=_datasets(options["dataset"], options["data_root"]) if options["dataset"] else (profile.dataset,),
        situations=tuple(choose(options["situation"] or profile.situation, situations, "a situation")),
        profile=profile,
        seeds=tuple(range(options["seeds"] or profile.seeds)),
        owners=options["owners"],
        null_keys=options["null_keys"],
        overrides=overrides(options["settings"], [*chosen_schemes, *_in_chains(chosen_attacks)]),
    )


def _in_chains(chains: list[str]) -> list[str]:
    from bench.registry import attack_chain

    return list(dict.fromkeys(name for chain in chains for name, _ in attack_chain(chain)))


def _attacks(expression: str) -> list[str]:
    """Names, globs and tags; chains (`a=strength+b`) as they are."""
    from bench.registry import attack_chain, attacks, choose, tags

    known = {name: tags(cls) for name, cls in attacks().items()}
    items = [item.strip() for item in expression.split(",") if item.strip()]
    chains = [item for item in items if "+" in item or "=" in item]
    for chain in chains:
        attack_chain(chain)
    plain = [item for item in items if item not in chains]
    return [*(choose(",".join(plain), known, "an attack") if plain or not chains else []), *chains]


def _archs(expression: str) -> tuple[str, ...]:
    from bench import archs
    from bench.registry import RegistryError, choose

    found: dict[str, None] = {}
    for item in filter(None, map(str.strip, expression.split(","))):
        try:
            found |= dict.fromkeys(choose(item, dict.fromkeys(archs.names(), ()), "an architecture"))
        except RegistryError:
            try:
                archs.arch(item)  # wrn-16-2 and the like are not listed, but exist
                found[item] = None
            except ValueError as error:
                raise RegistryError(str(error)) from error
    if not found:
        raise RegistryError(f'Expected an architecture, but got "{expression}".')
    return tuple(found)


def _datasets(expression: str, data_root: Path | None) -> tuple[str, ...]:
    from bench import data

    names = list(filter(None, map(str.strip, expression.split(","))))
    if not names:
        raise data.DataError(f'Expected a data set, but got "{expression}".')
    return tuple(data.card(name, data_root=data_root).name for name in names)


def overrides(settings: Iterable[str], selected: Iterable[str]) -> dict[str, dict[str, Any]]:
    from bench.registry import RegistryError, choose

    found: dict[str, dict[str, Any]] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        target, dot, param = name.rpartition(".")
        if not (equals and dot and target and param):
            raise RegistryError(
                f'Expected --set NAME.PARAM=VALUE, but got "{setting}": try --set uchida-random.bits=128.'
            )
        for part in choose(target, dict.fromkeys(selected, ()), "a scheme or attack of this run"):
            found.setdefault(part, {})[param] = value
    return found
