"""Numbers worked by hand."""

from __future__ import annotations

from typing import Any

import pytest

from bench.contract.verdict import Point
from bench.metrics.aggregate import lower_median, mean, proportion
from bench.metrics.capacity import carried_bits
from bench.metrics.efficiency import embed_ratio
from bench.metrics.fidelity import best_accuracy, fidelity_pp, lost_pp
from bench.metrics.protection import Protection, protection, protection_over_seeds
from bench.metrics.robustness import (
    ROUNDING,
    Trial,
    breaking_strength,
    detected_share,
    effectiveness,
    removal_cost,
    survival,
    survived_share,
    trials,
    within,
    worst_case,
)
from bench.metrics.security import beyond_chance, false_claims, false_claims_after_attack, forged, forged_claims
from bench.records.record import AFTER_ATTACK, FRESH_KEY, Applied, CellRecord, NullSet
from tests.fakes import cell, identified, member, nulls, point, record, verdict

MARKED = point(0.0, 0.9)


def attacked(*curve: Any, **fields: Any) -> list[CellRecord]:
    return [record(**{"marked": MARKED, "curve": list(curve), **fields})]


# ---- fidelity, efficiency, capacity ----------------------------------------------------------------------------------
def test_fidelity_is_against_the_control_of_the_same_situation() -> None:
    assert fidelity_pp(record(clean_accuracy=0.91)) == pytest.approx(-1.0)
    assert fidelity_pp(record(clean_accuracy=0.91, control_accuracy=0.95)) == pytest.approx(-5.0)
    made = record(clean_accuracy=0.91)
    assert fidelity_pp(made, made.curve[1]) == pytest.approx(-41.0)
    assert fidelity_pp(record(clean_accuracy=None)) is None


def test_accuracies_on_all_unseen_images_are_compared_with_their_like() -> None:
    marked, rung = point(0.0, 0.9, unseen_accuracy=0.87), point(50.0, 0.88, unseen_accuracy=0.86)
    held = point(60.0, 0.7)
    made = record(marked=marked, curve=[rung, held], clean_accuracy=0.91, clean_unseen_accuracy=0.9)
    assert fidelity_pp(made) == pytest.approx(-3.0)
    assert lost_pp(made, rung) == pytest.approx(1.0)
    assert lost_pp(made, held) == pytest.approx(20.0), "a ladder's rung, on the held-out images alone"
    assert fidelity_pp(made, held) == pytest.approx(-21.0)
    assert fidelity_pp(record(marked=marked, control_accuracy=0.95, clean_unseen_accuracy=0.9)) == pytest.approx(-5.0)
    assert [best_accuracy(each) for each in (marked, held)] == [0.87, 0.7]


def test_embedding_is_relative_to_a_clean_training() -> None:
    assert embed_ratio(record(timings_s={"host": 10.0, "embed": 5.0})) == 0.5
    assert embed_ratio(record(timings_s={"host": 0.0, "embed": 5.0})) is None
    assert embed_ratio(record(timings_s={"host": 10.0})) is None


@pytest.mark.parametrize(
    ("ber", "clean", "bits"), [(0.0, 0.91, 64.0), (0.0, 0.9101, 0.0), (0.01, 0.9, 0.0), (None, 0.9, None)]
)
def test_a_payload_is_carried_without_errors_for_a_point_at_most(
    ber: float | None, clean: float, bits: float | None
) -> None:
    marked = point(0.0, 0.9, verdicts=[verdict(ber=ber)])
    assert carried_bits(record(marked=marked, clean_accuracy=clean, measures={"capacity_bits": 64.0})) == bits
    assert carried_bits(record()) is None


