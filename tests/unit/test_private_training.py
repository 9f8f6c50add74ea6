"""Training by DP-SGD: its steps, clipping, noise, batches, and what it refuses."""

import copy
import math
import sys
import warnings

import pytest
import torch
from torch import nn

from attacks._dpsgd import PrivateDescent, poisson
from bench.api import ImageSet, Recipe, replace
from bench.steps import training
from tests.unit.trained import RECIPE, RNG, fit, same, small_net, state, toy

PRIVATE = PrivateDescent(noise_multiplier=1.0, max_grad_norm=1.0)


NOISELESS = PrivateDescent(noise_multiplier=0.0, max_grad_norm=1e9)


def normalised(classes: int = 2) -> nn.Sequential:
    """A network that can be trained privately: group instead of batch normalisation."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.GroupNorm(4, 8),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, stride=2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(72, classes),
        )


def gap(first: nn.Module, second: nn.Module) -> float:
    pairs = zip(first.parameters(), second.parameters(), strict=True)
    return max(float((a - b).detach().abs().max()) for a, b in pairs)


def test_private_steps_without_noise_or_clipping_are_ordinary_ones():
    """In batches of all images nothing is random; 70 images pass in three parts of at most 32."""
    images, recipe = toy(70), Recipe(3, 0.1, 70, schedule="cosine", label_smoothing=0.1)
    plain, private = normalised(), normalised()
    ordinary = fit(plain, images, recipe).history
    history = fit(private, images, replace(recipe, descent=NOISELESS)).history
    assert gap(plain, private) < 1e-6 < 0.01 < gap(plain, normalised())
    for ours, theirs in zip(history, ordinary, strict=True):
        assert (ours.loss, ours.accuracy) == pytest.approx((theirs.loss, theirs.accuracy), abs=1e-6)
        assert ours.extra_loss is None


def test_gradients_are_clipped_image_by_image():
    images, bound = toy(40), 0.05
    recipe = Recipe(1, 1.0, 40, momentum=0.0, nesterov=False, weight_decay=0.0, schedule="constant")
    model, start = normalised(), normalised()
    fit(model, images, replace(recipe, descent=PrivateDescent(0.0, bound)))
    total = [torch.zeros_like(parameter) for parameter in start.parameters()]
    norms = []
    for image, label in zip(images.images.float() / 255, images.labels, strict=True):
        loss = nn.functional.cross_entropy(start(image[None]), label[None])
        gradients = torch.autograd.grad(loss, list(start.parameters()))
        norms.append(float(torch.cat([gradient.flatten() for gradient in gradients]).norm()))
        for part, gradient in zip(total, gradients, strict=True):
            part += gradient * min(1.0, bound / norms[-1])
    assert min(norms) > bound
    for after, before, part in zip(model.parameters(), start.parameters(), total, strict=True):
        assert torch.allclose(after, before - part / 40, atol=1e-6)


def test_the_noise_is_as_strong_as_it_says():
    """Black images give this network no gradient, so that one step is noise alone."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10, bias=False))
    before = model[1].weight.detach().clone()
    black = ImageSet(torch.zeros(20, 3, 32, 32, dtype=torch.uint8), torch.arange(20) % 10)
    recipe = Recipe(1, 0.5, 20, momentum=0.0, nesterov=False, weight_decay=0.0, schedule="constant")
    recipe = replace(recipe, descent=PrivateDescent(3.0, 2.0))
    other = copy.deepcopy(model)
    fit(model, black, recipe)
    fit(other, black, recipe, rng=RNG.child("other"))
    moved = model[1].weight.detach() - before
    assert not torch.allclose(model[1].weight, other[1].weight, atol=0.01)
    assert float(moved.std()) == pytest.approx(0.5 * 3.0 * 2.0 / 20, rel=0.03)
    assert float(moved.mean()) == pytest.approx(0.0, abs=0.005)


def test_two_private_runs_are_equal_bit_for_bit_and_learn():
    images, recipe = toy(), replace(RECIPE, epochs=4, descent=PrivateDescent(0.3, 1.0))
    before = torch.get_rng_state()
    runs = [fit(normalised(), images, recipe, augment=("flip",)) for _ in range(2)]
    other = fit(normalised(), images, recipe, augment=("flip",), rng=RNG.child("other"))
    assert torch.equal(torch.get_rng_state(), before)
    assert same(runs[0].model, runs[1].model)
    assert [epoch.loss for epoch in runs[0].history] == [epoch.loss for epoch in runs[1].history]
    assert not same(runs[0].model, other.model)
    assert training.accuracy(fit(normalised(), images, recipe).model, images) > 0.9


