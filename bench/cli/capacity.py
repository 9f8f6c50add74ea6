"""`bench capacity`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import rich_click as click

from bench.cli.common import FiniteRange, capacity_selectors, console, selected, sentences
from bench.cli.computing import (
    complaints,
    device_option,
    executed,
    jobs_option,
    leave,
    settings_of,
    threads_option,
    until_sigterm,
)

if TYPE_CHECKING:
    from bench.metrics.capacity import Trial
    from bench.plan.matrix import Planned
    from bench.runner.coordinator import Summary
    from bench.runner.executors import Settings
    from bench.runner.payloads import Search

__all__ = ["COMMANDS"]

LARGEST = 100_000  # bits that a verdict can hold
NUMBERS = ("payload", "bits", "BER", "fidelity", "capacity", "fails at", "limit", "seeds")


@click.command()
@capacity_selectors
@click.option(
    "--layers", default=None, help="Layer groups that carry the mark, comma-separated.  [default: the scheme's]"
)
@click.option("--start", type=click.IntRange(1, LARGEST), default=16, help="Payload bits that are tried first.")
@click.option("--most", type=click.IntRange(1, LARGEST), default=4096, help="Payload bits that are tried at most.")
@click.option("--tolerance", type=FiniteRange(0, 100), default=1.0, help="Fidelity that a payload may cost, in points.")
@click.option("--format", "style", type=click.Choice(["table", "json"]), default="table")
@device_option
@jobs_option
@threads_option
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
@sentences
def capacity(
    layers: str | None, start: int, most: int, tolerance: float, style: str, device: str, jobs: int, threads: int,
    quiet: bool, **options: Any,
) -> None:  # fmt: skip
    """Search the largest payload without bit errors that costs at most a point of fidelity, by scheme and layer.

    Payload sizes double from --start until one is too large, and are then bisected to within an eighth of an octave. A
    payload is too large if a bit is wrong in any seed, or if more than --tolerance points are lost on average over the
    seeds. This assumes that a payload which is too large rules out all larger ones; rows whose trials contradict it are
    marked, and show the lower number. Each trial is a cell without an attack, computed and resumed as by `bench run`,
    and without false claims.

    The schemes are those whose cards name their payload parameter. With an error-correcting code (--set
    'uchida-*.code=bch'), sizes and limit are of the coded bits, and BER and capacity of the message.

    JSON: a list of objects with `scheme`, `arch`, `dataset`, `situation`, `profile`, `layer`, `seeds`, `tolerance_pp`,
    `capacity_bits`, `works`, `fails`, `limited_by`, `reached_most`, `limit`, `contradicted`, `status`, `reason`,
    `trials`. Exit status: 0 all cells settled, 1 some failed, 2 usage.

    SUITE.yaml holds selectors, as for `bench run`.
    """
    from bench.plan.selection import checksums, request
    from bench.runner.payloads import pursue, searches
    from bench.runner.rundir import RunDir

    with until_sigterm():
        settings, run_dir = (
            settings_of(options, device, jobs, threads=threads),
            RunDir(options["run_dir"], options["store"]),
        )
        run_dir.lend_home()
        options["scheme"] = _sized(options["scheme"])
        asked: Any = {**selected(options), "attack": "none", "null_keys": 0, "null_hosts": 0}
        del asked["run_dir"]
        wish = request(asked)
        sums = checksums(wish, options["data_root"], options["download"])
        groups = tuple(filter(None, map(str.strip, (layers or "").split(","))))
        found = searches(wish, sums, groups, start, most, tolerance)
        summary = pursue(found, sums, run_dir.records, lambda cells: _round(cells, run_dir, settings, quiet))
        complaints(console(stderr=True), run_dir, summary)
        if style == "json":
            click.echo(json.dumps([_row(search) for search in found], indent=1))
        else:
            _print_tables(found)
    leave(summary)


COMMANDS = (capacity,)


def _sized(expression: str) -> str:
    """The chosen schemes whose payload has a size, with commas."""
    from bench.registry import choose, schemes, tags

    sized = {name: tags(scheme) for name, scheme in schemes().items() if scheme.card.payload_parameter}
    return ",".join(choose(expression, sized, "a scheme with a payload size"))


def _round(cells: list[Planned], run_dir: Any, settings: Settings, quiet: bool) -> Summary:
    from bench.runner.why import remember

    made = run_dir.plan(cells)
    remember(made.missing, run_dir)
    return executed(made, run_dir, settings, quiet)


def _row(search: Search) -> dict[str, Any]:
    (works, fails), one = search.bracket, search.request
    return {
        "scheme": search.scheme, "arch": one.archs[0], "dataset": one.datasets[0], "situation": one.situations[0],
        "profile": one.profile.name, "layer": search.layer, "seeds": len(one.seeds),
        "tolerance_pp": search.tolerance_pp, "capacity_bits": search.capacity, "works": works, "fails": fails,
        "limited_by": search.trials[fails].costs(search.tolerance_pp) if fails else None,
        "reached_most": search.reached_most, "limit": search.limit, "contradicted": search.contradicted,
        "status": search.status, "reason": search.reason,
        "trials": [_trial(each, search.tolerance_pp) for each in search.ordered],
    }  # fmt: skip


def _trial(one: Trial, tolerance_pp: float) -> dict[str, Any]:
    return {
        "payload_bits": one.size, "message_bits": one.bits, "ber": one.ber, "bers": list(one.bers),
        "fidelity_pp": one.fidelity_pp, "fidelities_pp": list(one.fidelities_pp),
        "too_large": one.costs(tolerance_pp) or None,
    }  # fmt: skip


def _print_tables(found: Sequence[Search]) -> None:
    """Every trial, then what the searches found."""
    from bench.cli.fitting import plain_table

    out, axes = console(), ("scheme", "arch", "dataset", "situation", "layer")
    tried = (*axes, "payload", "bits", "BER", "fidelity", "seeds", "too large")
    ended = (*axes, "capacity", "works", "fails at", "by", "limit", "seeds", "remark")
    out.print(plain_table(tried, _tried(found), width=out.width, numbers=NUMBERS, leave_out=("dataset", "situation")))
    out.print()
    out.print(plain_table(ended, _ended(found), width=out.width, numbers=NUMBERS, leave_out=("dataset", "situation")))


def _axes(search: Search) -> tuple[Any, ...]:
    one = search.request
    return search.scheme, one.archs[0], one.datasets[0], one.situations[0], search.layer


def _tried(found: Sequence[Search]) -> Iterator[tuple[Any, ...]]:
    for search in found:
        for one in search.ordered:
            ber, gain = one.ber, one.fidelity_pp
            yield (
                *_axes(search), one.size, f"{one.bits:g}", None if ber is None else f"{ber:.3g}",
                None if gain is None else f"{gain:+.2f}", len(one.bers), one.costs(search.tolerance_pp),
            )  # fmt: skip


def _ended(found: Sequence[Search]) -> Iterator[tuple[Any, ...]]:
    from rich.text import Text

    for search in found:
        row = _row(search)
        words = ["not monotone"] * search.contradicted + ["stopped at the most"] * search.reached_most
        remark = Text("; ".join([*words, *filter(None, [search.reason])]), "red" if search.status == "failed" else "")
        bits, limit = (None if row[name] is None else f"{row[name]:g}" for name in ("capacity_bits", "limit"))
        yield (*_axes(search), bits, row["works"], row["fails"], row["limited_by"], limit, row["seeds"], remark)
