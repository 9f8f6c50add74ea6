"""Detectability of marks in weights: exact p-values, known answers, planted marks and noise."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, kurtosis, skew
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from bench.api import Rng
from bench.metrics import property_inference
from bench.metrics.detectability import (
    QUANTILES,
    SAMPLE,
    Part,
    compared,
    doubled_rank,
    ks_distances,
    parts,
    pool_p_value,
    prominence,
    two_sample,
    variance_distances,
)
from bench.metrics.property_inference import _Fold, classifier
from bench.stats import rank_p_value

SCORES = st.lists(st.integers(0, 6), min_size=3, max_size=6)


def network(generator: np.random.Generator, scale: float = 1.0, shift: float = 0.0) -> dict[str, Part]:
    """Two convolutions and a linear layer of noise; the second convolution is scaled and shifted."""
    weights = {name: generator.normal(size=(8, 4, 3, 3)) for name in ("one.weight", "two.weight")}
    weights["two.weight"] = weights["two.weight"] * scale + shift
    return parts({**weights, "head.weight": generator.normal(size=(5, 20)), "head.bias": np.ones(5)})


def pools(seed: int, seeds: int, twins: int, **mark: float) -> list[list[dict[str, Part]]]:
    generator = np.random.default_rng(seed)
    return [[network(generator, **mark), *(network(generator) for _ in range(twins))] for _ in range(seeds)]


@given(SCORES)
def test_the_p_value_of_one_pool_is_the_rank_p_value_where_nothing_is_tied(scores: list[int]) -> None:
    untied = [score + place / 10 for place, score in enumerate(scores)]
    assert pool_p_value([untied]) == pytest.approx(rank_p_value(untied[0], untied[1:]))
    assert pool_p_value([scores]) <= rank_p_value(scores[0], scores[1:]) + 1e-12


def test_the_least_p_value_is_one_of_all_choices_of_a_network_a_pool() -> None:
    assert pool_p_value([[3, 1, 2], [9, 0, 0, 0]]) == pytest.approx(1 / 12)
    assert pool_p_value([[0, 1, 2], [0, 9, 9, 9]]) == pytest.approx(1)
    assert pool_p_value([[1, 1, 1]]) == 1.0
    # Half of the ranks of two pools of two: 0 + 1, 1 + 0 and 1 + 1 of four.
    assert pool_p_value([[2, 1], [1, 2]]) == pytest.approx(3 / 4)


def test_ties_count_half() -> None:
    assert [doubled_rank([1, 1, 0, 2], place) for place in range(4)] == [3, 3, 0, 6]
    assert compared([doubled_rank([1, 1, 0, 2], 0) / 2], [3])[0] == 0.5


@settings(max_examples=60)
@given(st.lists(SCORES, min_size=1, max_size=3))
def test_the_p_value_is_valid_whichever_network_is_marked(found: list[list[int]]) -> None:
    """Over all choices of the marked networks, p <= a happens in at most a share a of them, for every a."""
    p_values = []
    for places in product(*(range(len(pool)) for pool in found)):
        chosen = [[pool[at], *pool[:at], *pool[at + 1 :]] for pool, at in zip(found, places, strict=True)]
        p_values.append(pool_p_value(chosen))
    for level in set(p_values):
        assert np.mean([p <= level for p in p_values]) <= level + 1e-9


def test_prominence_compares_a_network_with_the_others_among_themselves() -> None:
    distances = np.array([[0.0, 4, 6, 2], [4, 0, 1, 1], [6, 1, 0, 1], [2, 1, 1, 0]])
    assert prominence(distances)[0] == pytest.approx((4 + 6 + 2) / 3 / 1)
    assert prominence(distances)[3] == pytest.approx((2 + 1 + 1) / 3 / ((4 + 6 + 1) / 3))
    assert prominence(np.zeros((2, 3, 3))) == pytest.approx(np.ones((2, 3)))
    order = np.random.default_rng(0).permutation(4)
    assert prominence(distances[np.ix_(order, order)]) == pytest.approx(prominence(distances)[order])


def test_parts_are_tensors_of_two_axes_and_the_mean_filters_of_convolutions() -> None:
    weight = np.arange(24.0).reshape(2, 3, 2, 2)
    found = parts({"conv.weight": weight, "conv.bias": np.ones(2), "fc.weight": np.ones((2, 2))})
    assert list(found) == ["conv", "conv (mean filter)", "fc"]
    assert found["conv (mean filter)"].sample.tolist() == weight.mean(0).ravel().tolist()
    assert np.exp(found["conv"].log_variance) == pytest.approx(weight.var())
    assert np.exp(found["conv (mean filter)"].log_variance) == pytest.approx(weight.mean(0).var())


def test_features_are_moments_and_quantiles() -> None:
    values = np.random.default_rng(8).gamma(2.0, size=(40, 50))
    (part,) = parts({"fc.weight": values}).values()
    moments = [values.mean() / values.std(), np.log(values.std()), skew(values, None), kurtosis(values, None)]
    quantiles = (np.quantile(values, QUANTILES) - values.mean()) / values.std()
    assert part.features == pytest.approx(np.array([*moments, *quantiles]), abs=0.05)
    assert part.features[:4] == pytest.approx(np.array(moments))


def test_weights_that_are_constant_or_no_numbers_make_no_number_that_is_none() -> None:
    for value in (0.0, np.nan, np.inf):
        (part,) = parts({"fc.weight": np.full((3, 3), value)}).values()
        assert np.isfinite(part.features).all()
        assert np.isfinite(part.log_variance)


def test_distances_are_what_their_definitions_say() -> None:
    generator = np.random.default_rng(1)
    small = [generator.normal(size=(9, 5)), generator.normal(1, 2, size=(9, 5))]
    one, two = (parts({"fc.weight": each})["fc"] for each in small)
    points = np.concatenate([each.ravel() for each in small])
    brute = max(abs(np.mean(small[0] <= at) - np.mean(small[1] <= at)) for at in points)
    assert ks_distances([one, two])[0, 1] == ks_distances([one, two])[1, 0] == pytest.approx(brute)
    assert variance_distances([one, two])[0, 1] == pytest.approx(abs(np.log(small[0].var() / small[1].var())))


def test_quantiles_stand_for_a_large_layer() -> None:
    generator = np.random.default_rng(2)
    large = [generator.normal(size=(100, 400)), generator.normal(0.1, 1, size=(100, 400))]
    thinned = ks_distances([parts({"fc.weight": each})["fc"] for each in large])[0, 1]
    both = np.sort(np.concatenate([each.ravel() for each in large]))
    ranks = [np.searchsorted(np.sort(each.ravel()), both, side="right") / each.size for each in large]
    assert abs(thinned - np.abs(ranks[0] - ranks[1]).max()) <= 2 / SAMPLE


@pytest.mark.parametrize("test", ["ks", "variance"])
def test_a_planted_scale_is_found_where_it_is(test: str) -> None:
    found = two_sample(pools(3, 4, 4, scale=3.0), test)
    assert found.auc == 1
    assert found.p_value == pytest.approx(found.least_p_value) == pytest.approx(5**-4)
    assert found.part in ("two", "two (mean filter)")
    assert found.effect > 2 * found.clean_effect
    if test == "variance":
        assert found.effect == pytest.approx(9, rel=0.25)


def test_effects_are_what_their_definitions_say() -> None:
    """Of four weights: twins half a step apart have a distance of 1/4, and a marked network beyond both has 1."""
    steps = np.arange(4.0).reshape(2, 2)
    pool = [parts({"fc.weight": each}) for each in (10 + 3 * steps, steps, steps + 0.5)]
    ks, variance = two_sample([pool], "ks"), two_sample([pool], "variance")
    assert (ks.effect, ks.clean_effect) == (1.0, 0.25)
    assert (variance.effect, variance.clean_effect) == (pytest.approx(9), pytest.approx(1))
    assert (ks.p_value, ks.interval) == (pytest.approx(1 / 3), None)


def test_a_planted_shift_is_found_by_ks_and_not_by_the_variance() -> None:
    shifted = pools(4, 5, 4, shift=1.0)
    assert two_sample(shifted, "ks").p_value < 1e-3
    assert two_sample(shifted, "variance").p_value > 0.05


@pytest.mark.parametrize("test", ["ks", "variance"])
def test_p_values_between_clean_networks_are_valid(test: str) -> None:
    """Of 60 experiments without a mark, no more have p <= 0.2 than chance explains once in a thousand."""
    found = [two_sample(pools(seed, 2, 3), test).p_value for seed in range(60)]
    hits = sum(p <= 0.2 for p in found)
    assert binom.sf(hits - 1, len(found), 0.2) > 1e-3
    assert hits, "a p-value that is never small is no test"


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer permutations: each learns as often as there are seeds."""
    monkeypatch.setattr(property_inference, "PERMUTATIONS", 29)


