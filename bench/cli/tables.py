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
MEASURES = (
    "accuracy", "fidelity", "verdict", "BER", "adv.", "worst case", "removal cost", "false claims",
)  # fmt: skip
OPTIONAL = ("BER", "adv.", "false claims")  # left out where no record has them, so that the others have room
NUMBERS = ("accuracy", "fidelity", "BER", "adv.", "false claims", "removal cost")
WHOLE = ("accuracy", "fidelity", "BER", "adv.")  # of one word: where room is scarce, the others are folded
CAPTION = (
    "accuracy of the marked model in %, fidelity against the clean host in points; worst case: over all\n"
    "strengths that cost the attacker at most 5 points; removal cost: least points given up to break the\n"
    "claim; false claims: of fresh keys on the clean host"
)
ADVANTAGE = ";\nadv.: protection advantage, right answers on the marked model beyond guessing, (M - N p) / N"


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
    measured = [_row(record) for record in ordered]
    shown = [name for name in MEASURES if name not in OPTIONAL or any(row.get(name) for row in measured)]
    rows = [
        [*(axes[name][i] for name in varying), *(row.get(name) for name in shown)] for i, row in enumerate(measured)
    ]
    table = plain_table([*varying, *shown], rows, right=NUMBERS)
    table.collapse_padding = True
    for column in table.columns:
        column.no_wrap = column.header in WHOLE
    table.title, table.title_justify, table.title_style = common, "left", "bold"
    table.caption = CAPTION + (ADVANTAGE if "adv." in shown else "")
    table.caption_justify = "left"
    return table


def _row(record: Record) -> dict[str, str | Text | None]:
    if record.status != "ok" or record.marked is None:
        return {"verdict": Text(record.status, "dim")}
    return {
        "accuracy": _accuracy(record),
        "fidelity": _signed(record.fidelity_pp),
        "verdict": _verdict(record.marked),
        "BER": _ber(record.marked),
        "adv.": _protection(record),
        "worst case": _worst(record),
        "removal cost": _cost(record),
        "false claims": _false(record),
    }


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


def _protection(record: Record) -> str | None:
    """Of verdicts that identify; of all others it says what the verdict says."""
    found = record.protection()
    identified = any(verdict.matched is not None for point in record.points[:1] for verdict in point.verdicts)
    return f"{found.advantage:.3f}" if found and identified else None


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
