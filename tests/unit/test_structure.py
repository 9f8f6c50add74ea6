"""Function-preserving attacks: equal logits on every architecture, other weights, what becomes of a mark."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from bench.api import Channels, Rng, predict
from bench.archs import arch, build, names
from bench.registry import attacks
from bench.steps.remedy import restored
from schemes.uchida import UchidaKey, read
from tests.fakes import FakeContext, victim_of

NAMES = (
    "permutation",
    "permutation-filters",
    "rescaling",
    "rescaling-folded",
    "net2wider",
    "net2deeper",
    "dummy-neurons",
    "dummy-neurons-split",
)
ALL = {name: attacks()[name] for name in NAMES}
ARCHS = (*names(), "wrn-16-1", "resnet-34-8")


def network(name, width=0.125):
    """An untrained network whose biases and batch normalisation are random."""
    model = build(name, 10, width=width, rng=Rng("network")).eval()
    generator = Rng("statistics").torch()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.normal_(1, 0.3, generator=generator)
                module.bias.normal_(0, 0.3, generator=generator)
                module.running_mean.normal_(0, 0.3, generator=generator)
                module.running_var.uniform_(0.2, 2, generator=generator)
            elif getattr(module, "bias", None) is not None:
                module.bias.normal_(0, 0.1, generator=generator)
    return model


def mark(model, name, group="conv2", bits=64):
    """A key that reads without error from this network: its payload is what the network says."""
    layer = f"net.{arch(name).layers[group]}"
    size = model.get_submodule(layer).weight[0].numel()
    key = UchidaKey(torch.randn(bits, size, generator=Rng("key", name).torch()), torch.zeros(bits), layer)
    return UchidaKey(key.projection, (read(model, key) > 0).to(torch.uint8), layer)


def ber(model, key):
    y = read(model, key)
    return None if y is None else ((y > 0) != (key.payload > 0)).float().mean().item()


def attacked(name, model, key=None, seed=0, **params):
    attack = ALL[name](**params)
    return [attempt.model for attempt in attack.apply(victim_of(attack, model, key), FakeContext(seed))]


def off(model, original, side=32):
    """The largest change of a logit, relative to the largest logit."""
    images = torch.rand(4, 3, side, side, generator=Rng("images").torch())
    before, after = predict(original, images), predict(model, images)
    return ((after - before).abs().max() / before.abs().max()).item()


def differs(model, original):
    one, two = model.state_dict(), original.state_dict()
    return one.keys() != two.keys() or any(
        one[name].shape != two[name].shape or not torch.equal(one[name], two[name]) for name in two
    )


@pytest.mark.parametrize("arch_name", ARCHS)
def test_logits_stay_and_weights_change_on_every_architecture(arch_name):
    model = network(arch_name)
    before = deepcopy(model)
    key = mark(model, arch_name)
    for name in NAMES:
        last = ALL[name]().ladder[-1]
        (changed,) = attacked(name, model, key, ladder=[last])
        assert off(changed, before) < 1e-4, name
        assert differs(changed, before), name
        assert not differs(model, before), "the victim itself is left alone"


def test_every_layer_of_every_architecture_is_found():
    """Only the first layer's inputs and the logits are left out."""
    for arch_name in ARCHS:
        model = network(arch_name)
        slots = {(slot.tensor, slot.dim) for slot in Channels(model).slots}
        layers = {p: m for p, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
        wanted = {(f"{path}.weight", dim) for path in layers for dim in (0, 1)}
        assert wanted - slots == {(f"{next(iter(layers))}.weight", 1), (f"net.{arch(arch_name).head}.weight", 0)}


# ---- the owner's remedy ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("arch_name", ARCHS)
def test_the_remedy_reads_every_bit_after_every_attack(arch_name):
    model = network(arch_name)
    for group in ("conv2", "conv3", "conv4"):
        key = mark(model, arch_name, group)
        for name in NAMES:
            if ALL[name].card.remedy:
                (changed,) = attacked(name, model, key, ladder=[50.0 if "rescaling" not in name else 1.0])
                aligned = restored(changed, model, key.layer)
                print(arch_name, group, name, ber(changed, key), ber(aligned, key), off(aligned, model))
