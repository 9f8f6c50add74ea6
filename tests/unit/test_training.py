"""The training loop: it learns, repeats itself bit for bit, and does what each part of a recipe says."""

import copy
import math
import re
import time

import pytest
import torch
from torch import nn

from bench import archs
from bench.api import ImageSet, Recipe, replace
from bench.contract.networks import Batch
from bench.steps import training
from bench.steps.optimizer import learning_rate, optimizer_of
from tests.unit.trained import RECIPE, RNG, Recorder, fit, linear, same, small_net, state, toy


def test_it_learns():
    images = toy()
    start = time.perf_counter()
    trained = fit(small_net(), images, replace(RECIPE, epochs=4))
    spent = time.perf_counter() - start
    assert [epoch.epoch for epoch in trained.history] == [1, 2, 3, 4]
    assert trained.history[-1].loss < trained.history[0].loss
    assert training.accuracy(trained.model, images) == 1.0
    assert trained.history[-1].accuracy > 0.9
    assert trained.history[-1].extra_loss is None
    assert spent >= trained.time_s >= sum(epoch.seconds for epoch in trained.history) > 0
    assert all(epoch.images_per_s == pytest.approx(64 / epoch.seconds) for epoch in trained.history)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_two_runs_are_equal_bit_for_bit(optimizer):
    images, recipe = toy(), replace(RECIPE, optimizer=optimizer, lr=0.01)
    runs = [fit(small_net(dropout=0.5), images, recipe, augment=("crop", "flip")) for _ in range(2)]
    other = fit(small_net(dropout=0.5), images, recipe, augment=("crop", "flip"), rng=RNG.child("other"))
    assert same(runs[0].model, runs[1].model)
    assert [epoch.loss for epoch in runs[0].history] == [epoch.loss for epoch in runs[1].history]
    assert not same(runs[0].model, other.model)


def test_real_networks_repeat_themselves_too():
    images = toy(32, size=32)
    models = [archs.build("wrn", 2, width=0.125, rng=RNG) for _ in range(2)]
    for model in models:
        fit(model, images, replace(RECIPE, epochs=1))
    assert same(*models)


def test_the_global_generator_is_left_alone_and_has_no_influence():
    images, models = toy(), [small_net(dropout=0.5), small_net(dropout=0.5)]
    for model in models:
        before = torch.get_rng_state()
        for _ in training.train_epochs(model, images, RECIPE, rng=RNG, augment=("crop",)):
            assert torch.equal(torch.get_rng_state(), before)
            torch.rand(1)
            before = torch.get_rng_state()
    assert same(*models)


def test_dropout_draws_anew_in_every_epoch():
    class Noisy(Recorder):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(nn.functional.dropout(torch.ones_like(x), 0.5, self.training))

    model = Noisy()
    fit(model, toy(16))
    assert len(model.seen) == 2
    assert not torch.equal(*model.seen)


def test_eval_mode_at_every_yield_and_train_mode_between():
    model = Recorder()
    lengths = []
    for _ in training.train_epochs(model, toy(), RECIPE, rng=RNG, augment=()):
        assert not model.training
        lengths.append(len(model.seen))
    assert lengths == [4, 8]
    assert not model.training


def test_the_extra_loss_is_added_and_reported():
    images = toy()
    plain, pulled = linear(), linear()
    pulled.load_state_dict(plain.state_dict())
    fit(plain, images)
    trained = fit(pulled, images, extra_loss=lambda model, batch: 0.5 * (model[1].weight - 3).square().sum())
    assert (pulled[1].weight - 3).abs().mean() < 0.5 * (plain[1].weight - 3).abs().mean()
    assert trained.history[0].extra_loss > trained.history[1].extra_loss > 0


def test_a_constant_extra_loss_changes_nothing_and_is_reported_as_its_mean():
    images = toy(40)
    plain, shifted = linear(), linear()
    shifted.load_state_dict(plain.state_dict())
    history = fit(plain, images).history
    other = fit(shifted, images, extra_loss=lambda model, batch: 0.0 * model[1].weight.sum() + 2.5).history
    assert same(plain, shifted)
    assert [epoch.loss for epoch in other] == [epoch.loss for epoch in history]
    assert [epoch.extra_loss for epoch in other] == [2.5, 2.5]


