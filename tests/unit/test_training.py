"""The training loop: it learns, repeats itself bit for bit, and does what each part of a recipe says."""

import copy
import math
import re
import sys
import time
import warnings
from itertools import pairwise

import pytest
import torch
from torch import nn

from attacks._dpsgd import PrivateDescent, poisson
from bench import archs
from bench.api import ImageSet, Recipe, replace
from bench.contract.networks import Batch
from bench.identity import Rng
from bench.plan.profiles import PROFILES
from bench.steps import training

RNG = Rng("test training")
RECIPE = Recipe(epochs=2, lr=0.05, batch_size=16)


def toy(count: int = 64, size: int = 8) -> ImageSet:
    """Two classes: a bright left half, a bright right half."""
    generator = RNG.torch("toy")
    images = torch.randint(0, 100, (count, 3, size, size), generator=generator, dtype=torch.uint8)
    labels = torch.arange(count) % 2
    images[labels == 0, :, :, : size // 2] += 120
    images[labels == 1, :, :, size // 2 :] += 120
    return ImageSet(images, labels)


def small_net(classes: int = 2, dropout: float = 0.0) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(4 * 64, classes),
        )


def linear(classes: int = 2) -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, classes))


def fit(model: nn.Module, images: ImageSet, recipe: Recipe = RECIPE, **options) -> training.Trained:
    return training.train(model, images, recipe, **{"rng": RNG.child("fit"), "augment": (), **options})


