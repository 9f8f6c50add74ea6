"""The table of results for the terminal: a row per cell."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.table import Table
from rich.text import Text

from bench.cli.fitting import plain_table
from bench.contract.verdict import Point
from bench.metrics import BUDGET_PP, DEFAULT_FPR
from bench.metrics.aggregate import average
from bench.metrics.fidelity import best_accuracy, fidelity_pp
from bench.metrics.protection import protection
from bench.metrics.robustness import breaking_strength, hits, removal_cost, survival
from bench.metrics.security import false_claims, forged
from bench.records.record import CellRecord

__all__ = ["headline", "results_table"]

FEW = 6  # schemes that a line below the table names
AXES = ("scheme", "attack", "arch", "dataset", "situation", "profile", "seed")
MEASURES = (
    "accuracy", "fidelity", "detected", "p-value", "BER", "adv.", "worst case", "removal cost", "false claims",
    "forged",
)  # fmt: skip
OPTIONAL = (
    "p-value",
    "BER",
    "adv.",
    "false claims",
    "forged",
)  # left out where no record has them, so that the others have room
NUMBERS = ("accuracy", "fidelity", "p-value", "BER", "adv.", "false claims", "removal cost", "forged", "seed")
# What is left out on a narrow terminal, the least important first; scheme and detected stay.
LEAVE_OUT = (
    "BER", "adv.", "forged", "fidelity", "removal cost", "false claims", "accuracy", "profile", "dataset", "situation",
    "worst case", "arch", "seed", "attack", "p-value",
)  # fmt: skip
CAPTION = (
    "accuracy of the marked model in %, fidelity against its control in points; detected at a false positive rate of "
    "{fpr:g} %; worst case: claims that hold at all strengths that cost the attacker at most {budget:g} points, and "
    "where the first does not; removal cost: least points given up to break the claim; false claims: of fresh keys on "
    "the clean host and of left-out owners"
)
MOST = 200
MORE = "\nthe first {shown} of {cells:,} cells; `bench results` prints them all"
FORGED = "; forged: least p-value of a forgery that works with a key committed to before / of one that does not"
ADVANTAGE = "; adv.: protection advantage, right answers on the marked model beyond guessing"


def results_table(records: Iterable[CellRecord], width: int, fpr: float = DEFAULT_FPR) -> Table:
    """One row per cell, of `MOST` cells: what the mark costs, whether it is found, and what the attack makes of it."""
    records = list(records)
    every = sorted(
        (record for record in records if record.status != "not applicable"),
        key=lambda r: (r.cell.dataset, r.cell.arch, r.cell.attack, r.cell.scheme, r.cell.seed),
    )
    ordered = every[:MOST]
    axes = {name: [str(getattr(record.cell, name)) for record in every] for name in AXES}
    varying = [name for name in AXES if name == "scheme" or len(set(axes[name])) > 1]
    common = ", ".join(f"{name} {values[0]}" for name, values in axes.items() if name not in varying and values)
    measured = [headline(record, fpr) for record in ordered]
    shown = [name for name in MEASURES if name not in OPTIONAL or any(row.get(name) for row in measured)]
    rows = [
        [*(axes[name][i] for name in varying), *(row.get(name) for name in shown)] for i, row in enumerate(measured)
    ]
    table = plain_table([*varying, *shown], rows, width=width, numbers=NUMBERS, leave_out=LEAVE_OUT)
    left_out = f"{table.caption}\n" if table.caption else ""
    table.title, table.title_justify, table.title_style = common, "left", "bold"
    table.caption = left_out + CAPTION.format(fpr=100 * fpr, budget=BUDGET_PP) + (ADVANTAGE if "adv." in shown else "")
    table.caption += FORGED if "forged" in shown else ""
    table.caption += _meaningless(records)
    table.caption += MORE.format(shown=MOST, cells=len(every)) if len(every) > MOST else ""
    table.caption_justify = "left"
    return table


def _meaningless(records: Sequence[CellRecord]) -> str:
    """Which pairs make no cell, attack by attack; `bench plan` says why."""
    pairs: dict[str, set[str]] = {}
    for record in records:
        if record.status == "not applicable":
            pairs.setdefault(record.cell.attack, set()).add(record.cell.scheme)
    lines = [f"not applicable: {attack} to {_named(sorted(found))}" for attack, found in sorted(pairs.items())]
    return "".join(f"\n{line}" for line in lines)


def _named(schemes: Sequence[str]) -> str:
    return ", ".join(schemes) if len(schemes) <= FEW else f"{len(schemes)} schemes (`bench plan` says why)"


def headline(record: CellRecord, fpr: float) -> dict[str, str | Text | None]:
    """The numbers of one cell, as they are shown; only its status where there are none."""
    if record.status != "ok" or record.marked is None:
        return {"detected": Text("n/a" if record.status == "not applicable" else record.status, "dim")}
    marked = record.marked
    return {
        "accuracy": _percent(best_accuracy(marked)),
        "fidelity": _signed(fidelity_pp(record)),
        "detected": _holds(hits(marked, fpr), len(marked.verdicts)),
        "p-value": _p_value(marked),
        "BER": _ber(marked),
        "adv.": _protection(record, fpr),
        "worst case": _worst(record, fpr),
        "removal cost": _cost(record, fpr),
        "false claims": _false(record, fpr),
        "forged": _forged(record),
    }


def _percent(fraction: float | None) -> str | None:
    return None if fraction is None else f"{100 * fraction:.1f}"


def _signed(value: float | None) -> str | None:
    return None if value is None else f"{value:+.1f}"


def _p_value(point: Point) -> str | None:
    """Of one owner; of several it is said how many are detected."""
    return f"{point.verdicts[0].p_value:.2g}" if len(point.verdicts) == 1 else None


def _holds(found: int, count: int) -> Text:
    words = f"{found}/{count}" if count != 1 else "yes" if found else "no"
    return Text(words, "green" if found == count else "red")


def _ber(point: Point) -> str | None:
    errors = average(verdict.ber for verdict in point.verdicts)
    return None if errors is None else f"{errors:.3f}"


def _protection(record: CellRecord, fpr: float) -> str | None:
    """Of verdicts that identify; of all others it says what the verdict says."""
    found = protection(record, fpr=fpr)
    identified = any(verdict.matched is not None for point in record.points[:1] for verdict in point.verdicts)
    return f"{found.advantage:.2f}" if found and identified else None


def _false(record: CellRecord, fpr: float) -> str | None:
    found = false_claims([record], fpr)
    return found and f"{found.hits}/{found.trials}"


def _forged(record: CellRecord) -> str | None:
    """The least p-value of a forgery with and without a commitment."""
    found = forged([record])
    return found and " / ".join("-" if p_value is None else f"{p_value:.2g}" for p_value in found)


def _worst(record: CellRecord, fpr: float) -> Text | None:
    found = survival([record], fpr)
    if found is None:
        return None
    words, strength = _holds(found.hits, found.trials), breaking_strength(record, fpr)
    if strength:
        words.append(f" at {strength:g}", "default")
    return words


def _cost(record: CellRecord, fpr: float) -> str | None:
    found = removal_cost([record], fpr)
    return found and f"{'> ' if found.more else ''}{found.pp:.1f}"
