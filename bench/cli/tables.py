"""Tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from bench.records import Point, Record

__all__ = ["plain_table", "results_table"]

AXES = ("scheme", "attack", "arch", "dataset", "situation", "profile", "seed")
MEASURES = ("accuracy", "fidelity", "verdict", "BER", "worst case", "removal cost", "false claims")
CAPTION = (
    "accuracy of the marked model in %, fidelity against the clean host in points; worst case: over all strengths\n"
    "that cost the attacker at most 5 points; removal cost: least points given up to break the claim;\n"
    "false claims: of fresh keys on the clean host"
)


def plain_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], right: Sequence[str] = ()) -> Table:
    """A quiet table; columns named in `right` are aligned to the right."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(_cell, row))
    return table


def _cell(value: Any) -> Text:
    """Foreign text stays text: only what is a `Text` already has colours."""
    if isinstance(value, Text):
        return value
    return Text("-" if value is None else str(value))


def results_table(records: Iterable[Record]) -> Table:
    """One row per cell: what the mark costs, whether it is found, and what the attack makes of it."""
    ordered = sorted(records, key=lambda r: (r.cell.dataset, r.cell.arch, r.cell.attack, r.cell.scheme, r.cell.seed))
    axes = {name: [str(getattr(record.cell, name)) for record in ordered] for name in AXES}
    varying = [name for name in AXES if name == "scheme" or len(set(axes[name])) > 1]
    common = ", ".join(f"{name} {values[0]}" for name, values in axes.items() if name not in varying and values)
    rows = [[*(axes[name][i] for name in varying), *_row(record)] for i, record in enumerate(ordered)]
    table = plain_table(
        [*varying, *MEASURES], rows, right=("accuracy", "fidelity", "BER", "false claims", "removal cost")
    )
    table.title, table.title_justify, table.title_style = common, "left", "bold"
    table.caption, table.caption_justify = CAPTION, "left"
    return table


def _row(record: Record) -> tuple[Any, ...]:
    if record.status != "ok" or record.marked is None:
        return (None, None, Text(record.status, "dim"), None, None, None, None)
    measures = (_accuracy(record), _signed(record.fidelity_pp), _verdict(record.marked), _ber(record.marked))
    return (*measures, _worst(record), _cost(record), _false(record))


def _accuracy(record: Record) -> str | None:
    accuracy = None if record.marked is None else record.marked.test_accuracy
    return None if accuracy is None else f"{100 * accuracy:.1f}"


def _signed(value: float | None) -> str | None:
    return None if value is None else f"{value:+.1f}"


def _verdict(point: Point) -> Text:
    """Of one owner the p-value, of several how many are detected."""
    if len(point.verdicts) != 1:
        return _holds(point)
    return _holds(point).append(f" p={point.verdicts[0].p_value:.2g}", "default")


def _holds(point: Point) -> Text:
    count, found = len(point.verdicts), sum(bool(verdict.detected) for verdict in point.verdicts)
    of_all = f" {found}/{count}" if count != 1 else ""
    return Text("detected" + of_all, "green") if found == count else Text("not detected" + of_all, "red")


def _ber(point: Point) -> str | None:
    errors = [verdict.ber for verdict in point.verdicts if verdict.ber is not None]
    return f"{sum(errors) / len(errors):.3f}" if errors else None


def _false(record: Record) -> str | None:
    return None if record.security is None else f"{record.security.clean.hits}/{record.security.clean.trials}"


def _worst(record: Record) -> Text | None:
    point = record.worst_case()
    if point is None:
        return None
    found = _holds(point)
    if point.strength and point.detected_share < 1:
        found.append(f" from {point.strength:g} {record.unit}", "default")
    return found


def _cost(record: Record) -> str | None:
    cost = record.removal_cost_pp
    if cost is not None:
        return f"{cost:.1f}"
    losses = [loss for point in record.points if (loss := record.loss_pp(point)) is not None]
    return None if record.stage == "evidence" or not losses else f"> {max(0.0, *losses):.1f}"