class Recorder(nn.Module):
    """A network that keeps the batches which it saw in train mode."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))
        self.seen: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.seen.append(x.detach().clone())
        return x.mean((1, 2, 3))[:, None] * self.weight


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(first: nn.Module, second: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(state(first).values(), state(second).values(), strict=True))


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


def test_each_epoch_passes_every_image_once_in_a_new_order():
    images = toy(33)
    model = Recorder()
    fit(model, images)
    first, second = torch.cat(model.seen[:2]), torch.cat(model.seen[2:])
    assert len(first) == 32, "a last batch of one row is left out"
    assert not torch.equal(first, second)
    known = {image.numpy().tobytes() for image in images.images.float() / 255}
    rows = [image.contiguous().numpy().tobytes() for image in first]
    assert set(rows) <= known
    assert len(set(rows)) == 32


@pytest.mark.parametrize(("count", "batches"), [(32, [16, 16]), (33, [16, 16]), (34, [16, 16, 2]), (3, [3])])
def test_a_short_last_batch_is_kept_unless_it_is_a_single_row(count, batches):
    model = Recorder()
    fit(model, toy(count), replace(RECIPE, epochs=1))
    assert [len(batch) for batch in model.seen] == batches


def test_one_image_is_too_few():
    with pytest.raises(ValueError, match="Expected at least 2 images to train on, but got 1"):
        fit(linear(), toy(1))


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
    assert rates == [training.learning_rate(recipe, step, 12) for step in range(12)]
    assert rates[0] < max(rates) == pytest.approx(recipe.lr, rel=0.2)


def test_images_may_be_asked_for_anew_before_every_epoch():
    sets = [
        ImageSet(torch.full((32, 3, 8, 8), grey, dtype=torch.uint8), torch.arange(32) % 2) for grey in (0, 102, 255)
    ]
    asked, model = iter(sets), Recorder()
    fit(model, lambda: next(asked), replace(RECIPE, epochs=3))
    assert [round(batch.mean().item(), 4) for batch in model.seen] == [0.0, 0.0, 0.4, 0.4, 1.0, 1.0]
    assert next(asked, None) is None, "once an epoch"


def test_optimizers_have_the_recipe_s_numbers():
    model = linear()
    adam = training._optimizer(model, replace(RECIPE, optimizer="adam", lr=0.003, momentum=0.8), ())
    assert isinstance(adam, torch.optim.AdamW)
    assert (adam.defaults["lr"], adam.defaults["betas"]) == (0.003, (0.8, 0.999))
    sgd = training._optimizer(model, replace(RECIPE, lr=0.2, momentum=0.7, nesterov=True), ())
    assert isinstance(sgd, torch.optim.SGD)
    assert [sgd.defaults[name] for name in ("lr", "momentum", "nesterov")] == [0.2, 0.7, True]
    assert not training._optimizer(model, replace(RECIPE, momentum=0.0, nesterov=True), ()).defaults["nesterov"]


def test_images_lie_channels_last_while_networks_train():
    model = small_net()
    fit(model, toy())
    assert model[0].weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("images", "usable"), [(128 + 16, 144), (128 + 15, 128), (15, 15), (256, 256)])
def test_a_last_batch_below_an_eighth_is_left_out(images, usable):
    assert training._usable_rows(images, replace(RECIPE, batch_size=128)) == usable


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


def test_soft_targets_are_what_the_network_learns():
    images = toy(32)
    fixed = torch.tensor([0.3, 0.7]).expand(32, 2)
    model = linear()
    recipe = Recipe(60, 0.02, 32, schedule="constant", weight_decay=0.0)
    history = fit(model, ImageSet(images.images, images.labels, fixed), recipe).history
    answers = training.predict(model, images.images).softmax(1)
    assert answers.mean(0).tolist() == pytest.approx([0.3, 0.7], abs=0.02)
    entropy = -(0.3 * math.log(0.3) + 0.7 * math.log(0.7))
    assert history[-1].loss == pytest.approx(entropy, abs=0.02)
    assert history[-1].accuracy == pytest.approx(0.5), "accuracy is counted against the labels"


def test_one_hot_targets_train_as_labels_do():
    images = toy()
    hard = nn.functional.one_hot(images.labels, 2).float()
    first, second = linear(), linear()
    second.load_state_dict(first.state_dict())
    fit(first, images)
    fit(second, ImageSet(images.images, images.labels, hard))
    assert torch.allclose(first[1].weight, second[1].weight, atol=1e-6)


def test_soft_targets_come_from_eval_mode():
    model, images = small_net(dropout=0.9).train(), toy()
    targets = training.soft_targets(model, images)
    assert model.training
    model.eval()
    with torch.no_grad():
        assert torch.allclose(targets, model(images.images.float() / 255).softmax(1), atol=1e-6)
    assert torch.allclose(targets.sum(1), torch.ones(64))


def test_exact_rows_pass_unaugmented():
    images = toy(32)
    exact = torch.arange(32) < 8
    model = Recorder()
    fit(model, replace(images, exact=exact), replace(RECIPE, epochs=1), augment=("crop",))
    seen = {image.contiguous().numpy().tobytes() for image in torch.cat(model.seen)}
    kept = [image.numpy().tobytes() in seen for image in images.images.float() / 255]
    assert all(kept[:8])
    assert sum(kept[8:]) < 12  # a window of 3 x 3 places stays in the middle once in nine times


def test_the_recipes_augmentation_takes_precedence():
    images = toy(32)
    plain, also_plain = Recorder(), Recorder()
    fit(plain, images)
    fit(also_plain, images, replace(RECIPE, augment=()), augment=("crop", "flip"))
    assert all(torch.equal(a, b) for a, b in zip(plain.seen, also_plain.seen, strict=True))


def test_transforms_apply_in_their_order():
    recipe = replace(RECIPE, epochs=1, transforms=(lambda x, _: x * 0 + 0.5, lambda x, _: x + 0.25))
    model = Recorder()
    fit(model, toy(16), recipe)
    assert torch.equal(model.seen[0], torch.full((16, 3, 8, 8), 0.75))


def test_transforms_draw_from_a_seeded_generator():
    def noise(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return x + torch.rand(x.shape, generator=generator)

    models = [Recorder(), Recorder()]
    for model in models:
        fit(model, toy(), replace(RECIPE, transforms=(noise,)))
    batches = models[0].seen
    assert all(torch.equal(a, b) for a, b in zip(batches, models[1].seen, strict=True))
    assert len({float(batch.sum()) for batch in batches}) == len(batches)


def test_mixing_that_changes_nothing_trains_as_without_it():
    images, plain, mixed = toy(), small_net(), small_net()
    targets: list[torch.Tensor] = []

    def keep(x: torch.Tensor, given: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        targets.append(given)
        return x, given

    fit(plain, images)
    fit(mixed, images, replace(RECIPE, mix=keep))
    for one, other in zip(state(plain).values(), state(mixed).values(), strict=True):
        assert torch.allclose(one.float(), other.float(), atol=1e-5)
    assert {tuple(given.shape) for given in targets} == {(16, 2)}
    assert all(torch.equal(given.sum(1), torch.ones(16)) for given in targets)


def test_mixed_targets_are_what_the_network_learns():
    """All probability on the last of three classes, which no label names; the mixed images are what it sees."""

    def last(x: torch.Tensor, given: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        assert given.shape[1] == 3
        return x * 0 + 0.5, torch.eye(3)[torch.full((len(x),), 2)]

    model, images = small_net(classes=3), toy()
    trained = fit(model, images, replace(RECIPE, epochs=4, mix=last))
    assert (training.predict(model, torch.full((4, 3, 8, 8), 0.5)).argmax(1) == 2).all()
    assert trained.history[-1].loss < trained.history[0].loss
    assert trained.history[-1].accuracy < 0.5, "labels are counted, not what was mixed"


def test_soft_targets_are_mixed_as_they_are():
    seen: list[torch.Tensor] = []

    def keep(x: torch.Tensor, given: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        seen.append(given)
        return x, given

    images = toy(16)
    soft = torch.tensor([[0.25, 0.75]]).expand(16, 2)
    fit(small_net(), replace(images, targets=soft), replace(RECIPE, epochs=1, mix=keep))
    assert torch.equal(seen[0], soft)


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


def test_the_step_schedule_by_hand():
    """Uchida et al.: 0.1, times 0.2 at epochs 60, 120 and 160 of 200; here two steps an epoch."""
    recipe = Recipe(200, 0.1, schedule="step", milestones=(0.3, 0.6, 0.8), gamma=0.2)
    rates = [training.learning_rate(recipe, step, 400) for step in range(400)]
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
            assert training.learning_rate(recipe, step, steps) == pytest.approx(expected, rel=1e-9)
        if step < steps - 1:
            optimizer.step()
            theirs.step()


def test_cosine_and_constant_by_hand():
    cosine = [training.learning_rate(Recipe(1, 0.2, schedule="cosine"), step, 4) for step in range(4)]
    half = math.sqrt(0.5)
    assert cosine == pytest.approx([0.2, 0.1 * (1 + half), 0.1, 0.1 * (1 - half)])
    assert {training.learning_rate(Recipe(1, 0.2, schedule="constant"), step, 4) for step in range(4)} == {0.2}


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
    assert model.weight.item() == pytest.approx(-sum(training.learning_rate(recipe, s, 4) for s in range(4)))


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
        200, 0.1, 64, weight_decay=5e-4, schedule="step", milestones=(0.3, 0.6, 0.8), gamma=0.2
    )
    expected = {"alexnet": (0.01, 0.95, 10), "vgg16": (0.1, 0.1, 100), "resnet50": (0.1, 0.1, 100)}
    for arch, (lr, gamma, every) in expected.items():
        recipe = host[arch]
        assert (recipe.epochs, recipe.batch_size, recipe.nesterov) == (300, 128, False)
        for epoch in (0, every - 1, every, 2 * every, 299):
            rate = training.learning_rate(recipe, epoch * 7, 300 * 7)
            assert rate == pytest.approx(lr * gamma ** (epoch // every))


def test_only_profiles_on_full_networks_are_ranked():
    ranked = {name: profile for name, profile in PROFILES.items() if profile.ranked}
    assert list(ranked) == ["small", "standard", "paper"]
    assert all(set(profile.widths.values()) <= {1.0} for profile in ranked.values())
    assert all(a.seeds <= b.seeds for a, b in pairwise(p for p in PROFILES.values() if p.name != "chain"))


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
