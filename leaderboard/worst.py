"""What is left in the worst case? Every owner's claim under all attacks within the budget."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean
from typing import Any, NamedTuple

from bench.records.record import Record
from leaderboard.summary import Row, canonical, detected, loss_pp, proportion, unattacked

__all__ = ["BUDGET_PP", "Trial", "removal", "robustness", "survival", "trials_of"]

BUDGET_PP = 5.0
ROUNDING = 1e-9


class Trial(NamedTuple):
    """One owner's claim on one seed's model, examined under some attacks.

    Attributes:
        survived: within the budget; None if it cannot be told (an attack failed, or an accuracy is missing).
        cost_pp: least accuracy loss at which the claim broke; None if it never did, or it cannot be told.
        held_pp: largest accuracy loss at which the claim still held; None if it never did, or it cannot be told.
    """

    survived: bool | None
    cost_pp: float | None
    held_pp: float | None


def trials_of(hostile: Sequence[Record]) -> list[Trial]:
    """Every (seed, owner) with a result, over all the given attacks.

    An attack that failed in some seeds leaves those seeds open; one that failed in all was never faced.
    """
    seeds: dict[int, list[Record]] = defaultdict(list)
    for record in hostile:
        seeds[record.cell.seed].append(record)
    faced = {_variant(record) for record in hostile if record.status == "ok"}
    trials = []
    for members in seeds.values():
        done = [record for record in members if record.status == "ok"]
        complete = faced <= {_variant(record) for record in done}
        owners = max((len(unattacked(record).verdicts) for record in done), default=0)
        trials += [_trial(done, owner, complete) for owner in range(owners)]
    return trials


def _variant(record: Record) -> tuple[str, str]:
    return record.cell.attack, canonical(record.cell.attack_params)


def _trial(done: Sequence[Record], owner: int, complete: bool) -> Trial:
    held: list[float | None] = []
    broken: list[float | None] = []
    for record in done:
        for point in record.points:
            if owner >= len(point.verdicts):
                complete = False
                continue
            outcome = held if detected(point.verdicts[owner], record.fpr) else broken
            outcome.append(loss_pp(unattacked(record).test_accuracy, point))
    costs = [loss for loss in broken if loss is not None]
    within = any(loss <= BUDGET_PP + ROUNDING for loss in costs)
    decided = complete and None not in broken
    return Trial(
        survived=False if within else True if decided else None,
        cost_pp=min((max(0.0, loss) for loss in costs), default=None) if decided else None,
        held_pp=max((loss for loss in held if loss is not None), default=None) if decided else None,
    )


def survival(trials: Sequence[Trial]) -> dict[str, Any] | None:
    """How many decided trials kept their claim within the budget, and how many are undecided."""
    decided = [trial.survived for trial in trials if trial.survived is not None]
    count = proportion(sum(decided), len(decided))
    return count and {**count, "undecided": len(trials) - len(decided)}


def removal(trials: Sequence[Trial]) -> dict[str, Any] | None:
    """Median over trials of the least accuracy that breaks the claim, where some claims never broke.

    An unbroken claim is known only to cost more than the largest loss tried. The lower median of these bounds
    bounds the median from below, and is the median itself unless an unbroken claim lies at or below it.
    """
    broken = [(trial.cost_pp, False) for trial in trials if trial.cost_pp is not None]
    unbroken = [(trial.held_pp, True) for trial in trials if trial.cost_pp is None and trial.held_pp is not None]
    values = sorted([*broken, *unbroken])
    if not values:
        return None
    middle = (len(values) - 1) // 2
    more = any(bound for _, bound in values[: middle + 1])
    return {"pp": values[middle][0], "more": more, "values": [list(value) for value in values]}


def robustness(hostile: Sequence[Record], attacks: dict[str, Row]) -> dict[str, Any] | None:
    """Worst case over the attacks within the budget; the mean over attacks stands beside it."""
    worst = survival(trials_of(hostile))
    apart = {label: a["survival"] for label, a in attacks.items() if a["survival"]}
    if worst is None or not apart:
        return None
    return {**worst, "mean": fmean(a["hits"] / a["trials"] for a in apart.values()), "attacks": sorted(apart)}
