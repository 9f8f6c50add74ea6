"""How sure are we? P-values, intervals, calibration.

scipy.stats costs most of a second to import, so every function imports it where it is used.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np

__all__ = [
    "Interval",
    "bits_p_value",
    "cluster_interval",
    "cosine_p_value",
    "fisher_p_value",
    "holm",
    "matches_p_value",
    "protection_advantage",
    "rank_p_value",
    "sequential_p_value",
    "sign_flip_p_value",
    "student_interval",
    "wilson_interval",
]


class Interval(NamedTuple):
    """A closed interval, at 95 % unless its maker says otherwise."""

    low: float
    high: float


def bits_p_value(errors: int, bits: int, *, two_sided: bool = True) -> float:
    """Chance that a model which never saw the key matches this many of `bits` fair random bits.

    Under the null every payload bit is right with probability 1/2, so the errors are
    Binomial(bits, 1/2). Two-sided catches an inverted payload: the smaller tail, doubled.

    Raises:
        ValueError: `errors` is not in 0..bits.
    """
    if not 0 <= errors <= bits:
        raise ValueError(f"Expected between 0 and {bits} bit errors, but got {errors}.")
    if bits == 0:
        return 1.0
    from scipy.stats import binom

    if not two_sided:
        return float(binom.cdf(errors, bits, 0.5))
    return min(1.0, 2.0 * float(binom.cdf(min(errors, bits - errors), bits, 0.5)))


def matches_p_value(matches: int, answers: Sequence[Sequence[int]]) -> float:
    """Chance of so many matches or more, had each label been drawn anew, all that it could be with equal probability.

    Exact given the answers, whatever these depend on but the draws. Where every draw decides one label and the
    suspect gave one answer, this is P[Binomial(n, 1/K) >= matches].

    Args:
        matches: answers that equal their drawn label.
        answers: of each draw, how often the suspect gave each label that it could have drawn.

    Raises:
        ValueError: a draw had no choice.
    """
    if not all(answers):
        raise ValueError("Expected at least one label that each draw could give, but got a draw without.")
    chances = np.ones(1)
    for counts in answers:
        chances = np.convolve(chances, np.bincount(counts) / len(counts))
    return min(1.0, float(chances[max(matches, 0) :].sum()))


def rank_p_value(statistic: float, null_statistics: Sequence[float]) -> float:
    """Exact Monte Carlo p-value: the rank of `statistic` among exchangeable null draws, ties against it.

    (1 + #{null >= statistic}) / (n + 1), which is valid for any n and never below 1/(n + 1). A statistic that is not
    finite is no evidence (p = 1), and a null that is not a number counts against the claim.
    """
    if not math.isfinite(statistic):
        return 1.0
    exceeding = sum(1 for null in null_statistics if not null < statistic)
    return (1 + exceeding) / (len(null_statistics) + 1)


def sequential_p_value(
    statistic: float, draw: Callable[[int], Sequence[float]], most: int, *, exceeding: int = 10, block: int = 16
) -> tuple[float, list[float]]:
    """Sequential Monte Carlo p-value (Besag, Clifford 1991, https://doi.org/10.1093/biomet/78.2.301, section 3).

    Exchangeable null statistics are drawn until `exceeding` of them are at least `statistic`, or `most` are drawn. If
    the last needed one was the l-th, p = exceeding / l, else (1 + #{null >= statistic}) / (most + 1). Valid as it
    stands, and never below 1 / (most + 1): a plain "no" costs few draws.

    Args:
        statistic: the claim's own.
        draw: gives the next so many null statistics.
        most: draws at the most.
        exceeding: h; with 10, p-values above about 0.1 are coarse and those near an FPR of 1 % exact.
        block: draws at a time; draws after the deciding one are not used, so it changes no p-value.

    Returns:
        The p-value, and the null statistics that were drawn.
    """
    if not math.isfinite(statistic):
        return 1.0, []
    drawn: list[float] = []
    reached = 0
    while len(drawn) < most:
        for null in draw(min(block, most - len(drawn))):
            drawn.append(null)
            reached += not null < statistic  # a null that is not a number counts against the claim
            if reached == exceeding:
                return exceeding / len(drawn), drawn
    return (1 + reached) / (most + 1), drawn


def cosine_p_value(cosine: float, dimension: int) -> float:
    """Chance that a random direction in `dimension` dimensions has at least this cosine with a fixed one.

    For c >= 0 this is I_(1-c^2)((d-1)/2, 1/2) / 2 (Sablayrolles et al. 2020, section 3); p(-c) = 1 - p(c). A cosine
    that is not finite is no evidence (p = 1).

    Raises:
        ValueError: the dimension is below 2.
    """
    if dimension < 2:
        raise ValueError(f"Expected a dimension of at least 2, but got {dimension}.")
    if not math.isfinite(cosine):
        return 1.0
    from scipy.special import betainc

    tail = 0.5 * float(betainc((dimension - 1) / 2, 0.5, max(0.0, 1.0 - cosine * cosine)))
    return tail if cosine >= 0 else 1.0 - tail


def fisher_p_value(p_values: Sequence[float]) -> float:
    """Fisher's combination of independent p-values: -2 sum ln p is chi-squared with 2 K degrees.

    A p-value that is not a number is no evidence and counts as 1; without any the combination is 1.
    """
    from scipy.special import chdtrc

    known = [1.0 if math.isnan(p_value) else p_value for p_value in p_values]
    if not known:
        return 1.0
    if min(known) <= 0:
        return 0.0
    return float(chdtrc(2 * len(known), -2 * sum(map(math.log, known))))


MOST_EXACT = 14  # differences whose sign flips, 16,384 at most, are all enumerated
FLIPS = 99_999  # drawn where there are more
ROUNDING = 1e-9  # sums of the same differences in another order may differ by so little


def sign_flip_p_value(differences: Sequence[float], seed: int = 0) -> float:
    """One-sided paired permutation test: chance of a mean this large if each difference could have been negated.

    Under the null the two sides of each pair are exchangeable, so every assignment of signs is as likely as any other.
    Up to `MOST_EXACT` differences all 2^n are enumerated, which makes the p-value exact; else `FLIPS` are drawn, and
    the observed one counts among them. Never below 2^-n: five differences cannot reach 1 %.

    Args:
        differences: one for each independent unit (a seed), not for each measurement within one.
        seed: of the drawn flips; unused where all are enumerated.

    Raises:
        ValueError: a difference is not finite.
    """
    values = np.asarray(differences, dtype=float)
    if not np.isfinite(values).all():
        raise ValueError(f"Expected finite differences, but got {list(differences)}.")
    if not len(values):
        return 1.0
    exact = len(values) <= MOST_EXACT
    sums = (_all_signs(len(values)) if exact else _drawn_signs(len(values), seed)) @ values
    return float((sums >= values.sum() - ROUNDING).mean())


@cache
def _all_signs(count: int) -> np.ndarray:
    """Every assignment of +1 and -1, 2^count x count."""
    return 1.0 - 2.0 * (np.arange(2**count)[:, None] >> np.arange(count) & 1)


def _drawn_signs(count: int, seed: int) -> np.ndarray:
    """The observed signs and drawn ones, (1 + FLIPS) x count."""
    drawn = np.random.default_rng(seed).integers(0, 2, (FLIPS, count))
    return np.vstack([np.ones((1, count)), 1.0 - 2.0 * drawn])


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment (1979), in the given order: those at most alpha are rejected.

    It keeps the chance of any false rejection at most alpha, however the tests depend on each other.
    """
    adjusted, least = [1.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = least
    return adjusted


def wilson_interval(successes: int, trials: int, confidence: float = 0.95) -> Interval | None:
    """Wilson score interval of a proportion; None without trials."""
    if trials == 0:
        return None
    from scipy.stats import binomtest

    low, high = binomtest(successes, trials).proportion_ci(confidence, method="wilson")
    return Interval(float(low), float(high))


FEWEST_CLUSTERS = 5  # below, an interval says next to nothing


def cluster_interval(hits: Sequence[float], trials: Sequence[float], confidence: float = 0.95) -> Interval | None:
    """Interval of a proportion whose trials share hosts: Clopper-Pearson with the hosts as trials.

    A host's share lies between 0 and 1, so whatever its trials have in common, it varies at most as much as one trial
    would. Hosts of unequal size count as (sum n)^2 / sum n^2 equal ones (Kish). Conservative where trials of a host
    hardly depend on each other. Simulated, it covers in at least 95 %; a percentile bootstrap over hosts, and Student's
    t of their shares, cover in as little as 3 % where nearly all trials are hits, because all hosts then agree.

    Args:
        hits: of each host.
        trials: of each host.
        confidence: nominal coverage.

    Returns:
        The interval; None below `FEWEST_CLUSTERS` hosts with trials.
    """
    asked = [(hit, count) for hit, count in zip(hits, trials, strict=True) if count]
    if len(asked) < FEWEST_CLUSTERS:
        return None
    from scipy.special import betaincinv

    total = sum(count for _, count in asked)
    size = total**2 / sum(count**2 for _, count in asked)
    found = size * sum(hit for hit, _ in asked) / total
    tail = (1 - confidence) / 2
    low = float(betaincinv(found, size - found + 1, tail)) if found > ROUNDING else 0.0
    high = float(betaincinv(found + 1, size - found, 1 - tail)) if size - found > ROUNDING else 1.0
    return Interval(low, high)


def student_interval(values: Sequence[float], confidence: float = 0.95) -> Interval | None:
    """Student-t interval of the mean over replications (seeds); None below two values."""
    n = len(values)
    if n < 2:
        return None
    from scipy.stats import t

    mean = sum(values) / n
    variance = sum((value - mean) ** 2 for value in values) / (n - 1)
    half = float(t.ppf(0.5 + confidence / 2, n - 1)) * (variance / n) ** 0.5
    return Interval(mean - half, mean + half)


def protection_advantage(matches: int, trials: int, chance: float) -> float:
    """(M - N p) / N: matches beyond what guessing gives (Zou et al., Anti-Neuron Watermarking, Eq. 7).

    The ceiling is 1 - p, so a method with a large chance rate cannot score high whatever it does.
    """
    if trials <= 0:
        raise ValueError(f"Expected at least one trial, but got {trials}.")
    return matches / trials - chance
