"""Pruning of channels: which normalisation belongs to which convolution, what a silent channel is, the order."""

from collections import OrderedDict
from itertools import pairwise

import pytest
import torch
from torch import nn

from attacks._tuning import held_at_zero
from attacks.channel_pruning import convolutions, last_convolution, mean_activations, silenced, smallest
from bench import archs
from bench.api import Rng, predict
from bench.archs.building import build
from bench.registry import attacks
from tests.fakes import FakeContext, victim_of
from tests.fakes.trainers import TrainingContext, small_network, snapshot, tinted

Channels, Fine, Tuned, Pruning = (
    attacks()[name] for name in ("pruning-channels", "fine-pruning", "pruning-tuned", "pruning")
)
CPU = torch.device("cpu")
FAST = {"epochs": 3, "lr": 0.05, "batch_size": 16}


def attacked(attack, context=None, model=None):
    attempts = attack.apply(victim_of(attack, model or small_network()), context or FakeContext())
    return [(attempt.model, snapshot(attempt.model)) for attempt in attempts]


# --- the layers ----------------------------------------------------------------------------------------------------


def test_layers_are_found_in_the_order_in_which_they_act():
    wrn = build("wrn", 10, width=0.125, rng=Rng("wrn")).eval()
    found = list(convolutions(wrn, CPU).items())
    assert found[:3] == [
        ("net.conv", "net.norm"),
        ("net.group1.0.conv1", "net.group1.0.norm1"),
        ("net.group1.0.conv2", "net.group1.0.norm2"),
    ]
    assert dict(found)["net.group3.0.shortcut"] is None
    assert found[-1][0] == "net.group3.0.shortcut"
    assert last_convolution(wrn, CPU) == ("net.group3.0.conv2", "net.group3.0.norm2")


@pytest.mark.parametrize("name", archs.names())
def test_every_convolution_of_every_architecture_is_found_once_and_no_normalisation_is_shared(name):
    model = build(name, 10, width=0.125, rng=Rng(name)).eval()
    found = convolutions(model, CPU)
    assert set(found) == {path for path, module in model.named_modules() if isinstance(module, nn.Conv2d)}
    norms = [norm for norm in found.values() if norm]
    assert len(norms) == len(set(norms))
    for conv, norm in found.items():
        if norm:
            assert model.get_submodule(norm).num_features == model.get_submodule(conv).out_channels
    assert not [m for m in model.modules() if m._forward_hooks or m._forward_pre_hooks], "hooks are left"
    conv, _ = last_convolution(model, CPU)
    assert model.get_submodule(conv).kernel_size > (1, 1)


def test_a_normalisation_after_something_else_does_not_belong_to_the_convolution():
    model = nn.Sequential(
        OrderedDict(a=nn.Conv2d(3, 4, 3), relu=nn.ReLU(), norm=nn.BatchNorm2d(4), b=nn.Conv2d(4, 2, 1))
    )
    assert convolutions(model.eval(), CPU) == {"a": None, "b": None}
    assert last_convolution(model, CPU) == ("a", None)
    with pytest.raises(ValueError, match="Expected a network with convolutions"):
        last_convolution(nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 2)), CPU)


# --- by filter -----------------------------------------------------------------------------------------------------


def test_shares_are_rounded_down_and_ties_go_in_order():
    assert smallest(torch.tensor([3.0, 1.0, 2.0, 1.0]), 50).tolist() == [False, True, False, True]
    assert smallest(torch.tensor([3.0, 1.0, 2.0, 1.0]), 49).tolist() == [False, True, False, False]
    assert smallest(torch.ones(4), 25).tolist() == [True, False, False, False]
    assert smallest(torch.ones(3), 99.0).sum() == 2