# ---- robustness ------------------------------------------------------------------------------------------------------
def test_removal_cost_is_the_least_accuracy_given_up_where_the_claim_breaks() -> None:
    curve = [point(10.0, 0.89), point(20.0, 0.80, 0.5), point(30.0, 0.85, 0.5), point(40.0, 0.2, 0.5)]
    found = removal_cost(attacked(*curve))
    assert found is not None
    assert (found.pp, found.more) == (pytest.approx(5.0), False)
    unbroken = removal_cost(attacked(point(5.0, 0.95), point(10.0, 0.89)))
    assert unbroken is not None
    assert (unbroken.pp, unbroken.more) == (pytest.approx(1.0), True)
    gained = removal_cost(attacked(point(5.0, 0.95, 0.5)))
    assert gained is not None
    assert gained.pp == 0.0


def test_nothing_was_survived_where_nothing_attacked() -> None:
    assert survival(attacked()) is None
    assert worst_case(attacked()) is None
    assert removal_cost(attacked()) is None
    assert breaking_strength(attacked()[0]) is None


def test_five_points_are_within_five_points_whatever_floating_point_says() -> None:
    made = attacked(point(20.0, 0.85, 0.5))
    loss = lost_pp(made[0], made[0].curve[0])
    assert loss is not None
    assert loss > 5, "the trap"
    survived = survival(made)
    assert survived is not None
    assert survived.hits == 0
    assert breaking_strength(made[0]) == 20.0
    assert breaking_strength(made[0], budget_pp=4.9) is None


def test_every_owner_is_a_trial_of_their_own() -> None:
    """One owner falls at the first strength, another at the second: none survives both, though each rung has one."""
    held, broken = verdict(1e-9), verdict(0.5)
    curve = [point(10.0, verdicts=[held, broken]), point(20.0, verdicts=[broken, held])]
    made = attacked(*curve, marked=point(0.0, verdicts=[held, held]))
    survived = survival(made)
    assert survived is not None
    assert (survived.hits, survived.trials, survived.low) == (0, 2, None), "owners of one network: no interval"
    assert survived_share(made[0]) == 0.5
    assert breaking_strength(made[0]) == 10.0


def test_five_hosts_of_several_owners_have_an_interval_over_hosts() -> None:
    """All of five hosts: the lower end is the fifth root of 0.025, as of five trials, however many owners there are."""
    two = point(0.0, verdicts=[verdict(1e-9)] * 2)
    rung = two.model_copy(update={"strength": 1.0})
    made = [record(cell=cell(seed=seed), marked=two, curve=[rung]) for seed in range(5)]
    for found in (effectiveness(made), survival(made), worst_case(made)):
        assert found is not None
        assert (found.hits, found.trials, found.low, found.high) == (10, 10, pytest.approx(0.025**0.2), 1.0)
    four = effectiveness(made[:4])
    assert four is not None
    assert (four.low, four.high) == (None, None)


def test_protection_of_five_seeds_with_several_owners_has_an_interval_over_seeds() -> None:
    made = [record(cell=cell(seed=s), marked=point(0.0, verdicts=[identified()] * 3), curve=[]) for s in range(5)]
    found = protection_over_seeds(made)
    assert found is not None
    assert found.interval == pytest.approx((0.025**0.2 - 1 / 12, 11 / 12))
    fewer = protection_over_seeds(made[:4])
    assert fewer is not None
    assert fewer.interval is None


def test_the_rate_decides_what_is_detected() -> None:
    made = [record(cell=cell(seed=seed), marked=point(0.0, 0.9, p)) for seed, p in enumerate((0.001, 0.005, 0.02))]
    found = {fpr: effectiveness(made, fpr) for fpr in (0.001, 0.01, 0.02)}
    assert {fpr: count and count.hits for fpr, count in found.items()} == {0.001: 1, 0.01: 2, 0.02: 3}
    assert all(count and count.low is not None for count in found.values()), "seeds are independent"


