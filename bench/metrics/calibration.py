"""False positive rates of claims that share networks and keys: intervals, and a test of whether they are too high.

Every fresh key claims every null model, so trials that share a key, or a network, are dependent. Three cases:

- One trial a network and a key: the trials are independent, interval (Clopper, Pearson 1934) and test are exact.
- Several: they count as fewer. n trials are worth n / D, where the design effect D is the variance of the rate with
  networks and keys as clusters (two ways: Cameron, Gelbach, Miller 2011, https://doi.org/10.1198/jbes.2010.07136) over
  that of independent trials, and less where there are few clusters (Korn, Graubard 1998, Survey Methodology 24). The
  exact formulae are then used with the smaller number, which need not be whole.
- One network, or one key, for all: there is nothing to estimate D from, and all trials are worth one.

A suspect that no chance went into (a network of zeros, the owner's data set) is no sample of anything: it is the same
for everybody, and keys alone are the trials.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from math import exp
from typing import NamedTuple, Protocol, TypeVar

from bench.metrics.aggregate import Proportion, one_a_seed
from bench.records.record import AFTER_ATTACK, FRESH_KEY, LEFT_OUT, Cell, NullSet

__all__ = [
    "SURE",
    "Claimed",
    "Rate",
    "Trial",
    "accepted",
    "excess_p_value",
    "kinds",
    "rates",
    "too_many",
    "trials",
]

SURE = 1e-3  # a table has many rows: a rate is called too high only where chance would do it once in a thousand
CONFIDENCE = 0.95


class Claimed(Protocol):
    """The false claims of one cell: a record, or what was computed of one."""

    @property
    def cell(self) -> Cell:
        """Whose they are."""

    @property
    def nulls(self) -> Sequence[NullSet]:
        """The p-values by kind of null."""

    @property
    def access(self) -> str | None:
        """What the verifier of the scheme has."""

    @property
    def stage(self) -> str | None:
        """Where the attack acts."""


Source = TypeVar("Source", bound=Claimed)


class Trial(NamedTuple):
    """One false claim.

    Attributes:
        p_value: of the claim.
        network: who shares it was put to the same network; None for a suspect that no chance went into.
        key: who shares it was made with the same key.
    """

    p_value: float
    network: Hashable | None
    key: Hashable


class Rate(NamedTuple):
    """How often false claims of one kind are accepted.

    Attributes:
        attack: that the hosts went through; `none` for false claims before any attack.
        null: the kind of null.
        nominal: the rate that p-values are held to.
        found: accepted claims of all, with the 95 % interval of the rate.
        networks, keys: how many different ones made them; 0 networks where no chance went into the suspect.
        p_value: chance of so many accepted claims from a valid scheme: see `excess_p_value`.
    """

    scheme: str
    arch: str
    attack: str
    null: str
    nominal: float
    found: Proportion
    networks: int
    keys: int
    p_value: float

    @property
    def beyond(self) -> bool:
        """Whether more are accepted than chance explains."""
        return self.p_value <= SURE


def rates(claimed: Sequence[Claimed], nominal: Sequence[float]) -> list[Rate]:
    """The false positive rates of each scheme, architecture, attack and kind of null, in the order of the cells.

    Data sets and seeds of one scheme and architecture count together; situations do not matter to a null.
    """
    found = []
    for scheme, arch in dict.fromkeys((each.cell.scheme, each.cell.arch) for each in claimed):
        own = [each for each in claimed if (each.cell.scheme, each.cell.arch) == (scheme, arch)]
        sets = [("none", kind, trials(own, kind)) for kind in kinds(own) if kind != AFTER_ATTACK]
        for attack in dict.fromkeys(record.cell.attack for record in own):
            sets.append((attack, AFTER_ATTACK, trials([r for r in own if r.cell.attack == attack], AFTER_ATTACK)))
        for attack, kind, claims in sets:
            counts = [(rate, accepted(claims, rate)) for rate in nominal]
            networks = len({claim.network for claim in claims if claim.network is not None})
            made_by = networks, len({claim.key for claim in claims})
            found += [
                Rate(scheme, arch, attack, kind, rate, count, *made_by, excess_p_value(claims, rate))
                for rate, count in counts
                if count
            ]
    return found


def kinds(records: Iterable[Claimed]) -> list[str]:
    """The kinds of nulls in the records, in their order."""
    return list(dict.fromkeys(null.kind for record in records for null in record.nulls))


def trials(records: Sequence[Source], kind: str) -> list[Trial]:
    """The false claims of one kind in the records of one scheme and architecture.

    Before an attack, every attack of a seed saw the same networks and keys: they count once a seed. After an attack on
    the evidence the forger's key claims, which is no fresh one: those are left out.
    """
    if kind == AFTER_ATTACK:
        kept = [record for record in records if record.stage != "evidence"]
    else:
        with_it = [record for record in records if any(null.kind == kind for null in record.nulls)]
        datasets = dict.fromkeys(record.cell.dataset for record in with_it)
        kept = [r for name in datasets for r in one_a_seed([r for r in with_it if r.cell.dataset == name], "nulls")]
    return [trial for record in kept for trial in _trials(record, kind)]


def _trials(record: Claimed, kind: str) -> Iterable[Trial]:
    at = (record.cell.dataset, record.cell.seed)
    claimants = "left-out owner" if kind == LEFT_OUT else "fresh key"
    for null in record.nulls:
        if null.kind != kind:
            continue
        drawn = kind in (FRESH_KEY, AFTER_ATTACK, LEFT_OUT) or null.network is not None
        # Null models of one number have a training in common, or are made of one another.
        network = (*at, claimants if kind == LEFT_OUT else "host", null.network)
        fixed = not drawn or record.access == "data set"
        for number, p_value in enumerate(null.p_values):
            yield Trial(p_value, None if fixed else network, (*at, claimants, number))


def accepted(claims: Sequence[Trial], fpr: float) -> Proportion | None:
    """How many of the claims are accepted at `fpr`, with the 95 % interval of their rate; None without claims."""
    if not claims:
        return None
    from scipy.special import betaincinv

    hits, count = sum(claim.p_value <= fpr for claim in claims), len(claims)
    worth = _worth(claims, fpr, CONFIDENCE)
    found, tail = worth * hits / count, (1 - CONFIDENCE) / 2
    low = float(betaincinv(found, worth - found + 1, tail)) if hits else 0.0
    high = float(betaincinv(found + 1, worth - found, 1 - tail)) if hits < count else 1.0
    return Proportion(hits, count, low, high)


def too_many(claims: Sequence[Trial], fpr: float) -> bool:
    """Whether more claims are accepted at `fpr` than chance explains once in a thousand valid schemes."""
    return excess_p_value(claims, fpr) <= SURE


def excess_p_value(claims: Sequence[Trial], fpr: float) -> float:
    """Chance of so many accepted claims from a scheme that accepts each with probability `fpr`, 0..1 exclusive.

    Exact binomial for independent trials. For dependent ones the smaller of two, doubled: the binomial with as many
    trials as they are worth, and exp(-m KL(rate | fpr)), m the number of networks or of keys, whichever is less
    (Hoeffding 1963, Theorem 1 and section 5, https://doi.org/10.2307/2282952). That one holds for any dependence and
    needs no estimate: it is what speaks where there are few networks.
    """
    from scipy.special import betainc, rel_entr

    hits, count = sum(claim.p_value <= fpr for claim in claims), len(claims)
    if not hits or hits / count <= fpr:
        return 1.0
    share, worth = hits / count, _worth(claims, fpr, 1 - 2 * SURE)
    tail = float(betainc(share * worth, worth - share * worth + 1, fpr))
    clusters = _shared(claims)
    if not clusters:
        return tail
    fewest = min(len(set(labels)) for labels in clusters)
    bound = float(exp(-fewest * (rel_entr(share, fpr) + rel_entr(1 - share, 1 - fpr))))
    return min(1.0, 2 * min(tail, bound))


def _shared(claims: Sequence[Trial]) -> list[list[Hashable]]:
    """The networks and the keys of the claims, each where some claims share one."""
    networks = [claim.network if claim.network is not None else ("fixed", i) for i, claim in enumerate(claims)]
    both: tuple[list[Hashable], ...] = (networks, [claim.key for claim in claims])
    return [labels for labels in both if len(set(labels)) < len(claims)]


def _worth(claims: Sequence[Trial], fpr: float, confidence: float) -> float:
    """How many independent trials the claims are worth, for an interval or a test at this confidence."""
    from scipy.stats import t

    count, clusters = len(claims), _shared(claims)
    if not clusters:
        return float(count)
    fewest = min(len(set(labels)) for labels in clusters)
    if fewest == 1:
        return 1.0
    found = [claim.p_value <= fpr for claim in claims]
    design = max(1.0, 1.0 + sum(_design_effect(found, labels) - 1.0 for labels in clusters))
    quantile = 0.5 + confidence / 2
    few = (t.ppf(quantile, count - 1) / t.ppf(quantile, fewest - 1)) ** 2
    return max(1.0, float(count / design * few))


def _design_effect(found: Sequence[bool], labels: Sequence[Hashable]) -> float:
    """The variance of the rate between clusters over the binomial one; 1 where all trials ended alike."""
    hits, count = sum(found), len(found)
    if hits in (0, count):
        return 1.0
    share, sums = hits / count, dict.fromkeys(labels, 0.0)
    for accept, label in zip(found, labels, strict=True):
        sums[label] += accept - share
    clusters = len(sums)
    between = clusters / (clusters - 1) * sum(each**2 for each in sums.values())
    return between / (count * share * (1 - share))
