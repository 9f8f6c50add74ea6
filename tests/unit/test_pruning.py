"""Pruning: exact counts, nested masks, the three orders, the three scopes."""

import inspect
from dataclasses import dataclass
from itertools import pairwise

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from bench.api import AccessError, Key, Point, Rng
from bench.registry import attacks
from tests.fakes import FakeContext, victim_of

NAMES = ("pruning", "pruning-global", "pruning-random", "pruning-descending", "pruning-embedded")
ALL = [attacks()[name] for name in NAMES]
Pruning, PruningGlobal, PruningRandom, PruningDescending, PruningEmbedded = ALL


@dataclass(frozen=True)
class LayerKey(Key):
    layer: str
    secret: str = ""
    public = ("layer",)


KEY = LayerKey("net.1")
WEIGHTS = ("net.0.weight", "net.1.weight", "net.4.weight")


def network():
    """Two convolutions, batch normalisation and a linear layer; the first layer's weights are small."""
    model = nn.Module()
    model.net = nn.Sequential(
        nn.Conv2d(3, 7, 3), nn.Conv2d(7, 5, 3, bias=True), nn.BatchNorm2d(5), nn.Flatten(), nn.Linear(20, 10)
    )
    generator = Rng("network").torch()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(generator=generator)
        model.net[0].weight.mul_(0.01)
    return model


def prune(attack, seed=0, model=None, key=KEY):
    """The attacked parameters at each rung, and the victim's."""
    model = model or network()
    attempts = attack.apply(victim_of(attack, model, key), FakeContext(seed))
    rungs = [dict(attempt.model.named_parameters()) for attempt in attempts]
    return rungs, dict(model.named_parameters())


def zeros(parameters, names=WEIGHTS):
    return {name: parameters[name] == 0 for name in names}


def test_every_layer_loses_exactly_its_share():
    attack = Pruning()
    rungs, victim = prune(attack)
    assert attack.ladder == tuple(float(rate) for rate in range(5, 100, 5))
    assert len(rungs) == 19
    for percent, attacked in zip(attack.ladder, rungs, strict=True):
        for name, mask in zeros(attacked).items():
            assert mask.sum() == round(percent * mask.numel() / 100)
            assert torch.equal(attacked[name][~mask], victim[name][~mask])


@pytest.mark.parametrize("attack", ALL)
def test_higher_rates_only_remove_more(attack):
    """Nested: what is zero at a rate is zero at all higher rates."""
    rungs, _ = prune(attack())
    for low, high in pairwise(rungs):
        for before, after in zip(zeros(low).values(), zeros(high).values(), strict=True):
            assert not (before & ~after).any()
    counts = [sum(int(mask.sum()) for mask in zeros(rung).values()) for rung in rungs]
    assert counts == sorted(set(counts))


@pytest.mark.parametrize("attack", ALL)
def test_biases_batch_normalisation_and_victim_are_untouched(attack):
    model = network()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    rungs, _ = prune(attack(ladder=[30.0, 100.0]), model=model)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])
    for name in set(before) - set(WEIGHTS):
        if name in rungs[-1]:
            assert torch.equal(rungs[-1][name], before[name])
    assert rungs[0]["net.1.weight"].data_ptr() != rungs[1]["net.1.weight"].data_ptr()
    assert (rungs[0]["net.1.weight"] != 0).any(), "the second rung must not reach back into the first"


def test_orders_on_a_tensor_worked_by_hand():
    model = nn.Module()
    model.net = nn.Sequential(nn.Identity(), nn.Linear(5, 1))
    model.net[1].weight.data = torch.tensor([[3.0, -1.0, 0.5, -4.0, 2.0]])
    expected = {
        Pruning: [3.0, 0.0, 0.0, -4.0, 2.0],
        PruningGlobal: [3.0, 0.0, 0.0, -4.0, 2.0],
        PruningEmbedded: [3.0, 0.0, 0.0, -4.0, 2.0],
        PruningDescending: [0.0, -1.0, 0.5, 0.0, 2.0],
    }
    for attack, row in expected.items():
        rungs, _ = prune(attack(ladder=[40.0]), model=model)
        assert rungs[0]["net.1.weight"].tolist() == [row]


@pytest.mark.parametrize("order", ["ascending", "descending"])
def test_kept_and_pruned_weights_are_separated_by_magnitude(order):
    rungs, victim = prune(Pruning(order=order, ladder=[37.0]))
    for name, mask in zeros(rungs[0]).items():
        pruned, kept = victim[name][mask].abs(), victim[name][~mask].abs()
        assert pruned.max() <= kept.min() if order == "ascending" else pruned.min() >= kept.max()


