"""Membership inference: thresholds by hand, keys that hold no image twice, p-values that are exact."""

from __future__ import annotations

import math
from itertools import combinations
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from scipy.stats import binom
from torch import Tensor, nn

from bench.api import AccessError, ImageSet, Rng, Share, Suspect
from bench.registry import schemes
from schemes import _users, membership
from tests.fakes import CLASSES, FakeHost, Remembers, always, noise_images, rows_of, same_key

MiaStd, MiaPow, MiaStdShadow, MiaPowShadow = (
    schemes()[name] for name in ("mia-std", "mia-pow", "mia-std-shadow", "mia-pow-shadow")
)
KNOWN = (MiaStd, MiaPow)
SHADOW = (MiaStdShadow, MiaPowShadow)


def member(margin: float = 5.0) -> FakeHost:
    """Sixty training images, a hundred held-out ones; training is remembering; the user owns the first twelve."""
    images = noise_images(60, 0, 8)
    return FakeHost(
        images,
        noise_images(100, 1, 8),
        images[:12],
        model=lambda: Remembers(images, margin, 0.3),
        learn=lambda own: Remembers(own, margin, 0.3),
    )


def heldout_user(seed: int = 0, count: int = 12, margin: float = 5.0) -> FakeHost:
    """A user whose images nobody was trained on."""
    host = member(margin)
    host.share = host.heldout[torch.randperm(100, generator=torch.Generator().manual_seed(seed))[:count]]
    return host


def small(kind: Any, **params: Any) -> Any:
    return kind(**{"share": 12, "known": 20, "pool": 60, "decoys": 99, **params})


def suspect(network: nn.Module) -> Suspect:
    return Suspect("scores", model=network)


# --- thresholds and p-values ------------------------------------------------------------------------------------


def test_thresholds_by_hand() -> None:
    members, others = torch.tensor([0.1, 0.2, 0.3, 2.0]), torch.tensor([0.05, 3.0, 4.0, 5.0])
    assert membership.mean_threshold(members) == pytest.approx(0.65)
    assert membership.best_threshold(members, others) == pytest.approx(2.5)
    assert membership.best_threshold(members[:3], members[3:]) == pytest.approx(1.15)


def test_best_threshold_counts_both_sides_alike_and_claims_nobody_without_evidence() -> None:
    others = torch.tensor([0.15, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1])
    assert membership.best_threshold(torch.tensor([0.1, 0.2]), others) == pytest.approx(0.35)
    same = torch.tensor([1.0, 2.0, 3.0])
    assert membership.best_threshold(same, same) < 1.0


def test_permutation_p_value_is_that_of_all_subsets() -> None:
    own, others = torch.tensor([2.0, 3.5]), torch.tensor([0.0, 1.0, 2.5, 3.0, 4.0])
    sums = [a + b for a, b in combinations([*own.tolist(), *others.tolist()], 2)]
    wanted = sum(s >= 5.5 for s in sums) / len(sums)
    found = _users.permutation_p_value(own, others, 19_999, Rng("all").torch())
    assert found == pytest.approx(wanted, abs=0.01)


def test_ties_and_an_empty_pool_are_no_evidence() -> None:
    tie = torch.full((5,), 0.1)
    assert _users.permutation_p_value(tie, torch.full((9,), 0.1), 99, Rng("tie").torch()) == 1.0
    assert _users.permutation_p_value(torch.rand(5), torch.empty(0), 99, Rng("empty").torch()) == 1.0


def test_the_same_sum_in_another_order_is_a_tie() -> None:
    """With an empty pool every set is the user's own, whatever rounding makes of its mean."""
    for seed in range(50):
        values = torch.rand(15, generator=Rng("values", seed).torch(), dtype=torch.float64)
        assert _users.permutation_p_value(values, values[:0], 99, Rng("order", seed).torch()) == 1.0