def test_an_extra_loss_sees_the_batch_as_the_network_saw_it():
    images, model = toy(40), small_net()
    by_image = {image.numpy().tobytes(): label for image, label in zip(images.images / 255, images.labels, strict=True)}
    seen = []

    def look(network: nn.Module, batch: Batch) -> torch.Tensor:
        assert network is model
        labels = [by_image[image.contiguous().numpy().tobytes()] for image in batch.images]
        assert batch.labels.tolist() == labels
        assert torch.equal(batch.logits, model[5](model[4](batch.activations["flat"])))
        assert batch.activations["flat"].shape == (len(batch.labels), 4 * 64)
        assert batch.activations["flat"].requires_grad
        seen.append(len(batch.labels))
        return batch.logits.sum()

    fit(model, images, extra_loss=look, watches={"flat": "3"})
    assert seen == [16, 16, 8] * 2
    assert not any(module._forward_hooks for module in model.modules()), "nothing is watched afterwards"


def test_an_extra_loss_may_be_none():
    assert fit(linear(), toy(), extra_loss=lambda model, batch: None).history[0].extra_loss is None


def test_undecayed_weights_keep_their_size_where_others_shrink():
    class Still(nn.Module):
        """Its answer does not depend on its weights, whose gradients are zero."""

        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.zeros(len(x), 2) + 0.0 * (self.a.sum() + self.b.sum())

    for optimizer in ("sgd", "adam"):
        recipe = Recipe(1, 0.1, 16, optimizer, momentum=0.0, weight_decay=0.5, schedule="constant")
        model = Still()
        fit(model, toy(32), recipe, undecayed=("a",))
        assert torch.equal(model.a, torch.ones(3))
        assert model.b.tolist() == pytest.approx([0.95**2] * 3)  # two steps, each times 1 - lr x decay


def test_an_unknown_undecayed_name_is_refused():
    with pytest.raises(ValueError, match=r'got "1\.wieght"\. Did you mean "1\.weight"\?'):
        fit(linear(), toy(), undecayed=("1.wieght",))


def test_each_step_has_the_schedule_s_rate_over_the_whole_training(monkeypatch):
    rates = []
    taken = torch.optim.SGD.step
    monkeypatch.setattr(
        torch.optim.SGD, "step", lambda self, *words: rates.append(self.param_groups[0]["lr"]) or taken(self, *words)
    )
    recipe = replace(RECIPE, epochs=3, batch_size=16, schedule="onecycle")
    fit(linear(), toy(64), recipe)
    assert rates == [learning_rate(recipe, step, 12) for step in range(12)]
    assert rates[0] < max(rates) == pytest.approx(recipe.lr, rel=0.2)


def test_optimizers_have_the_recipe_s_numbers():
    model = linear()
    adam = optimizer_of(model, replace(RECIPE, optimizer="adam", lr=0.003, momentum=0.8), ())
    assert isinstance(adam, torch.optim.AdamW)
    assert (adam.defaults["lr"], adam.defaults["betas"]) == (0.003, (0.8, 0.999))
    sgd = optimizer_of(model, replace(RECIPE, lr=0.2, momentum=0.7, nesterov=True), ())
    assert isinstance(sgd, torch.optim.SGD)
    assert [sgd.defaults[name] for name in ("lr", "momentum", "nesterov")] == [0.2, 0.7, True]
    assert not optimizer_of(model, replace(RECIPE, momentum=0.0, nesterov=True), ()).defaults["nesterov"]


def test_one_step_by_hand():
    """Momentum, Nesterov and decay of one step from a known gradient: w - lr (1 + momentum) (g + decay w)."""
    images = ImageSet(torch.full((2, 3, 8, 8), 255, dtype=torch.uint8), torch.tensor([0, 0]))
    model = Recorder()
    model.weight.data = torch.tensor([1.0, 1.0])
    fit(model, images, Recipe(1, 0.1, 2, momentum=0.9, weight_decay=0.01, schedule="constant"))
    expected = [1 - 0.1 * 1.9 * (-0.5 + 0.01), 1 - 0.1 * 1.9 * (0.5 + 0.01)]
    assert model.weight.tolist() == pytest.approx(expected)


