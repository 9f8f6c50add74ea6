"""What does one row of the leaderboard say? Records aggregated over seeds and owners, one row a question."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections import defaultdict
from collections.abc import Iterable, Sequence
from statistics import fmean, median
from typing import Any, NamedTuple, TypeVar

from bench.records import Count, Point, Protection, Record, Verdict
from bench.stats import Interval, student_interval, wilson_interval

__all__ = ["BUDGET_PP", "rows"]

BUDGET_PP = 5.0
MAX_RUNGS = 40
MAX_SEARCHES, MAX_HELDOUT = 12, 6  # loss curves drawn of the marked models' owners, and of held-out users
MAX_SEARCHED_RUNGS, MAX_RUNG_OWNERS = 8, 3
MAX_SERIES, MAX_SAMPLES = 12, 120  # histories drawn, and points of one line
MAX_TEXT = 500
ROUNDING = 1e-9
Row = dict[str, Any]
Item = TypeVar("Item")


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


def rows(records: Iterable[Record]) -> list[Row]:
    """One dictionary per scheme x architecture x data set x situation x profile, aggregated over seeds.

    Records that differ in scheme parameters, owners or FPR ask different questions and make rows of their
    own. Of several records of one cell the first counts, so give the most trusted ones first.

    Args:
        records: of any profiles; no row mixes two.

    Returns:
        Rows in the order of profile, scheme, architecture, data set, situation; JSON values only. Counts hold
        `hits`, `trials` and their Wilson interval `low`, `high`; means hold `mean` and their Student-t interval
        (`low` and `high` are None below two seeds). What is not known is None, never 0.
    """
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in {r.cell.identity: r for r in reversed(list(records))}.values():
        groups[_question(record)].append(record)
    made = [_row(key, sorted(group, key=lambda r: (r.cell.attack, r.cell.seed))) for key, group in groups.items()]
    _name_variants(made)
    return sorted(made, key=lambda row: (*_place(row), row["variant"], row["id"]))


def canonical(value: Any) -> str:
    """JSON text that is the same for equal values: it groups records and names rows."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _tag(text: str, length: int) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def _question(record: Record) -> str:
    cell = record.cell
    place = [cell.profile, cell.scheme, cell.arch, cell.dataset, cell.situation]
    return canonical([*place, cell.owners, record.fpr, cell.scheme_params])


def _place(row: Row) -> tuple[str, ...]:
    return tuple(row[name] for name in ("profile", "scheme", "arch", "dataset", "situation"))


def _name_variants(made: list[Row]) -> None:
    """Rows at the same place of the matrix are told apart by the parameters in which they differ."""
    places: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for row in made:
        places[_place(row)].append(row)
    for siblings in places.values():
        fields = [{**row["params"], "owners": str(row["owners"]), "fpr": f"{row['fpr']:g}"} for row in siblings]
        names = sorted({name for each in fields for name in each if len({f.get(name) for f in fields}) > 1})
        for row, each in zip(siblings, fields, strict=True):
            row["variant"] = ", ".join(f"{name}={each[name]}" for name in names if name in each)


def _row(key: str, group: list[Record]) -> Row:
    first, done = group[0], [record for record in group if record.status == "ok"]
    by_seed = dict(sorted({record.cell.seed: record for record in reversed(done)}.items()))
    attacks = {label: _attack(found) for label, found in _by_attack(group).items()}
    hostile = [r for r in group if r.stage != "evidence" and (r.status == "failed" or r.curve)]
    return {
        "id": _tag(key, 8),
        **{name: getattr(first.cell, name) for name in ("profile", "scheme", "arch", "dataset", "situation", "owners")},
        "carrier": _first(record.carrier for record in group),
        "access": _first(record.access for record in group),
        "fpr": first.fpr,
        "params": {name: _short(value) for name, value in first.cell.scheme_params.items()},
        "status": _status(group),
        "seeds": sorted(by_seed),
        "problems": _problems(group),
        "warnings": _warnings(done),
        **_of_marked(list(by_seed.values())),
        "heldout": _heldout(done),
        "searches": _searches(done),
        "histories": _histories(done),
        "robustness": _robustness(hostile, attacks),
        "removal": _removal(_trials(hostile)),
        "security": _security(_one_a_seed(done, "security"), done),
        "attacks": attacks,
        "commands": [_command(found) for found in _by_attack(group).values()],
        "environments": _environments(done or group),
        "finished": _first_and_last(record.provenance.finished for record in group),
    }


def _first(values: Iterable[str | None]) -> str | None:
    return next((value for value in values if value is not None), None)


def _first_and_last(dates: Iterable[str]) -> list[str]:
    found = sorted({date for date in dates if date})
    return [found[0], found[-1]] if found else []


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else canonical(value)
    return text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + "..."


