"""What a training passes through the network: which images, in which batches, changed how, with what as answers."""

import math

import pytest
import torch
from torch import nn

from bench.api import ImageSet, Recipe, replace
from bench.steps import training
from tests.unit.trained import RECIPE, Recorder, fit, linear, small_net, state, toy


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


def test_images_may_be_asked_for_anew_before_every_epoch():
    sets = [
        ImageSet(torch.full((32, 3, 8, 8), grey, dtype=torch.uint8), torch.arange(32) % 2) for grey in (0, 102, 255)
    ]
    asked, model = iter(sets), Recorder()
    fit(model, lambda: next(asked), replace(RECIPE, epochs=3))
    assert [round(batch.mean().item(), 4) for batch in model.seen] == [0.0, 0.0, 0.4, 0.4, 1.0, 1.0]
    assert next(asked, None) is None, "once an epoch"


def test_images_lie_channels_last_while_networks_train():
    model = small_net()
    fit(model, toy())
    assert model[0].weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("images", "usable"), [(128 + 16, 144), (128 + 15, 128), (15, 15), (256, 256)])
def test_a_last_batch_below_an_eighth_is_left_out(images, usable):
    assert training._usable_rows(images, replace(RECIPE, batch_size=128)) == usable


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