def test_a_seed_whose_attack_failed_is_undecided() -> None:
    held = [point(10.0, 0.9)]
    made = [record(cell=cell(attack=a, seed=s), marked=MARKED, curve=held) for a in ("a", "b") for s in (0, 1)]
    made[3] = record("failed", cell=cell(attack="b", seed=1))
    found = worst_case(made)
    assert found is not None
    assert (found.hits, found.trials, found.undecided, found.attacks) == (1, 1, 1, ["a", "b"])


def test_a_refused_forgery_is_no_robustness_lost() -> None:
    forged = attacked(point(1.0, 0.9, 0.8), stage="evidence")
    assert (worst_case(forged), removal_cost(forged), breaking_strength(forged[0])) == (None, None, None)


def test_what_was_not_measured_is_not_free() -> None:
    unknown = point(10.0, 0.9, 0.5).model_copy(update={"test_accuracy": None})
    made = attacked(unknown)
    assert lost_pp(made[0], unknown) is None
    assert survival(made) is None


# ---- protection ------------------------------------------------------------------------------------------------------
def of(made: CellRecord, *place: Any, fpr: float = 0.01) -> Protection:
    found = protection(made, *place, fpr=fpr)
    assert found is not None
    return found


def test_twelve_slots_have_a_ceiling_of_eleven_twelfths() -> None:
    sure = of(record(marked=point(0.0, verdicts=[identified()] * 12)))
    assert sure[:3] == (12, 12, 1 / 12)
    assert sure.advantage == pytest.approx(0.917, abs=5e-4)
    assert sure.normalised == pytest.approx(1.0)
    guessed = of(record(marked=point(0.0, verdicts=[identified()] + [identified(90.0)] * 11)))
    assert guessed.advantage == pytest.approx(0.0)
    assert guessed.normalised == pytest.approx(0.0)


def test_the_interval_is_wilsons_less_the_chance() -> None:
    interval = Protection(12, 12, 1 / 12).interval  # of n successes in n trials: from n / (n + z^2) to 1
    assert interval == pytest.approx((12 / (12 + 1.959964**2) - 1 / 12, 11 / 12))
    assert Protection(0, 0, 0.5).interval is None
    assert Protection(12, 12, 1 / 12, independent=False).interval is None


def test_certain_guesses_leave_nothing_to_normalise() -> None:
    assert Protection(3, 3, 1.0).advantage == 0
    assert Protection(3, 3, 1.0).normalised is None


def asked(owners: list[bool], heldout: list[bool], seed: int = 0) -> CellRecord:
    marked = point(0.0, verdicts=[member(answer) for answer in owners])
    curve, others = [point(1.0, verdicts=marked.verdicts)], [member(answer) for answer in heldout]
    return record(cell=cell(seed=seed), marked=marked, curve=curve, heldout_verdicts=others)


@pytest.mark.parametrize(
    ("owners", "heldout", "advantage"),
    [
        ([True] * 3, [False] * 5, 0.5),
        ([True] * 12, [True], 0.0),
        ([False], [False] * 10, 0.0),
        ([False] * 4, [True] * 2, -0.5),
        ([True, False], [False] * 7, 0.25),
    ],
    ids=["always right", "always yes", "always no", "always wrong", "one of two owners missed"],
)
def test_a_constant_answer_about_membership_has_no_advantage(
    owners: list[bool], heldout: list[bool], advantage: float
) -> None:
    found = of(asked(owners, heldout))
    assert found.advantage == pytest.approx(advantage)
    assert found.normalised == pytest.approx(2 * advantage)
    pooled = protection_over_seeds([asked(owners, heldout, seed) for seed in range(3)])
    assert pooled is not None
    assert (pooled.trials, pooled.others) == (3 * len(owners), 3 * len(heldout))
    assert pooled.advantage == pytest.approx(advantage)


def test_membership_is_not_known_where_no_held_out_user_was_asked() -> None:
    made = asked([True] * 4, [])
    assert protection(made) is None
    made = asked([True] * 4, [False] * 4)
    assert protection(made, made.curve[0]) is None


