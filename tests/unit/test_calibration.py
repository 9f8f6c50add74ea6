"""False positive rates of trials that share networks and keys."""

from __future__ import annotations

import numpy as np
import pytest

from bench.metrics.calibration import Trial, accepted, excess_p_value, rates, too_many, trials
from bench.metrics.security import beyond_chance, false_claims, false_claims_by_kind
from bench.records.record import AFTER_ATTACK, FRESH_KEY, LEFT_OUT, OWN_DATA, CellRecord, NullSet
from tests.fakes import cell, nulls, point, record


def crossed(p_values: np.ndarray) -> list[Trial]:
    """Networks in rows, keys in columns: every key claims every network."""
    return [Trial(float(p), network, key) for (network, key), p in np.ndenumerate(p_values)]


def paired(p_values: np.ndarray) -> list[Trial]:
    return [Trial(float(p), number, number) for number, p in enumerate(p_values)]


def claimed(kind: str, p_values: np.ndarray, **fields: object) -> CellRecord:
    """A record whose null models of a kind are claimed so, one row a network."""
    found = [NullSet(kind=kind, network=number, p_values=list(row)) for number, row in enumerate(p_values)]
    return record(nulls=found, **fields)


# ---- intervals -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("hits", "count"), [(0, 20), (1, 20), (7, 60), (20, 20)])
def test_independent_trials_have_the_exact_interval_and_test(hits: int, count: int) -> None:
    from scipy.stats import binomtest

    claims = paired(np.array([0.01] * hits + [0.5] * (count - hits)))
    found = accepted(claims, 0.05)
    assert found is not None
    exact = binomtest(hits, count).proportion_ci(0.95, method="exact")
    assert (found.hits, found.trials) == (hits, count)
    assert (found.low, found.high) == pytest.approx((exact.low, exact.high))
    if hits / count > 0.05:
        assert excess_p_value(claims, 0.05) == pytest.approx(binomtest(hits, count, 0.05, "greater").pvalue)


def test_one_network_is_one_trial_however_many_keys_claim_it() -> None:
    found = accepted(crossed(np.full((1, 200), 0.5)), 0.01)
    assert found is not None
    assert (found.low, found.high) == pytest.approx((0.0, 0.975))
    assert not too_many(crossed(np.full((1, 200), 0.001)), 0.01)


def test_a_suspect_that_no_chance_went_into_is_no_sample() -> None:
    claims = [Trial(0.5, None, key) for key in range(20)]
    found, exact = accepted(claims, 0.01), accepted(paired(np.full(20, 0.5)), 0.01)
    assert found == exact


