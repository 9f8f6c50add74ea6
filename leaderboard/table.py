"""The rows of the leaderboard: records grouped by question, with ranks, coverage and origins."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from bench.identity import canonical
from bench.metrics import DEFAULT_FPR, DEMONSTRATIONS
from bench.metrics.beside import Beside
from bench.metrics.ranking import Comparable, comparable, is_baseline, rank
from bench.records.record import CellRecord
from leaderboard.row import COMPUTED, row_of
from leaderboard.summary import Row, as_dict

__all__ = ["COMPUTED", "REPORTED", "Submitted", "rows"]

REPORTED = "self-reported"  # the origin of a submission that nobody has run again
Submitted = CellRecord | tuple[str, CellRecord]


def rows(
    records: Iterable[CellRecord],
    fpr: float = DEFAULT_FPR,
    *,
    submitted: Iterable[Submitted] = (),
    beside: Beside | None = None,
) -> list[Row]:
    """One dictionary per scheme x architecture x data set x situation x profile, aggregated over seeds.

    Records that differ in scheme parameters or owners ask different questions and make rows of their
    own. Of several records of one cell the first counts, so give the most trusted ones first.

    Args:
        records: computed here, of any profiles; no row mixes two.
        fpr: the false positive rate that every p-value is held to.
        submitted: records that arrived by pull request, alone or each with its origin (`verified`, `self-reported`,
            `failed`, `stale`; alone it is `REPORTED`). They make rows of their own, one an origin, and change nothing
            about the rows of `records`.
        beside: what was measured about the schemes of `records` beside them.

    Returns:
        Rows in the order of profile, scheme, architecture, data set, situation; JSON values only. Counts hold
        `hits`, `trials` and their interval `low`, `high` (Wilson's; over hosts where trials share one, None below
        five); means hold `mean` and their Student-t interval (None below two seeds). `rank` holds the ranks from `low`
        to `high` that are possible `of` so many rows (None where nothing is ranked). Worst cases hold how many attacks
        they are `covered` by, `of` those that this row and rows of the same profile, architecture and data set faced,
        without those that do not apply to it. What is not known is None, never 0.
    """
    made = _of_origin(COMPUTED, records, fpr, beside)
    for origin, found in _by_origin(submitted).items():
        made += _of_origin(origin, found, fpr)
    _say_coverage(made)
    return sorted(made, key=lambda row: (*_place(row), row["variant"], row["origin"], row["id"]))


def _by_origin(submitted: Iterable[Submitted]) -> dict[str, list[CellRecord]]:
    found: dict[str, list[CellRecord]] = defaultdict(list)
    for each in submitted:
        origin, record = each if isinstance(each, tuple) else (REPORTED, each)
        found[origin].append(record)
    return found


def _of_origin(origin: str, records: Iterable[CellRecord], fpr: float, beside: Beside | None = None) -> list[Row]:
    groups: dict[str, list[CellRecord]] = defaultdict(list)
    for record in {r.cell.identity: r for r in reversed(list(records))}.values():
        groups[_question(record)].append(record)
    ranks = _ranks(groups, fpr) if origin == COMPUTED else {}
    made = [
        {
            "origin": origin,
            "rank": ranks.get(key),
            **row_of(origin, key, sorted(group, key=lambda r: (r.cell.attack, r.cell.seed)), fpr, beside),
        }
        for key, group in groups.items()
    ]
    _name_variants(made)
    return made


def _ranks(groups: dict[str, list[CellRecord]], fpr: float) -> dict[str, Row]:
    """The ranks that are possible for each question; none of baselines, demonstrations and sets without two seeds."""
    sets: dict[Comparable, dict[str, list[CellRecord]]] = defaultdict(dict)
    for key, group in groups.items():
        if group[0].cell.profile not in DEMONSTRATIONS and not any(map(is_baseline, group)):
            sets[comparable(group[0])][key] = group
    found = {}
    for members in sets.values():
        ranking = rank(members, fpr)
        for standing in ranking.standings if ranking.seeds > 1 else ():
            found[standing.name] = {
                "low": standing.low, "high": standing.high, "of": len(ranking.standings),
                "score": as_dict(standing.score), "seeds": ranking.seeds, "needed": ranking.needed,
            }  # fmt: skip
    return found


def _question(record: CellRecord) -> str:
    cell = record.cell
    place = [cell.profile, cell.scheme, cell.arch, cell.dataset, cell.situation]
    return canonical([*place, cell.owners, cell.scheme_params])


def _place(row: Row) -> tuple[str, ...]:
    return tuple(row[name] for name in ("profile", "scheme", "arch", "dataset", "situation"))


def _name_variants(made: list[Row]) -> None:
    """Rows at the same place of the matrix are told apart by the parameters in which they differ."""
    places: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for row in made:
        places[_place(row)].append(row)
    for siblings in places.values():
        fields = [{**row["params"], "owners": str(row["owners"])} for row in siblings]
        names = sorted({name for each in fields for name in each if len({f.get(name) for f in fields}) > 1})
        for row, each in zip(siblings, fields, strict=True):
            row["variant"] = ", ".join(f"{name}={each[name]}" for name in names if name in each)


def _say_coverage(made: list[Row]) -> None:
    """A worst case over few attacks is an easy one: each says over how many of those that its rivals faced.

    What a submission faced is asked of no row that was computed here.
    """
    faced: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for row in made:
        if row["origin"] == COMPUTED:
            faced[_rivals(row)] |= _faced(row)
    for row in made:
        if row["robustness"]:
            senseless = {name for name, attack in row["attacks"].items() if attack["status"] == "not applicable"}
            of = (faced[_rivals(row)] | _faced(row)) - senseless
            row["robustness"] |= {"covered": len(_faced(row)), "of": len(of)}


def _faced(row: Row) -> set[str]:
    return set((row["robustness"] or {}).get("attacks", ()))


def _rivals(row: Row) -> tuple[str, ...]:
    return row["profile"], row["arch"], row["dataset"]
