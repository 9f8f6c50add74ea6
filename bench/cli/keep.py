"""The commands `bench compare` and `bench clean`: two run directories side by side, and what one keeps for nothing."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from bench.cli.common import console, fpr_option, run_dir_option, sentences

if TYPE_CHECKING:
    from bench.records.record import CellRecord

__all__ = ["COMMANDS"]

AXES = ("scheme", "attack", "arch", "dataset", "situation", "profile", "seed")
UNITS = ("B", "kB", "MB", "GB", "TB")
NUMBERS = ("accuracy", "fidelity", "log10 p", "worst case", "removal cost")
MEANINGS = (
    "each number is B minus A; accuracy, fidelity and removal cost in percentage points; log10 p: of the marked model, "
    "one owner; worst case: claims that hold at the false positive rate {fpr:g} %; = means equal, - that one side has "
    "no number"
)
LEAVE_OUT = ("removal cost", "fidelity", "profile", "dataset", "situation", "arch", "worst case", "seed", "attack")


@click.command()
@click.argument("a", type=click.Path(path_type=Path, exists=True))
@click.argument("b", type=click.Path(path_type=Path, exists=True))
@fpr_option
@click.option("--format", "style", type=click.Choice(["table", "json"]), default="table", help="How to answer.")
@sentences
def compare(a: Path, b: Path, fpr: float, style: str) -> None:
    """Compare two run directories, or two records: the numbers of the cells in both, and what differs behind them.

    A and B are run directories or files of records. A cell is the same where scheme, attack, architecture, data set,
    situation, profile, seed and all parameters are.
    """
    first, second = _records(a), _records(b)
    both = [name for name in first if name in second]
    apart = {"only_a": len(first) - len(both), "only_b": len(second) - len(both)}
    pairs = [(first[name], second[name]) for name in both]
    cells = [{"cell": x.cell.model_dump(mode="json"), **_differences(x, y, fpr)} for x, y in pairs]
    behind = _provenance(pairs)
    if style == "json":
        click.echo(json.dumps({"cells": cells, "provenance": behind, **apart}, indent=1, allow_nan=False))
        return
    _print_cells(cells, fpr)
    _print_provenance(behind, len(both))
    console().print(f"{len(both)} cells in both, {apart['only_a']} only in A, {apart['only_b']} only in B.")


@click.command()
@run_dir_option
@click.option("--yes", is_flag=True, help="Remove what is listed.")
@sentences
def clean(run_dir: Path, yes: bool) -> None:
    """List, with sizes, the stored results that no record needs; with --yes, remove them.

    Records, the page and the MLflow store are never touched. Results of an interrupted run belong to no record yet:
    give its command again first, or they are computed again. Clean networks of `bench detect` belong to none either.
    """
    from bench.cli.fitting import plain_table
    from bench.cli.report import existing
    from bench.runner.leftovers import leftovers, remove
    from bench.runner.rundir import RunDir

    found, out = leftovers(RunDir(existing(run_dir))), console()
    if found:
        rows = [(size_of(each.size), each.label, each.path.name[:16]) for each in found]
        out.print(plain_table(("size", "what", "key"), rows, width=out.width, numbers=("size",), whole=("key",)))
    for each in found if yes else ():
        remove(each)
    total = f"{len(found)} stored results that no record needs, {size_of(sum(each.size for each in found))}"
    out.print(f"{total}{': removed.' if yes and found else '; --yes removes them.' if found else '.'}", soft_wrap=True)


COMMANDS = (compare, clean)


def size_of(count: float) -> str:
    """Bytes as people say them: `512 B`, `3.1 MB`."""
    power = 0
    while count >= 1000 and power < len(UNITS) - 1:
        count, power = count / 1000, power + 1
    return f"{count:.{1 if power else 0}f} {UNITS[power]}"


def _records(path: Path) -> dict[str, CellRecord]:
    """By the identity of their cells."""
    from bench.cli.report import records_in
    from bench.records.files import load_record

    found = records_in(path) if path.is_dir() else [load_record(path)]
    return {record.cell.identity: record for record in found}


def _differences(a: CellRecord, b: CellRecord, fpr: float) -> dict[str, Any]:
    """B minus A, of each number that both have; and the status where it differs."""
    before, after = _numbers(a, fpr), _numbers(b, fpr)
    found: dict[str, Any] = {
        name: None if before[name] is None or after[name] is None else after[name] - before[name] for name in NUMBERS
    }
    return found | {"status": a.status if a.status == b.status else f"{a.status} -> {b.status}"}


def _numbers(record: CellRecord, fpr: float) -> dict[str, Any]:
    import math

    from bench.metrics.fidelity import best_accuracy, fidelity_pp
    from bench.metrics.robustness import removal_cost, survival

    marked = record.marked
    if record.status != "ok" or marked is None:
        return dict.fromkeys(NUMBERS)
    accuracy = best_accuracy(marked)
    p_value = marked.verdicts[0].p_value if len(marked.verdicts) == 1 else None
    worst, cost = survival([record], fpr), removal_cost([record], fpr)
    return {
        "accuracy": None if accuracy is None else 100 * accuracy,
        "fidelity": fidelity_pp(record),
        "log10 p": math.log10(p_value) if p_value else None,
        "worst case": worst and worst.hits,
        "removal cost": cost and cost.pp,
    }


def _provenance(pairs: Iterable[tuple[CellRecord, CellRecord]]) -> list[dict[str, Any]]:
    """What differs, with how many cells it is about; keys of steps and times are left out."""
    told: Counter[tuple[str, str, str]] = Counter()
    for pair in pairs:
        a, b = (_flat(record.provenance.model_dump(mode="json", exclude={"steps", "finished"})) for record in pair)
        told.update(
            (name, str(a.get(name)), str(b.get(name))) for name in sorted({*a, *b}) if a.get(name) != b.get(name)
        )
    return [{"field": name, "a": a, "b": b, "cells": count} for (name, a, b), count in told.most_common()]


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= {f"{name}.{part}": v for part, v in value.items()} if isinstance(value, dict) else {name: value}
    return flat


def _print_cells(cells: list[dict[str, Any]], fpr: float) -> None:
    from bench.cli.fitting import plain_table

    varying = [a for a in AXES if a == "scheme" or len({str(entry["cell"][a]) for entry in cells}) > 1]
    rows = [
        [*(entry["cell"][a] for a in varying), entry["status"], *map(_signed, map(entry.get, NUMBERS))]
        for entry in cells
    ]
    if not rows:
        return
    out = console()
    numbers = ("seed", *NUMBERS)
    table = plain_table([*varying, "status", *NUMBERS], rows, width=out.width, numbers=numbers, leave_out=LEAVE_OUT)
    said = [*filter(None, [table.caption]), MEANINGS.format(fpr=100 * fpr)]
    table.caption, table.caption_justify = "\n".join(map(str, said)), "left"
    out.print(table)


def _signed(value: float | None) -> str | None:
    return None if value is None else "=" if value == 0 else f"{value:+.3g}"


def _short(value: str) -> str:
    """A hash by its beginning."""
    return value[:12] if re.fullmatch(r"[0-9a-f]{40,64}", value) else value


def _print_provenance(behind: list[dict[str, Any]], cells: int) -> None:
    from bench.cli.fitting import plain_table

    out = console()
    if behind:
        rows = [
            (entry["field"], _short(entry["a"]), _short(entry["b"]), f"{entry['cells']}/{cells}") for entry in behind
        ]
        out.print(plain_table(("differs", "in A", "in B", "cells"), rows, width=out.width, numbers=("cells",)))
    elif cells:
        out.print("Nothing differs in the provenance but times.")
