"""Detectability: how far marked networks stand out among clean ones, by their weights alone.

A seed's *pool* is one marked network and its clean twins, which are independent networks that went the same way without
a mark. If the mark left no trace, any network of a pool might be the marked one; that, and nothing about the weights of
one network, is what every p-value here rests on. (The p-value of a Kolmogorov-Smirnov test is meaningless: weights of a
layer are dependent, and two clean networks differ too.)

Two-sample statistics on weights: Wang, Kerschbaum 2019, https://doi.org/10.1109/ICASSP.2019.8682202. A classifier over
marked and clean networks: Wang, Kerschbaum 2021 (RIGA), https://arxiv.org/abs/1910.14268.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from math import prod
from typing import Any, NamedTuple

import numpy as np

from bench.identity import Rng
from bench.metrics.inference import cluster_interval
from bench.stats import Interval, sequential_p_value

__all__ = [
    "FEWEST_PAIRS",
    "FEWEST_TWINS",
    "Detection",
    "Part",
    "classifier",
    "ks_distances",
    "parts",
    "pool_p_value",
    "prominence",
    "two_sample",
    "variance_distances",
]

FEWEST_TWINS = 2  # below, there is nothing between clean networks to compare with
FEWEST_PAIRS = 4  # marked networks, and seeds with clean ones, that a classifier learns from
SAMPLE = 4096  # quantiles that stand for a layer: the distance of two is off by 1 / SAMPLE at most
PERMUTATIONS = 999
QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
TINY = 1e-12
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
    """The parts of a network by name: tensors of two axes or more, and of convolutions the mean filter besides.

    The mean over filters (dim 0) is what a scheme of weights may write into (Uchida et al. 2017, section 3.2).

    Args:
        weights: of a network, by name; what is not a number counts as 0.
    """
    found = {}
    for name, tensor in weights.items():
        if tensor.ndim < 2:
            continue
        finite = np.nan_to_num(np.asarray(tensor, dtype=np.float64), nan=0.0, posinf=1e30, neginf=-1e30)
        layer = name.removesuffix(".weight")
        found[layer] = _part(finite)
        if tensor.ndim > 2:
            found[layer + FILTER] = _part(finite.mean(0))
    return found


def _part(values: np.ndarray) -> Part:
    from scipy.stats import kurtosis, skew

    flat = np.sort(values, axis=None)
    sample = flat[np.linspace(0, len(flat) - 1, min(SAMPLE, len(flat))).round().astype(int)]
    scale = max(float(flat.std()), TINY)
    scaled = (flat - flat.mean()) / scale
    shape = [flat.mean() / scale, np.log(scale), skew(scaled), kurtosis(scaled), *np.quantile(scaled, QUANTILES)]
    return Part(sample, 2 * float(np.log(scale)), np.nan_to_num(np.array(shape)))


def ks_distances(pool: Sequence[Part]) -> np.ndarray:
    """Kolmogorov-Smirnov distances between the same part of M networks, M x M, 0..1."""
    from scipy.stats import ks_2samp

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
    counts = [[_doubled_rank(pool, place) for place in range(len(pool))] for pool in scores]
    chances = np.ones(1)
    for pool in counts:
        chances = np.convolve(chances, np.bincount(pool) / len(pool))
    return min(1.0, float(chances[sum(pool[0] for pool in counts) :].sum()))


def _doubled_rank(scores: Sequence[float], place: int) -> int:
    """Twice the number of others that score less, ties counting half."""
    others = [score for i, score in enumerate(scores) if i != place]
    return sum(2 * (score < scores[place]) + (score == scores[place]) for score in others)


def _auc(hits: Sequence[float], twins: Sequence[int]) -> tuple[float, Interval | None]:
    return sum(hits) / sum(twins), cluster_interval(list(hits), list(twins))


def two_sample(pools: Sequence[Sequence[Mapping[str, Part]]], test: str) -> Detection:
    """Two-sample test of marked against clean weights: the part in which a network stands out most is its score.

    Args:
        pools: of each seed, the networks' parts, the marked network first, then at least `FEWEST_TWINS` twins.
        test: `ks` or `variance`.
    """
    names = list(pools[0][0])
    measure = {"ks": ks_distances, "variance": variance_distances}[test]
    distances = [np.stack([measure([network[name] for network in pool]) for name in names]) for pool in pools]
    ratios = [prominence(each) for each in distances]
    scores = [list(map(float, each.max(0))) for each in ratios]
    ((place, _),) = Counter(int(each[:, 0].argmax()) for each in ratios).most_common(1)
    twins = [len(pool) - 1 for pool in pools]
    auc, interval = _auc([_doubled_rank(pool, 0) / 2 for pool in scores], twins)
    found = [each[place] for each in distances]
    clean = float(np.mean([each[1:, 1:].sum() / (n * (n - 1)) for each, n in zip(found, twins, strict=True)]))
    if test == "ks":
        effect = float(np.mean([each[0, 1:].mean() for each in found]))
    else:
        logs = [[network[names[place]].log_variance for network in pool] for pool in pools]
        effect, clean = float(np.exp(np.mean([pool[0] - np.mean(pool[1:]) for pool in logs]))), float(np.exp(clean))
    least = prod(1 / len(pool) for pool in pools)
    return Detection(auc, interval, pool_p_value(scores), least, names[place], effect, clean)


def classifier(pools: Sequence[Sequence[Mapping[str, Part]]], rng: Rng) -> Detection:
    """Property inference: a classifier of marked and clean networks, judged on seeds that it has not seen.

    L2-regularised logistic regression on standardised features of all parts, the classes weighted alike. Each seed's
    networks are left out in turn; the AUC counts pairs of the marked network and a twin of one left-out seed, so that
    its expectation is 1/2 if the mark is invisible (Airola et al. 2011, https://doi.org/10.1016/j.csda.2010.11.018).
    The p-value is a permutation test: one network of each pool is drawn as the marked one, and all is learned anew.

    Args:
        pools: of at least `FEWEST_PAIRS` seeds, as in `two_sample`.
        rng: of the permutations.
    """
    rows = [
        np.stack([np.concatenate([part.features for part in network.values()]) for network in pool]) for pool in pools
    ]
    folds = [_Fold(rows, left_out) for left_out in range(len(rows))]
    sizes = [len(pool) for pool in pools]
    generator = rng.numpy("permutations")

    def hits(marked: Sequence[int]) -> list[float]:
        return [_doubled_rank(fold.scores(marked), marked[fold.left_out]) / 2 for fold in folds]

    def draw(count: int) -> list[float]:
        return [sum(hits([int(generator.integers(size)) for size in sizes])) for _ in range(count)]

    truth = [0] * len(pools)
    found = hits(truth)
    p_value, _ = sequential_p_value(sum(found), draw, PERMUTATIONS)
    auc, interval = _auc(found, [size - 1 for size in sizes])
    told = [fold.scores(truth) for fold in folds]
    accuracy = (
        np.mean([pool[0] > 0 for pool in told]) + np.mean([score <= 0 for pool in told for score in pool[1:]])
    ) / 2
    least = max(1 / (PERMUTATIONS + 1), prod(1 / size for size in sizes))
    return Detection(auc, interval, p_value, least, _heaviest(rows, list(pools[0][0])), float(accuracy), 0.5)


class _Fold:
    """Standardised features with one pool left out, rotated to as many axes as there are networks to learn from.

    L2-regularised regression does not change under rotation, and what lies across all rows that it learns from has no
    weight.
    """

    def __init__(self, rows: Sequence[np.ndarray], left_out: int) -> None:
        from sklearn.preprocessing import StandardScaler

        self.left_out = left_out
        self.sizes = [len(pool) for i, pool in enumerate(rows) if i != left_out]
        scaler = StandardScaler().fit(np.concatenate([pool for i, pool in enumerate(rows) if i != left_out]))
        learned = scaler.transform(np.concatenate([pool for i, pool in enumerate(rows) if i != left_out]))
        axes = np.linalg.svd(learned, full_matrices=False)[2].T
        self.learned, self.asked = learned @ axes, scaler.transform(rows[left_out]) @ axes

    def scores(self, marked: Sequence[int]) -> list[float]:
        """Of the left-out networks, if the network of each pool at these places is the marked one."""
        places = [place for i, place in enumerate(marked) if i != self.left_out]
        labels = np.concatenate([np.arange(size) == place for size, place in zip(self.sizes, places, strict=True)])
        return list(map(float, _regression().fit(self.learned, labels).decision_function(self.asked)))


def _regression() -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(class_weight="balanced", max_iter=1000)


def _heaviest(rows: Sequence[np.ndarray], names: Sequence[str]) -> str:
    """The part whose features have the largest weights in the classifier of all networks."""
    from sklearn.preprocessing import StandardScaler

    labels = np.concatenate([np.arange(len(pool)) == 0 for pool in rows])
    weights = _regression().fit(StandardScaler().fit_transform(np.concatenate(rows)), labels).coef_[0]
    return names[int(np.square(weights).reshape(len(names), -1).sum(1).argmax())]
