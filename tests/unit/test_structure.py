"""Function-preserving attacks: equal logits on every architecture, other weights, what becomes of a mark."""

from copy import deepcopy
from types import SimpleNamespace

import pytest
import torch
from scipy.stats import binom
from torch import nn
from torch.nn import functional as F

from attacks.structure import moved
from bench.api import AccessError, Change, Channels, Key, Rng, bits_p_value, predict
from bench.archs import arch, build, names
from bench.data.digits import digits_m
from bench.registry import attacks, schemes
from bench.steps.judge import Judge, State
from bench.steps.remedy import restored
from schemes.uchida import UchidaKey, mean_filter, read
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


def test_what_is_not_understood_is_left_alone():
    """Channels that meet an unknown operation, grouped filters or a layer used twice are not free."""

    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1, groups=2), nn.Conv2d(4, 4, 1)
            self.d, self.e, self.f = nn.Conv2d(4, 6, 1), nn.Conv2d(6, 6, 1), nn.Conv2d(6, 2, 1)

        def forward(self, x):
            x = self.c(self.c(self.b(self.a(x))))
            return self.f(self.e(self.d(x).tanh().softmax(1)) * 2).mean((2, 3))

    assert Channels(Odd()).slots == []
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Tanh(), nn.Conv2d(4, 2, 1))
    (scaled,) = {slot.scale for slot in Channels(model).slots}
    assert scaled is None, "tanh keeps the order but not the scale"


def test_flattened_maps_and_shared_tensors():
    """A channel that is flattened takes its pixels along."""
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 36, 10))
    images = torch.rand(4, 3, 8, 8, generator=Rng("images").torch())
    before = model(images)
    channels = Channels(model)
    assert [slot.repeat for slot in channels.slots] == [1, 1, 36]
    channels.rewire(0, Change.select(torch.tensor([1, 2, 3, 4, 5, 0])))
    channels.rewire(0, Change.copies(torch.tensor([0, 1, 2, 3, 4, 5, 5, 5])))
    channels.rescale(channels.scaled_together()[0], torch.arange(1.0, 9.0))
    assert model[3].weight.shape == (10, 8 * 36)
    torch.testing.assert_close(model(images), before)


def test_a_rescaled_normalisation_answers_the_same_where_eps_counts():
    """Hand: v = 0, eps = 0.01, s = 10: gamma' = gamma sqrt(0 + 0.01) / (10 sqrt(0 + 0.01)) = gamma / 10."""
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2, eps=0.01), nn.Conv2d(2, 1, 1)).eval()
    model[1].running_var.copy_(torch.tensor([0.0, 0.03]))
    model[1].running_mean.fill_(0.5)
    channels = Channels(model)
    before_norm = next(s for s in channels.scaled_together().values() if any(slot.role == "norm" for slot in s))
    channels.rescale(before_norm, torch.tensor([10.0, 2.0]))
    assert model[1].running_mean.tolist() == [5.0, 1.0]
    assert model[1].running_var.tolist() == pytest.approx([0.0, 0.12])
    assert model[1].weight.tolist() == pytest.approx([0.1, (0.13 / 0.04) ** 0.5 / 2])


# ---- what becomes of a mark ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("arch_name", ["resnet18", "vgg16", "wrn"])
def test_permuted_inputs_drive_the_error_rate_to_one_half_and_permuted_filters_do_not(arch_name):
    model = network(arch_name, width=0.5)
    key = mark(model, arch_name, "conv3", bits=512)
    assert ber(model, key) == 0
    rates = [ber(attacked("permutation", model, ladder=[100.0], seed=i)[0], key) for i in range(4)]
    assert sum(rates) / 4 == pytest.approx(0.5, abs=0.06)
    (filters,) = attacked("permutation-filters", model, key, ladder=[100.0])
    assert ber(filters, key) == 0
    changed = {
        name for name, tensor in filters.state_dict().items() if not torch.equal(tensor, model.state_dict()[name])
    }
    assert f"{key.layer}.weight" in changed


