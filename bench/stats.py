"""How sure are we? P-values, intervals, calibration.

scipy.stats costs most of a second to import, so every function imports it where it is used.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

__all__ = [
    "Interval",
    "bits_p_value",
    "cosine_p_value",
    "fisher_p_value",
    "matches_p_value",
    "protection_advantage",
    "rank_p_value",
    "sequential_p_value",
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
    statistic: float, draw: Callable[[int], Sequence[float]], most: int, *, exceeding: int = 10
) -> tuple[float, list[float]]:
    """Sequential Monte Carlo p-value (Besag, Clifford 1991, https://doi.org/10.1093/biomet/78.2.301, section 3).

    Exchangeable null statistics are drawn until `exceeding` of them are at least `statistic`, or `most` are drawn. If
    the last needed one was the l-th, p = exceeding / l, else (1 + #{null >= statistic}) / (most + 1). Valid as it
    stands, and never below 1 / (most + 1): a plain "no" costs few draws.

    Args:
        statistic: the claim's own.
        draw: gives the next so many null statistics: as many as the last needed one is away by the share that reached
            so far, at most as many as were drawn before. Those after the deciding one are not used.
        most: draws at the most.
        exceeding: h; with 10, p-values above about 0.1 are coarse and those near an FPR of 1 % exact.

    Returns:
        The p-value, and the null statistics that were drawn.
    """
    if not math.isfinite(statistic):
        return 1.0, []
    drawn: list[float] = []
    reached = 0
    while len(drawn) < most:
        left = exceeding - reached
        ahead = max(left, min(len(drawn), left * len(drawn) // max(1, reached)))
        for null in draw(min(ahead, most - len(drawn))):
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


def wilson_interval(successes: int, trials: int, confidence: float = 0.95) -> Interval | None:
    """Wilson score interval of a proportion (Wilson 1927); None without trials.

    By the formula: to import `scipy.stats` takes as long as a table of a hundred cells.
    """
    if trials == 0:
        return None
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share, size = successes / trials, trials + z**2
    middle = (successes + z**2 / 2) / size
    half = z * math.sqrt(trials * share * (1 - share) + z**2 / 4) / size
    return Interval(middle - half if successes else 0.0, middle + half if successes < trials else 1.0)


def student_interval(values: Sequence[float], confidence: float = 0.95) -> Interval | None:
    """Student-t interval of the mean over replications (seeds); None below two values."""
    n = len(values)
    if n < 2:
        return None
    from scipy.special import stdtrit

    mean = sum(values) / n
    variance = sum((value - mean) ** 2 for value in values) / (n - 1)
    half = float(stdtrit(n - 1, 0.5 + confidence / 2)) * (variance / n) ** 0.5
    return Interval(mean - half, mean + half)


def protection_advantage(matches: int, trials: int, chance: float) -> float:
    """(M - N p) / N: matches beyond what guessing gives (Zou et al., Anti-Neuron Watermarking, Eq. 7).

    The ceiling is 1 - p, so a method with a large chance rate cannot score high whatever it does.
    """
    if trials <= 0:
        raise ValueError(f"Expected at least one trial, but got {trials}.")
    return matches / trials - chance