def test_permutation_p_values_are_uniform_where_values_are_exchangeable() -> None:
    generator, trials = torch.Generator().manual_seed(3), 600
    p_values = []
    for trial in range(trials):
        values = torch.rand(30, generator=generator) ** 8
        p_values.append(_users.permutation_p_value(values[:5], values[5:], 19, Rng("null", trial).torch()))
    for level in (0.05, 0.2, 0.5):
        hits = sum(p <= level for p in p_values)
        assert binom.isf(0.9995, trials, level) <= hits <= binom.isf(5e-4, trials, level)


# --- keys -------------------------------------------------------------------------------------------------------


def test_contained_compares_pixels() -> None:
    images = noise_images(6, 0, 8)
    assert _users.contained(images, images[torch.tensor([4, 1])]).tolist() == [
        False,
        True,
        False,
        False,
        True,
        False,
    ]
    almost = images.images.clone()
    almost[:, 0, 0, 0] ^= 1
    assert not _users.contained(images.with_images(almost), images).any()


@pytest.mark.parametrize(("pool", "rest", "sizes"), [(60, 20, (60, 40)), (1000, 20, (80, 20)), (90, 70, (50, 50))])
def test_heldout_images_are_split_the_same_for_all(pool: int, rest: int, sizes: tuple[int, int]) -> None:
    host = member()
    first, second = _users.split_heldout(host, "membership-pool", pool, rest)
    assert (len(first), len(second)) == sizes
    assert rows_of(first.images) | rows_of(second.images) == rows_of(host.heldout.images)
    assert torch.equal(_users.split_heldout(heldout_user(), "membership-pool", pool, rest)[0].images, first.images)


@pytest.mark.parametrize("seed", [None, 0, 1])
def test_a_key_holds_no_image_twice(seed: int | None) -> None:
    host = member() if seed is None else heldout_user(seed)
    key = small(MiaStd).keygen(host, Rng("user", 0))
    pool = key.pool[key.unseen]
    parts = [rows_of(part) for part in (key.images, pool, key.members, key.others)]
    assert [len(parts[0]), len(parts[2]), len(parts[3])] == [12, 20, 20]
    assert sum(map(len, parts)) == len(set.union(*parts))
    assert parts[2] <= rows_of(host.images.images)
    assert parts[1] | parts[3] <= rows_of(host.heldout.images)
    assert len(pool) == (60 if seed is None else 60 - len(rows_of(key.pool) & parts[0]))


def test_keys_follow_their_stream_and_share_the_pool() -> None:
    one, again, other = (small(MiaPow).keygen(member(), Rng("user", i)) for i in (0, 0, 1))
    assert same_key(one, again)
    assert one.decoys != other.decoys
    assert not torch.equal(one.members, other.members)
    assert torch.equal(one.pool, other.pool)


def test_the_owner_of_everything_has_nobody_to_compare_with() -> None:
    host = member()
    host.share = host.images
    with pytest.raises(ValueError, match="lower the share"):
        small(MiaStd).keygen(host, Rng("user"))


@pytest.mark.parametrize(("share", "held"), [(0.01, 0.01), ("50", 50), (3, 3), ("all", "all")])
def test_share_is_a_fraction_or_a_number_or_all(share: Any, held: Any) -> None:
    assert MiaStd(share=share).share == Share(held)
    assert type(MiaStd(share=share).share.value) is type(held)


@pytest.mark.parametrize("share", [0, 1.5, -1, 1.0, "1.0", True, "nan", "most"])
def test_share_out_of_bounds(share: float) -> None:
    with pytest.raises(ValidationError):
        MiaStd(share=share)


# --- the verdict ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KNOWN)
def test_members_are_found_and_others_are_not(kind: Any) -> None:
    scheme, network = small(kind), member().model()
    own = scheme.verify(suspect(network), scheme.keygen(member(), Rng("user", 0)))
    assert own.p_value == 0.01
    assert own.details["mean_loss"] < 0.1 < 1.0 < own.details["pool_mean_loss"]
    other = scheme.verify(suspect(network), scheme.keygen(heldout_user(), Rng("user", 1)))
    assert other.p_value > 0.01
    assert (other.matched, other.chance, other.details["member_share"]) == (False, 0.5, 0.0)
    assert other.statistic < 0


