"""Noise and shifts of weights: their size, what they spare, the mean filter and the training after them."""

import pytest
import torch

from attacks.weight_noise import noise_like, shifted
from bench.api import ImageSet, Rng, predict
from bench.registry import attacks
from schemes.uchida import UchidaKey, mean_filter, read
from tests.fakes import FakeContext, victim_of
from tests.fakes.trainers import TrainingContext, small_network, snapshot, tinted

Noise, Shifting, Only = (attacks()[name] for name in ("weight-noise", "weight-shifting", "weight-shifting-only"))
CONVOLUTIONS = {"net.conv1.weight", "net.conv2.weight"}
WEIGHTS = CONVOLUTIONS | {"net.head.weight"}


def attacked(attack, context=None):
    attempts = attack.apply(victim_of(attack, small_network()), context or FakeContext())
    return [snapshot(attempt.model) for attempt in attempts]


def changed(state):
    before = snapshot(small_network())
    return {name for name in before if not torch.equal(before[name], state[name])}


def test_noise_is_in_proportion_to_each_layers_spread():
    weights = 3.0 * torch.randn(400, 500, generator=Rng("weights").torch())
    noise = noise_like(weights, Rng("noise").torch())
    assert noise.std().item() == pytest.approx(3.0, rel=0.01)
    assert noise.mean().item() == pytest.approx(0.0, abs=0.03)
    assert abs(torch.corrcoef(torch.stack([noise.flatten(), weights.flatten()]))[0, 1]) < 0.01


def test_rungs_are_multiples_of_one_draw_on_weights_alone():
    before, (weak, strong) = snapshot(small_network()), attacked(Noise(ladder=[0.1, 0.5]))
    assert changed(weak) == changed(strong) == WEIGHTS
    for name in WEIGHTS:
        assert torch.allclose(5 * (weak[name] - before[name]), strong[name] - before[name], atol=1e-5)
        spread = (strong[name] - before[name]).std() / before[name].std()
        assert spread == pytest.approx(0.5, rel=0.5 if before[name].numel() < 100 else 0.12)


def test_layers_of_one_shape_and_other_seeds_draw_other_noise():
    before = snapshot(small_network())
    (one,), (same,), (other,) = (attacked(Noise(ladder=[1.0]), FakeContext(seed)) for seed in (0, 0, 1))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["net.conv2.weight"], other["net.conv2.weight"])
    noises = [(one[name] - before[name]).flatten()[:30] / before[name].std() for name in sorted(WEIGHTS)]
    assert not torch.allclose(noises[0], noises[1], atol=0.1)


def test_a_shift_worked_by_hand():
    """Mean filter [3, 0]; half of it and the noise subtracted."""
    weights = torch.tensor([[2.0, 1.0], [4.0, -1.0]])[:, :, None, None]
    noise = torch.tensor([[0.0, 0.25], [0.0, 0.0]])[:, :, None, None]
    assert shifted(weights, 0.5, noise).flatten().tolist() == [0.5, 0.75, 2.5, -1.0]


@pytest.mark.parametrize("strength", [0.5, 1.5, 2.5])
def test_the_mean_filter_becomes_one_minus_lambda_of_itself(strength):
    """Above 1 every projection on it changes sign: all bits of a mark that is read there are inverted."""
    model = small_network()
    (state,) = attacked(Only(ladder=[strength], noise=0.0))
    attacked_model = small_network()
    attacked_model.load_state_dict(state)
    before, after = (mean_filter(m, "net.conv2") for m in (model, attacked_model))
    assert torch.allclose(after, (1 - strength) * before, atol=1e-6)
    key = UchidaKey(torch.randn(64, len(before), generator=Rng("x").torch()), torch.zeros(64).byte(), "net.conv2")
    flipped = (read(attacked_model, key) > 0) != (read(model, key) > 0)
    assert flipped.all() if strength > 1 else not flipped.any()


def test_convolutions_alone_are_shifted_under_one_noise_for_all_rungs():
    before, (weak, strong) = snapshot(small_network()), attacked(Only(ladder=[0.5, 1.5]))
    assert changed(weak) == changed(strong) == CONVOLUTIONS
    for name in CONVOLUTIONS:
        mean = before[name].mean(0, keepdim=True)
        assert torch.allclose(weak[name] - strong[name], mean.expand_as(before[name]), atol=1e-5)
        noise = before[name] - 0.5 * mean - weak[name]
        assert noise.std() / before[name].std() == pytest.approx(1.0, rel=0.12)


def test_fine_tuning_follows_from_the_shifted_weights_on_the_victims_labels():
    images = tinted()
    context = TrainingContext(own=ImageSet(images.images, torch.full_like(images.labels, -1)))
    states = attacked(Shifting(ladder=[0.5, 1.5], epochs=3, lr=0.05, batch_size=16), context)
    only = attacked(Only(ladder=[0.5, 1.5]), TrainingContext())
    said = predict(small_network(), images.images).argmax(1)
    assert len(context.trainings) == 2
    for state, start, training in zip(states, only, context.trainings, strict=True):
        assert all(torch.equal(training["start"][name], start[name]) for name in start)
        assert torch.equal(training["images"].labels, said)
        assert training["recipe"].epochs == 3
        assert changed(state) == set(state)


def test_who_has_what():
    assert Noise.card.adversary.images == Only.card.adversary.images == ()
    assert Shifting.card.adversary.images == ("own unlabelled",)
    assert (Shifting().params.epochs, Only().params.epochs) == (10, 0)
