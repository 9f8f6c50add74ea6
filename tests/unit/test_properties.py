"""Properties of p-values for any input: bounds, monotony, and what must not matter (order, batches)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import combine_pvalues

from bench import stats
from bench.api import Rng, Suspect, replace
from bench.contract import suspect as suspects
from bench.contract.networks import predict
from bench.metrics import inference
from bench.registry import schemes
from tests.fakes import Answers, FakeHost, cloudy_images, noise_images, sines

always_the_same = settings(deadline=None, derandomize=True, max_examples=60)
few = settings(deadline=None, derandomize=True, max_examples=10)
floats = partial(st.floats, allow_subnormal=False)  # which a processor may flush to zero
ANY = floats(allow_nan=True, allow_infinity=True)
FINITE = floats(-1e6, 1e6)
NULLS = st.lists(ANY, max_size=40)
P_VALUES = floats(0, 1)


def handing_out(nulls: Sequence[float]) -> Callable[[int], list[float]]:
    left = iter(nulls)
    return lambda count: [next(left) for _ in range(count)]


def sequential(statistic: float, nulls: Sequence[float], **how: Any) -> float:
    return stats.sequential_p_value(statistic, handing_out(nulls), len(nulls), **how)[0]


# ---- between 0 and 1 -------------------------------------------------------------------------------------------------
@always_the_same
@given(ANY, NULLS)
def test_ranks_are_p_values_whatever_comes(statistic: float, nulls: list[float]) -> None:
    for p_value in (stats.rank_p_value(statistic, nulls), sequential(statistic, nulls)):
        assert 1 / (len(nulls) + 1) <= p_value <= 1
        assert math.isfinite(statistic) or p_value == 1


@always_the_same
@given(st.integers(0, 400), st.data())
def test_bits_are_p_values_and_an_inverted_payload_is_as_surprising(bits: int, data: st.DataObject) -> None:
    errors = data.draw(st.integers(0, bits))
    for two_sided in (True, False):
        assert 0 < stats.bits_p_value(errors, bits, two_sided=two_sided) <= 1
    assert stats.bits_p_value(errors, bits) == pytest.approx(stats.bits_p_value(bits - errors, bits), rel=1e-9)


@always_the_same
@given(floats(-1, 1), st.integers(2, 100_000))
def test_cosines_are_p_values_and_the_two_sides_add_up(cosine: float, dimension: int) -> None:
    p_value = stats.cosine_p_value(cosine, dimension)
    assert 0 <= p_value <= 1
    assert p_value + stats.cosine_p_value(-cosine, dimension) == pytest.approx(1)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_no_evidence(value: float) -> None:
    assert stats.cosine_p_value(value, 512) == 1
    assert stats.fisher_p_value([math.nan, math.nan]) == stats.fisher_p_value([]) == 1
    assert stats.fisher_p_value([0.05, math.nan]) == stats.fisher_p_value([0.05, 1.0])
    assert stats.fisher_p_value([0.0, 0.5]) == 0


@always_the_same
@given(st.lists(P_VALUES, min_size=1, max_size=8))
def test_fisher_agrees_with_scipy(p_values: list[float]) -> None:
    with np.errstate(divide="ignore"):
        expected = combine_pvalues(p_values, method="fisher").pvalue
    assert stats.fisher_p_value(p_values) == pytest.approx(float(expected), rel=1e-9)


@always_the_same
@given(st.lists(P_VALUES, min_size=1, max_size=8))
def test_fisher_and_holm_are_p_values(p_values: list[float]) -> None:
    assert 0 <= stats.fisher_p_value(p_values) <= 1
    adjusted = inference.holm(p_values)
    assert all(before <= after <= 1 for before, after in zip(p_values, adjusted, strict=True))
    assert min(adjusted) == pytest.approx(min(1.0, len(p_values) * min(p_values)))


@always_the_same
@given(st.lists(floats(-1, 1), max_size=10))
def test_sign_flips_are_p_values_and_the_two_sides_exceed_one(differences: list[float]) -> None:
    one, other = inference.sign_flip_p_values(tuple(differences))
    assert (other, one) == inference.sign_flip_p_values(tuple(-d for d in differences))
    assert all(0.5 ** len(differences) <= p_value <= 1 for p_value in (one, other))
    assert one + other >= 1 - 1e-9, "both count the ties"


# ---- a stronger statistic is never less significant ------------------------------------------------------------------
@always_the_same
@given(FINITE, FINITE, NULLS)
def test_ranks_fall_with_the_statistic(one: float, other: float, nulls: list[float]) -> None:
    low, high = sorted((one, other))
    assert stats.rank_p_value(high, nulls) <= stats.rank_p_value(low, nulls)
    assert sequential(high, nulls) <= sequential(low, nulls)


@always_the_same
@given(st.integers(1, 400), st.data())
def test_fewer_errors_are_never_less_significant(bits: int, data: st.DataObject) -> None:
    low, high = sorted((data.draw(st.integers(0, bits)), data.draw(st.integers(0, bits))))
    assert stats.bits_p_value(low, bits, two_sided=False) <= stats.bits_p_value(high, bits, two_sided=False)
    if high <= bits / 2:
        assert stats.bits_p_value(low, bits) <= stats.bits_p_value(high, bits)


@always_the_same
@given(floats(-1, 1), floats(-1, 1), st.integers(2, 5000))
def test_a_larger_cosine_is_never_less_significant(one: float, other: float, dimension: int) -> None:
    low, high = sorted((one, other))
    assert stats.cosine_p_value(high, dimension) <= stats.cosine_p_value(low, dimension) + 1e-12


@always_the_same
@given(st.lists(P_VALUES, min_size=1, max_size=6), P_VALUES, st.integers(0, 5))
def test_fisher_rises_with_each_p_value(p_values: list[float], other: float, place: int) -> None:
    place %= len(p_values)
    raised = [*p_values]
    raised[place] = max(other, p_values[place])
    assert stats.fisher_p_value(p_values) <= stats.fisher_p_value(raised) + 1e-12


@always_the_same
@given(st.lists(st.integers(-4, 4), min_size=1, max_size=8), st.integers(0, 7), st.integers(0, 4))
def test_sign_flips_fall_with_the_mean_of_equal_signs(differences: list[int], place: int, more: int) -> None:
    """One difference that is not negative and grows never makes the order less significant."""
    place %= len(differences)
    before = [abs(d) / 4 for d in differences]
    after = [*before]
    after[place] += more / 4
    greater, of_before = (inference.sign_flip_p_values(tuple(values))[0] for values in (after, before))
    assert greater <= of_before + 1e-12


# ---- what must not matter --------------------------------------------------------------------------------------------
@always_the_same
@given(FINITE, NULLS, st.randoms(use_true_random=False))
def test_the_order_of_nulls_does_not_matter(statistic: float, nulls: list[float], shuffle: Any) -> None:
    turned = [*nulls]
    shuffle.shuffle(turned)
    assert stats.rank_p_value(statistic, turned) == stats.rank_p_value(statistic, nulls)
    whole = {"exceeding": len(nulls) + 1}  # where it stops early, the order is what it is about
    assert sequential(statistic, turned, **whole) == sequential(statistic, nulls, **whole)


@always_the_same
@given(FINITE, NULLS, st.integers(1, 12))
def test_how_many_are_drawn_at_a_time_does_not_matter(statistic: float, nulls: list[float], exceeding: int) -> None:
    def one_by_one() -> float:
        reached = 0
        for count, null in enumerate(nulls, start=1):
            reached += not null < statistic
            if reached == exceeding:
                return exceeding / count
        return (1 + reached) / (len(nulls) + 1)

    assert sequential(statistic, nulls, exceeding=exceeding) == one_by_one()


@always_the_same
@given(st.lists(floats(-1, 1), min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_the_order_of_seeds_does_not_matter(differences: list[float], shuffle: Any) -> None:
    turned = [*differences]
    shuffle.shuffle(turned)
    assert inference.sign_flip_p_values(tuple(turned)) == inference.sign_flip_p_values(tuple(differences))


@always_the_same
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9)), max_size=12), st.randoms(use_true_random=False))
def test_intervals_over_hosts_hold_the_share_and_know_no_order(hosts: list[tuple[int, int]], shuffle: Any) -> None:
    hits, trials = [min(hit, count) for hit, count in hosts], [count for _, count in hosts]
    found = inference.cluster_interval(hits, trials)
    if len(hosts) < inference.FEWEST_CLUSTERS:
        assert found is None
        return
    assert found is not None
    assert 0 <= found.low <= sum(hits) / sum(trials) <= found.high <= 1
    turned = [*zip(hits, trials, strict=True)]
    shuffle.shuffle(turned)
    assert inference.cluster_interval(*zip(*turned, strict=True)) == pytest.approx(found)


# ---- schemes on fake suspects ----------------------------------------------------------------------------------------
IMAGES, UNSEEN = noise_images(80, 0, 12), noise_images(120, 1, 12)
HOST = FakeHost(IMAGES, UNSEEN, IMAGES[:12], model=lambda: sines(1), learn=lambda own: sines(2))
SMALL: dict[str, dict[str, Any]] = {
    "zhang-content": {"probe": 4, "decoys": 49},
    "zhang-noise": {"probe": 4, "decoys": 49},
    "anw-hue": {"starts": 0, "decoys": 49, "pool": 60},
    "mia-std": {"share": 12, "known": 20, "pool": 60, "decoys": 49},
    "mia-pow": {"share": 12, "known": 20, "pool": 60, "decoys": 49},
}


def claim(name: str) -> tuple[Any, Any]:
    scheme = schemes()[name](**SMALL[name])
    return scheme, scheme.keygen(HOST, Rng("property", name))


CLAIMS = {name: claim(name) for name in SMALL}


@pytest.mark.parametrize("name", SMALL)
def test_the_batch_size_does_not_matter_to_a_verdict(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scheme, key = CLAIMS[name]

    def said(seed: int, batch: int) -> Any:
        monkeypatch.setattr(suspects, "predict", partial(predict, batch_size=batch))
        return scheme.verify(Suspect(scheme.card.access, model=sines(seed)), key)

    @few
    @given(st.integers(0, 1000), st.integers(1, 60))
    def holds(seed: int, batch: int) -> None:
        one, other = said(seed, 128), said(seed, batch)
        assert one.statistic == pytest.approx(other.statistic, rel=1e-4, abs=1e-4)
        assert one.p_value == pytest.approx(other.p_value, abs=0.021), "a rounded logit may turn a tie or two"
        assert 1 / 1000 <= one.p_value <= 1

    holds()


@pytest.mark.parametrize("name", ["anw-hue", "mia-std", "mia-pow"])
def test_the_order_of_a_users_images_does_not_matter(name: str) -> None:
    """To the statistic; the sets that it is ranked among are drawn by place, so the p-value is another draw."""
    scheme, key = CLAIMS[name]

    @few
    @given(st.permutations(range(len(key.images))), st.integers(0, 1000))
    def holds(order: list[int], seed: int) -> None:
        turned = replace(key, images=key.images[order], labels=key.labels[order])
        one, other = (scheme.verify(Suspect("scores", model=sines(seed)), each) for each in (key, turned))
        assert one.statistic == pytest.approx(other.statistic, rel=1e-4, abs=1e-4)
        assert abs(one.p_value - other.p_value) <= 0.3

    holds()


@pytest.mark.parametrize("name", ["visible-static", "visible-opacity"])
def test_the_order_of_published_images_does_not_matter(name: str) -> None:
    scheme = schemes()[name](probe=4, decoys=19, model_decoys=4)
    images = cloudy_images(12, 0, 32, 32)
    key = scheme.keygen(FakeHost(images, cloudy_images(8, 1, 32, 32)), Rng("owner"))

    @few
    @given(st.permutations(range(12)))
    def holds(order: list[int]) -> None:
        one, other = (scheme.verify(Suspect("data set", images=each), key) for each in (images, images[order]))
        assert one.p_value == other.p_value
        assert one.statistic == pytest.approx(other.statistic, rel=1e-6, abs=1e-6)

    holds()


@pytest.mark.parametrize("name", ["anw-hue", "mia-std", "mia-pow"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_answers_that_are_not_finite_are_no_evidence(name: str, value: float) -> None:
    scheme, key = CLAIMS[name]
    broken = Answers(lambda x: torch.full((len(x), 8), value))
    assert scheme.verify(Suspect("scores", model=broken), key).p_value == 1
