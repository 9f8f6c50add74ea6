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

from bench.api import AccessError, DatasetCard, Host, ImageSet, Rng, Suspect
from schemes import _users, membership
from schemes.membership import MiaPow, MiaPowShadow, MiaStd, MiaStdShadow

CLASSES = 4
KNOWN = (MiaStd, MiaPow)
SHADOW = (MiaStdShadow, MiaPowShadow)


def some_images(count: int, seed: int) -> ImageSet:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (count, 3, 8, 8), generator=generator, dtype=torch.uint8)
    return ImageSet(images, torch.randint(CLASSES, (count,), generator=generator))


def rows_of(images: Tensor) -> set[bytes]:
    return {row.tobytes() for row in images.numpy()}


class Memory(nn.Module):
    """Sure of the right class of the images it knows, by `margin`; of others it knows nothing but their noise."""

    def __init__(self, known: ImageSet, margin: float = 5.0, noise: float = 0.0) -> None:
        super().__init__()
        self.margin, self.noise = margin, noise
        self.answers = {r.tobytes(): int(y) for r, y in zip(known.images.numpy(), known.labels, strict=True)}

    def forward(self, x: Tensor) -> Tensor:
        images = (x * 255).round().to(torch.uint8).contiguous()
        logits = self.noise * torch.sin(images.flatten(1).float() @ torch.arange(1.0, 3 * 64 * CLASSES + 1).view(-1, 4))
        for row, image in enumerate(images.numpy()):
            if (label := self.answers.get(image.tobytes())) is not None:
                logits[row, label] += self.margin
        return logits


class SmallHost(Host):
    """Sixty training images, a hundred held-out ones; training is remembering."""

    def __init__(self, share: ImageSet | None = None, margin: float = 5.0) -> None:
        self.dataset = DatasetCard("small", "Small", tuple("abcd"), "objects")
        self.images, self.heldout = some_images(60, 0), some_images(100, 1)
        self.share = self.images[:12] if share is None else share
        self.number, self.device, self.margin = 0, torch.device("cpu"), margin
        self.trained: list[tuple[ImageSet, int | None]] = []

    def model(self) -> nn.Module:
        return Memory(self.images, self.margin, 0.3)

    def layer(self, group: str) -> str:
        raise AssertionError("membership inference knows no layers")

    def train(self, images: ImageSet, rng: Rng, *, epochs: int | None = None, arch: str | None = None) -> nn.Module:
        self.trained.append((images, epochs))
        return Memory(images, self.margin, 0.3)


def stranger(seed: int = 0, count: int = 12) -> SmallHost:
    """A user whose images nobody was trained on."""
    host = SmallHost()
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
    images = some_images(6, 0)
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
    host = SmallHost()
    first, second = _users.split_heldout(host, "membership-pool", pool, rest)
    assert (len(first), len(second)) == sizes
    assert rows_of(first.images) | rows_of(second.images) == rows_of(host.heldout.images)
    assert torch.equal(_users.split_heldout(stranger(), "membership-pool", pool, rest)[0].images, first.images)


@pytest.mark.parametrize("seed", [None, 0, 1])
def test_a_key_holds_no_image_twice(seed: int | None) -> None:
    host = SmallHost() if seed is None else stranger(seed)
    key = small(MiaStd).keygen(host, Rng("user", 0))
    pool = key.tensors["pool"][key.tensors["unseen"]]
    parts = [rows_of(part) for part in (key.tensors["images"], pool, key.tensors["members"], key.tensors["others"])]
    assert [len(parts[0]), len(parts[2]), len(parts[3])] == [12, 20, 20]
    assert sum(map(len, parts)) == len(set.union(*parts))
    assert parts[2] <= rows_of(host.images.images)
    assert parts[1] | parts[3] <= rows_of(host.heldout.images)
    assert len(pool) == (60 if seed is None else 60 - len(rows_of(key.tensors["pool"]) & parts[0]))