def test_held_out_users_are_no_trials_where_signatures_are_inferred() -> None:
    made = record(marked=point(0.0, verdicts=[identified()]), curve=[], heldout_verdicts=[identified(0.0)] * 5)
    assert of(made)[:6] == (1, 1, 1 / 12, 0, 0, True)


@pytest.mark.parametrize("said", [{}, {"matched": True}, {"chance": 0.1}])
def test_what_identifies_nothing_is_right_where_it_detects_by_chance_at_the_fpr(said: dict[str, Any]) -> None:
    others = [verdict(p_value, matched=True, chance=0.1) for p_value in (0.05, 0.0501, 0.5)]
    found = of(record(marked=point(0.0, verdicts=[verdict(1e-9, **said), *others]), curve=[]), fpr=0.05)
    assert found[:3] == (2, 4, 0.05)
    assert found.advantage == pytest.approx(0.45)


def test_a_rung_has_a_protection_of_its_own_and_a_forged_claim_has_none() -> None:
    curve = [point(1.0, verdicts=[identified(), identified(90.0)])]
    marked = point(0.0, verdicts=[identified(), identified()])
    made = record(marked=marked, curve=curve)
    assert of(made)[:3] == (2, 2, 1 / 12)
    assert of(made, made.curve[0])[:3] == (1, 2, 1 / 12)
    forged = record(stage="evidence", marked=marked, curve=curve)
    assert of(forged)[:3] == (2, 2, 1 / 12)
    assert protection(forged, forged.curve[0]) is None
    assert protection(record("failed")) is None


# ---- security --------------------------------------------------------------------------------------------------------
def test_false_claims_are_counted_at_any_rate_and_once_a_seed() -> None:
    sets = [nulls(3, 100), nulls(1, 20, AFTER_ATTACK, 50.0)]
    made = [record(cell=cell(attack=a, seed=s), nulls=sets) for a in ("a", "b") for s in (0, 1)]
    clean, after = false_claims(made), false_claims_after_attack(made)
    assert clean is not None
    assert after is not None
    assert (clean.hits, clean.trials) == (6, 200)
    assert (after.hits, after.trials) == (4, 80)
    strict = false_claims(made, 0.001)
    assert strict is not None
    assert strict.hits == 0
    assert false_claims([record(nulls=[])]) is None


def test_a_rate_is_called_too_high_only_where_chance_hardly_explains_it() -> None:
    """Binomial(100, 0.01): three or more in 7.9 % of valid schemes, six or more in 0.05 %; a data set is no sample."""
    verdicts = {hits: beyond_chance([record(access="data set", nulls=[nulls(hits, 100)])]) for hits in (0, 3, 5, 6)}
    assert verdicts == {0: [], 3: [], 5: [], 6: [FRESH_KEY]}


def test_a_forgery_that_is_accepted_at_some_strength_counts_once() -> None:
    made = attacked(point(1.0, 0.9, 0.5), point(2.0, 0.9, 1e-9), point(3.0, 0.9, 1e-9), stage="evidence")
    found = forged_claims([*made, *attacked(point(1.0, 0.9, 1e-9))])
    assert found is not None
    assert (found.hits, found.trials) == (1, 1)


def test_the_best_forgery_is_told_with_and_without_a_commitment() -> None:
    rungs = {"stage": "evidence"}
    late = attacked(point(1.0, 0.9, 0.5), point(2.0, 0.9, 1e-9), committed=False, **rungs)
    early = attacked(point(1.0, 0.9, 0.2), point(2.0, 0.9, 0.03), committed=True, **rungs)
    honest = attacked(point(1.0, 0.9, 1e-30))
    assert forged([*late, *early, *honest]) == (0.03, 1e-9)
    assert forged([*early, *honest]) == (0.03, None)
    assert forged(attacked(point(1.0, 0.9, 0.04), **rungs)) == (None, 0.04), "an older record does not say"
    assert forged(honest) is None


