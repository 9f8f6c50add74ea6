"""Learning rates over a training, and the recipes of the profiles."""

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from bench import archs, data
from bench.api import Recipe, Rng, replace
from bench.plan.profiles import PROFILES
from bench.steps import training
from bench.steps.optimizer import learning_rate
from tests.unit.trained import fit, toy


def test_the_step_schedule_by_hand():
    """Uchida et al.: 0.1, times 0.2 at epochs 60, 120 and 160 of 200; here two steps an epoch."""
    recipe = Recipe(200, 0.1, schedule="step", milestones=(0.3, 0.6, 0.8), gamma=0.2)
    rates = [learning_rate(recipe, step, 400) for step in range(400)]
    changes = {step: rates[step] for step in range(1, 400) if rates[step] != rates[step - 1]}
    assert rates[0] == 0.1
    assert changes == pytest.approx({120: 0.02, 240: 0.004, 320: 0.0008})


@pytest.mark.parametrize("steps", [2, 3, 4, 10, 200])
def test_onecycle_agrees_with_pytorchs(steps):
    recipe = Recipe(1, 0.4, schedule="onecycle")
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.4, total_steps=steps, cycle_momentum=False)
    for step in range(steps):
        expected = optimizer.param_groups[0]["lr"]
        if 0.3 * steps > 1:  # below, theirs starts beyond the peak
            assert learning_rate(recipe, step, steps) == pytest.approx(expected, rel=1e-9)
        if step < steps - 1:
            optimizer.step()
            theirs.step()


def test_cosine_and_constant_by_hand():
    cosine = [learning_rate(Recipe(1, 0.2, schedule="cosine"), step, 4) for step in range(4)]
    half = math.sqrt(0.5)
    assert cosine == pytest.approx([0.2, 0.1 * (1 + half), 0.1, 0.1 * (1 - half)])
    assert {learning_rate(Recipe(1, 0.2, schedule="constant"), step, 4) for step in range(4)} == {0.2}


def test_the_rate_reaches_the_optimiser():
    """With a gradient of one and no momentum, a weight falls by the sum of all learning rates."""
    recipe = Recipe(2, 0.3, 16, momentum=0.0, weight_decay=0.0, schedule="cosine")

    class Falling(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(()))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.zeros(len(x), 2)

    model = Falling()
    fit(model, toy(32), recipe, extra_loss=lambda m, batch: m.weight)
    assert model.weight.item() == pytest.approx(-sum(learning_rate(recipe, s, 4) for s in range(4)))


def test_profiles_are_whole():
    assert list(PROFILES) == ["smoke", "quick", "small", "standard", "paper", "chain"]
    for name, profile in PROFILES.items():
        assert profile.name == name
        assert all(archs.arch(arch).name == arch for arch in (*profile.archs, *profile.widths))
        for phase in ("host", "embed"):
            for arch in (*archs.names(), "wrn-16-2", "densenet"):
                recipe = profile.recipe(phase, arch)
                assert recipe.epochs >= 1
                assert list(recipe.milestones) == sorted(recipe.milestones)
                assert all(0 < milestone < 1 for milestone in recipe.milestones)


def test_the_paper_profile_follows_uchidas_section_4_and_deepstamps_table():
    host = PROFILES["paper"].host
    assert replace(host["wrn"], augment=None) == Recipe(
        200, 0.1, 64, weight_decay=5e-4, schedule="step", milestones=(0.3, 0.6, 0.8), gamma=0.2, warmup=1.0
    )
    expected = {"alexnet": (0.01, 0.95, 10), "vgg16": (0.1, 0.1, 100), "resnet50": (0.1, 0.1, 100)}
    for arch, (lr, gamma, every) in expected.items():
        recipe = host[arch]
        assert (recipe.epochs, recipe.batch_size, recipe.nesterov) == (300, 128, False)
        for epoch in (0, every - 1, every, 2 * every, 299):
            rate = learning_rate(recipe, epoch * 7, 300 * 7)
            assert rate == pytest.approx(lr * gamma ** (epoch // every))


def test_only_profiles_on_full_networks_are_ranked():
    ranked = {name: profile for name, profile in PROFILES.items() if profile.ranked}
    assert list(ranked) == ["small", "standard", "paper"]
    assert all(set(profile.widths.values()) <= {1.0} for profile in ranked.values())
    assert all(a.seeds <= b.seeds for a, b in pairwise(p for p in PROFILES.values() if p.name != "chain"))


# ---- warm-up ---------------------------------------------------------------------------------------------------------
def test_a_warm_up_by_hand():
    """Four steps of forty rise to the rate that the schedule has."""
    recipe = Recipe(10, 0.1, schedule="step", milestones=(0.5,), gamma=0.2, warmup=1.0)
    rates = [learning_rate(recipe, step, 40) for step in range(40)]
    assert rates[:6] == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1, 0.1])
    assert rates[20:] == pytest.approx([0.02] * 20)


def test_a_warm_up_is_as_long_where_an_attack_trains_for_fewer_epochs():
    """An adversary who trains from scratch at the paper's rate needs all of it."""
    paper = PROFILES["paper"].recipe("host", "wrn")
    for epochs in (200, 60, 2):
        recipe = replace(paper, epochs=epochs, schedule="constant")
        rates = [learning_rate(recipe, step, 50 * epochs) for step in range(60)]
        assert rates[:50] == pytest.approx([0.1 * (step + 1) / 50 for step in range(50)])
        assert rates[50:] == pytest.approx([0.1] * 10)


@pytest.mark.parametrize("schedule", ["onecycle", "step", "cosine", "constant"])
def test_no_warm_up_changes_no_rate(schedule):
    recipe = Recipe(1, 0.1, schedule=schedule)
    warm = replace(recipe, warmup=0.25)
    for step in range(20):
        share = learning_rate(warm, step, 20) / learning_rate(recipe, step, 20)
        assert share == pytest.approx(min(1, (step + 1) / 5))


def test_the_papers_learning_rate_trains_the_papers_network_after_a_warm_up():
    """Features of WRN are large, as nothing follows its additions: at 0.1 from the first step on it diverges."""
    recipe = replace(PROFILES["paper"].recipe("host", "wrn"), epochs=3, schedule="constant", warmup=2.1)
    model = archs.build("wrn", 10, width=0.5, rng=Rng("paper", 1))
    trained = training.train(model, data.load("digits-m").owner, recipe, rng=Rng("paper", 1), augment=())
    assert trained.history[-1].loss < math.log(10)