def test_own_images_are_not_their_own_comparison() -> None:
    """Some of a held-out user's images stand in the common pool."""
    host, scheme = heldout_user(), small(MiaStd)
    key = scheme.keygen(host, Rng("user"))
    network = suspect(Remembers(host.share, 5.0, 0.3))
    verdict = scheme.verify(network, key)
    others = ~_users.contained(host.heldout, host.share) & _users.contained(
        host.heldout, ImageSet(key.pool, key.pool_labels)
    )
    wanted = network.losses(host.heldout.images[others], host.heldout.labels[others]).mean()
    assert 40 < int(others.sum()) < 60
    assert verdict.details["pool_mean_loss"] == pytest.approx(float(wanted))
    assert verdict.p_value == 0.01


def test_losses_are_those_of_probabilities() -> None:
    images = noise_images(3, 0, 8)
    losses = membership.losses_of(suspect(always(103.0, 100.0, 100.0, 100.0)), images.images, torch.tensor([0, 1, 2]))
    norm = math.log(math.exp(3) + 3)
    assert losses.tolist() == pytest.approx([norm - 3, norm, norm], rel=1e-5)


def test_mean_and_majority_decide_differently_where_losses_are_skewed() -> None:
    host = member()
    host.share = host.images[:30]
    network = Remembers(host.images[2:], 8.0, 3.0)  # two of the thirty own images are forgotten
    for decision, wanted in (("mean", False), ("majority", True)):
        scheme = small(MiaStd, decision=decision, share=30)
        verdict = scheme.verify(suspect(network), scheme.keygen(host, Rng("user")))
        assert verdict.matched is wanted
        assert verdict.p_value == 0.01
        threshold, mean = (float(str(verdict.details[name])) for name in ("threshold", "mean_loss"))
        assert verdict.statistic == pytest.approx(threshold - mean)
        assert 0.5 < float(str(verdict.details["member_share"])) <= 28 / 30


def test_the_p_value_does_not_depend_on_the_threshold() -> None:
    host = heldout_user(4)
    keys = [small(kind).keygen(host, Rng("user")) for kind in KNOWN]
    first, second = (small(kind).verify(suspect(host.model()), key) for kind, key in zip(KNOWN, keys, strict=True))
    assert first.p_value == second.p_value
    assert first.statistic != second.statistic


@pytest.mark.parametrize("kind", SHADOW)
def test_shadow_is_trained_on_the_own_images_alone(kind: Any) -> None:
    host = member()
    key = small(kind, epochs=3).keygen(host, Rng("user"))
    ((images, epochs, _),) = host.trained
    assert torch.equal(images.images, host.share.images)
    assert epochs == 3
    assert key.members is None
    own = membership.losses_of(suspect(Remembers(host.share, 5.0, 0.3)), host.share.images, host.share.labels)
    assert key.shadow_loss == pytest.approx(float(own.mean()))
    if kind is MiaStdShadow:
        assert key.threshold == key.shadow_loss
    else:
        assert own.max() < key.threshold


def test_a_shadow_that_learned_little_calls_everything_a_member() -> None:
    """Section 5.5, scenario ii: its threshold lies above the learner's losses, trained on or not."""
    host, scheme = heldout_user(margin=0.0), small(MiaStdShadow)
    learner = Remembers(ImageSet.join([host.images, host.heldout]), 3.0, 0.3)  # generalises perfectly
    verdict = scheme.verify(suspect(learner), scheme.keygen(host, Rng("user")))
    assert verdict.matched
    assert verdict.details["pool_share"] == 1.0
    assert verdict.p_value > 0.05


