"""Quantisation: levels worked by hand, how many there are, what is spared, and the fine-tuning after it."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from attacks.quantisation import quantised
from bench.api import AccessError, ImageSet, Rng, predict
from bench.registry import attacks
from tests.fakes import FakeContext, victim_of
from tests.fakes.trainers import TrainingContext, small_network, snapshot, tinted

NAMES = ("quantisation", "quantisation-channel", "quantisation-trained")
Quantisation, Channel, Trained = (attacks()[name] for name in NAMES)
WEIGHTS = {"net.conv1.weight", "net.conv2.weight", "net.head.weight"}


def weights(*shape):
    return torch.randn(shape, generator=Rng("weights").torch())


def attacked(attack, context=None, model=None):
    attempts = attack.apply(victim_of(attack, model or small_network()), context or FakeContext())
    return [snapshot(attempt.model) for attempt in attempts]


def test_levels_are_the_middles_of_equal_bins():
    """Two bits from -1 to 1: bins of 0.5, their middles -0.75, -0.25, 0.25, 0.75."""
    given = torch.tensor([[-1.0, -0.6, -0.5], [-0.1, 0.2, 1.0]])
    assert quantised(given, 2).tolist() == [[-0.75, -0.75, -0.25], [-0.25, 0.25, 0.75]]
    assert quantised(given, 1).tolist() == [[-0.5, -0.5, -0.5], [-0.5, 0.5, 0.5]]


def test_channels_have_levels_of_their_own():
    given = torch.tensor([[0.0, 1.0, 4.0], [-8.0, 0.0, 8.0]])
    assert quantised(given, 1, "channel").tolist() == [[1.0, 1.0, 3.0], [-4.0, 4.0, 4.0]]


@pytest.mark.parametrize("scope", ["tensor", "channel"])
@pytest.mark.parametrize("bits", [1, 2, 3, 8])
def test_no_weight_moves_by_more_than_half_a_bin_and_there_are_as_many_levels_as_bits_allow(bits, scope):
    given = weights(6, 5, 3, 3)
    found = quantised(given, bits, scope)
    assert found.shape == given.shape
    rows, levels = (t.flatten(1) if scope == "channel" else t.reshape(1, -1) for t in (given, found))
    half = (rows.amax(1) - rows.amin(1)) / 2 ** (bits + 1)
    assert ((levels - rows).abs() <= half[:, None] * 1.0001).all()
    assert max(len(row.unique()) for row in levels) <= 2**bits
    assert bits > 2 or all(len(row.unique()) == 2**bits for row in levels)


def test_equal_weights_stay_as_they_are():
    assert torch.equal(quantised(torch.full((3, 4), 0.7), 4), torch.full((3, 4), 0.7))
    mixed = torch.tensor([[2.0, 2.0], [0.0, 1.0]])
    assert quantised(mixed, 1, "channel").tolist() == [[2.0, 2.0], [0.25, 0.75]]
    assert quantised(torch.zeros(2, 2), 3).isfinite().all()


@pytest.mark.parametrize("attack", [Quantisation, Channel])
def test_fewer_bits_change_more_and_biases_and_batch_normalisation_nothing(attack):
    before = snapshot(small_network())
    states = attacked(attack())
    assert attack().ladder == (24, 26, 27, 28, 29, 30)
    for state in states:
        assert {name for name in state if not torch.equal(state[name], before[name])} == WEIGHTS
    for name in WEIGHTS:
        errors = [(state[name] - before[name]).norm() for state in states]
        assert all(less < more for less, more in pairwise(errors))
    assert [len(states[i]["net.conv2.weight"].unique()) for i in (3, 4, 5)] == [16, 8, 4] or attack is Channel


def test_levels_for_each_channel_are_finer():
    model = small_network()
    with torch.no_grad():
        model.net.conv2.weight[0].mul_(20)
    (whole,), (each,) = (attacked(attack(ladder=[28]), model=model) for attack in (Quantisation, Channel))
    errors = [(state["net.conv2.weight"] - model.net.conv2.weight)[1:].norm() for state in (whole, each)]
    assert errors[1] < errors[0] / 5


def test_eight_bits_keep_the_answers_and_one_does_not():
    images = tinted().images
    answers = predict(small_network(), images)
    distances = []
    for state in attacked(Quantisation(ladder=[24, 31])):
        model = small_network()
        model.load_state_dict(state)
        distances.append(((predict(model, images) - answers).norm() / answers.norm()).item())
    assert distances[0] < 0.02 < 0.2 < distances[1]


def test_memory_format_is_of_no_account():
    model = small_network().to(memory_format=torch.channels_last)
    for attack in (Quantisation, Channel):
        (one,), (two,) = attacked(attack(ladder=[29])), attacked(attack(ladder=[29]), model=model)
        assert all(torch.equal(one[name], two[name]) for name in one)


def test_training_after_it_takes_an_epoch_on_the_victims_labels_and_leaves_the_grid():
    images = tinted()
    context = TrainingContext(own=ImageSet(images.images, torch.full_like(images.labels, -1)))
    (state,) = attacked(Trained(ladder=[29], batch_size=16), context)
    (coarse,) = attacked(Quantisation(ladder=[29]))
    (training,) = context.trainings
    assert all(torch.equal(training["start"][name], coarse[name]) for name in coarse)
    assert torch.equal(training["images"].labels, predict(small_network(), images.images).argmax(1))
    assert training["recipe"].epochs == context.epochs_run == 1
    assert len(state["net.conv2.weight"].unique()) > 100


def test_the_others_do_not_train_and_have_no_images():
    for attack in (Quantisation, Channel):
        assert attack.card.adversary.images == ()
        made = attack(epochs=1, ladder=[28])
        with pytest.raises(AccessError, match="images of its own"):
            list(made.apply(victim_of(made, small_network()), Lending()))


class Lending(FakeContext):
    """Refuses images as the harness does."""

    @property
    def data(self):
        raise AccessError("Expected an adversary with images of its own.")


def test_shared_weights_are_quantised_once():
    model = nn.Module()
    model.net = nn.Sequential(nn.Linear(10, 10), nn.Linear(10, 10))
    model.net[1].weight = model.net[0].weight
    (state,) = attacked(Quantisation(ladder=[30]), model=model)
    assert torch.equal(state["net.0.weight"], quantised(model.net[0].weight.detach(), 2))