def test_keys_follow_their_stream_and_share_the_pool() -> None:
    one, again, other = (small(MiaPow).keygen(SmallHost(), Rng("user", i)) for i in (0, 0, 1))
    assert one.values == again.values != other.values
    assert all(torch.equal(one.tensors[name], again.tensors[name]) for name in one.tensors)
    assert not torch.equal(one.tensors["members"], other.tensors["members"])
    assert torch.equal(one.tensors["pool"], other.tensors["pool"])


def test_the_owner_of_everything_has_nobody_to_compare_with() -> None:
    host = SmallHost()
    host.share = host.images
    with pytest.raises(ValueError, match="lower the share"):
        small(MiaStd).keygen(host, Rng("user"))


@pytest.mark.parametrize(("share", "held"), [(0.01, 0.01), ("50", 50), (3, 3)])
def test_share_is_a_fraction_or_a_number(share: Any, held: float) -> None:
    assert MiaStd(share=share).share == held
    assert type(MiaStd(share=share).share) is type(held)


@pytest.mark.parametrize("share", [0, 1.5, -1, 1.0, "1.0", True, "nan", "all"])
def test_share_out_of_bounds(share: float) -> None:
    with pytest.raises(ValidationError):
        MiaStd(share=share)


# --- the verdict ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KNOWN)
def test_members_are_found_and_others_are_not(kind: Any) -> None:
    scheme, network = small(kind), SmallHost().model()
    member = scheme.verify(suspect(network), scheme.keygen(SmallHost(), Rng("user", 0)))
    assert member.p_value == 0.01
    assert member.details["mean_loss"] < 0.1 < 1.0 < member.details["pool_mean_loss"]  # type: ignore[operator]  # numbers
    other = scheme.verify(suspect(network), scheme.keygen(stranger(), Rng("user", 1)))
    assert other.p_value > 0.01
    assert (other.matched, other.chance, other.details["member_share"]) == (False, 0.5, 0.0)
    assert other.statistic < 0


def test_own_images_are_not_their_own_comparison() -> None:
    """Some of a stranger's images stand in the common pool."""
    host, scheme = stranger(), small(MiaStd)
    key = scheme.keygen(host, Rng("user"))
    network = suspect(Memory(host.share, 5.0, 0.3))
    verdict = scheme.verify(network, key)
    others = ~_users.contained(host.heldout, host.share) & _users.contained(
        host.heldout, ImageSet(key.tensors["pool"], key.tensors["pool_labels"])
    )
    wanted = network.losses(host.heldout.images[others], host.heldout.labels[others]).mean()
    assert 40 < int(others.sum()) < 60
    assert verdict.details["pool_mean_loss"] == pytest.approx(float(wanted))
    assert verdict.p_value == 0.01


