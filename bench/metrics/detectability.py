"""Detectability: how far marked networks stand out among clean ones, by their weights alone.

A seed's *pool* is one marked network and its clean twins, which are independent networks that went the same way without
a mark. If the mark left no trace, any network of a pool might be the marked one; that, and nothing about the weights of
one network, is what every p-value here rests on. (The p-value of a Kolmogorov-Smirnov test is meaningless: weights of a
layer are dependent, and two clean networks differ too.)

That a mark widens the variance of its layer: Wang, Kerschbaum 2019, https://doi.org/10.1109/ICASSP.2019.8682202.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from math import prod
from typing import NamedTuple

import numpy as np

from bench.metrics.inference import cluster_interval
from bench.stats import Interval

__all__ = [
    "FEWEST_TWINS",
    "Detection",
    "Part",
    "Pool",
    "common_names",
    "compared",
    "doubled_rank",
    "ks_distances",
    "parts",
    "pool_p_value",
    "prominence",
    "two_sample",
    "variance_distances",
]

FEWEST_TWINS = 2  # below, there is nothing between clean networks to compare with
SAMPLE = 4096  # quantiles that stand for a layer: the distance of two is off by 1 / SAMPLE at most
QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
TINY = 1e-12
LARGEST = 1e4  # of a feature: the mean of a layer without variance is infinitely many standard deviations
FILTER = " (mean filter)"


class Part(NamedTuple):
    """What is compared of one layer's weights, or of their mean filter.

    Attributes:
        sample: at most `SAMPLE` of them, sorted, at even ranks.
        log_variance: natural logarithm of their variance.
        features: mean and quantiles in standard deviations, log standard deviation, skewness and kurtosis.
    """

    sample: np.ndarray
    log_variance: float
    features: np.ndarray


Pool = Sequence[Mapping[str, Part]]  # the parts of each network, the marked one first


class Detection(NamedTuple):
    """How far marked networks stand out, by one test.

    Attributes:
        auc: chance that a marked network stands out more than a clean twin of its seed; 0.5 if the mark is invisible.
        interval: of it, at 95 %, with the seeds as trials; None below five.
        p_value: chance of so large an AUC if any network of each pool might be the marked one.
        least_p_value: the least that so few networks allow.
        part: the layer that stands out, of most seeds.
        effect: of that part, from marked to clean networks: the Kolmogorov-Smirnov distance, or the ratio of variances
            (geometric mean); of the classifier, the mean of the shares of marked and of clean networks that it tells.
        clean_effect: the same from clean to clean networks (of variances, the typical ratio, above 1).
    """

    auc: float
    interval: Interval | None
    p_value: float
    least_p_value: float
    part: str
    effect: float
    clean_effect: float


def parts(weights: Mapping[str, np.ndarray]) -> dict[str, Part]:
    """The parts of a network by name, sorted: weights of two axes or more, and of convolutions the mean filter besides.

    The mean over filters (dim 0) is what a scheme of weights may write into (Uchida et al. 2017, section 3.2).

    Args:
        weights: of a network, by name; what is not a number counts as 0.
    """
    found = {}
    for name, tensor in sorted(weights.items()):
        if tensor.ndim < 2 or not name.endswith("weight"):  # the data set's mean is no weight
            continue
        finite = np.nan_to_num(np.asarray(tensor, dtype=np.float64), nan=0.0, posinf=1e30, neginf=-1e30)
        layer = name.removesuffix(".weight")
        found[layer] = _part(finite)
        if tensor.ndim > 2:
            found[layer + FILTER] = _part(finite.mean(0))
    return found


def _part(values: np.ndarray) -> Part:
    flat = np.sort(values, axis=None)
    sample = flat[np.linspace(0, len(flat) - 1, min(SAMPLE, len(flat))).round().astype(int)]
    scale = max(float(flat.std()), TINY)
    scaled = (flat - flat.mean()) / scale
    moments = [flat.mean() / scale, np.log(scale), (scaled**3).mean(), (scaled**4).mean() - 3]
    features = np.array([*moments, *scaled[np.round(np.array(QUANTILES) * (len(flat) - 1)).astype(int)]])
    return Part(sample, 2 * float(np.log(scale)), features.clip(-LARGEST, LARGEST))


def ks_distances(pool: Sequence[Part]) -> np.ndarray:
    """Kolmogorov-Smirnov distances between the same part of M networks, M x M, 0..1."""
    from scipy.stats import ks_2samp

    with np.errstate(all="ignore"):  # of its p-value, which nobody asks for
        return _pairwise(pool, lambda a, b: float(ks_2samp(a.sample, b.sample, method="asymp").statistic))


def variance_distances(pool: Sequence[Part]) -> np.ndarray:
    """|ln| of the ratio of variances between the same part of M networks, M x M."""
    return _pairwise(pool, lambda a, b: abs(a.log_variance - b.log_variance))


def _pairwise(pool: Sequence[Part], distance: Callable[[Part, Part], float]) -> np.ndarray:
    found = np.zeros((len(pool), len(pool)))
    for (i, a), (j, b) in combinations(enumerate(pool), 2):
        found[i, j] = found[j, i] = distance(a, b)
    return found


def prominence(distances: np.ndarray) -> np.ndarray:
    """How many times as far each network lies from the others as these lie from each other.

    It treats all networks of a pool alike, whichever is marked.

    Args:
        distances: ... x M x M, symmetric, M of at least 3.

    Returns:
        ... x M ratios of mean distances; 1 where all are 0.
    """
    count = distances.shape[-1]
    own = distances.sum(-1)
    others = own.sum(-1, keepdims=True) / 2 - own
    return (own / (count - 1) + TINY) / (others / ((count - 1) * (count - 2) / 2) + TINY)


def pool_p_value(scores: Sequence[Sequence[float]]) -> float:
    """Chance that the marked networks rank so high in their pools if any network of each might be the marked one.

    The statistic is the sum over pools of the twins that score less than the marked network, ties counting half. It is
    enumerated over all choices of one network of each pool, which makes the p-value exact. For one pool without ties it
    is `bench.stats.rank_p_value`.

    Args:
        scores: of each pool, that of the marked network first; they must not depend on which one is marked.
    """
    counts = [[doubled_rank(pool, place) for place in range(len(pool))] for pool in scores]
    chances = np.ones(1)
    for pool in counts:
        chances = np.convolve(chances, np.bincount(pool) / len(pool))
    return min(1.0, float(chances[sum(pool[0] for pool in counts) :].sum()))


def doubled_rank(scores: Sequence[float], place: int) -> int:
    """Twice the number of others that score less, ties counting half."""
    others = [score for i, score in enumerate(scores) if i != place]
    return sum(2 * (score < scores[place]) + (score == scores[place]) for score in others)


def compared(hits: Sequence[float], twins: Sequence[int]) -> tuple[float, Interval | None]:
    """The AUC and its interval.

    Args:
        hits: of each pool, the twins that stand out less than the marked network, ties counting half.
        twins: of each pool, how many there are.
    """
    return sum(hits) / sum(twins), cluster_interval(list(hits), list(twins))


def two_sample(pools: Sequence[Pool], test: str) -> Detection:
    """Two-sample test of marked against clean weights: a network's score is its largest prominence over parts.

    Args:
        pools: of each seed, the marked network first, then at least `FEWEST_TWINS` twins.
        test: `ks` or `variance`.
    """
    names, measure = common_names(pools), {"ks": ks_distances, "variance": variance_distances}[test]
    distances = [np.stack([measure([network[name] for network in pool]) for name in names]) for pool in pools]
    ratios = [prominence(each) for each in distances]
    scores = [list(map(float, each.max(0))) for each in ratios]
    ((place, _),) = Counter(int(each[:, 0].argmax()) for each in ratios).most_common(1)
    auc, interval = compared([doubled_rank(pool, 0) / 2 for pool in scores], [len(pool) - 1 for pool in pools])
    effect, clean = _sizes([each[place] for each in distances])
    if test == "variance":
        effect, clean = _variance_ratio(pools, names[place]), float(np.exp(clean))
    least = prod(1 / len(pool) for pool in pools)
    return Detection(auc, interval, pool_p_value(scores), least, names[place], effect, clean)


def common_names(pools: Sequence[Pool]) -> list[str]:
    """The parts that all networks have, sorted."""
    return sorted(set.intersection(*(set(network) for pool in pools for network in pool)))


def _sizes(distances: Sequence[np.ndarray]) -> tuple[float, float]:
    """The mean distance of marked networks from clean ones, and that of clean ones from each other."""
    clean = [each[1:, 1:].sum() / ((len(each) - 1) * (len(each) - 2)) for each in distances]
    return float(np.mean([each[0, 1:].mean() for each in distances])), float(np.mean(clean))


def _variance_ratio(pools: Sequence[Pool], name: str) -> float:
    """The variance of marked networks over that of clean ones, geometric mean."""
    logs = [[network[name].log_variance for network in pool] for pool in pools]
    return float(np.exp(np.mean([pool[0] - np.mean(pool[1:]) for pool in logs])))
