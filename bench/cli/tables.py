"""Tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rich import box
from rich.table import Table

from bench.records import Record, Verdict

__all__ = ["plain_table", "results_table"]


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
    columns = (
        "scheme", "attack", "arch", "data", "situation", "seed", "accuracy %", "fidelity pp", "verdict", "BER",
        "false claims", "worst case within 5 pp", "removal cost pp",
    )  # fmt: skip
    right = ("seed", "accuracy %", "fidelity pp", "BER", "false claims", "removal cost pp")
    ordered = sorted(records, key=lambda r: (r.cell.dataset, r.cell.arch, r.cell.attack, r.cell.scheme, r.cell.seed))
    return plain_table(columns, map(_row, ordered), right)


def _row(record: Record) -> tuple[Any, ...]:
    cell = record.cell
    head = (cell.scheme, cell.attack, cell.arch, cell.dataset, cell.situation, cell.seed)
    if record.status != "ok" or record.marked is None:
        return (*head, None, None, f"[dim]{record.status}[/dim]", None, None, None, None)
    verdict = record.marked.verdicts[0]
    return (*head, _accuracy(record), _signed(record.fidelity_pp), _verdict(verdict), _ber(verdict), _false(record),
            _worst(record), _cost(record))  # fmt: skip


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