def test_a_silenced_network_answers_as_one_whose_channels_are_cut_out():
    """The smaller network is built apart, from the weights of the channels that are kept."""
    model = small_network()
    ((pruned, _),) = attacked(Channels(ladder=[50.0]), model=model)
    net = model.net
    keep1, keep2 = (
        conv.weight.detach().abs().flatten(1).sum(1).argsort()[conv.out_channels // 2 :].sort().values
        for conv in (net.conv1, net.conv2)
    )
    small = small_network().net
    with torch.no_grad():
        for conv, norm, keep in ((small.conv1, small.norm1, keep1), (small.conv2, small.norm2, keep2)):
            conv.weight.data, conv.bias.data = conv.weight[keep], conv.bias[keep]
            for name in ("weight", "bias", "running_mean", "running_var"):
                getattr(norm, name).data = getattr(norm, name)[keep]
        small.conv2.weight.data = small.conv2.weight[:, keep1]
        small.head.weight.data = small.head.weight[:, keep2]
    images = tinted().images.float() / 255
    with torch.no_grad():
        expected, got, whole = small(images), pruned(images), model(images)
    assert torch.allclose(expected, got, atol=1e-5)
    assert not torch.allclose(whole, got, atol=0.05)


def test_a_silenced_channel_is_zero_even_behind_its_normalisation():
    for name in ("wrn", "vgg16"):
        model = build(name, 10, width=0.125, rng=Rng(name)).eval()
        generator = Rng("statistics").torch()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.bias.data.normal_(generator=generator)
                module.running_mean.normal_(generator=generator)
        ((pruned, _),) = attacked(Channels(ladder=[50.0]), model=model)
        outputs = {}
        for conv, norm in convolutions(model, CPU).items():
            path = norm or conv
            pruned.get_submodule(path).register_forward_hook(
                lambda m, i, o, path=path, outputs=outputs: outputs.update({path: o})
            )
        predict(pruned, torch.rand(2, 3, 32, 32, generator=generator))
        for output in outputs.values():
            assert (output == 0).all((0, 2, 3)).sum() >= output.shape[1] // 2


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_the_smallest_filters_go_first_and_higher_shares_only_remove_more(norm):
    before, states = snapshot(small_network()), [state for _, state in attacked(Channels(norm=norm))]
    for conv in ("conv1", "conv2"):
        sizes = before[f"net.{conv}.weight"].flatten(1).norm(int(norm[1]), dim=1)
        gone = [(state[f"net.{conv}.weight"] == 0).flatten(1).all(1) for state in states]
        for percent, mask in zip(Channels().ladder, gone, strict=True):
            assert mask.sum() == int(percent * len(mask) / 100)
            assert mask.sum() == 0 or sizes[mask].max() <= sizes[~mask].min()
        assert all(not (low & ~high).any() for low, high in pairwise(gone))


def test_l1_and_l2_are_different_sizes():
    """[1, 1] has the larger sum, [0, 1.5] the larger root of squares."""
    model = nn.Sequential(nn.Conv2d(3, 2, 1, bias=False)).eval()
    model[0].weight.data = torch.tensor([[1.0, 1.0, 0.0], [0.0, 1.5, 0.0]])[:, :, None, None]
    ((_, l1),), ((_, l2),) = (attacked(Channels(ladder=[50.0], norm=norm), model=model) for norm in ("l1", "l2"))
    assert [bool((state["0.weight"][0] == 0).all()) for state in (l1, l2)] == [False, True]
    assert [bool((state["0.weight"][1] == 0).all()) for state in (l1, l2)] == [True, False]


# --- by activation -------------------------------------------------------------------------------------------------


def test_mean_activations_are_those_of_the_rectified_output():
    model, images = small_network(), tinted(200)
    found = mean_activations(model, "net.norm2", images.images, FakeContext())
    with torch.no_grad():
        expected = model.net[:6](images.images.float() / 255).mean((0, 2, 3))
    assert torch.allclose(found, expected, atol=1e-5)
    assert not [m for m in model.modules() if m._forward_hooks]


def test_dormant_channels_go_first_whatever_their_filters():
    model = small_network()
    with torch.no_grad():
        model.net.norm2.bias[[2, 7]] -= 100  # silent, with the largest filters
        model.net.conv2.weight[[2, 7]] *= 10
        model.net.norm2.weight[[2, 7]] *= 0.1
    ((_, state),) = attacked(Fine(ladder=[20.0], epochs=0), TrainingContext(), model)
    gone = (state["net.conv2.weight"] == 0).flatten(1).all(1)
    assert gone.nonzero().flatten().tolist() == [2, 7]
    before = snapshot(model)
    silent = {f"net.{layer}2.{part}" for layer in ("conv", "norm") for part in ("weight", "bias")}
    assert {name for name, tensor in state.items() if not torch.equal(tensor, before[name])} == silent


def test_fine_tuning_trains_the_rest_and_leaves_pruned_channels_at_zero():
    context = TrainingContext()
    ((model, state),) = attacked(Fine(ladder=[60.0], **FAST), context)
    (start,) = (training["start"] for training in context.trainings)
    gone = (start["net.conv2.weight"] == 0).flatten(1).all(1)
    assert gone.sum() == 6
    for name in ("net.conv2.weight", "net.conv2.bias", "net.norm2.weight", "net.norm2.bias"):
        assert (state[name][gone] == 0).all(), name
        assert (state[name][~gone] != start[name][~gone]).any(), name
    assert not torch.equal(state["net.conv1.weight"], start["net.conv1.weight"])
    assert not any(parameter._backward_hooks for parameter in model.parameters()), "hooks are left"
    assert torch.equal(context.trainings[0]["images"].labels, tinted().labels)


# --- single weights, tuned -----------------------------------------------------------------------------------------


def test_pruned_weights_stay_at_zero_through_training_unless_they_may_grow():
    context = TrainingContext()
    ((_, held),) = attacked(Tuned(ladder=[70.0], **FAST), context)
    ((_, free),) = attacked(Tuned(ladder=[70.0], enforced=False, **FAST), TrainingContext())
    ((_, pruned),) = attacked(Pruning(ladder=[70.0]))
    assert all(torch.equal(context.trainings[0]["start"][name], pruned[name]) for name in pruned)
    for name in ("net.conv1.weight", "net.conv2.weight", "net.head.weight"):
        gone = pruned[name] == 0
        assert gone.sum() == round(0.7 * gone.numel())
        assert torch.equal(held[name] == 0, gone)
        assert (held[name][~gone] != pruned[name][~gone]).any()
        assert (free[name][gone] != 0).any()


def test_zeros_are_held_at_every_step_and_free_again_after_the_scope():
    model, images = small_network(), tinted()
    mask = torch.rand(10, 8, 3, 3, generator=Rng("mask").torch()) < 0.5
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)

    def step():
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images.images.float() / 255), images.labels).backward()
        optimizer.step()

    with held_at_zero(model, {"net.conv2.weight": mask}):
        for _ in range(3):
            step()
            assert torch.equal(model.net.conv2.weight == 0, mask)
    step()
    assert (model.net.conv2.weight[mask] != 0).any()


def test_ladders_and_adversaries():
    assert Channels().ladder == tuple(float(share) for share in range(10, 100, 10))
    assert Channels.card.adversary.images == ()
    assert Fine.card.adversary.images == Tuned.card.adversary.images == ("own",)
    with pytest.raises(ValueError, match="less than 100"):
        Channels(ladder=[100.0])


def test_silenced_names_every_parameter_of_the_channel():
    masks = silenced(small_network(), "net.conv2", "net.norm2", torch.tensor([True] + [False] * 9))
    counts = {name: int(mask.sum()) for name, mask in masks.items()}
    assert counts == {"net.conv2.weight": 72, "net.conv2.bias": 1, "net.norm2.weight": 1, "net.norm2.bias": 1}