def test_a_forgers_key_is_no_fresh_key() -> None:
    found = [NullSet(kind=AFTER_ATTACK, strength=1.0, p_values=[1e-9])]
    made = record(stage="evidence", committed=False, nulls=found)
    assert false_claims_after_attack([made]) is None


# ---- aggregates ------------------------------------------------------------------------------------------------------
def test_a_mean_of_one_value_has_no_interval_and_of_none_is_none() -> None:
    assert mean([2.0]) == (2.0, None, None, [2.0])
    assert mean([]) is None
    assert proportion(0, 0) is None


@pytest.mark.parametrize(
    ("exact", "bounds", "expected"),
    [
        ([3, 10, 20], [], (10, False)),
        ([3, 10], [12], (10, False)),
        ([10, 20], [2], (10, True)),
        ([], [2, 7, 30], (7, True)),
        ([3], [7, 30], (7, True)),
        ([4], [4], (4, False)),
    ],
)
def test_a_median_says_when_it_is_only_a_bound(exact: list[float], bounds: list[float], expected: Any) -> None:
    found = lower_median(exact, bounds)
    assert found is not None
    assert (found.pp, found.more) == expected


# ---- what mutants survived -------------------------------------------------------------------------------------------
def test_every_number_follows_the_rate_that_it_is_asked_at() -> None:
    """A claim of p = 0.1 holds at 20 % and not at 1 %."""
    weak = point(10.0, 0.89, 0.1)
    made = attacked(weak, marked=point(0.0, 0.9, 0.1))
    for fpr, held in ((0.2, 1), (0.01, 0)):
        assert detected_share(weak, fpr) == held
        assert survived_share(made[0], fpr) == held
        assert (found := survival(made, fpr)) is not None
        assert found.hits == held
        assert (worst := worst_case(made, fpr)) is not None
        assert (worst.hits, worst.mean) == (held, held)
        assert (cost := removal_cost(made, fpr)) is not None
        assert cost.more is bool(held)
        assert breaking_strength(made[0], fpr) == (None if held else 0.0)
        claims = [record(stage="evidence", marked=MARKED, curve=[point(1.0, 0.9, 0.1)])]
        assert (forged := forged_claims(claims, fpr)) is not None
        assert forged.hits == held
        assert (seeds := protection_over_seeds(made, fpr)) is not None
        assert (seeds.matches, seeds.chance) == (held, fpr)
    assert detected_share(Point(strength=1.0)) is None


def test_a_claim_at_the_rate_itself_is_accepted() -> None:
    made = [record(nulls=[NullSet(kind=FRESH_KEY, p_values=[0.01, 0.0101])])]
    assert (found := false_claims(made)) is not None
    assert (found.hits, found.trials) == (1, 2)


def test_every_number_follows_the_budget_that_it_is_asked_at() -> None:
    made = attacked(point(10.0, 0.80, 0.5))
    for budget_pp, held in ((5.0, 1), (20.0, 0)):
        assert (found := survival(made, budget_pp=budget_pp)) is not None
        assert (worst := worst_case(made, budget_pp=budget_pp)) is not None
        assert (found.hits, worst.hits, worst.mean) == (held, held, held)


def test_the_budget_itself_is_within_it_and_nothing_above() -> None:
    assert within(5.0, 5.0)
    assert not within(5.000001, 5.0)
    assert within(5.0 + ROUNDING, 5.0)


def test_an_attack_that_failed_everywhere_was_never_faced() -> None:
    made = [
        record(marked=MARKED, curve=[point(10.0, 0.9)]),
        record("failed", cell=cell(attack="other")),
    ]
    assert trials(made) == {0: [Trial(True, None, pytest.approx(0.0))]}
    assert trials([made[1]]) == {0: []}, "a failure alone has no owner"


