"""What does one row of the leaderboard say? Records aggregated over seeds and owners, one row a question."""

from __future__ import annotations

import hashlib
import shlex
from collections import defaultdict
from collections.abc import Iterable, Sequence
from statistics import fmean, median
from typing import Any

from bench.records.record import Count, Protection, Record
from leaderboard.searches import heldout_users, histories, rung_searches, searches
from leaderboard.summary import (
    Row,
    canonical,
    detected,
    ends,
    first_known,
    if_any,
    loss_pp,
    mean,
    one_a_seed,
    proportion,
    short,
    thin,
    unattacked,
)
from leaderboard.worst import removal, robustness, survival, trials_of

__all__ = ["rows"]


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
        "carrier": first_known(record.carrier for record in group),
        "access": first_known(record.access for record in group),
        "fpr": first.fpr,
        "params": {name: short(value) for name, value in first.cell.scheme_params.items()},
        "status": _status(group),
        "seeds": sorted(by_seed),
        "problems": _problems(group),
        "warnings": _warnings(done),
        **_of_marked(list(by_seed.values())),
        "heldout": heldout_users(done),
        "searches": searches(done),
        "histories": histories(done),
        "robustness": robustness(hostile, attacks),
        "removal": removal(trials_of(hostile)),
        "security": _security(one_a_seed(done, "security"), done),
        "attacks": attacks,
        "commands": [_command(found) for found in _by_attack(group).values()],
        "environments": _environments(done or group),
        "finished": _first_and_last(record.provenance.finished for record in group),
    }


def _first_and_last(dates: Iterable[str]) -> list[str]:
    found = sorted({date for date in dates if date})
    return [found[0], found[-1]] if found else []


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
            seeds[record.cell.attack, record.status, short(reason)].append(record.cell.seed)
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
    verdicts = [(verdict, record.fpr) for record in by_seed for verdict in unattacked(record).verdicts]
    errors = [verdict.ber for verdict, _ in verdicts if verdict.ber is not None]
    ratios = [
        record.timings_s["embed"] / record.timings_s["host"]
        for record in by_seed
        if "embed" in record.timings_s and record.timings_s.get("host", 0) > 0
    ]
    losses = [loss for record in by_seed if (loss := loss_pp(record.clean_accuracy, unattacked(record))) is not None]
    return {
        "fidelity": mean([-loss for loss in losses]),
        "effectiveness": proportion(sum(detected(*each) for each in verdicts), len(verdicts)),
        "evidence": {
            "p_value": median(verdict.p_value for verdict, _ in verdicts) if verdicts else None,
            "ber": fmean(errors) if errors else None,
        },
        "protection": _protection(by_seed),
        "embed_ratio": mean(ratios),
    }


def _security(by_seed: Sequence[Record], done: Sequence[Record]) -> dict[str, Any] | None:
    """False claims. Every attack of a seed saw the same clean host and keys, so those count once a seed."""
    clean = [record.security.clean for record in by_seed if record.security]
    attacked = [count for record in done if record.security for count in record.security.attacked]
    forged = [
        any(detected(point.verdicts[owner], record.fpr) for point in record.curve if owner < len(point.verdicts))
        for record in done
        if record.stage == "evidence" and record.curve
        for owner in range(max(len(point.verdicts) for point in record.curve))
    ]
    parts = {"clean": _sum(clean), "attacked": _sum(attacked), "forged": proportion(sum(forged), len(forged))}
    if parts["attacked"]:
        # Rungs and attacks share hosts and keys: these trials are not independent, so no interval is honest.
        parts["attacked"] |= {"low": None, "high": None}
    return parts if any(parts.values()) else None


def _sum(counts: Sequence[Count]) -> dict[str, Any] | None:
    return proportion(sum(count.hits for count in counts), sum(count.trials for count in counts))


def _attack(members: list[Record]) -> Row:
    first, done = members[0], [record for record in members if record.status == "ok"]
    judged = [r for r in members if r.stage != "evidence" and (r.status == "failed" or r.curve)]
    trials = trials_of(judged)
    return {
        "name": first.cell.attack,
        "stage": first_known(record.stage for record in members),
        "unit": first_known(record.unit or None for record in members) or "",
        "status": _status(members),
        "params": {name: short(value) for name, value in first.cell.attack_params.items()},
        "survival": survival(trials),
        "removal": removal(trials),
        "curves": [_curve(record) for record in done if record.curve],
        "searches": rung_searches(done),
    }


def _curve(record: Record) -> dict[str, Any]:
    """One seed's rungs as parallel lists; several owners are summed up by count, median and mean."""
    points = thin(record.points)
    return {
        "seed": record.cell.seed,
        "clean": record.clean_accuracy,
        "strength": [point.strength for point in points],
        "accuracy": [point.test_accuracy for point in points],
        "hits": [sum(detected(verdict, record.fpr) for verdict in point.verdicts) for point in points],
        "trials": [len(point.verdicts) for point in points],
        "p_value": [if_any(median, [verdict.p_value for verdict in point.verdicts]) for point in points],
        "statistic": [if_any(median, [verdict.statistic for verdict in point.verdicts]) for point in points],
        "ber": [if_any(fmean, [v.ber for v in point.verdicts if v.ber is not None]) for point in points],
    }


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
        **ends(pooled.interval),
    }


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
            words += ["--set", f"{part}.{name}={_typed(value)}"]
    return shlex.join(words)


def _typed(value: Any) -> str:
    """A parameter as it is typed on the command line: lists with commas, `none`."""
    if value is None:
        return "none"
    return ",".join(map(short, value)) if isinstance(value, list) else short(value)


def _environments(group: Sequence[Record]) -> list[dict[str, Any]]:
    """The distinct places and versions that computed these records."""
    found: dict[str, dict[str, Any]] = {}
    for record in group:
        kept = record.provenance.model_dump(exclude={"steps", "split", "source_hash", "finished"})
        found.setdefault(canonical(kept), kept)
    return list(found.values())
