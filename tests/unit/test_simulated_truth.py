"""Intervals, tests and ranks on simulated records whose truth is known: coverage, size and power."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from bench import stats
from bench.identity import Rng
from bench.metrics import inference
from bench.metrics.ranking import Ranking, rank
from bench.records.record import CellRecord
from tests.fakes import cell, point, record

LEVELS = (0.01, 0.05)


def attained(rejected: int, trials: int, level: float) -> bool:
    """Whether so many rejections are compatible with a size of at most `level` (false alarm once in 10,000)."""
    return rejected <= binom.isf(1e-4, trials, level)


# ---- coverage --------------------------------------------------------------------------------------------------------
def test_students_interval_of_five_seeds_covers() -> None:
    draws = Rng("student").numpy().normal(3.0, 2.0, (4000, 5))
    found = [stats.student_interval(values.tolist()) for values in draws]
    share = np.mean([each is not None and each.low <= 3.0 <= each.high for each in found])
    assert 0.94 <= share <= 0.96


@pytest.mark.parametrize("trials", [5, 10, 60, 100])
def test_wilsons_interval_covers_on_average_and_fails_only_where_a_count_is_nearly_all(trials: int) -> None:
    """Exact, by summing the binomial: no interval of so few values covers equally everywhere."""
    ends = np.array([stats.wilson_interval(hits, trials) for hits in range(trials + 1)])
    truths = np.linspace(0.005, 0.995, 199)
    inside = (ends[:, :1] <= truths) & (truths <= ends[:, 1:])
    coverage = (binom.pmf(np.arange(trials + 1)[:, None], trials, truths) * inside).sum(axis=0)
    assert coverage.mean() >= 0.93
    assert coverage.min() >= 0.83, "Wilson's known dip near 0 and 1"


def shared(hosts: int, trials: int, truth: float, correlation: float, repeats: int) -> np.ndarray:
    """Hits per host (repeats x hosts) where trials of one host are correlated: beta-binomial."""
    draws = Rng("hosts", hosts, trials, str(truth), str(correlation)).numpy()
    if correlation in (0.0, 1.0):
        each = np.full((repeats, hosts), truth)
        each = (draws.random(each.shape) < truth).astype(float) if correlation else each
    else:
        spread = (1 - correlation) / correlation
        each = draws.beta(truth * spread, (1 - truth) * spread, (repeats, hosts))
    return draws.binomial(trials, each)


@pytest.mark.parametrize("correlation", [0.0, 0.3, 0.6, 1.0])
@pytest.mark.parametrize("hosts", [5, 10, 20])
def test_the_interval_over_hosts_covers_whatever_its_trials_have_in_common(hosts: int, correlation: float) -> None:
    for truth in (0.5, 0.9, 0.97):
        for trials in (2, 12):
            found = shared(hosts, trials, truth, correlation, 400)
            ends = [inference.cluster_interval(hits.tolist(), [trials] * hosts) for hits in found]
            covered = sum(each is not None and each.low <= truth <= each.high for each in ends)
            assert covered >= binom.ppf(1e-4, len(found), 0.95), (truth, trials, covered)


def test_intervals_that_forget_the_host_or_trust_few_hosts_do_not_cover() -> None:
    """Why trials that share a host have neither Wilson's interval nor a bootstrap of few hosts."""
    found = shared(5, 12, 0.9, 1.0, 1000)
    wilson = [stats.wilson_interval(int(hits.sum()), 60) for hits in found]
    assert np.mean([each is not None and each.low <= 0.9 <= each.high for each in wilson]) < 0.5
    picks = Rng("bootstrap").numpy().integers(0, 5, (400, 5))
    ends = np.quantile(found[:, picks].mean(axis=2) / 12, [0.025, 0.975], axis=1)
    assert ((ends[0] <= 0.9) & (ends[1] >= 0.9)).mean() < 0.5


def test_hosts_of_unequal_size_are_covered_too() -> None:
    sizes, draws = np.array([1, 2, 4, 8, 16, 1, 2]), Rng("sizes").numpy()
    hits = draws.binomial(sizes, draws.beta(1.8, 0.2, (1500, 7)))
    ends = [inference.cluster_interval(each.tolist(), sizes.tolist()) for each in hits]
    assert np.mean([each is not None and each.low <= 0.9 <= each.high for each in ends]) >= 0.93


# ---- size of the verdicts' p-values ----------------------------------------------------------------------------------
def rank_null(draws: np.random.Generator) -> float:
    return stats.rank_p_value(draws.random(), draws.random(199).tolist())


def tied_rank_null(draws: np.random.Generator) -> float:
    return stats.rank_p_value(float(draws.integers(0, 4)), draws.integers(0, 4, 199).tolist())


def sequential_null(draws: np.random.Generator) -> float:
    return stats.sequential_p_value(draws.random(), lambda count: draws.random(count).tolist(), 199)[0]


def bits_null(draws: np.random.Generator) -> float:
    return stats.bits_p_value(int(draws.binomial(64, 0.5)), 64)


def one_sided_bits_null(draws: np.random.Generator) -> float:
    return stats.bits_p_value(int(draws.binomial(256, 0.5)), 256, two_sided=False)


