"""Tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rich import box
from rich.table import Table

from bench.records import Record, Verdict

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
        table.add_row(*("-" if value is None else str(value) for value in row))
    return table


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
        return (None, None, f"[dim]{record.status}[/dim]", None, None, None, None)
    verdict = record.marked.verdicts[0]
    measures = (_accuracy(record), _signed(record.fidelity_pp), _verdict(verdict), _ber(verdict))
    return (*measures, _worst(record), _cost(record), _false(record))


def _accuracy(record: Record) -> str | None:
    accuracy = None if record.marked is None else record.marked.test_accuracy
    return None if accuracy is None else f"{100 * accuracy:.1f}"


def _signed(value: float | None) -> str | None:
    return None if value is None else f"{value:+.1f}"


def _verdict(verdict: Verdict) -> str:
    word = "[green]detected[/green]" if verdict.detected else "[red]not detected[/red]"
    return f"{word} p={verdict.p_value:.1g}"


def _ber(verdict: Verdict) -> str | None:
    return None if verdict.ber is None else f"{verdict.ber:.3f}"


def _false(record: Record) -> str | None:
    return None if record.security is None else f"{record.security.clean.hits}/{record.security.clean.trials}"


def _worst(record: Record) -> str | None:
    point = record.worst_case()
    if point is None:
        return None
    found = "[green]detected[/green]" if point.detected_share == 1 else "[red]lost[/red]"
    at = f" at {point.strength:g} {record.unit}" if point.strength and point.detected_share < 1 else ""
    return found + at


def _cost(record: Record) -> str:
    cost = record.removal_cost_pp
    if cost is None:
        return f"> {max(record.loss_pp(point) for point in record.points):.1f}"
    return f"{cost:.1f}"