@pytest.mark.parametrize(("mixed", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_a_cpu_trains_in_half_precision_where_it_is_asked_to(mixed, dtype):
    seen, model = [], small_net()
    model[0].register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    fit(model, toy(), mixed_precision=mixed)
    assert set(seen) == {dtype}
    assert {p.dtype for p in model.parameters()} == {torch.float32}, "the weights stay as they are"


def test_adversarial_training_takes_a_step_on_perturbed_images_before_the_ordinary_one():
    calls: list[torch.Tensor] = []

    def perturb(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        calls.append(labels)
        nn.functional.cross_entropy(model(images), labels).backward()  # its gradients must not reach the optimiser
        return images * 0

    model, images = Recorder(), toy(16)
    fit(model, images, Recipe(1, 0.1, 16, schedule="constant", perturb=perturb))
    original, black, clean = model.seen
    assert len(calls) == 1
    assert not black.any()
    assert torch.equal(original, clean)
    plain = Recorder()
    fit(plain, images, Recipe(1, 0.1, 16, schedule="constant"))
    # A black image gives this network no gradient, so the extra step leaves the weights at 0.
    assert torch.equal(model.weight, plain.weight)


def test_label_smoothing_by_hand():
    model = Recorder()
    model.weight.data = torch.tensor([2.0, 0.0])
    white = ImageSet(torch.full((2, 3, 8, 8), 255, dtype=torch.uint8), torch.tensor([0, 0]))
    recipe = Recipe(1, 0.0, 2, label_smoothing=0.2, schedule="constant", weight_decay=0.0)
    loss = fit(model, white, recipe).history[0].loss
    log_sum = math.log(math.exp(2.0) + 1)
    assert loss == pytest.approx(0.9 * (log_sum - 2) + 0.1 * log_sum)


@pytest.mark.parametrize("lr", [1e30, float("nan")])
def test_divergence_is_reported_with_epoch_loss_and_rate(lr):
    with pytest.raises(
        training.Diverged, match=r"loss of .* in epoch 1 of 2 at a peak learning rate of " + re.escape(f"{lr:g}")
    ):
        fit(linear(), toy(), replace(RECIPE, lr=lr, schedule="constant"))


def test_weights_that_the_last_step_ruined_are_noticed():
    recipe = Recipe(1, math.inf, 64, schedule="constant")
    with pytest.raises(training.Diverged, match="finite"):
        fit(linear(), toy(64), recipe)  # one step: the loss before it is finite


def test_losses_that_are_not_finite_are_noticed_while_weights_still_are():
    class Certain(Recorder):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.tensor([0.0, -math.inf]) + 0.0 * super().forward(x)

    with pytest.raises(training.Diverged, match=r"got a loss of inf \(added: 0\)"):
        fit(Certain(), toy())
    with pytest.raises(training.Diverged, match=r"\(added: inf\)"):
        fit(Recorder(), toy(), extra_loss=lambda model, batch: 0.0 * model.weight.sum() + math.inf)


def test_frozen_layers_do_not_move_nor_do_their_batch_statistics():
    model = small_net()
    model[0].requires_grad_(False)
    model[1].requires_grad_(False)
    before = state(model)
    fit(model, toy())
    after = state(model)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"5.weight", "5.bias"}


def test_prediction_is_in_batches_and_leaves_the_mode_alone():
    model, images = small_net(dropout=0.5).train(), toy(10)
    whole, parts = training.predict(model, images.images), training.predict(model, images.images, batch_size=3)
    assert model.training
    assert whole.dtype == torch.float32
    assert not whole.requires_grad
    assert torch.allclose(whole, parts, atol=1e-6)
    assert torch.allclose(whole, training.predict(copy.deepcopy(model).eval(), images.images.float() / 255), atol=1e-6)


def test_accuracy_is_a_fraction():
    model = Recorder()
    model.weight.data = torch.tensor([1.0, 0.0])
    assert training.accuracy(model, ImageSet(toy(4).images, torch.tensor([0, 0, 0, 1]))) == 0.75
    with pytest.raises(ValueError, match="at least one image"):
        training.accuracy(model, toy(4)[:0])


def test_who_watches_hears_of_every_epoch():
    heard = []
    with training.watched_by(lambda epoch, epochs: heard.append((epoch, epochs))):
        fit(small_net(), toy(), replace(RECIPE, epochs=3))
    fit(small_net(), toy(), replace(RECIPE, epochs=1))
    assert heard == [(1, 3), (2, 3), (3, 3)]


def test_a_temperature_divides_the_logits_and_keeps_the_gradient_s_size():
    images, targets = toy(), torch.softmax(torch.randn(64, 2, generator=torch.Generator().manual_seed(0)), 1)
    soft = ImageSet(images.images, images.labels, targets)
    recipe = Recipe(epochs=1, lr=0.0, batch_size=64, weight_decay=0.0, augment=(), temperature=3.0)
    model = linear()
    (epoch,) = fit(model, soft, recipe).history
    log_probs = torch.log_softmax(training.predict(model, images.images) / 3, 1)
    assert epoch.loss == pytest.approx(9 * float(-(targets * log_probs).sum(1).mean()), rel=1e-4)
