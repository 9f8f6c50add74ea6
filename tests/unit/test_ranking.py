"""Ranks with known truth: the test by a second implementation, Holm by hand, ranges, coverage."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from scipy.stats import permutation_test

from bench.metrics import inference
from bench.metrics.inference import holm, sign_flip_p_values
from bench.metrics.ranking import Ranking, contestant, is_baseline, rank, rankings, seeds_needed
from bench.metrics.robustness import worst_case
from bench.records.record import CellRecord
from tests.fakes import cell, point, record


def faced(
    scheme: str, survived: Sequence[Sequence[int | None]], attacks: Sequence[str] = (), **fields: object
) -> list[CellRecord]:
    """Records of one scheme: per seed whether it survives each attack; None where the attack failed."""
    names = attacks or [f"attack-{number}" for number in range(len(survived[0]))]
    found = []
    for seed, outcomes in enumerate(survived):
        for name, outcome in zip(names, outcomes, strict=True):
            at = cell(**{"scheme": scheme, "attack": name, "seed": seed, "profile": "small", **fields})
            if outcome is None:
                found.append(record("failed", cell=at))
            else:
                curve = [point(10.0, 0.89, 1e-9 if outcome else 0.5)]
                found.append(record(cell=at, marked=point(0.0, 0.9), curve=curve))
    return found


def table(**schemes: Sequence[Sequence[int | None]]) -> Ranking:
    return rank({name: faced(name, survived) for name, survived in schemes.items()})


def ranges(found: Ranking) -> dict[str, str]:
    return {standing.name: standing.range for standing in found.standings}


# ---- the test --------------------------------------------------------------------------------------------------------
def test_sign_flips_by_hand() -> None:
    assert sign_flip_p_values((1.0,) * 5) == (1 / 32, 1.0)
    assert sign_flip_p_values((-1.0,) * 5) == (1.0, 1 / 32)
    assert sign_flip_p_values((3.0, -1.0)) == (1 / 2, 3 / 4)  # sums 4, 2, -2, -4
    assert sign_flip_p_values((0.0, 0.0)) == sign_flip_p_values(()) == (1.0, 1.0)
    with pytest.raises(ValueError, match="finite"):
        sign_flip_p_values((0.1, float("nan")))


@pytest.mark.parametrize("count", [2, 5, 9])
def test_sign_flips_agree_with_scipy(count: int) -> None:
    draws = np.random.default_rng(count)
    for _ in range(5):
        values = np.round(draws.normal(0.2, 0.5, count), 1)  # rounded, so that sums tie
        found = permutation_test(
            (values,), lambda x, axis: x.sum(axis=axis), permutation_type="samples", alternative="greater"
        )
        assert sign_flip_p_values(tuple(values.tolist()))[0] == pytest.approx(found.pvalue)


def test_many_flips_are_drawn_from_the_seed_and_come_close_to_the_exact_value() -> None:
    values = np.random.default_rng(0).normal(0.4, 1, 16)
    (drawn, _), (other, _) = (sign_flip_p_values(tuple(values.tolist()), seed) for seed in (1, 2))
    sign_flip_p_values.cache_clear()
    assert drawn == sign_flip_p_values(tuple(values.tolist()), 1)[0] != other
    exact = (inference._all_signs(16) @ values >= values.sum() - 1e-9).mean()
    assert drawn == pytest.approx(exact, abs=5 * (exact / inference.FLIPS) ** 0.5)
    assert sign_flip_p_values((1.0,) * 40)[0] == 1 / (inference.FLIPS + 1), "the observed signs count: never 0"


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


# ---- ranges ----------------------------------------------------------------------------------------------------------
def test_too_few_seeds_leave_every_rank_possible_and_it_is_said_how_many_it_takes() -> None:
    found = table(a=[[1, 1]] * 5, b=[[0, 0]] * 5, c=[[0, 0]] * 5)
    assert ranges(found) == {"a": "1-3", "b": "1-3", "c": "1-3"}
    assert (found.seeds, found.needed) == (5, 7)
    assert [standing.score.mean for standing in found.standings] == [1.0, 0.0, 0.0]


def test_the_fewest_seeds_that_are_enough_are_enough_and_one_less_is_not() -> None:
    assert [seeds_needed(count) for count in (0, 1, 2, 3, 5, 21)] == [0, 0, 6, 7, 9, 14]
    for seeds, expected in ((5, "1-2"), (6, "1")):
        assert ranges(table(a=[[1]] * seeds, b=[[0]] * seeds))["a"] == expected
    for seeds, expected in ((6, "1-3"), (7, "1")):
        assert ranges(table(a=[[1]] * seeds, b=[[0]] * seeds, c=[[0]] * seeds))["a"] == expected


def test_a_known_order_is_a_known_order() -> None:
    found = table(a=[[1, 1]] * 9, b=[[1, 0]] * 9, c=[[0, 0]] * 9)
    assert ranges(found) == {"a": "1", "b": "2", "c": "3"}


def test_the_seed_is_the_unit_and_not_the_attack() -> None:
    """Fifty attacks of one seed are one difference: with three seeds nothing can be told apart."""
    assert ranges(table(a=[[1] * 50] * 3, b=[[0] * 50] * 3)) == {"a": "1-2", "b": "1-2"}


def test_only_what_both_faced_is_compared() -> None:
    """Where both faced the attack they tie; the one that only `b` can face says nothing about the two."""
    senseless = [
        record("not applicable", cell=cell(scheme="a", attack="y", seed=seed, profile="small")) for seed in range(8)
    ]
    found = rank({"a": [*faced("a", [[1]] * 8, ["x"]), *senseless], "b": faced("b", [[1, 0]] * 8, ["x", "y"])})
    assert ranges(found) == {"a": "1-2", "b": "1-2"}
    assert {standing.name: (standing.covered, standing.of) for standing in found.standings} == {
        "a": (1, 1),
        "b": (2, 2),
    }


def test_who_faced_fewer_attacks_does_not_rank_above_who_faced_all() -> None:
    easy = {"a": faced("a", [[1]] * 8, ["x"]), "b": faced("b", [[0, 1]] * 8, ["x", "y"])}
    found = rank(easy)
    assert [standing.name for standing in found.standings] == ["b", "a"], "coverage comes before the score"
    assert ranges(found) == {"a": "1-2", "b": "1-2"}
    hard = {
        "a": faced("a", [[0]] * 9, ["x"]),
        "b": faced("b", [[1, 1]] * 9, ["x", "y"]),
        "c": faced("c", [[0, 0]] * 9, ["x", "y"]),
    }
    assert ranges(rank(hard)) == {"b": "1", "c": "2-3", "a": "2-3"}, "what it did face may still put it last"


def test_a_range_begins_no_earlier_than_that_of_a_rival_which_faced_more() -> None:
    """`a` skipped the attack in which `c` beats `b`, so nothing says that `c` beats it; it still is not first."""
    found = rank(
        {
            "a": faced("a", [[1]] * 9, ["x"]),
            "b": faced("b", [[1, 0]] * 9, ["x", "y"]),
            "c": faced("c", [[1, 1]] * 9, ["x", "y"]),
        }
    )
    assert ranges(found) == {"c": "1-2", "b": "2-3", "a": "2-3"}


def test_a_failed_attack_is_left_out_of_the_seed_for_both() -> None:
    whole, gap = [[1, 0]] * 8, [[1, 0]] * 4 + [[1, None]] * 4
    found = table(a=whole, b=gap)
    assert ranges(found) == {"a": "1-2", "b": "1-2"}
    assert [standing.covered for standing in found.standings] == [2, 2], "faced in some seeds"


def test_the_worst_case_is_that_of_the_other_tables() -> None:
    made = faced("a", [[1, 1], [1, 0], [1, None], [0, None]])
    (standing,) = rank({"a": made}).standings
    worst = worst_case(made)
    assert worst is not None
    assert (standing.survived, standing.decided) == (worst.hits, worst.trials) == (1, 3)


def test_the_order_of_records_does_not_matter() -> None:
    made = {name: faced(name, [[i % 2, 1] for i in range(7)]) for name in "abc"}
    turned = {name: list(reversed(made[name])) for name in "cab"}
    assert rank(made) == rank(turned)


def test_owners_are_shares_of_a_seed() -> None:
    two = point(0.0, 0.9).verdicts * 2
    half = [two[0], two[0].model_copy(update={"p_value": 0.5})]
    made = [
        record(cell=cell(scheme="a", seed=seed), marked=point(0.0, verdicts=two), curve=[point(1.0, verdicts=half)])
        for seed in range(3)
    ]
    (standing,) = rank({"a": made}).standings
    assert standing.score.values == [0.5] * 3


def test_an_outcome_is_open_while_one_owner_is_undecided() -> None:
    """At an unknown accuracy the second owner's claim broke: whether within the budget cannot be told."""
    held, broken = point(0.0, 0.9).verdicts[0], point(0.0, 0.9, 0.5).verdicts[0]
    unknown = point(1.0, verdicts=[held, broken]).model_copy(update={"test_accuracy": None})
    made = [
        record(cell=cell(scheme="a", attack=attack, seed=0), marked=point(0.0, verdicts=[held, held]), curve=[rung])
        for attack, rung in (("x", unknown), ("y", point(1.0, verdicts=[broken, broken])))
    ]
    (standing,) = rank({"a": made}).standings
    assert standing.score.values == [0.0]


