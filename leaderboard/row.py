"""One row of the leaderboard: the records of one question, summed up over seeds and owners."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

from bench.contract.verdict import Point
from bench.identity import canonical
from bench.metrics.aggregate import average, mean, one_a_seed
from bench.metrics.beside import Beside
from bench.metrics.capacity import carried_bits
from bench.metrics.efficiency import embed_ratio
from bench.metrics.fidelity import fidelity_pp
from bench.metrics.protection import Protection, protection_over_seeds
from bench.metrics.ranking import is_baseline
from bench.metrics.robustness import effectiveness, hits, removal_cost, survival, worst_case
from bench.metrics.security import (
    beyond_chance,
    false_claims,
    false_claims_after_attack,
    false_claims_by_kind,
    forged,
    forged_claims,
)
from bench.records.record import CellRecord
from leaderboard.commands import command, commands
from leaderboard.costs import costs
from leaderboard.measured import measured
from leaderboard.outcomes import outcomes
from leaderboard.searches import heldout_users, histories, rung_searches, searches
from leaderboard.summary import Row, as_dict, first_known, if_any, short, tag, thin

__all__ = ["COMPUTED", "row_of"]

COMPUTED = "computed here"  # the origin of records of whoever publishes the page; any other is a submission's


def row_of(origin: str, key: str, group: list[CellRecord], fpr: float, beside: Beside | None = None) -> Row:
    """The row of records that ask the same question.

    Args:
        origin: where the records come from.
        key: the question, which names the row.
        group: in the order of attacks and seeds.
        fpr: the false positive rate that every p-value is held to.
        beside: what was measured beside the records.
    """
    first, done = group[0], [record for record in group if record.status == "ok"]
    return {
        "id": tag(key if origin == COMPUTED else origin + key, 8),
        **{name: getattr(first.cell, name) for name in ("profile", "scheme", "arch", "dataset", "situation", "owners")},
        "carrier": first_known(record.carrier for record in group),
        "baseline": any(map(is_baseline, group)),
        "access": first_known(record.access for record in group),
        "params": {name: short(value) for name, value in first.cell.scheme_params.items()},
        "status": _status(group),
        "seeds": sorted({record.cell.seed for record in done}),
        "problems": _problems(group),
        "warnings": [*_warnings(done), *(_repeated(done) if origin != COMPUTED else [])],
        **_of_marked(one_a_seed(done, "marked"), fpr),
        "heldout": heldout_users(done, fpr),
        "searches": searches(done),
        "histories": histories(done),
        "robustness": as_dict(worst_case(group, fpr)),
        "removal": _as_lists(as_dict(removal_cost(group, fpr))),
        "security": _security(done, fpr),
        "attacks": {label: _attack(found, fpr) for label, found in _by_attack(group).items()},
        **measured(first.cell, beside or Beside(), fpr),
        "costs": costs(done) if done else None,
        "commands": commands(_by_attack(group).values(), fpr),
        "environments": _environments(done or group),
        "finished": _first_and_last(record.provenance.finished for record in group),
    }


def _as_lists(found: Row | None) -> Row | None:
    """JSON knows no tuples."""
    return found and {**found, "values": [list(value) for value in found["values"]]}


def _first_and_last(dates: Iterable[str]) -> list[str]:
    found = sorted({date for date in dates if date})
    return [found[0], found[-1]] if found else []


def _status(group: Sequence[CellRecord]) -> str:
    found = {record.status for record in group}
    return next(status for status in ("ok", "failed", "not applicable") if status in found)


def _by_attack(group: Sequence[CellRecord]) -> dict[str, list[CellRecord]]:
    """Records per attack; an attack with other parameters is another attack, named apart by their digest."""
    found: dict[str, dict[str, list[CellRecord]]] = defaultdict(lambda: defaultdict(list))
    for record in group:
        found[record.cell.attack][canonical(record.cell.attack_params)].append(record)
    labelled: dict[str, list[CellRecord]] = {}
    for name, variants in found.items():
        for params, members in variants.items():
            labelled[name if len(variants) == 1 else f"{name} ({tag(params, 4)})"] = members
    return labelled


def _problems(group: Sequence[CellRecord]) -> list[dict[str, Any]]:
    """Why cells have no numbers: seeds with the same attack, status and reason together."""
    seeds: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    for label, members in _by_attack(group).items():
        for record in members:
            if record.status != "ok":
                lines = (record.traceback or "").strip().splitlines()
                reason = record.reason or (lines[-1] if lines else "")
                seeds[label, record.status, short(reason)].append(record.cell.seed)
    return [{"attack": a, "status": s, "reason": r, "seeds": which} for (a, s, r), which in seeds.items()]


def _warnings(done: Sequence[CellRecord]) -> list[str]:
    """What a reader must know before trusting a mean: its seeds may not be of one kind."""
    found = []
    for name in ("data_checksum", "split", "bench_version"):
        if len({canonical(getattr(record.provenance, name)) for record in done}) > 1:
            found.append(f"records differ in {name.replace('_', ' ')}")
    for label, members in _by_attack(done).items():
        if len({record.provenance.source_hash for record in members}) > 1:
            found.append(f"seeds of {label} were computed by different source code")
    return found


def _repeated(done: Sequence[CellRecord]) -> list[str]:
    """Seeds that agree in every number were hardly run."""
    found = []
    for label, members in _by_attack(done).items():
        distinct = {canonical([point.model_dump(mode="json") for point in record.points]) for record in members}
        if len(distinct) < len(members):
            found.append(f"seeds of {label} agree in every number")
    return found


def _of_marked(by_seed: Sequence[CellRecord], fpr: float) -> dict[str, Any]:
    """What the marked models say before any attack; one record a seed."""
    verdicts = [verdict for record in by_seed for verdict in record.points[0].verdicts]
    protected = protection_over_seeds(by_seed, fpr)
    return {
        "fidelity": as_dict(mean(_known(map(fidelity_pp, by_seed)))),
        "effectiveness": as_dict(effectiveness(by_seed, fpr)),
        "evidence": {
            "p_value": if_any(median, [verdict.p_value for verdict in verdicts]),
            "ber": average(verdict.ber for verdict in verdicts),
        },
        "capacity": as_dict(mean(_known(map(carried_bits, by_seed)))),
        "protection": protected and _protection(protected),
        "embed_ratio": as_dict(mean(_known(map(embed_ratio, by_seed)))),
    }


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _protection(found: Protection) -> Row:
    low, high = found.interval or (None, None)
    return {
        "hits": found.matches,
        "trials": found.trials,
        "refused": found.refused,
        "others": found.others,
        "chance": found.chance,
        "advantage": found.advantage,
        "normalised": found.normalised,
        "low": low,
        "high": high,
    }


def _security(done: Sequence[CellRecord], fpr: float) -> Row | None:
    """False claims, by kind too, and whether those of some kind are more than the false positive rate explains."""
    clean, over = false_claims(done, fpr), beyond_chance(done, fpr)
    by_kind = {
        kind: {**count._asdict(), "beyond": kind in over} for kind, count in false_claims_by_kind(done, fpr).items()
    }
    parts = {
        "clean": clean and {**clean._asdict(), "beyond": bool(over), "kinds": by_kind},
        "attacked": as_dict(false_claims_after_attack(done, fpr)),
        "forged": as_dict(forged_claims(done, fpr)),
        "best_forgery": as_dict(forged(done)),
    }
    return parts if any(parts.values()) else None


def _attack(members: list[CellRecord], fpr: float) -> Row:
    first, done = members[0], [record for record in members if record.status == "ok"]
    return {
        "name": first.cell.attack,
        "stage": first_known(record.stage for record in members),
        "unit": first_known(record.unit or None for record in members) or "",
        "status": _status(members),
        "params": {name: short(value) for name, value in first.cell.attack_params.items()},
        "survival": as_dict(survival(members, fpr)),
        "removal": _as_lists(as_dict(removal_cost(members, fpr))),
        "curves": [_curve(record, fpr) for record in done if record.curve],
        "searches": rung_searches(done),
        "outcomes": outcomes(done),
        "command": command(members, fpr),
        "source": _source(done or members),
    }


def _source(members: Sequence[CellRecord]) -> Row:
    """What computed the records of one attack: revisions, digests of sources, devices and dates."""
    found = [record.provenance for record in members]
    return {
        "revisions": sorted({each.git_revision[:12] for each in found if each.git_revision}),
        "dirty": any(each.git_dirty for each in found),
        "sources": sorted({each.source_hash[:12] for each in found}),
        "devices": sorted({each.device for each in found}),
        "finished": _first_and_last(each.finished for each in found),
    }


def _curve(record: CellRecord, fpr: float) -> Row:
    """One seed's rungs as parallel lists; several owners are summed up by count, median and mean."""
    points = thin(record.points)
    return {
        "seed": record.cell.seed,
        "clean": record.clean_accuracy,
        "strength": [point.strength for point in points],
        "accuracy": [point.test_accuracy for point in points],
        "hits": [hits(point, fpr) for point in points],
        "trials": [len(point.verdicts) for point in points],
        "p_value": [_median(point, "p_value") for point in points],
        "statistic": [_median(point, "statistic") for point in points],
        "ber": [average(verdict.ber for verdict in point.verdicts) for point in points],
    }


def _median(point: Point, name: str) -> float | None:
    return if_any(median, [getattr(verdict, name) for verdict in point.verdicts])


def _environments(group: Sequence[CellRecord]) -> list[dict[str, Any]]:
    """The distinct places and versions that computed these records."""
    found: dict[str, dict[str, Any]] = {}
    for record in group:
        kept = record.provenance.model_dump(exclude={"steps", "source_hash", "finished"})
        found.setdefault(canonical(kept), kept)
    return list(found.values())
