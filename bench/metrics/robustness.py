"""Robustness: which claims hold, the worst case within the attacker's budget, and the cost of removal.

Every owner's claim on one seed's model is a trial. A claim is detected where its p-value is at most the false positive
rate. Attacks on the evidence leave the mark alone, so they say nothing about robustness.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import NamedTuple

from bench.contract.verdict import Point, Verdict
from bench.identity import canonical
from bench.metrics import BUDGET_PP, DEFAULT_FPR
from bench.metrics.aggregate import Bound, Proportion, clustered, lower_median, one_a_seed
from bench.metrics.fidelity import lost_pp
from bench.records.record import CellRecord

__all__ = [
    "Survival",
    "Trial",
    "Worst",
    "breaking_strength",
    "detected",
    "detected_share",
    "effectiveness",
    "hits",
    "removal_cost",
    "survival",
    "survived_share",
    "trials",
    "within",
    "worst_case",
]

ROUNDING = 1e-9  # 0.90 -> 0.85 is five points, whatever floating point makes of it


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


class Survival(NamedTuple):
    """Decided trials that kept their claim within the budget, with the interval of `Proportion`."""

    hits: int
    trials: int
    low: float | None
    high: float | None
    undecided: int

    @property
    def share(self) -> float:
        """Hits over trials, 0..1."""
        return self.hits / self.trials


class Worst(NamedTuple):
    """Survival under all attacks at once; `mean` is that over the attacks one by one, `attacks` names them."""

    hits: int
    trials: int
    low: float | None
    high: float | None
    undecided: int
    mean: float
    attacks: list[str]


def detected(verdict: Verdict, fpr: float = DEFAULT_FPR) -> bool:
    """Whether the claim holds at this false positive rate."""
    return verdict.p_value <= fpr


def hits(point: Point, fpr: float = DEFAULT_FPR) -> int:
    """How many of the owners' claims hold."""
    return sum(detected(verdict, fpr) for verdict in point.verdicts)


def detected_share(point: Point, fpr: float = DEFAULT_FPR) -> float | None:
    """The share of the owners whose claim holds; None without verdicts."""
    return hits(point, fpr) / len(point.verdicts) if point.verdicts else None


def survived_share(record: CellRecord, fpr: float = DEFAULT_FPR) -> float | None:
    """The mean of `detected_share` over the rungs, whatever they cost; None without rungs."""
    shares = [share for point in record.curve if (share := detected_share(point, fpr)) is not None]
    return fmean(shares) if shares else None


def effectiveness(records: Sequence[CellRecord], fpr: float = DEFAULT_FPR) -> Proportion | None:
    """Claims detected on the marked models before any attack, each seed once."""
    marked = [record.marked for record in one_a_seed(records, "marked") if record.marked]
    return clustered((hits(point, fpr), len(point.verdicts)) for point in marked)


def within(loss_pp: float, budget_pp: float = BUDGET_PP) -> bool:
    """Whether a loss is within the budget, which itself is."""
    return loss_pp <= budget_pp + ROUNDING


def trials(
    records: Iterable[CellRecord], fpr: float = DEFAULT_FPR, budget_pp: float = BUDGET_PP
) -> dict[int, list[Trial]]:
    """Per seed, every owner with a result, over all the given attacks.

    An attack that failed in some seeds leaves those seeds open; one that failed in all was never faced.
    """
    seeds: dict[int, list[CellRecord]] = defaultdict(list)
    for record in _hostile(records):
        seeds[record.cell.seed].append(record)
    faced = {_variant(record) for members in seeds.values() for record in members if record.status == "ok"}
    found = {}
    for seed, members in seeds.items():
        done = [record for record in members if record.status == "ok"]
        complete = faced <= {_variant(record) for record in done}
        owners = max((record.cell.owners for record in done), default=0)
        found[seed] = [_trial(done, owner, complete, fpr, budget_pp) for owner in range(owners)]
    return found


def _hostile(records: Iterable[CellRecord]) -> list[CellRecord]:
    """Those of attacks on the mark that were judged, or failed to be."""
    return [r for r in records if r.stage != "evidence" and (r.status == "failed" or r.curve)]


def _variant(record: CellRecord) -> tuple[str, str]:
    return record.cell.attack, canonical(record.cell.attack_params)


def _trial(done: Sequence[CellRecord], owner: int, complete: bool, fpr: float, budget_pp: float) -> Trial:
    held: list[float | None] = []
    broken: list[float | None] = []
    for record in done:
        for point in record.points:
            if owner >= len(point.verdicts):
                complete = False
                continue
            outcome = held if detected(point.verdicts[owner], fpr) else broken
            outcome.append(lost_pp(record, point))
    costs = [loss for loss in broken if loss is not None]
    fell = any(within(loss, budget_pp) for loss in costs)
    decided = complete and None not in broken
    return Trial(
        survived=False if fell else True if decided else None,
        cost_pp=min((max(0.0, loss) for loss in costs), default=None) if decided else None,
        held_pp=max((max(0.0, loss) for loss in held if loss is not None), default=None) if decided else None,
    )


def survival(records: Iterable[CellRecord], fpr: float = DEFAULT_FPR, budget_pp: float = BUDGET_PP) -> Survival | None:
    """How many decided trials kept their claim at every strength within the budget, under all the attacks given."""
    found = trials(records, fpr, budget_pp)
    decided = [[trial.survived for trial in members if trial.survived is not None] for members in found.values()]
    count = clustered((sum(survived), len(survived)) for survived in decided)
    return count and Survival(*count, undecided=sum(map(len, found.values())) - count.trials)


def worst_case(records: Iterable[CellRecord], fpr: float = DEFAULT_FPR, budget_pp: float = BUDGET_PP) -> Worst | None:
    """Survival under all the attacks given, with the mean over them and their names; None where none was judged."""
    apart: dict[tuple[str, str], list[CellRecord]] = defaultdict(list)
    judged = _hostile(records)
    for record in judged:
        apart[_variant(record)].append(record)
    each = {variant: found for variant, members in apart.items() if (found := survival(members, fpr, budget_pp))}
    together = survival(judged, fpr, budget_pp)
    if together is None or not each:
        return None
    return Worst(*together, mean=fmean(s.share for s in each.values()), attacks=sorted({name for name, _ in each}))


def removal_cost(records: Iterable[CellRecord], fpr: float = DEFAULT_FPR) -> Bound | None:
    """The least accuracy an attacker has to give up to break the claim: the lower median over trials.

    An unbroken claim is known only to cost more than the largest loss at which it was seen to hold.
    """
    found = [trial for members in trials(records, fpr).values() for trial in members]
    costs = [trial.cost_pp for trial in found if trial.cost_pp is not None]
    return lower_median(costs, (t.held_pp for t in found if t.cost_pp is None and t.held_pp is not None))


def breaking_strength(record: CellRecord, fpr: float = DEFAULT_FPR, budget_pp: float = BUDGET_PP) -> float | None:
    """The least strength within the budget at which some owner's claim does not hold; None if there is none."""
    if record.stage == "evidence":
        return None
    for point in record.points:
        loss = lost_pp(record, point)
        if loss is not None and within(loss, budget_pp) and hits(point, fpr) < len(point.verdicts):
            return point.strength
    return None