@pytest.mark.parametrize("kind", [*KNOWN, *SHADOW])
def test_false_claims_stay_at_the_nominal_rate(kind: Any) -> None:
    scheme, network, trials = small(kind, decoys=19), Remembers(noise_images(1, 9, 8), 5.0, 2.0), 120
    keys = [scheme.keygen(heldout_user(trial), Rng("null", trial)) for trial in range(trials)]
    p_values = [scheme.verify(suspect(network), key).p_value for key in keys]
    for level in (0.05, 0.25, 0.5):
        assert sum(p <= level for p in p_values) <= binom.isf(1e-3, trials, level)
    assert 0.35 < sum(p_values) / trials < 0.7


@pytest.mark.parametrize("value", [math.nan, math.inf, 0.0])
def test_a_network_without_an_answer_is_not_claimed(value: float) -> None:
    for kind in KNOWN:
        verdict = small(kind).verify(suspect(always(*[value] * CLASSES)), small(kind).keygen(member(), Rng("user")))
        assert (verdict.p_value, verdict.matched) == (1.0, False)


def test_an_answer_that_is_not_a_number_is_no_small_loss() -> None:
    class Shy(Remembers):
        def forward(self, x: Tensor) -> Tensor:
            logits = super().forward(x)
            return torch.where(logits.amax(1, keepdim=True) > 3, torch.nan, logits)

    host, scheme = heldout_user(), small(MiaPow)
    verdict = scheme.verify(suspect(Shy(host.share, 5.0, 0.3)), scheme.keygen(host, Rng("user")))
    assert (verdict.p_value, verdict.matched) == (1.0, False)


def test_queries_are_counted_and_the_pool_is_asked_once() -> None:
    asked: list[int] = []

    class Counting(Remembers):
        def forward(self, x: Tensor) -> Tensor:
            asked.append(len(x))
            return super().forward(x)

    scheme, examined = small(MiaStd), suspect(Counting(member().images))
    for trial, host in enumerate((member(), heldout_user())):
        before, _ = examined.queries, asked.clear()
        scheme.verify(examined, scheme.keygen(host, Rng("user", trial)))
        assert examined.queries - before == 12 + 60 + 20 + 20
        assert sum(asked) == (112 if trial == 0 else 52)


def test_works_without_weights() -> None:
    examined = suspect(member().model())
    with pytest.raises(AccessError):
        _ = examined.model
    assert all(kind.card.access == "scores" and kind.card.carrier == "none" for kind in (*KNOWN, *SHADOW))
    assert [kind.card.keygen_trains for kind in (*KNOWN, *SHADOW)] == [False, False, True, True]


@pytest.mark.parametrize("kind", [*KNOWN, *SHADOW])
def test_without_heldout_images_the_threshold_has_no_other_side_and_it_is_said(kind: Any) -> None:
    host = member()
    host.heldout = host.heldout[:0]
    with pytest.raises(ValueError, match="Expected held-out images"):
        small(kind).keygen(host, Rng("user"))


@pytest.mark.parametrize("kind", [*KNOWN, *SHADOW])
def test_with_one_heldout_image_there_is_nothing_to_compare_with(kind: Any) -> None:
    host = member()
    host.heldout = host.heldout[:1]
    scheme, key = small(kind), small(kind).keygen(host, Rng("user"))
    verdict = scheme.verify(suspect(host.model()), key)
    assert (len(key.pool), verdict.p_value, verdict.details["pool_share"]) == (0, 1.0, None)


def test_half_of_the_images_below_the_threshold_make_no_member(monkeypatch: pytest.MonkeyPatch) -> None:
    scheme = small(MiaPow, decision="majority")
    key = scheme.keygen(member(), Rng("user"))
    monkeypatch.setattr(membership, "losses_of", lambda _, images, labels: torch.arange(len(labels)) % 2.0)
    monkeypatch.setattr(type(scheme), "threshold", lambda *_: 0.5)
    verdict = scheme.verify(suspect(always(0)), key)
    assert (verdict.matched, verdict.details["member_share"]) == (False, 0.5)