# ---- sets ------------------------------------------------------------------------------------------------------------
def test_only_what_is_comparable_is_compared() -> None:
    made = [
        *faced("a", [[1]] * 3),
        *faced("b", [[1]] * 3),
        *faced("c", [[1]] * 3, situation="train"),
        *faced("d", [[1]] * 3, arch="vgg16"),
        *faced("e", [[1]] * 3, profile="standard"),
        *faced("f", [[1]] * 3, dataset="cifar10"),
        *faced("a", [[1]] * 3, scheme_params={"bits": 8}),
    ]
    found = rankings(made)
    assert [len(ranking.standings) for ranking in found.values()] == [1, 1, 3, 1, 1]
    assert {contestant(made[0]), contestant(made[-1])} <= {s.name for r in found.values() for s in r.standings}


def test_baselines_are_never_ranked() -> None:
    made = [*faced("a", [[1]] * 3), *faced("memorization-hue", [[1]] * 3)]
    baseline = [each.model_copy(update={"carrier": "none"}) for each in faced("mia-std", [[1, 1]] * 3)]
    (found,) = rankings([*made, *baseline]).values()
    assert [standing.name for standing in found.standings] == [contestant(made[0])]
    assert (found.standings[0].covered, found.standings[0].of) == (1, 2), "what they faced is asked of all"
    assert [is_baseline(each) for each in (made[0], made[-1], baseline[0])] == [False, True, True]
