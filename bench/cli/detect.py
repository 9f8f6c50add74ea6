"""`bench detect`."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import rich_click as click

from bench.cli.common import console, detection_selectors, fpr_option, selected, sentences
from bench.cli.computing import computed_steps, device_option, jobs_option, settings_of, threads_option, until_sigterm

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.records.detectability import DetectabilityRow
    from bench.runner.detect import Pool

__all__ = ["COMMANDS"]

TWINS = 4  # clean networks a seed; with fewer, a layer that stands out by chance is soon the rule
COLUMNS = ("test", "AUC", "interval", "p", "least p", "stands out", "effect", "clean", "verdict")
NUMBERS = ("AUC", "interval", "p", "least p", "effect", "clean")
LEAVE_OUT = ("least p", "clean", "interval", "arch")
CAPTION = (
    "AUC: chance that a marked network stands out more than a clean one; effect, from marked to clean networks, beside "
    "the same among clean ones: Kolmogorov-Smirnov distance, ratio of variances, accuracy of the classifier; verdict: "
    "p at {fpr:g} %, Holm over the tests of a scheme"
)


@click.command()
@detection_selectors
@click.option(
    "--null-hosts", type=click.IntRange(2, 200), default=None,
    help=f"Clean networks a seed that marked ones are compared with.  [default: the profile's, at least {TWINS}]",
)  # fmt: skip
@fpr_option
@click.option("--format", "style", type=click.Choice(["table", "json"]), default="table")
@device_option
@jobs_option
@threads_option
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
@sentences
def detect(fpr: float, style: str, device: str, jobs: int, threads: int, quiet: bool, **options: Any) -> None:
    """Measure how visible marks are in the weights, to somebody who has clean networks and no key.

    Trains what is missing: marked networks, and clean ones of the same recipe and length. Tests whether the marked one
    of each seed stands out, by layer: Kolmogorov-Smirnov distance and variance of its weights, and, from four seeds on,
    a classifier that has seen other seeds. Schemes that mark no model are passed over. JSON: a list of the rows that
    are kept in `detectability.json` in the run directory. Exit status: 0 all networks trained, 1 some failed, 2 usage.

    SUITE.yaml holds selectors, as for `bench run`.
    """
    from bench.records.detectability import DETECTABILITY
    from bench.runner import detect as runner
    from bench.runner.rundir import RunDir
    from bench.runner.store import StoreError

    run_dir, pools = RunDir(options["run_dir"], options["store"]), _pools(options)
    DETECTABILITY.load(run_dir.path)  # refused, if so, before anything is trained
    with until_sigterm():
        settings = settings_of(options, device, jobs, threads=threads)
        summary = computed_steps(runner.steps_of(pools), run_dir, settings, quiet, options["owners"])
        try:
            found = list(runner.rows(pools, run_dir.store))
        except StoreError as error:
            raise click.ClickException(f"{error} Give the same command again.") from error
        DETECTABILITY.merge(found, run_dir.path)
        if style == "json":
            click.echo(json.dumps([row.model_dump(mode="json") for row in found], indent=1))
        else:
            _print_table(found, fpr)
    sys.exit(1 if summary.failures else 0)


COMMANDS = (detect,)


def _pools(options: dict[str, Any]) -> list[Pool]:
    """The networks of the selected schemes.

    Raises:
        click.UsageError: no selected scheme marks a model.
    """
    from bench.plan.profiles import PROFILES
    from bench.plan.selection import cells_of
    from bench.runner.detect import pools_of

    if options["null_hosts"] is None:
        profile = PROFILES.get(options["profile"])
        options["null_hosts"] = max(TWINS, profile.null_hosts if profile else 0)
    chosen = {name: value for name, value in selected(options).items() if name != "run_dir"}
    pools = pools_of(cells_of({**chosen, "attack": "none"}))  # type: ignore[typeddict-item]  # click hands options over untyped
    if not pools:
        raise click.UsageError(
            f"Expected schemes that mark a model's weights or behaviour, but got {options['scheme']}: "
            "try --scheme @weights."
        )
    return pools


def _print_table(found: Sequence[DetectabilityRow], fpr: float) -> None:
    from bench.cli.fitting import plain_table

    out = console()
    varying = [name for name in ("dataset", "situation") if len({getattr(row, name) for row in found}) > 1]
    columns = ("scheme", "arch", *varying, *COLUMNS)
    lines = [
        [
            row.scheme, row.arch, *(getattr(row, name) for name in varying), row.test, _number(row.auc), _interval(row),
            _number(row.p_value), _number(row.least_p_value),
            (row.part or "").removeprefix("net.") or None, _number(row.effect), _number(row.clean_effect),
            verdict,
        ]
        for row, verdict in zip(found, _verdicts(found, fpr), strict=True)
    ]  # fmt: skip
    table = plain_table(columns, lines, width=out.width, numbers=NUMBERS, whole=("scheme",), leave_out=LEAVE_OUT)
    table.caption = "\n".join(filter(None, [str(table.caption or ""), CAPTION.format(fpr=100 * fpr)]))
    table.caption_justify = "left"
    out.print(table)


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:.3g}"


def _interval(row: DetectabilityRow) -> str | None:
    known = row.interval_low is not None and row.interval_high is not None
    return f"{row.interval_low:.2f}-{row.interval_high:.2f}" if known else None


def _verdicts(found: Sequence[DetectabilityRow], fpr: float) -> list[str]:
    """`visible`, `not seen`, or why a row cannot tell, with Holm's adjustment over the tests of one subject."""
    from bench.metrics.beside import verdict, visibility

    said: dict[str, str] = {}
    for subject in dict.fromkeys(row.subject for row in found):
        tests = visibility([row for row in found if row.subject == subject])
        said |= {test.row.about: verdict(test, fpr) for test in tests}
    return [said[row.about] for row in found]