def test_losses_are_those_of_probabilities() -> None:
    class Shifted(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.tensor([[103.0, 100.0, 100.0, 100.0]]).expand(len(x), 4)

    images = some_images(3, 0)
    losses = membership.losses_of(suspect(Shifted()), images.images, torch.tensor([0, 1, 2]))
    norm = math.log(math.exp(3) + 3)
    assert losses.tolist() == pytest.approx([norm - 3, norm, norm], rel=1e-5)


def test_mean_and_majority_decide_differently_where_losses_are_skewed() -> None:
    host = SmallHost()
    host.share = host.images[:30]
    network = Memory(host.images[4:], 8.0, 3.0)  # four of the thirty own images are forgotten
    for decision, wanted in (("mean", False), ("majority", True)):
        scheme = small(MiaStd, decision=decision, share=30)
        verdict = scheme.verify(suspect(network), scheme.keygen(host, Rng("user")))
        assert verdict.matched is wanted
        assert verdict.p_value == 0.01
        threshold, mean = (float(str(verdict.details[name])) for name in ("threshold", "mean_loss"))
        assert verdict.statistic == pytest.approx(threshold - mean)
        assert 0.5 < float(str(verdict.details["member_share"])) <= 26 / 30


def test_the_p_value_does_not_depend_on_the_threshold() -> None:
    host = stranger(4)
    keys = [small(kind).keygen(host, Rng("user")) for kind in KNOWN]
    first, second = (small(kind).verify(suspect(host.model()), key) for kind, key in zip(KNOWN, keys, strict=True))
    assert first.p_value == second.p_value
    assert first.statistic != second.statistic


@pytest.mark.parametrize("kind", SHADOW)
def test_shadow_is_trained_on_the_own_images_alone(kind: Any) -> None:
    host = SmallHost()
    key = small(kind, epochs=3).keygen(host, Rng("user"))
    ((images, epochs),) = host.trained
    assert torch.equal(images.images, host.share.images)
    assert epochs == 3
    assert "members" not in key.tensors
    own = membership.losses_of(suspect(Memory(host.share, 5.0, 0.3)), host.share.images, host.share.labels)
    assert key.values["shadow_loss"] == pytest.approx(float(own.mean()))
    if kind is MiaStdShadow:
        assert key.values["threshold"] == key.values["shadow_loss"]
    else:
        assert own.max() < key.values["threshold"]  # type: ignore[operator]  # a number


def test_a_shadow_that_learned_little_calls_everything_a_member() -> None:
    """Section 5.5, scenario ii: its threshold lies above the learner's losses, trained on or not."""
    host, scheme = stranger(), small(MiaStdShadow)
    host.margin = 0.0  # of the shadow
    learner = Memory(ImageSet.join([host.images, host.heldout]), 3.0, 0.3)  # generalises perfectly
    verdict = scheme.verify(suspect(learner), scheme.keygen(host, Rng("user")))
    assert verdict.matched
    assert verdict.details["pool_share"] == 1.0
    assert verdict.p_value > 0.05


@pytest.mark.parametrize("kind", [*KNOWN, *SHADOW])
def test_false_claims_stay_at_the_nominal_rate(kind: Any) -> None:
    scheme, network, trials = small(kind, decoys=19), Memory(some_images(1, 9), 5.0, 2.0), 120
    keys = [scheme.keygen(stranger(trial), Rng("null", trial)) for trial in range(trials)]
    p_values = [scheme.verify(suspect(network), key).p_value for key in keys]
    for level in (0.05, 0.25, 0.5):
        assert sum(p <= level for p in p_values) <= binom.isf(1e-3, trials, level)
    assert 0.35 < sum(p_values) / trials < 0.7


@pytest.mark.parametrize("value", [math.nan, math.inf, 0.0])
def test_a_network_without_an_answer_is_not_claimed(value: float) -> None:
    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.full((len(x), CLASSES), value)

    for kind in KNOWN:
        verdict = small(kind).verify(suspect(Broken()), small(kind).keygen(SmallHost(), Rng("user")))
        assert (verdict.p_value, verdict.matched) == (1.0, False)


def test_an_answer_that_is_not_a_number_is_no_small_loss() -> None:
    class Shy(Memory):
        def forward(self, x: Tensor) -> Tensor:
            logits = super().forward(x)
            return torch.where(logits.amax(1, keepdim=True) > 3, torch.nan, logits)

    host, scheme = stranger(), small(MiaPow)
    verdict = scheme.verify(suspect(Shy(host.share, 5.0, 0.3)), scheme.keygen(host, Rng("user")))
    assert (verdict.p_value, verdict.matched) == (1.0, False)


def test_queries_are_counted_and_the_pool_is_asked_once() -> None:
    asked: list[int] = []

    class Counting(Memory):
        def forward(self, x: Tensor) -> Tensor:
            asked.append(len(x))
            return super().forward(x)

    scheme, examined = small(MiaStd), suspect(Counting(SmallHost().images))
    for trial, host in enumerate((SmallHost(), stranger())):
        before, _ = examined.queries, asked.clear()
        scheme.verify(examined, scheme.keygen(host, Rng("user", trial)))
        assert examined.queries - before == 12 + 60 + 20 + 20
        assert sum(asked) == (112 if trial == 0 else 52)


def test_works_without_weights() -> None:
    examined = suspect(SmallHost().model())
    with pytest.raises(AccessError):
        _ = examined.model
    assert all(kind.card.access == "scores" and kind.card.carrier == "none" for kind in (*KNOWN, *SHADOW))
    assert [kind.card.keygen_trains for kind in (*KNOWN, *SHADOW)] == [False, False, True, True]
