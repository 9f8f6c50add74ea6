"""Property inference: a classifier of marked and clean networks by their weights, on seeds that it has not seen.

Wang, Kerschbaum 2021 (RIGA), https://arxiv.org/abs/1910.14268, after Ganju et al. 2018,
https://doi.org/10.1145/3243734.3243834; theirs is a network that learns from hundreds of networks, ours a regression.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from bench.identity import Rng
from bench.metrics.detectability import Detection, Pool, common_names, compared, doubled_rank
from bench.stats import sequential_p_value

__all__ = ["FEWEST_SEEDS", "classifier"]

FEWEST_SEEDS = 4  # marked networks, each with its clean twins
PERMUTATIONS = 999


def classifier(pools: Sequence[Pool], rng: Rng) -> Detection:
    """L2-regularised logistic regression on standardised features of all parts, the classes weighted alike.

    Each seed's networks are left out in turn. The AUC counts pairs of the marked network and a twin of one left-out
    seed, so that its expectation is 1/2 if the mark is invisible (Airola et al. 2011,
    https://doi.org/10.1016/j.csda.2010.11.018). The p-value is a permutation test: one network of each pool is drawn as
    the marked one, and all is learned anew.

    Args:
        pools: of at least `FEWEST_SEEDS` seeds, the marked network first.
        rng: of the permutations.
    """
    names, sizes = common_names(pools), [len(pool) for pool in pools]
    rows = [
        np.stack([np.concatenate([network[name].features for name in names]) for network in pool]) for pool in pools
    ]
    folds = [_Fold(rows, left_out) for left_out in range(len(rows))]
    generator, truth = rng.numpy("permutations"), [0] * len(pools)

    def draw(count: int) -> list[float]:
        drawn = ([int(generator.integers(size)) for size in sizes] for _ in range(count))
        return [sum(_hits(folds, marked)) for marked in drawn]

    hits = _hits(folds, truth)
    p_value, _ = sequential_p_value(sum(hits), draw, PERMUTATIONS)
    auc, interval = compared(hits, [size - 1 for size in sizes])
    least = max(1 / (PERMUTATIONS + 1), prod(1 / size for size in sizes))
    return Detection(auc, interval, p_value, least, _heaviest(rows, names), _accuracy(folds, truth), 0.5)


def _hits(folds: Sequence[_Fold], marked: Sequence[int]) -> list[float]:
    return [doubled_rank(fold.scores(marked), marked[fold.left_out]) / 2 for fold in folds]


def _accuracy(folds: Sequence[_Fold], truth: Sequence[int]) -> float:
    """The mean of the shares of marked and of clean left-out networks that are told."""
    told = [fold.scores(truth) for fold in folds]
    marked, clean = [pool[0] > 0 for pool in told], [score <= 0 for pool in told for score in pool[1:]]
    return float(np.mean(marked) + np.mean(clean)) / 2


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
