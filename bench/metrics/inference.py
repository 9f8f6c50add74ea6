"""Inference over independent hosts: paired tests, many tests at once, intervals where trials share a host.

Apart from `bench.stats`, which computes verdicts: no step imports this module, so a change here makes no result stale.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, lru_cache
from typing import TYPE_CHECKING

from bench.stats import Interval

if TYPE_CHECKING:
    import numpy as np

__all__ = ["FEWEST_CLUSTERS", "cluster_interval", "holm", "sign_flip_p_values"]

MOST_EXACT = 14  # differences whose sign flips, 16,384 at most, are all enumerated
FLIPS = 99_999  # drawn where there are more
ROUNDING = 1e-9  # sums of the same differences in another order may differ by so little


@lru_cache(maxsize=1024)  # in a table of schemes many pairs have the same differences
def sign_flip_p_values(differences: tuple[float, ...], seed: int = 0) -> tuple[float, float]:
    """One-sided paired permutation tests: chance of a mean this large, and this small, if differences could be negated.

    Under the null the two sides of each pair are exchangeable, so every assignment of signs is as likely as any other.
    Up to `MOST_EXACT` differences all 2^n are enumerated, which makes the p-values exact; else `FLIPS` are drawn, and
    the observed one counts among them. Never below 2^-n: five differences cannot reach 1 %.

    Args:
        differences: one for each independent unit (a seed), not for each measurement within one.
        seed: of the drawn flips; unused where all are enumerated.

    Raises:
        ValueError: a difference is not finite.
    """
    import numpy as np

    values = np.asarray(differences, dtype=float)
    if not np.isfinite(values).all():
        raise ValueError(f"Expected finite differences, but got {list(differences)}.")
    if not len(values):
        return 1.0, 1.0
    exact = len(values) <= MOST_EXACT
    sums = (_all_signs(len(values)) if exact else _drawn_signs(len(values), seed)) @ values
    found = values.sum()
    return float((sums >= found - ROUNDING).mean()), float((sums <= found + ROUNDING).mean())


@cache
def _all_signs(count: int) -> np.ndarray:
    """Every assignment of +1 and -1, 2^count x count."""
    import numpy as np

    return 1.0 - 2.0 * (np.arange(2**count)[:, None] >> np.arange(count) & 1)


@lru_cache(maxsize=1)
def _drawn_signs(count: int, seed: int) -> np.ndarray:
    """The observed signs and drawn ones, (1 + FLIPS) x count."""
    import numpy as np

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