def _status(group: Sequence[Record]) -> str:
    found = {record.status for record in group}
    return next(status for status in ("ok", "failed", "not applicable") if status in found)


def _by_attack(group: Sequence[Record]) -> dict[str, list[Record]]:
    """Records per attack; an attack with other parameters is another attack, named apart by their digest."""
    found: dict[str, dict[str, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for record in group:
        found[record.cell.attack][canonical(record.cell.attack_params)].append(record)
    labelled: dict[str, list[Record]] = {}
    for name, variants in found.items():
        for params, members in variants.items():
            labelled[name if len(variants) == 1 else f"{name} ({_tag(params, 4)})"] = members
    return labelled


def _problems(group: Sequence[Record]) -> list[dict[str, Any]]:
    """Why cells have no numbers: seeds with the same attack, status and reason together."""
    seeds: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    for record in group:
        if record.status != "ok":
            lines = (record.traceback or "").strip().splitlines()
            reason = record.reason or (lines[-1] if lines else "")
            seeds[record.cell.attack, record.status, _short(reason)].append(record.cell.seed)
    return [{"attack": a, "status": s, "reason": r, "seeds": which} for (a, s, r), which in seeds.items()]


def _warnings(done: Sequence[Record]) -> list[str]:
    """What a reader must know before trusting a mean: its seeds may not be of one kind."""
    found = []
    for name in ("data_checksum", "split", "bench_version"):
        if len({canonical(getattr(record.provenance, name)) for record in done}) > 1:
            found.append(f"records differ in {name.replace('_', ' ')}")
    for label, members in _by_attack(done).items():
        if len({record.provenance.source_hash for record in members}) > 1:
            found.append(f"seeds of {label} were computed by different source code")
    return found


def _of_marked(by_seed: Sequence[Record]) -> dict[str, Any]:
    """What the marked models say before any attack; one record a seed."""
    verdicts = [(verdict, record.fpr) for record in by_seed for verdict in _marked(record).verdicts]
    errors = [verdict.ber for verdict, _ in verdicts if verdict.ber is not None]
    ratios = [
        record.timings_s["embed"] / record.timings_s["host"]
        for record in by_seed
        if "embed" in record.timings_s and record.timings_s.get("host", 0) > 0
    ]
    losses = [loss for record in by_seed if (loss := _loss_pp(record.clean_accuracy, _marked(record))) is not None]
    return {
        "fidelity": _mean([-loss for loss in losses]),
        "effectiveness": _count(sum(_detected(*each) for each in verdicts), len(verdicts)),
        "evidence": {
            "p_value": median(verdict.p_value for verdict, _ in verdicts) if verdicts else None,
            "ber": fmean(errors) if errors else None,
        },
        "protection": _protection(by_seed),
        "embed_ratio": _mean(ratios),
    }


def _marked(record: Record) -> Point:
    return record.points[0]


def _detected(verdict: Verdict, fpr: float) -> bool:
    # Derived from the p-value, so that no record can claim a detection that its evidence does not bear out.
    return verdict.p_value <= fpr


def _loss_pp(before: float | None, point: Point) -> float | None:
    if before is None or point.test_accuracy is None:
        return None
    return 100 * (before - point.test_accuracy)


def _mean(values: Sequence[float]) -> dict[str, Any] | None:
    if not values:
        return None
    return {"mean": fmean(values), **_ends(student_interval(values)), "values": list(values)}


def _count(hits: int, trials: int) -> dict[str, Any] | None:
    return {"hits": hits, "trials": trials, **_ends(wilson_interval(hits, trials))} if trials else None


def _ends(interval: Interval | None) -> dict[str, float | None]:
    return {"low": interval.low, "high": interval.high} if interval else {"low": None, "high": None}


def _trials(hostile: Sequence[Record]) -> list[Trial]:
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
        owners = max((len(_marked(record).verdicts) for record in done), default=0)
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
            outcome = held if _detected(point.verdicts[owner], record.fpr) else broken
            outcome.append(_loss_pp(_marked(record).test_accuracy, point))
    costs = [loss for loss in broken if loss is not None]
    within = any(loss <= BUDGET_PP + ROUNDING for loss in costs)
    decided = complete and None not in broken
    return Trial(
        survived=False if within else True if decided else None,
        cost_pp=min((max(0.0, loss) for loss in costs), default=None) if decided else None,
        held_pp=max((loss for loss in held if loss is not None), default=None) if decided else None,
    )


def _survival(trials: Sequence[Trial]) -> dict[str, Any] | None:
    decided = [trial.survived for trial in trials if trial.survived is not None]
    count = _count(sum(decided), len(decided))
    return count and {**count, "undecided": len(trials) - len(decided)}


def _removal(trials: Sequence[Trial]) -> dict[str, Any] | None:
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


def _robustness(hostile: Sequence[Record], attacks: dict[str, Row]) -> dict[str, Any] | None:
    """Worst case over the attacks within the budget; the mean over attacks stands beside it."""
    worst = _survival(_trials(hostile))
    apart = {label: a["survival"] for label, a in attacks.items() if a["survival"]}
    if worst is None or not apart:
        return None
    return {**worst, "mean": fmean(a["hits"] / a["trials"] for a in apart.values()), "attacks": sorted(apart)}


def _security(by_seed: Sequence[Record], done: Sequence[Record]) -> dict[str, Any] | None:
    """False claims. Every attack of a seed saw the same clean host and keys, so those count once a seed."""
    clean = [record.security.clean for record in by_seed if record.security]
    attacked = [count for record in done if record.security for count in record.security.attacked]
    forged = [
        any(_detected(point.verdicts[owner], record.fpr) for point in record.curve if owner < len(point.verdicts))
        for record in done
        if record.stage == "evidence" and record.curve
        for owner in range(max(len(point.verdicts) for point in record.curve))
    ]
    parts = {"clean": _sum(clean), "attacked": _sum(attacked), "forged": _count(sum(forged), len(forged))}
    if parts["attacked"]:
        # Rungs and attacks share hosts and keys: these trials are not independent, so no interval is honest.
        parts["attacked"] |= {"low": None, "high": None}
    return parts if any(parts.values()) else None


def _sum(counts: Sequence[Count]) -> dict[str, Any] | None:
    return _count(sum(count.hits for count in counts), sum(count.trials for count in counts))


def _attack(members: list[Record]) -> Row:
    first, done = members[0], [record for record in members if record.status == "ok"]
    judged = [r for r in members if r.stage != "evidence" and (r.status == "failed" or r.curve)]
    trials = _trials(judged)
    return {
        "name": first.cell.attack,
        "stage": _first(record.stage for record in members),
        "unit": _first(record.unit or None for record in members) or "",
        "status": _status(members),
        "params": {name: _short(value) for name, value in first.cell.attack_params.items()},
        "survival": _survival(trials),
        "removal": _removal(trials),
        "curves": [_curve(record) for record in done if record.curve],
        "searches": _rung_searches(done),
    }


def _curve(record: Record) -> dict[str, Any]:
    """One seed's rungs as parallel lists; several owners are summed up by count, median and mean."""
    points = _thin(record.points)
    return {
        "seed": record.cell.seed,
        "clean": record.clean_accuracy,
        "strength": [point.strength for point in points],
        "accuracy": [point.test_accuracy for point in points],
        "hits": [sum(_detected(verdict, record.fpr) for verdict in point.verdicts) for point in points],
        "trials": [len(point.verdicts) for point in points],
        "p_value": [_over(median, [verdict.p_value for verdict in point.verdicts]) for point in points],
        "statistic": [_over(median, [verdict.statistic for verdict in point.verdicts]) for point in points],
        "ber": [_over(fmean, [v.ber for v in point.verdicts if v.ber is not None]) for point in points],
    }


def _over(summary: Any, values: Sequence[float]) -> float | None:
    return summary(values) if values else None


def _thin(points: Sequence[Item], wanted: int = MAX_RUNGS) -> list[Item]:
    """At most `wanted` of them, evenly, with the first and the last."""
    if len(points) <= wanted:
        return list(points)
    step = (len(points) - 1) / (wanted - 1)
    return [points[round(i * step)] for i in range(wanted)]


def _protection(by_seed: Sequence[Record]) -> dict[str, Any] | None:
    """The mean over seeds: matches and trials are added up, because each trial counts alike."""
    found = [protection for record in by_seed if (protection := record.protection())]
    if not found:
        return None
    pooled = Protection(sum(p.matches for p in found), sum(p.trials for p in found), max(p.chance for p in found))
    return {
        "hits": pooled.matches,
        "trials": pooled.trials,
        "chance": pooled.chance,
        "advantage": pooled.advantage,
        "normalised": pooled.normalised,
        **_ends(pooled.interval),
    }


def _one_a_seed(done: Sequence[Record], field: str) -> list[Record]:
    """Of each seed the first record that has the field, because every attack of a seed meets the same marked model."""
    found = {record.cell.seed: record for record in reversed(done) if getattr(record, field)}
    return [found[seed] for seed in sorted(found)]


def _heldout(done: Sequence[Record]) -> Row | None:
    """What is said of users whose images nobody was trained on; `unmarked` counts those inferred to bear no mark."""
    verdicts = [(v, record.fpr) for record in _one_a_seed(done, "heldout_verdicts") for v in record.heldout_verdicts]
    if not verdicts:
        return None
    units = [(verdict, verdict.search.unit if verdict.search else "") for verdict, _ in verdicts]
    inferred = [_magnitude(v.inferred, unit) for v, unit in units if v.inferred is not None]
    answers = [answer for verdict, _ in verdicts if (answer := _unmarked(verdict)) is not None]
    return {
        "users": len(verdicts),
        "inferred": _over(median, inferred),
        "unit": _first(unit or None for _, unit in units) or "",
        "unmarked": _count(sum(answers), len(answers)),
        "detected": _count(sum(_detected(*each) for each in verdicts), len(verdicts)),
    }


def _magnitude(signature: float, unit: str) -> float:
    """|k|; of an angle the way to 0 around the circle."""
    turned = signature % 360
    return min(turned, 360 - turned) if unit == "degrees" else abs(signature)


def _unmarked(verdict: Verdict) -> bool | None:
    """Is 0 the likeliest of the signatures tried? None where it was not tried."""
    if verdict.search is None:
        return None if verdict.inferred is None else verdict.inferred == 0
    return verdict.search.candidates[verdict.search.best] == 0 if 0 in verdict.search.candidates else None


def _searches(done: Sequence[Record]) -> Row | None:
    """The measured losses over the signature space: of the marked models' owners, and of held-out users."""
    owners = [
        _searched(verdict, record.cell.seed, number)
        for record in _one_a_seed(done, "marked")
        for number, verdict in enumerate(_marked(record).verdicts)
        if verdict.search
    ]
    others = [
        _searched(verdict, record.cell.seed, number)
        for record in _one_a_seed(done, "heldout_verdicts")
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
    kept = sorted({*_thin(range(len(search.losses)), MAX_SAMPLES), search.best})
    return {
        "seed": seed,
        "owner": owner,
        "unit": search.unit,
        "true": search.true,
        "inferred": verdict.inferred,
        "matched": verdict.matched,
        "candidates": [search.candidates[i] for i in kept],
        "losses": _brief([search.losses[i] for i in kept]),
        "best": kept.index(search.best),
    }


def _rung_searches(done: Sequence[Record]) -> list[Row]:
    """How a few owners' loss curves change along the ladder of an attack on training, in the first seed with any."""
    for record in done:
        if record.stage == "training" and any(verdict.search for point in record.curve for verdict in point.verdicts):
            return [
                {"strength": point.strength, **_searched(verdict, record.cell.seed, owner)}
                for owner in range(MAX_RUNG_OWNERS)
                for point in _thin(record.points, MAX_SEARCHED_RUNGS)
                if owner < len(point.verdicts) and (verdict := point.verdicts[owner]).search
            ]
    return []


def _histories(done: Sequence[Record]) -> Row | None:
    """What was trained, by name; one line a seed, whose values are evenly spread over its epochs."""
    found: dict[str, list[Row]] = defaultdict(list)
    for record in _one_a_seed(done, "histories"):
        for name, series in record.histories.items():
            if series:
                values = _brief(_thin(series, MAX_SAMPLES))
                found[name].append({"seed": record.cell.seed, "epochs": len(series), "values": values})
    if not found:
        return None
    shown = [{"name": _short(name), "lines": lines} for name, lines in list(found.items())[:MAX_SERIES]]
    return {"series": shown, "more": len(found) - len(shown)}


def _brief(values: Sequence[float]) -> list[float]:
    """To four digits: a drawing shows no more, and the page has to carry them."""
    return [float(f"{value:.4g}") for value in values]


def _command(members: Sequence[Record]) -> str:
    """What reproduces these records; quoted, because parameters of a stranger's record may hold anything."""
    cell, fpr = members[0].cell, members[0].fpr
    words = ["bench", "run"]
    for name in ("scheme", "attack", "arch", "dataset", "situation", "profile"):
        # A post-hoc scheme has its one situation whatever is asked for, and the option does not know it.
        if getattr(cell, name) != "post-hoc":
            words += [f"--{name}", getattr(cell, name)]
    words += ["--seeds", str(max(record.cell.seed for record in members) + 1)]
    words += ["--owners", str(cell.owners)] if cell.owners > 1 else []
    words += ["--fpr", f"{fpr:g}"] if fpr != Record.model_fields["fpr"].default else []
    for part, params in ((cell.scheme, cell.scheme_params), (cell.attack, cell.attack_params)):
        for name, value in params.items():
            words += ["--set", f"{part}.{name}={_typed(value)}"] if value is not None else []
    return shlex.join(words)


def _typed(value: Any) -> str:
    """A parameter as it is typed on the command line: lists with commas."""
    return ",".join(map(_short, value)) if isinstance(value, list) else _short(value)


def _environments(group: Sequence[Record]) -> list[dict[str, Any]]:
    """The distinct places and versions that computed these records."""
    found: dict[str, dict[str, Any]] = {}
    for record in group:
        kept = record.provenance.model_dump(exclude={"steps", "split", "source_hash", "finished"})
        found.setdefault(canonical(kept), kept)
    return list(found.values())
