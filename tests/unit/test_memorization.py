"""Memorisation value: the difference by hand, references that never see the user's images, exact p-values."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from scipy.stats import binom
from torch import nn

from bench.api import ImageSet, Rng, Suspect, replace, rotate_hue
from bench.registry import schemes
from schemes import memorization
from tests.fakes import CLASSES, FakeHost, Remembers, always, noise_images, rows_of, same_key

Memorization, MemorizationHue = schemes()["memorization"], schemes()["memorization-hue"]
KINDS = (Memorization, MemorizationHue)


def memory(known: ImageSet, salt: float = 1.0) -> Remembers:
    return Remembers(known, 6.0, 1.0, salt)


def member() -> FakeHost:
    """Sixty training images, a hundred held-out ones; training is remembering; fifteen images are the user's."""
    images = noise_images(60, 0, 8)
    host = FakeHost(images, noise_images(100, 1, 8), images[5:20])
    host._learn = lambda others: memory(others, 1 + len(host.trained) / 7)
    return host


def heldout_user(seed: int = 0) -> FakeHost:
    """A user whose images nobody was trained on."""
    host = member()
    host.share = host.heldout[torch.randperm(100, generator=torch.Generator().manual_seed(seed))[:15]]
    return host


def small(kind: Any, **params: Any) -> Any:
    return kind(**{"share": 15, "pool": 60, "decoys": 99, **params})


def suspect(network: nn.Module) -> Suspect:
    return Suspect("scores", model=network)


def learner(scheme: Any, host: FakeHost, key: Any) -> nn.Module:
    """Trained on everybody's images, the user's as published."""
    marked = scheme.mark_data(host.share, key)
    return memory(ImageSet.join([host.images[:5], marked, host.images[20:]]))


# --- the key ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_references_are_trained_on_all_images_but_the_user_s(kind: Any) -> None:
    host = member()
    key = small(kind, models=3, epochs=7).keygen(host, Rng("user"))
    assert len({seed for _, _, seed in host.trained}) == 3
    for images, epochs, _ in host.trained:
        assert epochs == 7
        assert rows_of(images.images) == rows_of(host.images.images) - rows_of(host.share.images)
        assert len(images) == 45
    references = [memory(images, 1 + i / 7) for i, (images, _, _) in enumerate(host.trained, start=1)]
    images, labels = key.images, key.labels
    right = torch.stack([(suspect(net).labels(images) == labels).double() for net in references]).mean(0)
    assert torch.allclose(key.reference[:, 1], right)
    sure = torch.stack([suspect(net).losses(images, labels).neg().exp().double() for net in references]).mean(0)
    assert torch.allclose(key.reference[:, 0], sure, atol=1e-6)


def test_references_of_a_heldout_user_see_the_whole_training_set() -> None:
    host = heldout_user()
    key = small(Memorization).keygen(host, Rng("user"))
    assert all(len(images) == 60 for images, _, _ in host.trained)
    assert rows_of(key.pool[~key.unseen]) == rows_of(key.pool) & rows_of(host.share.images)
    assert 0 < int((~key.unseen).sum()) < 15


def test_the_owner_of_everything_leaves_nothing_to_train_on() -> None:
    host = member()
    host.share = host.images
    with pytest.raises(ValueError, match="lower the share"):
        small(Memorization).keygen(host, Rng("user"))


def test_hue_is_rotated_in_the_user_s_images_and_in_unseen_ones_but_in_nobody_else_s() -> None:
    host, scheme = member(), small(MemorizationHue, signature=90.0)
    key = scheme.keygen(host, Rng("user"))
    plain = small(Memorization).keygen(host, Rng("user"))
    for turned, as_it_was in ((key.images, plain.images), (key.pool, plain.pool)):
        assert torch.equal(turned, rotate_hue(as_it_was, 90.0))
        assert not torch.equal(turned, as_it_was)
    assert torch.equal(key.unseen, plain.unseen)
    assert rows_of(host.trained[0][0].images) <= rows_of(host.images.images)
    assert torch.equal(scheme.mark_data(host.share, key).images, key.images)
    assert torch.equal(small(Memorization).mark_data(host.share, plain).images, host.share.images)


def test_keys_follow_their_stream() -> None:
    one, again, other = (small(Memorization).keygen(member(), Rng("user", i)) for i in (0, 0, 1))
    assert same_key(one, again)
    assert one.decoys != other.decoys


# --- the verdict ------------------------------------------------------------------------------------------------


def test_answers_by_hand() -> None:
    fixed = suspect(always(math.log(6.0), math.log(2.0), 0.0, 0.0))
    images = noise_images(3, 0, 8)
    answers = memorization.answers_of(fixed, images.images, torch.tensor([0, 1, 3]))
    assert answers[:, 0].tolist() == pytest.approx([0.6, 0.2, 0.1])
    assert answers[:, 1].tolist() == [1.0, 0.0, 0.0]


@pytest.mark.parametrize("kind", KINDS)
def test_value_is_the_accuracy_with_less_the_accuracy_without(kind: Any) -> None:
    host, scheme = member(), small(kind)
    key = scheme.keygen(host, Rng("user"))
    verdict = scheme.verify(suspect(learner(scheme, host, key)), key)
    without = float(key.reference[:, 1].mean())
    assert verdict.details["accuracy"] == 1.0
    assert verdict.details["reference_accuracy"] == pytest.approx(without)
    assert 0.0 < without < 0.7
    assert verdict.statistic == pytest.approx(1 - without)
    assert verdict.p_value == 0.01
    assert abs(float(str(verdict.details["pool_memorisation"]))) < 0.3
    assert verdict.matched is None