def test_a_failure_leaves_a_survivor_undecided_and_a_fallen_claim_fallen() -> None:
    failed = record("failed", cell=cell(attack="other", seed=1))
    faced = record(cell=cell(attack="other"), marked=MARKED, curve=[point(10.0, 0.9)])
    held, fell = (record(cell=cell(seed=1), marked=MARKED, curve=[point(10.0, 0.89, p)]) for p in (1e-9, 0.5))
    assert trials([faced, failed, held])[1] == [Trial(None, None, None)]
    assert trials([faced, failed, fell])[1] == [Trial(False, None, None)]


def test_one_attack_with_two_settings_is_two_attacks() -> None:
    twice = [
        record(cell=cell(attacks=[Applied(name="pruning", params={"order": order})]), marked=MARKED, curve=[rung])
        for order, rung in (("ascending", point(10.0)), ("random", point(10.0, 0.9, 0.5)))
    ]
    assert (found := worst_case(twice)) is not None
    assert (found.hits, found.mean, found.attacks) == (0, 0.5, ["pruning"])


def test_owners_of_one_network_are_not_independent_and_seeds_are() -> None:
    held = verdict(1e-9)
    two = attacked(point(10.0, verdicts=[held, held]), marked=point(0.0, verdicts=[held, held]))
    seeds = [record(cell=cell(seed=seed), marked=MARKED, curve=[point(10.0, 0.9)]) for seed in (0, 1)]
    for made, independent in ((two, False), (seeds, True)):
        for count in (survival(made), worst_case(made), effectiveness(made)):
            assert count is not None
            assert (count.trials, count.low is not None, count.high is not None) == (2, independent, independent)
        assert (found := protection_over_seeds(made)) is not None
        assert found.independent is independent
    claims = [record(cell=cell(seed=s), stage="evidence", marked=MARKED, curve=[point(1.0)]) for s in (0, 1)]
    assert (forged := forged_claims(claims)) is not None
    assert forged.low is not None
    assert (forged := forged_claims([*claims, *claims])) is not None
    assert forged.low is None


def test_rungs_of_one_attack_and_keys_on_one_host_are_one_trial() -> None:
    made = [record(nulls=[nulls(0, 100), *(nulls(0, 10, AFTER_ATTACK, strength) for strength in (20.0, 50.0))])]
    assert (fresh := false_claims(made)) is not None
    assert (after := false_claims_after_attack(made)) is not None
    assert (fresh.low, fresh.high) == (after.low, after.high) == pytest.approx((0.0, 0.975))


def test_a_curve_alone_counts_no_forgery() -> None:
    assert forged_claims(attacked(point(1.0, 0.9, 1e-9))) is None


def test_yes_or_no_answers_have_no_interval() -> None:
    made = record(marked=point(0.0, verdicts=[member(True)]), heldout_verdicts=[member(False)])
    assert of(made).independent is False
    assert of(record(marked=point(0.0, verdicts=[identified()]))).independent
    assert not of(record(marked=point(0.0, verdicts=[identified(), identified()]))).independent


def test_proportions_and_means_carry_both_ends_of_their_interval() -> None:
    assert proportion(1, 4) == (1, 4, *(pytest.approx(end, abs=1e-3) for end in (0.0456, 0.6994)))
    two = mean([1.0, 3.0])
    assert two is not None
    assert (two.low, two.high) == (pytest.approx(2 - 12.706, abs=1e-3), pytest.approx(2 + 12.706, abs=1e-3))
    assert (found := lower_median([1.0, 3.0], [2.0])) is not None
    assert found.values == [(1.0, False), (2.0, True), (3.0, False)]


def test_without_a_marked_model_nothing_is_known_of_fidelity_or_capacity() -> None:
    failed = record("failed")
    assert (fidelity_pp(failed), carried_bits(failed), lost_pp(failed, point(1.0))) == (None, None, None)
    assert carried_bits(record(clean_accuracy=None, measures={"capacity_bits": 64.0})) is None
