"""P-values and intervals against known answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import comb, inf, nan

import numpy as np
import pytest
from scipy.stats import binom, binomtest, kstest, sem, t

from bench import stats


def test_bits_p_value_by_counting() -> None:
    assert stats.bits_p_value(2, 10, two_sided=False) == pytest.approx(sum(comb(10, k) for k in range(3)) / 2**10)
    assert stats.bits_p_value(0, 256) == pytest.approx(2.0**-255)
    assert stats.bits_p_value(0, 8) == stats.bits_p_value(8, 8), "an inverted payload is as surprising"
    assert stats.bits_p_value(5, 10) == 1.0
    assert stats.bits_p_value(0, 0) == 1.0


def test_matches_p_value_by_counting() -> None:
    """Two draws of three labels: answers 2, 1, 0 of the first and 0, 0, 1 of the second."""
    sums = [first + second for first in (2, 1, 0) for second in (0, 0, 1)]
    for matches in range(5):
        expected = sum(total >= matches for total in sums) / 9
        assert stats.matches_p_value(matches, [[2, 1, 0], [0, 0, 1]]) == pytest.approx(expected)
    assert stats.matches_p_value(0, []) == 1.0
    with pytest.raises(ValueError, match="at least one label"):
        stats.matches_p_value(0, [[1], []])


def test_matches_p_value_of_single_answers_is_binomial() -> None:
    answers = [[0, 1, 0, 0, 0, 0, 0, 0, 0, 0]] * 32
    for matches in (0, 3, 17, 24, 32):
        assert stats.matches_p_value(matches, answers) == pytest.approx(float(binom.sf(matches - 1, 32, 0.1)), rel=1e-9)


def test_bits_p_value_is_valid_under_the_null() -> None:
    errors = np.random.default_rng(0).binomial(64, 0.5, 4000)
    p = np.array([stats.bits_p_value(int(e), 64) for e in errors])
    for level in (0.01, 0.05, 0.2):
        assert (p <= level).mean() <= level + 3 * (level * (1 - level) / len(p)) ** 0.5


def test_bits_p_value_refuses_impossible_counts() -> None:
    with pytest.raises(ValueError, match="between 0 and 4"):
        stats.bits_p_value(5, 4)


def test_rank_p_value_counts_ties_against_the_claim() -> None:
    assert stats.rank_p_value(0.9, [0.1] * 99) == 0.01
    assert stats.rank_p_value(0.9, [0.9, *[0.1] * 98]) == 0.02
    assert stats.rank_p_value(0.0, [0.1] * 9) == 1.0
    assert stats.rank_p_value(1.0, []) == 1.0


@pytest.mark.parametrize("statistic", [nan, inf, -inf])
def test_a_statistic_that_is_not_finite_is_no_evidence(statistic: float) -> None:
    assert stats.rank_p_value(statistic, [0.1] * 99) == 1.0
    assert stats.sequential_p_value(statistic, lambda count: [0.1] * count, 99) == (1.0, [])


def test_nulls_that_are_not_numbers_count_against_the_claim() -> None:
    assert stats.rank_p_value(0.9, [nan] * 99) == 1.0
    assert stats.rank_p_value(0.9, [nan, *[0.1] * 98]) == 0.02
    assert stats.sequential_p_value(0.9, lambda count: [nan] * count, 99) == (1.0, [nan] * 10)


def drawn_from(nulls: Sequence[float]) -> Callable[[int], list[float]]:
    left = iter(nulls)
    return lambda count: [next(left) for _ in range(count)]


@pytest.mark.parametrize("above", range(10))
def test_sequential_p_value_is_the_rank_where_it_does_not_stop(above: int) -> None:
    nulls = np.random.default_rng(above).permutation([0.9] * above + [0.1] * (199 - above)).tolist()
    p_value, drawn = stats.sequential_p_value(0.5, drawn_from(nulls), 199)
    assert p_value == stats.rank_p_value(0.5, nulls) == (1 + above) / 200
    assert drawn == nulls


def test_sequential_p_value_stops_at_the_tenth_null_that_is_as_large() -> None:
    nulls = [0.9 if number % 3 == 0 else 0.1 for number in range(199)]  # the tenth is the 28th
    p_value, drawn = stats.sequential_p_value(0.5, drawn_from(nulls), 199)
    assert (p_value, len(drawn)) == (10 / 28, 28)
    assert stats.sequential_p_value(0.1, drawn_from(nulls), 199)[0] == 1.0, "ties count"


@pytest.mark.parametrize(
    ("every", "expected"),
    [
        (1, [10]),  # the tenth of ten decides
        (2, [10, 10]),
        (4, [10, 10, 20]),  # 3 of 10: no more than there were; 5 of 20: 20 more for the other 5
        (1000, [10, 10, 20, 40, 80, 39]),  # one alone: as many again each time, up to the most
    ],
)
def test_sequential_p_value_asks_for_what_it_expects_to_need(every: int, expected: list[int]) -> None:
    """Each null asked costs a pass of a network, and so does asking."""
    asked: list[int] = []
    nulls = drawn_from([0.9 if number % every == 0 else 0.1 for number in range(1000)])

    def draw(count: int) -> list[float]:
        asked.append(count)
        return nulls(count)

    stats.sequential_p_value(0.5, draw, 199)
    assert asked == expected


def test_sequential_p_values_are_exact_under_the_null() -> None:
    """The claim's statistic is one more draw from the nulls' distribution; at these levels they are attained."""
    draws, trials = np.random.default_rng(0), 6_000
    p_values = np.array(
        [stats.sequential_p_value(draws.random(), lambda n: draws.random(n).tolist(), 199)[0] for _ in range(trials)]
    )
    for level in (0.01, 0.05, 0.1):
        assert binom.ppf(1e-4, trials, level) <= (p_values <= level).sum() <= binom.isf(1e-4, trials, level)


def test_cosine_p_value_known_answers() -> None:
    assert stats.cosine_p_value(0.1, 512) == pytest.approx(0.0118, abs=1e-4)
    assert stats.cosine_p_value(0.2, 512) == pytest.approx(2.5e-6, rel=0.02)
    assert stats.cosine_p_value(0.999, 2) == pytest.approx(0.0142, abs=1e-4)
    assert stats.cosine_p_value(-0.1, 512) == pytest.approx(1 - stats.cosine_p_value(0.1, 512))


def test_cosine_p_value_is_uniform_on_random_directions() -> None:
    vectors = np.random.default_rng(1).standard_normal((2000, 16))
    cosines = vectors[:, 0] / np.linalg.norm(vectors, axis=1)
    assert kstest([stats.cosine_p_value(float(c), 16) for c in cosines], "uniform").pvalue > 0.01


def test_fisher_p_value_is_the_chi_squared_tail() -> None:
    # two p-values: the product q has P(q' <= q) = q - q ln q
    q = 0.05 * 0.05
    assert stats.fisher_p_value([0.05, 0.05]) == pytest.approx(q - q * np.log(q))


def test_wilson_interval() -> None:
    low, high = stats.wilson_interval(100, 100) or (0, 0)
    assert low == pytest.approx(0.963, abs=1e-3)
    assert high == 1.0
    assert stats.wilson_interval(0, 0) is None


@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_intervals_are_those_of_scipy(confidence: float) -> None:
    for trials in (1, 2, 7, 200):
        for hits in {0, 1, trials // 2, trials - 1, trials}:
            expected = binomtest(hits, trials).proportion_ci(confidence, method="wilson")
            assert stats.wilson_interval(hits, trials, confidence) == pytest.approx(tuple(expected), abs=1e-12)
    values = [0.2, 0.5, 0.1, 0.9]
    expected = t.interval(confidence, len(values) - 1, np.mean(values), sem(values))
    assert stats.student_interval(values, confidence) == pytest.approx(expected, abs=1e-12)


def test_student_interval() -> None:
    # n = 3, sd = 1, t(0.975, 2) = 4.303
    assert stats.student_interval([1, 2, 3]) == pytest.approx((2 - 4.3027 / 3**0.5, 2 + 4.3027 / 3**0.5), abs=1e-4)
    assert stats.student_interval([1]) is None


def test_protection_advantage_and_its_ceiling() -> None:
    assert stats.protection_advantage(12, 12, 1 / 12) == pytest.approx(11 / 12)
    assert stats.protection_advantage(5, 10, 0.5) == 0
    with pytest.raises(ValueError, match="at least one"):
        stats.protection_advantage(0, 0, 0.5)


def test_bits_by_hand():
    assert stats.bits_p_value(1, 5) == pytest.approx(2 * (1 + 5) / 32)
    assert stats.bits_p_value(0, 1) == 1.0
    assert stats.bits_p_value(0, 1, two_sided=False) == 0.5


def test_an_interval_is_as_wide_as_its_confidence():
    wide, usual = stats.wilson_interval(1, 4, 0.99), stats.wilson_interval(1, 4)
    assert wide is not None
    assert usual is not None
    assert (wide.low, wide.high) == (pytest.approx(0.0301, abs=1e-4), pytest.approx(0.7819, abs=1e-4))
    assert wide.low < usual.low


def test_one_trial_has_an_advantage():
    assert stats.protection_advantage(1, 1, 0.25) == 0.75