@pytest.mark.usefixtures("few")
def test_a_classifier_on_noise_is_a_coin() -> None:
    """The mean AUC of experiments without a mark is one half, p-values are valid, and intervals hold it."""
    found = [classifier(pools(seed, 5, 3), Rng("noise", seed)) for seed in range(12)]
    aucs = np.array([each.auc for each in found])
    assert abs(aucs.mean() - 0.5) < 3.5 * aucs.std() / len(aucs) ** 0.5
    covered = sum(each.interval is not None and each.interval.low <= 0.5 <= each.interval.high for each in found)
    assert covered >= 10
    assert binom.sf(sum(each.p_value <= 0.2 for each in found) - 1, len(found), 0.2) > 1e-3


@pytest.mark.usefixtures("few")
def test_a_classifier_finds_a_planted_difference_and_says_where() -> None:
    found = classifier(pools(5, 5, 4, scale=4.0), Rng("planted"))
    assert found.auc > 0.95
    assert found.p_value <= 0.1
    assert found.part.startswith("two")
    assert found.clean_effect == 0.5


@pytest.mark.usefixtures("few")
def test_the_order_in_which_weights_were_stored_tells_nothing() -> None:
    marked = pools(7, 4, 3, scale=4.0)
    turned = [[dict(reversed(network.items())) for network in pool[:2]] + pool[2:] for pool in marked]
    assert classifier(turned, Rng("order")) == classifier(marked, Rng("order"))
    weights = {"a.weight": np.eye(3), "b.weight": np.ones((2, 5)), "std": np.ones((1, 3, 1, 1))}
    assert list(parts(dict(reversed(weights.items())))) == ["a", "b"]


def test_a_rotated_fold_is_the_plain_pipeline() -> None:
    generator = np.random.default_rng(6)
    rows = [generator.normal(size=(3, 40)) * generator.uniform(1, 9, size=40) for _ in range(4)]
    marked = [0, 2, 1, 1]
    fold = _Fold(rows, 1)
    plain = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=1000, tol=1e-8))
    labels = [place == at for i, at in enumerate(marked) if i != 1 for place in range(3)]
    plain.fit(np.concatenate([rows[i] for i in (0, 2, 3)]), labels)
    assert fold.scores(marked) == pytest.approx(plain.decision_function(rows[1]), abs=1e-2)