def test_rescaling_breaks_a_mark_more_the_wider_the_scales():
    model = network("wrn", width=0.5)
    key = mark(model, "wrn", bits=512)
    mild, strong = (ber(changed, key) for changed in attacked("rescaling", model, ladder=[0.1, 1.0]))
    assert 0 < mild < 0.15 < strong


def test_wider_networks_are_unreadable_and_deeper_ones_are_not():
    model = network("resnet18")
    key = mark(model, "resnet18")
    for name in ("net2wider", "dummy-neurons", "dummy-neurons-split"):
        (changed,) = attacked(name, model, key, ladder=[50.0])
        assert read(changed, key) is None
        size, grown = (m.get_submodule("net.conv").out_channels for m in (model, changed))
        assert (size, grown) == (8, 12)
    (deeper,) = attacked("net2deeper", model, key, ladder=[100.0], kernel=3)
    assert ber(deeper, key) == 0
    layers = [sum(isinstance(m, nn.Conv2d) for m in each.modules()) for each in (model, deeper)]
    assert layers == [20, 29], "one after the stem's ReLU and one inside each of the eight blocks"


def test_dummies_cancel_and_copies_share():
    """Outgoing weights of a clique sum to zero, those of a split neuron and of copies to the neuron's own."""
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    for name in ("dummy-neurons", "dummy-neurons-split", "net2wider"):
        (changed,) = attacked(name, model, ladder=[50.0])
        rows, label = changed[0].weight.unique(dim=0, return_inverse=True)
        sums = torch.zeros(3, len(rows)).index_add_(1, label, changed[2].weight.detach())
        own = [(row == model[0].weight).all(1).nonzero() for row in rows]
        for i, found in enumerate(own):
            wanted = model[2].weight[:, found[0, 0]] if len(found) else torch.zeros(3)
            torch.testing.assert_close(sums[:, i], wanted.detach(), atol=1e-6, rtol=1e-5)
        assert (len(rows) - 6, len(changed[0].weight) - 6) == {
            "dummy-neurons": (2, 4), "dummy-neurons-split": (0, 3), "net2wider": (0, 3)
        }[name]  # fmt: skip


def test_rungs_follow_the_seed_and_the_layer_must_be_told():
    model = network("wrn")
    one, same, other = (attacked("permutation", model, seed=seed, ladder=[100.0])[0] for seed in (0, 0, 1))
    assert not differs(one, same)
    assert differs(one, other)
    assert moved(10, 10, Rng("x").torch()).ne(torch.arange(10)).sum() == 2, "at least two change places"
    assert moved(10, 100, Rng("x").torch()).ne(torch.arange(10)).all()
    with pytest.raises(AccessError):
        attacked("permutation", model, scope="embedded")
    with pytest.raises(AccessError):
        attacked("permutation-filters", model, Key())


# ---- the owner's remedy ----------------------------------------------------------------------------------------------
def chained(model, key, *steps):
    for name, strength in steps:
        (model,) = attacked(name, model, key, ladder=[strength])
    return model


CHAINS = (
    (("permutation", 100.0),),
    (("rescaling", 1.0),),
    (("net2wider", 50.0),),
    (("dummy-neurons", 25.0), ("dummy-neurons-split", 50.0), ("rescaling-folded", 1.0), ("permutation", 100.0)),
)


@pytest.mark.parametrize("arch_name", ARCHS)
def test_the_remedy_reads_every_bit_of_a_changed_network(arch_name):
    model = network(arch_name)
    key = mark(model, arch_name, "conv3")
    for steps in CHAINS[-1:] if arch_name == "densenet" else CHAINS:
        changed = chained(model, key, *steps)
        aligned = restored(changed, model, key.layer)
        assert ber(changed, key) != 0, steps
        assert ber(aligned, key) == 0, steps
        assert off(aligned, model) < 1e-4, steps


