"""`bench calibrate`."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import rich_click as click

from bench.cli.common import FiniteRange, calibration_selectors, console, selected, sentences
from bench.cli.computing import computed_steps, device_option, jobs_option, settings_of, threads_option, until_sigterm

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.records.calibration import CalibrationRow

__all__ = ["COMMANDS"]

FIELDS = (
    "scheme", "arch", "attack", "null", "nominal", "false_positive_rate", "interval_low", "interval_high", "n",
)  # fmt: skip
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
    help="Fresh keys that claim each host and null model.  [default: the profile's]",
)  # fmt: skip
@click.option(
    "--trained-keys", type=click.IntRange(1, 10_000), default=None,
    help="At most so many of them where making a key takes a training.  [default: the profile's]",
)  # fmt: skip
@click.option(
    "--left-out", "left_out_owners", type=click.IntRange(1, 10_000), default=None,
    help="Owners who claim a network that was trained without their images.  [default: the profile's]",
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

    Computes what false claims take, and no mark: fresh keys claim clean hosts, null models and, with an attack, clean
    hosts that went through it. Each of --seeds has networks and keys of its own. Rows with more accepted claims than
    chance explains are marked. The rows are kept in `calibration.json` in the run directory. JSON: a list of objects
    with `scheme`, `arch`, `attack`, `null`, `nominal`, `false_positive_rate`, `interval_low`, `interval_high`, `n`.
    Exit status: 0 all claims made, 1 some failed, 2 usage.

    SUITE.yaml holds selectors, as for `bench run`.
    """
    from bench.plan.profiles import PROFILES
    from bench.plan.selection import cells_of
    from bench.records.calibration import CALIBRATION
    from bench.runner import calibrate as runner
    from bench.runner.rundir import RunDir
    from bench.runner.store import StoreError

    if options["null_hosts"] is None:
        profile = PROFILES.get(options["profile"])
        options["null_hosts"] = max(NETWORKS, profile.null_hosts if profile else 0)
    run_dir = RunDir(options["run_dir"], options["store"])
    CALIBRATION.load(run_dir.path)  # refused, if so, before anything is computed
    with until_sigterm():
        settings = settings_of(options, device, jobs, threads=threads)
        chosen: Any = {name: value for name, value in selected(options).items() if name != "run_dir"}
        cells = [cell for cell in cells_of(chosen) if cell.reason is None]
        steps = [step for cell in cells for step in runner.null_steps(cell).values()]
        summary = computed_steps(steps, run_dir, settings, quiet, options["owners"])
        try:
            found = runner.rows(runner.claims_of(cells, run_dir.store), rates)
        except StoreError as error:
            raise click.ClickException(f"{error} Give the same command again.") from error
        CALIBRATION.merge(found, run_dir.path)
        if style == "json":
            click.echo(json.dumps([{name: getattr(row, name) for name in FIELDS} for row in found], indent=1))
        else:
            _print_table(found)
    sys.exit(1 if summary.failures else 0)


COMMANDS = (calibrate,)


def _print_table(found: Sequence[CalibrationRow]) -> None:
    from rich.text import Text

    from bench.cli.fitting import plain_table

    if not found:
        console().print("No false claims: no selected cell has any.")
        return
    columns = ("scheme", "arch", "attack", "null", "nominal", "rate", "interval", "claims", "networks", "verdict")
    lines = [
        (
            row.scheme, row.arch, row.attack, row.null, f"{row.nominal:g}", f"{row.false_positive_rate:.3g}",
            f"{row.interval_low:.3f} to {row.interval_high:.3f}", row.n, row.networks or None,
            Text("beyond chance", "red") if row.beyond else "",
        )
        for row in found
    ]  # fmt: skip
    out, numbers = console(), ("nominal", "rate", "claims", "networks")
    out.print(plain_table(columns, lines, width=out.width, numbers=numbers, leave_out=("arch", "attack", "networks")))