def test_networks_that_differ_widen_the_interval() -> None:
    """20 of 200 accepted: two in every network, or all of two networks."""
    even, uneven = np.full((10, 20), 0.5), np.full((10, 20), 0.5)
    even[np.arange(20) // 2, np.arange(20)] = 0.001
    uneven[:1] = 0.001
    one, other = accepted(crossed(even), 0.01), accepted(crossed(uneven), 0.01)
    assert one is not None
    assert other is not None
    assert one.hits == other.hits == 20
    assert other.high - other.low > 2 * (one.high - one.low)
    assert too_many(crossed(even), 0.01)
    assert not too_many(crossed(uneven), 0.01)


def test_intervals_hold_the_true_rate_where_networks_and_keys_have_their_own() -> None:
    """A tenth of the claims are accepted; which, depends on network, key and chance alike."""
    rng, held, repeats = np.random.default_rng(0), 0, 300
    for _ in range(repeats):
        shared = rng.standard_normal((12, 1)) + rng.standard_normal((1, 15)) + 2**0.5 * rng.standard_normal((12, 15))
        found = accepted(crossed(shared / 2), -1.2815515655446004)  # normal scores stand for p-values
        assert found is not None
        held += found.low <= 0.1 <= found.high
    assert held >= 0.9 * repeats


# ---- the test --------------------------------------------------------------------------------------------------------
SCHEMES = {
    "each network is a world of its own": lambda rng, shape: np.broadcast_to(rng.random((shape[0], 1)), shape),
    "each key is a world of its own": lambda rng, shape: np.broadcast_to(rng.random((1, shape[1])), shape),
    "all trials are independent": lambda rng, shape: rng.random(shape),
    "the smaller of two halves of a network and a key": lambda rng, shape: np.where(
        rng.random((shape[0], 1)) < 0.5, rng.random((shape[0], 1)), rng.random((1, shape[1]))
    ),
}


@pytest.mark.parametrize("name", SCHEMES)
@pytest.mark.parametrize("shape", [(2, 20), (4, 5), (10, 20)])
def test_a_valid_scheme_is_hardly_ever_called_anti_conservative(name: str, shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    marked = sum(too_many(crossed(SCHEMES[name](rng, shape)), rate) for _ in range(400) for rate in (0.01, 0.1))
    assert marked <= 4  # P(more than 4 of 800 at 1e-3) = 1e-3


@pytest.mark.parametrize("shape", [(2, 20), (4, 5), (10, 20)])
def test_a_scheme_that_accuses_everybody_is_found_with_two_networks(shape: tuple[int, int]) -> None:
    assert too_many(crossed(np.full(shape, 0.001)), 0.01)


def test_a_rate_of_six_times_the_nominal_one_is_found_with_ten_networks() -> None:
    rng = np.random.default_rng(2)
    found = sum(too_many(crossed(rng.random((10, 20)) / 6), 0.05) for _ in range(50))
    assert found >= 45


# ---- records ---------------------------------------------------------------------------------------------------------
def test_every_kind_has_a_rate_and_attacks_have_their_own() -> None:
    sets = [
        nulls(1, 20), NullSet(kind=LEFT_OUT, p_values=[0.001, 0.5]), NullSet(kind="NaN answers", p_values=[1.0] * 20),
        *(NullSet(kind=OWN_DATA, network=number, p_values=[0.02] + [0.5] * 19) for number in (0, 1)),
        nulls(2, 20, AFTER_ATTACK, 50.0),
    ]  # fmt: skip
    made = [record(cell=cell(attack=attack), nulls=sets) for attack in ("none", "pruning")]
    found = {(rate.attack, rate.null, rate.nominal): rate.found for rate in rates(made, (0.01, 0.05))}
    count = {at: (each.hits, each.trials) for at, each in found.items()}
    assert count["none", FRESH_KEY, 0.01] == (1, 20)
    assert count["none", LEFT_OUT, 0.01] == (1, 2)
    assert (count["none", OWN_DATA, 0.01], count["none", OWN_DATA, 0.05]) == ((0, 40), (2, 40))
    assert count["none", "NaN answers", 0.05] == (0, 20)
    assert count["pruning", AFTER_ATTACK, 0.01] == (2, 20)
    assert ("pruning", FRESH_KEY, 0.01) not in count
    together = false_claims(made, 0.01)
    assert together is not None
    assert (together.hits, together.trials) == (2, 82)
    assert {kind: each.hits for kind, each in false_claims_by_kind(made, 0.05).items()} == {
        FRESH_KEY: 1, LEFT_OUT: 1, "NaN answers": 0, OWN_DATA: 2,
    }  # fmt: skip


def test_trials_know_who_shares_a_network_and_a_key() -> None:
    rng = np.random.default_rng(3)
    made = [claimed(OWN_DATA, rng.random((2, 3)), cell=cell(seed=seed)) for seed in (0, 1)]
    claims = trials(made, OWN_DATA)
    assert (len(claims), len({c.network for c in claims}), len({c.key for c in claims})) == (12, 4, 6)
    (fixed,) = {claim.network for claim in trials([record(access="data set")], FRESH_KEY)}
    assert fixed is None


def test_forgers_keys_and_failed_cells_are_no_nulls() -> None:
    forged = record(stage="evidence", marked=point(0.0), nulls=[nulls(5, 5, AFTER_ATTACK, 1.0)])
    assert rates([forged, record("failed")], (0.05,)) == []


def test_the_page_says_which_kind_is_beyond_chance() -> None:
    accuses, uniform = np.full((4, 20), 0.001), np.random.default_rng(4).random((4, 20))
    assert beyond_chance([claimed(OWN_DATA, accuses)], 0.01) == [OWN_DATA]
    assert beyond_chance([claimed(OWN_DATA, uniform)], 0.01) == []