def cosine_null(draws: np.random.Generator) -> float:
    vector = draws.standard_normal(32)
    return stats.cosine_p_value(float(vector[0] / np.linalg.norm(vector)), 32)


def fisher_null(draws: np.random.Generator) -> float:
    return stats.fisher_p_value(draws.random(6).tolist())


def sign_flip_null(draws: np.random.Generator) -> float:
    return inference.sign_flip_p_values(tuple((draws.standard_normal(9) * draws.exponential(1, 9)).tolist()))[0]


NULLS = [rank_null, tied_rank_null, sequential_null, bits_null, one_sided_bits_null, cosine_null, fisher_null,
         sign_flip_null]  # fmt: skip
EXACT = {rank_null, sequential_null, cosine_null, fisher_null}  # continuous, so the size is the level itself


@pytest.mark.parametrize("null", NULLS, ids=lambda null: null.__name__)
def test_p_values_keep_their_size_under_the_null(null: Callable[[np.random.Generator], float]) -> None:
    draws, trials = Rng("size", null.__name__).numpy(), 3000
    found = np.array([null(draws) for _ in range(trials)])
    for level in LEVELS:
        rejected = int((found <= level).sum())
        assert attained(rejected, trials, level), (level, rejected)
        if null in EXACT:
            assert rejected >= binom.ppf(1e-4, trials, level), (level, rejected)


# ---- ranks -----------------------------------------------------------------------------------------------------------
HELD, BROKEN = [point(10.0, 0.89)], [point(10.0, 0.89, 0.5)]
ATTACKS = 4


def contest(truths: list[float], seeds: int, repeat: int, spread: float = 1.0) -> dict[str, list[CellRecord]]:
    """Schemes that survive an attack with a chance of `truths` on average, all raised or lowered with the seed's host.

    Survival is a threshold on the scheme's merit, the host's (shared by all schemes of the seed), the scheme's on that
    host (shared by all attacks) and the attack's: all cells of a seed depend on each other.
    """
    from scipy.stats import norm

    draws = Rng("contest", repeat, seeds, *map(str, truths)).numpy()
    hosts, own = draws.normal(0, spread, seeds), draws.normal(0, spread, (len(truths), seeds))
    total = (1 + 2 * spread**2) ** 0.5
    made: dict[str, list[CellRecord]] = {}
    for number, truth in enumerate(truths):
        merit = total * norm.ppf(truth)
        held = draws.normal(size=(seeds, ATTACKS)) < merit + (hosts + own[number])[:, None]
        made[f"scheme-{number}"] = [
            survived(number, seed, a, bool(held[seed, a])) for seed in range(seeds) for a in range(ATTACKS)
        ]
    return made


RECORDS: dict[tuple[int, int, int, bool], CellRecord] = {}


def survived(scheme: int, seed: int, attack: int, held: bool) -> CellRecord:
    """A record, made once: validation takes longer than ranking."""
    key = scheme, seed, attack, held
    if key not in RECORDS:
        at = cell(scheme=f"scheme-{scheme}", attack=f"attack-{attack}", seed=seed, profile="small")
        RECORDS[key] = record(cell=at, marked=point(0.0, 0.9), curve=HELD if held else BROKEN)
    return RECORDS[key]


def split(found: Ranking) -> bool:
    """Whether any two are told apart."""
    return any((each.low, each.high) != (1, len(found.standings)) for each in found.standings)


def test_equal_schemes_are_split_in_at_most_five_tables_of_a_hundred() -> None:
    """Familywise, over all pairs of a table whose schemes share their hosts."""
    tables = 400
    rejected = sum(split(rank(contest([0.6] * 3, 8, repeat))) for repeat in range(tables))
    assert attained(rejected, tables, 0.05), rejected


def test_a_known_order_is_found_with_enough_seeds_and_never_turned_around() -> None:
    """0.95, 0.5 and 0.05 with ten seeds; at six no two of three can be told apart, however far they are."""
    tables = 60
    found = [rank(contest([0.95, 0.5, 0.05], 10, repeat, 0.3)) for repeat in range(tables)]
    ranges = [{each.name: (each.low, each.high) for each in ranking.standings} for ranking in found]
    assert np.mean([each == {f"scheme-{n}": (n + 1, n + 1) for n in range(3)} for each in ranges]) >= 0.8
    held = [
        all(low <= n + 1 <= high for n, (low, high) in enumerate(e[f"scheme-{k}"] for k in range(3))) for e in ranges
    ]
    assert np.mean(held) >= 0.95
    assert not any(split(rank(contest([0.95, 0.5, 0.05], 6, repeat, 0.3))) for repeat in range(20))


def test_attacks_taken_for_trials_would_split_equal_schemes() -> None:
    """The trap: single attacks of a seed as if they were independent."""
    rejected, tables = 0, 200
    for repeat in range(tables):
        one, other = (
            [r.curve[0].verdicts[0].p_value < 0.01 for r in m] for m in contest([0.6] * 2, 8, repeat, 2.0).values()
        )
        wins, losses = (sum(a and not b for a, b in zip(*pair, strict=True)) for pair in ((one, other), (other, one)))
        rejected += wins + losses > 0 and binomtest(wins, wins + losses).pvalue <= 0.05  # sign flips of 0, 1 and -1
    assert not attained(rejected, tables, 0.05), rejected