@pytest.mark.parametrize("kind", KINDS)
def test_networks_that_know_the_pool_as_well_memorise_nobody(kind: Any) -> None:
    """Gains that unseen images show too are no evidence, however large."""
    host, scheme = member(), small(kind)
    key = scheme.keygen(host, Rng("user"))
    everything = ImageSet.join([host.share, host.heldout])
    knows = memory(everything.with_images(scheme.shown(everything.images)))
    verdict = scheme.verify(suspect(knows), key)
    assert verdict.statistic > 0.3
    assert verdict.p_value > 0.05


def test_own_images_are_not_their_own_comparison() -> None:
    """Some of a held-out user's images stand in the common pool."""
    host, scheme = heldout_user(), small(Memorization)
    key = scheme.keygen(host, Rng("user"))
    verdict = scheme.verify(suspect(memory(host.share)), key)
    assert abs(float(str(verdict.details["pool_memorisation"]))) < 0.15
    assert verdict.details["pool_confidence_gain"] == pytest.approx(0.0, abs=0.05)
    assert verdict.p_value == 0.01


def test_images_are_compared_by_what_the_references_made_of_them() -> None:
    """A user of hard images gains from none to a quarter, where unseen ones had that quarter before."""
    key = small(Memorization).keygen(member(), Rng("user"))
    key = replace(key, reference=torch.zeros(15, 2), pool_reference=torch.full((60, 2), 0.25))
    verdict = small(Memorization).verify(suspect(Remembers(member().images, margin=0.0, noise=0.01)), key)
    assert verdict.details["confidence_gain"] == pytest.approx(0.25, abs=0.01)
    assert verdict.p_value == 0.01


def test_unmarked_training_is_not_what_a_rotated_user_claims() -> None:
    host, scheme = member(), small(MemorizationHue)
    key = scheme.keygen(host, Rng("user"))
    assert scheme.verify(suspect(memory(host.images)), key).p_value > 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_false_claims_stay_at_the_nominal_rate(kind: Any) -> None:
    scheme, trials = small(kind, decoys=19, models=1), 100
    host = member()
    network = learner(scheme, host, scheme.keygen(host, Rng("user")))
    keys = [scheme.keygen(heldout_user(trial), Rng("null", trial)) for trial in range(trials)]
    p_values = [scheme.verify(suspect(network), key).p_value for key in keys]
    for level in (0.05, 0.25, 0.5):
        assert sum(p <= level for p in p_values) <= binom.isf(1e-3, trials, level)
    assert 0.35 < sum(p_values) / trials < 0.7


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_network_without_an_answer_is_wrong(value: float) -> None:
    host = member()
    verdict = small(Memorization).verify(
        suspect(always(*[value] * CLASSES)), small(Memorization).keygen(host, Rng("user"))
    )
    assert verdict.details["accuracy"] == 0.0
    assert verdict.statistic == pytest.approx(-float(str(verdict.details["reference_accuracy"])))
    assert verdict.p_value == 1.0


def test_a_network_whose_answer_does_not_depend_on_the_image_remembers_none() -> None:
    host, scheme = member(), small(Memorization)
    key = scheme.keygen(host, Rng("user"))
    hard = replace(key, reference=torch.zeros_like(key.reference))  # the references know the pool better than these
    constant = scheme.verify(suspect(always(2.0, 1.0, 0.5, 0.0)), hard)
    assert constant.p_value == 1.0
    labels = torch.tensor([0, 0, 1, 1, 2])
    assert not memorization.tells_apart(torch.tensor([0.5, 0.5, 0.2, 0.2, 0.3]), labels)
    assert memorization.tells_apart(torch.tensor([0.5, 0.5, 0.2, 0.3, 0.3]), labels), "one class is enough"
    assert scheme.verify(suspect(memory(host.images)), hard).p_value == 0.01, "one that tells images apart may know"


def test_queries_are_counted_and_the_pool_is_asked_once() -> None:
    scheme, examined = small(Memorization, models=1), suspect(memory(member().images))
    for trial, host in enumerate((member(), heldout_user())):
        key = scheme.keygen(host, Rng("user", trial))
        before = examined.queries
        scheme.verify(examined, key)
        assert examined.queries - before == 15 + 60
    assert len(examined._memory) == 1


@pytest.mark.parametrize("count", [0, 1])
def test_with_no_or_one_heldout_image_there_is_little_to_compare_with_and_no_error(count: int) -> None:
    host = member()
    host.heldout = host.heldout[:count]
    key = small(Memorization).keygen(host, Rng("user"))
    assert len(key.pool) == count
    p_value = small(Memorization).verify(suspect(memory(host.images)), key).p_value
    assert p_value > (0.02 if count else 0.999), "one of 16 sets of 15 images is the user's own"


def test_keys_with_pools_of_their_own_are_not_mixed_up_on_one_suspect() -> None:
    host = member()
    scheme = small(Memorization)
    key = scheme.keygen(host, Rng("user"))
    others = replace(key, pool_labels=(key.pool_labels + 1) % CLASSES), replace(key, pool=key.pool.flip(0))
    network = learner(scheme, host, key)
    one = suspect(network)
    for asked in (key, *others):
        assert scheme.verify(one, asked) == scheme.verify(suspect(network), asked)
    assert len({scheme.verify(one, asked).details["pool_memorisation"] for asked in (key, *others)}) > 1


def test_a_verdict_does_not_hang_on_the_global_generator() -> None:
    host = heldout_user()
    scheme = small(Memorization)
    key = scheme.keygen(host, Rng("user"))
    verdicts = []
    for seed in range(3):
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            verdicts.append(scheme.verify(suspect(memory(host.images)), key))
    assert verdicts[0] == verdicts[1] == verdicts[2]