def test_poisson_batches_take_each_image_by_itself():
    taken = torch.zeros(4000, 50)
    for step, rows in enumerate(poisson(50, 4000, RNG.torch("poisson"))):
        taken[step, rows] = 1
    assert float(taken.sum()) == pytest.approx(50, abs=25)  # 200,000 draws at 1/4000
    few = torch.stack([torch.bincount(rows, minlength=50) for rows in poisson(50, 5, RNG.torch("few"))])
    assert few.max() == 1
    sizes = [len(rows) for _ in range(400) for rows in poisson(50, 5, RNG.torch("few", _))]
    assert len(sizes) == 2000
    assert sum(sizes) / 2000 == pytest.approx(10, abs=0.3)
    variance = sum((size - 10) ** 2 for size in sizes) / 2000
    assert variance == pytest.approx(50 * 0.2 * 0.8, rel=0.15)
    assert [rows.tolist() for rows in poisson(3, 1, RNG.torch("all"))] == [[0, 1, 2]]


def test_steps_without_images_are_noise_and_epochs_without_images_end():
    model = normalised()
    history = fit(model, toy(2), Recipe(12, 0.1, 1, schedule="constant", descent=PRIVATE)).history
    assert any(epoch.accuracy == 0 == epoch.loss for epoch in history), "two images miss an epoch once in 16"
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    descending = PRIVATE.start(model, optimizer, images=100, steps=4, seed=1)
    before = state(model)
    with descending.scope():
        descending.step(0, lambda _: pytest.fail("there is nothing to lose"))
    moved = torch.cat([(after - before[name]).flatten() for name, after in state(model).items()])
    assert float(moved.std()) == pytest.approx(1 / 25, rel=0.1), "over the expected batch, a quarter of the images"


def test_private_training_leaves_an_ordinary_network_after_every_epoch():
    model, images = normalised(), toy()
    recipe = replace(RECIPE, descent=PRIVATE)
    plain = {key for module in normalised().modules() for key in module.__dict__}
    for _ in training.train_epochs(model, images, recipe, rng=RNG, augment=()):
        assert not model.training
        assert {key for module in model.modules() for key in module.__dict__} == plain
        assert not any(module._forward_hooks or module._backward_hooks for module in model.modules())
        assert not any(parameter.__dict__ or parameter.grad is not None for parameter in model.parameters())
        assert same(copy.deepcopy(model), model)


def test_private_training_is_quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(normalised(), toy(32), replace(RECIPE, epochs=1, descent=PRIVATE))


@pytest.mark.parametrize("bounds", [(-1.0, 1.0), (math.nan, 1.0), (1.0, 0.0)])
def test_noise_and_norm_have_bounds(bounds):
    with pytest.raises(ValueError, match="Expected a noise multiplier from 0 on and a clipping norm above 0, but got "):
        fit(normalised(), toy(), replace(RECIPE, descent=PrivateDescent(*bounds)))


@pytest.mark.parametrize(
    ("recipe", "options", "message"),
    [
        ({"perturb": lambda model, images, labels: images}, {}, "to train without adversarial steps and without"),
        ({"mix": lambda images, targets, generator: (images, targets)}, {}, "without mixed images or an added loss"),
        ({}, {"extra_loss": lambda model, batch: None}, "an added loss, but got one of them: leave out `perturb`"),
        ({}, {"model": small_net()}, r"Expected a network without batch normalisation, .* but got 1: replace it"),
    ],
)
def test_what_would_see_the_images_without_noise_is_refused(recipe, options, message):
    options = {"model": normalised(), **options}
    with pytest.raises(ValueError, match=message) as caught:
        fit(options.pop("model"), toy(), replace(RECIPE, **{"descent": PRIVATE, **recipe}), **options)
    assert "\n" not in str(caught.value)


def test_private_training_without_opacus_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "opacus", None)
    with pytest.raises(ValueError, match=r'Opacus .* for DP-SGD: pip install "watermark-bench\[dp\]"\.$'):
        fit(normalised(), toy(), replace(RECIPE, descent=PRIVATE))
