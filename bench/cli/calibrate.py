"""`bench calibrate`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import rich_click as click

from bench.cli.common import FiniteRange, calibration_selectors, console, sentences
from bench.cli.run import (
    complaints,
    computed,
    device_option,
    jobs_option,
    leave,
    settings_of,
    threads_option,
    until_sigterm,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.metrics.calibration import Rate

__all__ = ["COMMANDS"]

NETWORKS = 4  # with fewer, no row can be told from chance unless every claim is accepted


class Rates(click.ParamType):
    """Rates between 0 and 1, comma-separated."""

    name = "rates"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...]:  # fmt: skip
        """The rates, as they were typed."""
        one = FiniteRange(0, 1, True, True)
        found = tuple(one.convert(part.strip(), param, ctx) for part in str(value).split(",") if part.strip())
        return found or self.fail(f"Expected rates such as 0.01,0.05, but got {value!r}.", param, ctx)


@click.command()
@calibration_selectors
@click.option(
    "--keys", "fresh_keys", type=click.IntRange(1, 10_000), default=None,
    help="Fresh keys that claim each host and null model; fewer where making a key takes a training.  "
    "[default: the profile's]",
)  # fmt: skip
@click.option(
    "--null-hosts", type=click.IntRange(0, 200), default=None,
    help=f"Null models of each kind that are trained.  [default: the profile's, at least {NETWORKS}]",
)  # fmt: skip
@click.option("--rates", type=Rates(), default="0.01,0.05,0.1", help="Nominal false positive rates, comma-separated.")
@click.option("--format", "style", type=click.Choice(["table", "json"]), default="table")
@device_option
@jobs_option
@threads_option
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
@sentences
def calibrate(
    rates: tuple[float, ...], style: str, device: str, jobs: int, threads: int, quiet: bool, **options: Any
) -> None:
    """Measure how often false claims are accepted, by scheme, architecture, attack and kind of null.

    Computes what is missing as `bench run` does, and resumes as it does. Fresh keys claim clean hosts, null models and,
    with an attack, clean hosts that went through it. Rows with more accepted claims than chance explains are marked.
    JSON: a list of objects with `scheme`, `arch`, `attack`, `null`, `nominal`, `false_positive_rate`, `interval_low`,
    `interval_high`, `n`. Exit status: 0 all cells settled, 1 some failed, 2 usage.

    SUITE.yaml holds selectors, as for `bench run`.
    """
    from bench.metrics.calibration import rates as measured
    from bench.plan.profiles import PROFILES
    from bench.runner.rundir import RunDir

    if options["null_hosts"] is None:
        profile = PROFILES.get(options["profile"])
        options["null_hosts"] = max(NETWORKS, profile.null_hosts if profile else 0)
    with until_sigterm():
        summary = computed(options, settings_of(options, device, jobs, threads=threads), quiet)
        complaints(console(stderr=True), RunDir(options["run_dir"]), summary)
        found = measured(summary.records, rates)
        if style == "json":
            click.echo(json.dumps([_row(rate) for rate in found], indent=1))
        else:
            _print_table(found)
    leave(summary)


COMMANDS = (calibrate,)


def _row(rate: Rate) -> dict[str, Any]:
    return {
        "scheme": rate.scheme, "arch": rate.arch, "attack": rate.attack, "null": rate.null, "nominal": rate.nominal,
        "false_positive_rate": rate.found.share, "interval_low": rate.found.low, "interval_high": rate.found.high,
        "n": rate.found.trials,
    }  # fmt: skip


def _print_table(found: Sequence[Rate]) -> None:
    from rich.text import Text

    from bench.cli.fitting import plain_table

    if not found:
        console().print("No false claims: no selected cell has any.")
        return
    columns = ("scheme", "arch", "attack", "null", "nominal", "rate", "interval", "n", "verdict")
    lines = [
        (
            rate.scheme, rate.arch, rate.attack, rate.null, f"{rate.nominal:g}", f"{rate.found.share:.3g}",
            f"{rate.found.low:.3f} to {rate.found.high:.3f}", rate.found.trials,
            Text("beyond chance", "red") if rate.beyond else "",
        )
        for rate in found
    ]  # fmt: skip
    out, numbers = console(), ("nominal", "rate", "n")
    out.print(plain_table(columns, lines, width=out.width, numbers=numbers, leave_out=("arch", "attack")))