@pytest.mark.parametrize("arch_name", ["wrn", "vgg16", "alexnet"])
@pytest.mark.parametrize("attack", ["rescaling", "permutation"])
def test_the_marked_layers_weights_have_no_part_in_the_alignment(arch_name, attack):
    """Else a claim could bend an innocent network towards its key."""
    reference = network(arch_name)
    layer = f"net.{arch(arch_name).layers['conv2']}"
    (suspect,) = attacked(attack, reference, ladder=[1.0])
    other = deepcopy(suspect)
    weight = other.get_submodule(layer).weight
    with torch.no_grad():
        weight.mul_(0.5 + 3 * torch.rand(*weight.shape[:2], 1, 1, generator=Rng("scales").torch()))
    one, two = (restored(each, reference, layer).state_dict() for each in (suspect, other))
    assert not torch.equal(one[f"{layer}.weight"], two[f"{layer}.weight"])
    for name, tensor in one.items():
        if name != f"{layer}.weight":
            torch.testing.assert_close(two[name], tensor)


def test_a_network_that_is_none_of_the_owners_is_returned_as_it_is():
    reference, other = network("wrn"), network("resnet18")
    assert restored(other, reference, "net.group1.0.conv2") is other


@pytest.fixture(scope="module")
def digits():
    part = digits_m().train
    return F.avg_pool2d(part.images[:256].float() / 255, 4), part.labels[:256]


def trained(digits, stream, key=None):
    """A small network after 25 steps; with a key, by Uchida's loss in every step, which moves all its layers."""
    images, labels = digits
    generator = Rng("training", stream).torch()
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(128, 10),
    )  # fmt: skip
    for layer in (model[0], model[4], model[8]):
        layer.weight.data.normal_(0, (2 / layer.weight[0].numel()) ** 0.5, generator=generator)
        layer.bias.data.zero_()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for _ in range(25):
        rows = torch.randint(len(images), (32,), generator=generator)
        loss = F.cross_entropy(model(images[rows]), labels[rows])
        if key is not None:
            y = key.projection @ mean_filter(model, key.layer)
            loss = loss + 0.1 * F.binary_cross_entropy_with_logits(y, key.payload.float(), reduction="sum")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def test_fresh_keys_keep_their_error_rate_on_innocent_networks_aligned_to_marked_ones(digits):
    """Each key's own marked network is the reference; comparing the marked layer too would break the rate."""
    count, bits = 64, 32
    innocent = [trained(digits, f"innocent {i}") for i in range(4)]
    errors, careless = [], []
    for i in range(count):
        generator = Rng("keys", i).torch()
        payload = torch.randint(2, (bits,), dtype=torch.uint8, generator=generator)
        key = UchidaKey(torch.randn(bits, 72, generator=generator), payload, "4")
        reference = trained(digits, f"owner {i}", key)
        assert ber(reference, key) < 0.1
        suspect = innocent[i % 4]
        errors.append(round(bits * ber(restored(suspect, reference, "4"), key)))
        careless.append(round(bits * ber(restored(suspect, reference, "none"), key)))
    false, deviation = sum(bits_p_value(e, bits) <= 0.1 for e in errors), 0.5 / (bits * count) ** 0.5
    assert false <= binom.isf(1e-4, count, 0.1)
    assert sum(errors) / (bits * count) == pytest.approx(0.5, abs=4 * deviation)
    assert sum(careless) / (bits * count) < 0.5 - 4 * deviation, "this test can fail"


def test_the_judge_adds_both_numbers_where_a_layer_carries_the_mark():
    model = network("wrn")
    key = mark(model, "wrn")
    (changed,) = attacked("permutation", model, ladder=[100.0])
    scheme = schemes()["uchida-random"](bits=64)
    state = State(None, None, lambda: changed)

    def measures(reference, state):
        return Judge(SimpleNamespace(device=torch.device("cpu")), scheme, [key], None, reference)._remedied(state)

    found = measures(model, state)
    assert found["remedied_ber"] == 0
    assert found["remedied_p_value"] < 1e-15 < bits_p_value(round(64 * ber(changed, key)), 64)
    assert measures(None, state) == {}
    assert measures(model, State(None, None, lambda: changed, key=key)) == {}, "a forger has no reference"
