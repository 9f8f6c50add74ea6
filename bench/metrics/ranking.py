"""Ranks of schemes with their uncertainty: paired tests over seeds, and the ranks that they leave possible."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from statistics import fmean
from typing import NamedTuple

from bench.identity import Rng, canonical
from bench.metrics import BUDGET_PP, DEFAULT_FPR
from bench.metrics.aggregate import Mean
from bench.metrics.inference import cluster_interval, holm, sign_flip_p_values
from bench.metrics.robustness import trials
from bench.records.record import CellRecord

__all__ = [
    "LEVEL",
    "Comparable",
    "Ranking",
    "Standing",
    "comparable",
    "contestant",
    "is_baseline",
    "rank",
    "rankings",
    "seeds_needed",
]

LEVEL = 0.05  # the chance that any statement of a table about an order is wrong
Block = tuple[str, str, str]  # an attack, its parameters and the architecture


class Comparable(NamedTuple):
    """What records must share for their schemes to be compared."""

    profile: str
    arch: str
    dataset: str
    situation: str
    owners: int


class Standing(NamedTuple):
    """Where a contestant stands.

    Attributes:
        name: of the contestant.
        score: mean over seeds of the survival in each (0..1). Its interval is `cluster_interval`, as Student's t of
            seeds that all survive everything has no width.
        survived: claims that survive all attacks at once, of so many `decided`.
        covered: attacks that were faced, `of` those that apply to it and that anybody faced.
        low: the best rank that the comparisons leave possible.
        high: the worst one.
    """

    name: str
    score: Mean
    survived: int
    decided: int
    covered: int
    of: int
    low: int
    high: int

    @property
    def range(self) -> str:
        """`2`, or `1-3`."""
        return str(self.low) if self.low == self.high else f"{self.low}-{self.high}"


class Ranking(NamedTuple):
    """A table of contestants.

    Attributes:
        standings: whoever faced the larger share of the attacks first, then by score.
        seeds: the most that two of them have in common.
        needed: seeds below which no two can be told apart, whatever their scores.
    """

    standings: list[Standing]
    seeds: int
    needed: int


class _Contestant:
    """What is asked of one contestant's records.

    Attributes:
        outcomes: survival per seed and block, where it is decided: 1 if the claim holds at every strength within the
            budget, else 0; of several owners the share.
        faced: the blocks with a result in some seed.
        senseless: the blocks that do not apply.
    """

    def __init__(self, name: str, records: Iterable[CellRecord], fpr: float, budget_pp: float) -> None:
        self.name = name
        self.records = [record for record in records if record.stage != "evidence"]
        self.outcomes: dict[int, dict[Block, float]] = defaultdict(dict)
        for record in self.records:
            survived = _survived(record, fpr, budget_pp)
            if survived is not None:
                self.outcomes[record.cell.seed][_block(record)] = survived
        self.faced = {_block(record) for record in self.records if _is_faced(record)}
        self.senseless = {_block(record) for record in self.records if record.status == "not applicable"}

    @property
    def score(self) -> Mean:
        """The mean over seeds, each the mean over its blocks."""
        scores = [fmean(self.outcomes[seed].values()) for seed in sorted(self.outcomes)]
        low, high = cluster_interval(scores, [1.0] * len(scores)) or (None, None)
        return Mean(fmean(scores), low, high, scores)

    def lacks(self, rival: _Contestant) -> bool:
        """Whether the rival faced an attack that applies to this one too, and this one did not."""
        return bool(rival.faced - self.faced - self.senseless)


def comparable(record: CellRecord) -> Comparable:
    """The set in which the record's scheme is compared; the false positive rate is the reader's and one for all."""
    cell = record.cell
    return Comparable(cell.profile, cell.arch, cell.dataset, cell.situation, cell.owners)


def is_baseline(record: CellRecord) -> bool:
    """Whether the scheme marks nothing, or marks only to measure memorization: it is listed and never ranked."""
    return record.carrier == "none" or record.cell.scheme.startswith("memorization")


def rankings(
    records: Iterable[CellRecord], fpr: float = DEFAULT_FPR, budget_pp: float = BUDGET_PP
) -> dict[Comparable, Ranking]:
    """One ranking for each comparable set; contestants are schemes, named apart by their parameters where needed.

    Baselines are left out. Of several records of one cell the first counts.
    """
    unique = {record.cell.identity: record for record in reversed(list(records))}
    baselines = {record.cell.scheme for record in unique.values() if is_baseline(record)}
    sets: dict[Comparable, dict[str, list[CellRecord]]] = defaultdict(lambda: defaultdict(list))
    faced: dict[tuple[str, str, str], set[Block]] = defaultdict(set)
    for record in unique.values():
        if _is_faced(record):
            faced[comparable(record)[:3]].add(_block(record))
        if record.cell.scheme not in baselines:
            sets[comparable(record)][contestant(record)].append(record)
    return {place: rank(members, fpr, budget_pp, faced=faced[place[:3]]) for place, members in sorted(sets.items())}


def contestant(record: CellRecord) -> str:
    """The scheme with its parameters, which tells contestants of one comparable set apart."""
    return canonical([record.cell.scheme, record.cell.scheme_params])


def rank(
    contestants: Mapping[str, Sequence[CellRecord]],
    fpr: float = DEFAULT_FPR,
    budget_pp: float = BUDGET_PP,
    *,
    faced: Iterable[Block] = (),
) -> Ranking:
    """Rank contestants of one comparable set, given the records of each by name.

    **Score.** Survival at the budget: 1 for a seed, attack and architecture if the claim holds at every strength that
    costs at most `budget_pp` points, else 0; averaged over the attacks and architectures of a seed. Attacks on the
    evidence do not count.

    **Test.** Two contestants are compared on the seeds, attacks and architectures that both have a decided outcome of.
    The unit is the seed, because all its cells share a host: the difference is averaged within the seed, and the
    paired permutation test flips its sign (`sign_flip_p_values`). Equal outcomes are differences of zero.

    **Multiplicity.** Holm over both directions of all pairs, so that with a chance of 95 % no statement "A is better
    than B" of the table is wrong. For the strongest pair that is its two-sided p-value times the number of pairs.

    **Rank.** From 1 + the number of contestants that are significantly better, to the number of all less those that
    are significantly worse. Where all face the same attacks, all these ranges together hold the true ranks with a
    chance of 95 % (Mogstad, Romano, Shaikh, Wilhelm 2024, https://doi.org/10.1093/restud/rdad006, section 3.2).

    **Coverage.** Who lacks an attack that a rival faced (and that applies to both) is never called better than that
    rival, and its range begins no earlier than the rival's.

    Contestants without any decided outcome are left out. `faced` are attacks that others faced on the same profile,
    architecture and data: they count for what is said to be covered, and for no rank.
    """
    known = [_Contestant(name, records, fpr, budget_pp) for name, records in sorted(contestants.items())]
    known = [each for each in known if each.outcomes]
    better, common = _better(known)
    ranges = _ranges(known, better)
    asked = set(faced).union(*(each.faced for each in known))
    standings = [
        Standing(
            each.name, each.score, *_worst_case(each.records, fpr, budget_pp), len(each.faced),
            len(asked - each.senseless | each.faced), *ranges[each.name],
        )
        for each in known
    ]  # fmt: skip
    standings.sort(key=lambda s: (-s.covered / s.of, -s.score.mean, s.name))
    return Ranking(standings, common, seeds_needed(len(known)))


def seeds_needed(contestants: int) -> int:
    """Seeds below which the smallest p-value, two-sided 2/2^n times the number of pairs, is above `LEVEL`."""
    pairs = math.comb(contestants, 2)
    return math.ceil(math.log2(2 * pairs / LEVEL)) if pairs else 0


def _survived(record: CellRecord, fpr: float, budget_pp: float) -> float | None:
    """The share of the owners whose claim survives; None where one of them is undecided, or nothing was judged."""
    outcomes = [trial.survived for found in trials([record], fpr, budget_pp).values() for trial in found]
    decided = [survived for survived in outcomes if survived is not None]
    return fmean(decided) if decided and len(decided) == len(outcomes) else None


def _is_faced(record: CellRecord) -> bool:
    return record.status == "ok" and bool(record.curve) and record.stage != "evidence"


def _block(record: CellRecord) -> Block:
    return record.cell.attack, canonical(record.cell.attack_params), record.cell.arch


def _worst_case(records: Sequence[CellRecord], fpr: float, budget_pp: float) -> tuple[int, int]:
    """`bench.metrics.robustness.worst_case` without its interval."""
    found = trials(records, fpr, budget_pp)
    decided = [trial.survived for members in found.values() for trial in members if trial.survived is not None]
    return sum(decided), len(decided)


def _better(known: Sequence[_Contestant]) -> tuple[set[tuple[str, str]], int]:
    """Pairs (A, B) of which A is significantly better, and the most seeds that two have in common."""
    directions: list[tuple[str, str]] = []
    p_values: list[float] = []
    common = 0
    seed = Rng("rank groups").seed  # the same flips for all pairs: each p-value is valid, and Holm's needs no more
    for one, other in combinations(known, 2):
        found = _differences(one, other)
        common = max(common, len(found))
        both = sign_flip_p_values(tuple(found), seed)
        for first, second, p_value in ((one, other, both[0]), (other, one, both[1])):
            directions.append((first.name, second.name))
            p_values.append(1.0 if first.lacks(second) else p_value)
    adjusted = holm(p_values)
    return {pair for pair, p_value in zip(directions, adjusted, strict=True) if p_value <= LEVEL}, common


def _differences(one: _Contestant, other: _Contestant) -> list[float]:
    """Of each seed that both have, the mean difference over the blocks that both have."""
    found = []
    for seed in sorted(one.outcomes.keys() & other.outcomes.keys()):
        mine, theirs = one.outcomes[seed], other.outcomes[seed]
        shared = mine.keys() & theirs.keys()
        if shared:
            found.append(fmean(mine[block] - theirs[block] for block in sorted(shared)))
    return found


def _ranges(known: Sequence[_Contestant], better: set[tuple[str, str]]) -> dict[str, tuple[int, int]]:
    low = {each.name: 1 + sum((rival.name, each.name) in better for rival in known) for each in known}
    high = {each.name: len(known) - sum((each.name, rival.name) in better for rival in known) for each in known}
    for each in known:
        ahead = [low[rival.name] for rival in known if each.lacks(rival) and not rival.lacks(each)]
        low[each.name] = min(high[each.name], max([low[each.name], *ahead]))
    return {each.name: (low[each.name], high[each.name]) for each in known}