def test_random_order_is_blind_to_magnitude_and_follows_the_seed():
    linear = nn.Linear(400, 100, bias=False)
    linear.weight.data = torch.randn(100, 400, generator=Rng("wide").torch())
    attack = PruningRandom(ladder=[20.0, 50.0])
    (_, one), (_, same), (_, other) = ([rung["weight"] for rung in _named(attack, linear, seed)] for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    pruned, kept = (linear.weight[mask].abs().mean().item() for mask in (one == 0, one != 0))
    assert pruned == pytest.approx(kept, rel=0.02)
    both = ((one == 0) & (other == 0)).float().mean().item()
    assert both == pytest.approx(0.25, abs=0.01)


def _named(attack, module, seed):
    model = nn.Module()
    model.net = nn.Sequential(module)
    rungs, _ = prune(attack, seed, model)
    return [{name.removeprefix("net.0."): tensor for name, tensor in rung.items()} for rung in rungs]


def test_layers_of_one_shape_get_different_random_masks():
    model = nn.Module()
    model.net = nn.Sequential(nn.Linear(30, 30), nn.Linear(30, 30))
    rungs, _ = prune(PruningRandom(ladder=[50.0]), model=model)
    one, two = zeros(rungs[0], ["net.0.weight", "net.1.weight"]).values()
    assert not torch.equal(one, two)


@pytest.mark.parametrize("order", ["ascending", "descending", "random"])
def test_embedded_scope_prunes_the_layer_of_the_key_alone(order):
    attack = PruningEmbedded(order=order, ladder=[40.0])
    for layer in ("net.0", "net.1"):
        rungs, victim = prune(attack, key=LayerKey(layer))
        for name in victim:
            if name == f"{layer}.weight":
                assert (rungs[0][name] == 0).sum() == round(0.4 * victim[name].numel())
            else:
                assert torch.equal(rungs[0][name], victim[name])


def test_embedded_scope_needs_a_key_with_a_layer_that_exists():
    with pytest.raises(ValueError, match=r"Expected a model with the embedded layer 'net\.9', but it has none"):
        prune(PruningEmbedded(), key=LayerKey("net.9"))
    with pytest.raises(AccessError, match="who knows the key's 'layer'"):
        prune(PruningEmbedded(), key=Key())


def test_only_the_embedded_attack_reads_the_key():
    for attack in ALL[:-1]:
        assert prune(attack(), key=Key())[0]
        assert attack.card.adversary.knows == ()
        with pytest.raises(AccessError):
            prune(attack(scope="embedded"))
    assert PruningEmbedded.card.adversary.knows == ("scheme", "layer")
    assert PruningEmbedded.card.carriers == ("weights",)


def test_global_scope_takes_one_threshold():
    rungs, victim = prune(PruningGlobal(ladder=[40.0]))
    masks = zeros(rungs[0])
    total = sum(mask.numel() for mask in masks.values())
    assert sum(int(mask.sum()) for mask in masks.values()) == round(0.4 * total)
    pruned = torch.cat([victim[name][mask].abs() for name, mask in masks.items()])
    kept = torch.cat([victim[name][~mask].abs() for name, mask in masks.items()])
    assert pruned.max() <= kept.min()
    assert masks["net.0.weight"].float().mean() > 0.95, "its weights are a hundred times smaller"
    assert masks["net.1.weight"].float().mean() < 0.3


def test_ties_are_counted_exactly():
    model = nn.Module()
    model.net = nn.Sequential(nn.Conv2d(4, 4, 3))
    model.net[0].weight.data.fill_(0.5)
    for attack in (Pruning, PruningDescending, PruningGlobal):
        rungs, _ = prune(attack(ladder=[25.0, 100.0]), model=model)
        assert [int((rung["net.0.weight"] == 0).sum()) for rung in rungs] == [36, 144]


def test_shared_weights_are_pruned_once():
    model = nn.Module()
    model.net = nn.Sequential(nn.Linear(10, 10), nn.Linear(10, 10))
    model.net[1].weight = model.net[0].weight
    rungs, _ = prune(PruningRandom(ladder=[30.0]), model=model)
    assert (rungs[0]["net.0.weight"] == 0).sum() == 30


def test_channels_last_weights_are_pruned_alike():
    plain, model = network(), network().to(memory_format=torch.channels_last)
    (one,), _ = prune(Pruning(ladder=[45.0]), model=plain)
    (two,), _ = prune(Pruning(ladder=[45.0]), model=model)
    for name in WEIGHTS:
        assert torch.equal(one[name], two[name])


@pytest.mark.parametrize("attack", ALL)
def test_run_walks_the_ladder_and_the_tiny_one(attack):
    judged = []

    def judge(claim):
        judged.append(claim.model)
        return Point(strength=claim.strength)

    for params in ({}, dict(attack.card.tiny)):
        points = attack(**params).run(victim_of(attack(), network(), KEY), FakeContext(), judge)
        assert [point.strength for point in points] == list(attack(**params).ladder)
    assert len(judged) == 20
    assert attack.card.stage == "model"
    assert not inspect.isabstract(attack)


@pytest.mark.parametrize("ladder", [[0.0], [101.0], [-5.0]])
def test_rates_are_percentages(ladder):
    with pytest.raises(ValidationError):
        Pruning(ladder=ladder)


def test_defaults_of_the_registered_names():
    found = {attack.card.name: (attack().params.scope, attack().params.order) for attack in ALL}
    assert found == {
        "pruning": ("layer", "ascending"),
        "pruning-global": ("global", "ascending"),
        "pruning-random": ("layer", "random"),
        "pruning-descending": ("layer", "descending"),
        "pruning-embedded": ("embedded", "ascending"),
    }
