"""Loss over signatures, what held-out users are told, and histories of trainings."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from bench.contract.verdict import Verdict
from bench.metrics.aggregate import clustered, mean, one_a_seed
from bench.metrics.robustness import detected
from bench.records.record import CellRecord
from leaderboard.summary import Row, as_dict, brief, first_known, short, thin

__all__ = ["heldout_users", "histories", "rung_searches", "searches"]

MAX_SEARCHES, MAX_HELDOUT = 12, 6  # loss curves drawn of the marked models' owners, and of held-out users
MAX_SEARCHED_RUNGS, MAX_RUNG_OWNERS = 8, 3
MAX_SERIES, MAX_SAMPLES = 12, 120  # histories drawn, and points of one line


def heldout_users(done: Sequence[CellRecord], fpr: float) -> Row | None:
    """What is said of users whose images nobody was trained on; `unmarked` counts those inferred to bear no mark."""
    asked = one_a_seed(done, "heldout_verdicts")
    verdicts = [verdict for record in asked for verdict in record.heldout_verdicts]
    if not verdicts:
        return None
    units = [(verdict, verdict.search.unit if verdict.search else "") for verdict in verdicts]
    inferred = [_magnitude(v.inferred, unit) for v, unit in units if v.inferred is not None]
    by_seed = [record.heldout_verdicts for record in asked]
    answers = [[answer for verdict in each if (answer := _unmarked(verdict)) is not None] for each in by_seed]
    return {
        "users": len(verdicts),
        "inferred": _distance_from_none(inferred),
        "unit": first_known(unit or None for _, unit in units) or "",
        "unmarked": as_dict(clustered((sum(each), len(each)) for each in answers)),
        "detected": as_dict(clustered((sum(detected(v, fpr) for v in each), len(each)) for each in by_seed)),
    }


def _distance_from_none(magnitudes: Sequence[float]) -> Row | None:
    """Mean |k| with its Student-t interval, which ends at 0, as |k| does."""
    found = mean(magnitudes)
    return as_dict(found and found._replace(low=None if found.low is None else max(0.0, found.low)))


def _magnitude(signature: float, unit: str) -> float:
    """|k|; of an angle the way to 0 around the circle."""
    turned = signature % 360
    return min(turned, 360 - turned) if unit == "degrees" else abs(signature)


def _unmarked(verdict: Verdict) -> bool | None:
    """Is 0 the likeliest of the signatures tried? None where it was not tried."""
    if verdict.search is None:
        return None if verdict.inferred is None else verdict.inferred == 0
    return verdict.search.unmarked


def searches(done: Sequence[CellRecord]) -> Row | None:
    """The measured losses over the signature space: of the marked models' owners, and of held-out users."""
    owners = [
        _searched(verdict, record.cell.seed, number)
        for record in one_a_seed(done, "marked")
        for number, verdict in enumerate(record.points[0].verdicts)
        if verdict.search
    ]
    others = [
        _searched(verdict, record.cell.seed, number)
        for record in one_a_seed(done, "heldout_verdicts")
        for number, verdict in enumerate(record.heldout_verdicts)
        if verdict.search
    ]
    if not owners and not others:
        return None
    return {
        "owners": owners[:MAX_SEARCHES],
        "more": max(0, len(owners) - MAX_SEARCHES),
        "heldout": others[:MAX_HELDOUT],
        "heldout_more": max(0, len(others) - MAX_HELDOUT),
    }


def _searched(verdict: Verdict, seed: int, owner: int) -> Row:
    """One loss curve, thinned; its least loss is always kept, at index `best`."""
    search = verdict.search
    assert search is not None, "only verdicts that searched are asked"
    kept = sorted({*thin(range(len(search.losses)), MAX_SAMPLES), search.best})
    return {
        "seed": seed,
        "owner": owner,
        "unit": search.unit,
        "true": search.true,
        "inferred": verdict.inferred,
        "matched": verdict.matched,
        "candidates": [search.candidates[i] for i in kept],
        "losses": brief([search.losses[i] for i in kept]),
        "best": kept.index(search.best),
    }


def rung_searches(done: Sequence[CellRecord]) -> list[Row]:
    """How a few owners' loss curves change along the ladder of an attack on training, in the first seed with any."""
    for record in done:
        if record.stage == "training" and any(verdict.search for point in record.curve for verdict in point.verdicts):
            return [
                {"strength": point.strength, **_searched(verdict, record.cell.seed, owner)}
                for owner in range(MAX_RUNG_OWNERS)
                for point in thin(record.points, MAX_SEARCHED_RUNGS)
                if owner < len(point.verdicts) and (verdict := point.verdicts[owner]).search
            ]
    return []


def histories(done: Sequence[CellRecord]) -> Row | None:
    """What was trained, by name; one line a seed, whose values are evenly spread over its epochs."""
    found: dict[str, list[Row]] = defaultdict(list)
    for record in one_a_seed(done, "histories"):
        for name, series in record.histories.items():
            if series:
                values = brief(thin(series, MAX_SAMPLES))
                found[name].append({"seed": record.cell.seed, "epochs": len(series), "values": values})
    if not found:
        return None
    shown = [{"name": short(name), "lines": lines} for name, lines in list(found.items())[:MAX_SERIES]]
    return {"series": shown, "more": len(found) - len(shown)}
