"""Surrogates: who is asked what and how often, what is imitated, and from which weights."""

from itertools import pairwise

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from attacks import extraction
from bench import archs
from bench.api import AccessError, ImageSet, Key, Point, Recipe, Rng, Victim, predict
from bench.registry import attacks
from bench.steps import training
from tests.fakes import CLASSES, FakeContext, cloudy_images, victim_of

NAMES = ("distillation", "extraction-soft", "extraction-hard", "extraction-smooth", "extraction-cross")
OTHERS = ("knockoff", "transfer", "extraction-data-free")
OWN = cloudy_images(60, seed=1, height=8, width=8, shade=0.5)
FOREIGN = cloudy_images(50, seed=2, height=8, width=8, classes=3)
RECIPE = Recipe(epochs=1, lr=0.05, batch_size=16, weight_decay=1e-4, augment=("flip",))


class Small(nn.Module):
    """A network of 8 x 8 images with its head at `net.fc`, as those of the harness have it."""

    def __init__(self, seed: int = 0, classes: int = CLASSES) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.net = nn.Sequential()
            self.net.conv = nn.Conv2d(3, 6, 3, padding=1)
            self.net.flat = nn.Flatten()
            self.net.fc = nn.Linear(6 * 64, classes)

    def forward(self, x):
        return self.net(x)


class Thief(FakeContext):
    """Lends small networks and their training, and keeps what was asked for."""

    def __init__(self, arch: str = "wrn", labels: bool = False) -> None:
        super().__init__(recipe=RECIPE, own=ImageSet(OWN.images, OWN.labels if labels else OWN.labels * 0 - 1))
        self.arch = archs.arch(arch)
        self.trained: list[tuple[ImageSet, Recipe, dict[str, torch.Tensor], str]] = []
        self.built: list[str | None] = []
        self.lent: list[str] = []

    def auxiliary(self, name):
        self.lent.append(name)
        return FOREIGN

    def fresh(self, name="surrogate", arch=None):
        self.built.append(arch)
        return Small(seed=7)

    def epochs(self, images, recipe, *, model=None, name="training"):
        self.trained.append((images, recipe, {n: t.clone() for n, t in model.state_dict().items()}, name))
        for _ in training.train_epochs(model, images, recipe, rng=self.rng.child(name), augment=()):
            yield model


def small(name: str, **params):
    """The attack at a size for tests."""
    sides = {"side": 8, "ladder": [10, 40]} if name == "extraction-data-free" else {"ladder": [25.0, 50.0, 100.0]}
    return attacks()[name](**{"epochs": 2, **sides, **params})


def stolen(name: str, context: Thief | None = None, victim: Victim | None = None, **params):
    """The attack, its context, and its attempts."""
    attack, context = small(name, **params), context or Thief()
    return attack, context, list(attack.apply(victim or victim_of(attack, Small()), context))


def test_tempered_answers_are_the_softmax_of_the_tempered_logits():
    logits = 4 * torch.randn(20, 5, generator=Rng("logits").torch())
    assert torch.allclose(extraction.tempered(logits.softmax(1), 3.0), (logits / 3).softmax(1), atol=1e-6)
    assert torch.allclose(extraction.tempered(torch.tensor([[0.9, 0.1]]), 2.0), torch.tensor([[0.75, 0.25]]))
    hard = torch.eye(3)
    assert torch.equal(extraction.tempered(hard, 1.0), hard), "labels alone stay labels"
    assert extraction.tempered(hard, 3.0).isfinite().all()


@pytest.mark.parametrize("name", [*NAMES, *OTHERS])
def test_every_rung_is_a_surrogate_of_its_own_and_not_the_victim(name):
    attack, _, attempts = stolen(name)
    assert [attempt.strength for attempt in attempts] == list(attack.ladder)
    images = OWN.images
    answers = [predict(model, images) for model in (Small(), *(attempt.model for attempt in attempts))]
    assert not any(torch.allclose(a, b, atol=1e-3) for a, b in pairwise(answers))
    assert attack.card.stage == "model"


@pytest.mark.parametrize("name", [*NAMES, *OTHERS])
def test_twice_alike_and_queries_are_counted_once(name):
    def run():
        attack = small(name)
        victim, found = victim_of(attack, Small()), []

        def judge(attempt):
            found.append(predict(attempt.model, OWN.images))
            return Point(strength=attempt.strength)

        points = attack.run(victim, Thief(), judge)
        return found, [point.measures["victim_queries"] for point in points]

    (first, asked), (again, _) = run(), run()
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    expected = {"knockoff": [12, 25, 50], "extraction-data-free": [10, 40]}.get(name, [15, 30, 60])
    assert asked == expected


def test_larger_shares_contain_the_smaller_and_are_no_mere_prefix():
    _, context, _ = stolen("extraction-soft")
    sets = [images.images for images, *_ in context.trained]
    assert [len(images) for images in sets] == [15, 30, 60]
    for low, high in pairwise(sets):
        assert torch.equal(low, high[: len(low)])
    assert not torch.equal(sets[-1], OWN.images)
    assert {image.numpy().tobytes() for image in sets[-1]} == {image.numpy().tobytes() for image in OWN.images}


@pytest.mark.parametrize(("name", "temperature"), [("extraction-soft", 1.0), ("distillation", 3.0)])
def test_soft_answers_are_the_victims_at_the_temperature_of_the_recipe(name, temperature):
    _, context, _ = stolen(name)
    for images, recipe, *_ in context.trained:
        logits = predict(Small(), images.images)
        assert torch.allclose(images.targets, (logits / temperature).softmax(1), atol=1e-5)
        assert torch.equal(images.labels, logits.argmax(1)), "the victim's labels, for there are no others"
        assert (recipe.temperature, recipe.label_smoothing, recipe.epochs) == (temperature, 0.0, 2)
        assert recipe.lr == RECIPE.lr


def test_hard_answers_are_one_hot():
    attack, context, _ = stolen("extraction-hard")
    assert attack.card.adversary.access == "labels"
    for images, *_ in context.trained:
        labels = predict(Small(), images.images).argmax(1)
        assert torch.equal(images.targets, nn.functional.one_hot(labels, CLASSES).float())


def test_smoothing_and_architecture_of_the_variants():
    _, context, _ = stolen("extraction-smooth")
    assert {recipe.label_smoothing for _, recipe, *_ in context.trained} == {0.3}
    for victim, surrogate in (("wrn", "densenet"), ("densenet", "wrn")):
        _, context, _ = stolen("extraction-cross", Thief(victim))
        assert context.built == [surrogate] * 3
    _, context, _ = stolen("extraction-soft", Thief("densenet"))
    assert context.built == [None] * 3, "the victim's own"


@pytest.mark.parametrize("name", [*NAMES, *OTHERS])
def test_each_rung_starts_from_the_same_weights(name):
    _, context, _ = stolen(name)
    starts = [start for _, _, start, stream in context.trained if stream == "surrogate"]
    assert len(starts) > 1
    for start in starts[1:]:
        assert all(torch.equal(start[key], starts[0][key]) for key in start)


@pytest.mark.parametrize("name", [*NAMES, *OTHERS])
def test_no_attack_sees_labels_or_weights(name):
    _, context, _ = stolen(name)
    with_labels = Thief(labels=True)
    _, other, _ = stolen(name, with_labels)
    for (first, *_), (second, *_) in zip(context.trained, other.trained, strict=True):
        assert torch.equal(first.labels, second.labels)
    attack = small(name)
    with pytest.raises(AccessError):
        victim_of(attack, Small()).model()
    assert "own" not in attack.card.adversary.images


def test_a_surrogate_agrees_with_the_victim_the_better_the_more_it_asked():
    victim = Small()
    training.train(victim, OWN, Recipe(20, 0.05, 16), rng=Rng("victim"), augment=())
    attack = small("extraction-soft", epochs=20, ladder=[10.0, 100.0])
    attempts = list(attack.apply(victim_of(attack, victim), Thief()))
    fresh = cloudy_images(200, seed=9, height=8, width=8, shade=0.5).images
    wanted = predict(victim, fresh).argmax(1)
    few, all_ = ((predict(a.model, fresh).argmax(1) == wanted).float().mean() for a in attempts)
    chance = wanted.bincount().max() / len(wanted)
    assert all_ > few
    assert all_ > chance + 0.2


def test_knockoff_asks_about_foreign_images_alone():
    attack, context, _ = stolen("knockoff", most=20)
    assert context.lent == [attack.params.auxiliary]
    foreign = {image.numpy().tobytes() for image in FOREIGN.images}
    assert [len(images) for images, *_ in context.trained] == [5, 10, 20]
    assert {image.numpy().tobytes() for image in context.trained[-1][0].images} <= foreign
    assert attack.card.adversary.images == ("out of domain",)
    _, context, _ = stolen("knockoff", auxiliary="mnist")
    assert context.lent == ["mnist"]


def test_transfer_pretrains_once_with_a_head_of_its_own():
    attack, context, _ = stolen("transfer", pretraining=3)
    assert [name for *_, name in context.trained] == ["pretraining", "surrogate", "surrogate", "surrogate"]
    (foreign, recipe, start, _), (_, learning, later, _) = context.trained[:2]
    assert recipe.epochs == 3
    assert learning.epochs == 2
    assert start["net.fc.weight"].shape[0] == 3
    assert later["net.fc.weight"].shape[0] == CLASSES
    assert sorted(foreign.labels.tolist()) == sorted(FOREIGN.labels.tolist()), "true labels of the other data set"
    fresh = Small(seed=7).state_dict()
    assert torch.equal(later["net.fc.weight"], fresh["net.fc.weight"]), "the head for the victim's classes is fresh"
    assert not torch.equal(later["net.conv.weight"], fresh["net.conv.weight"]), "the rest is pretrained"
    assert len(context.built) == 1
    assert context.lent == [attack.params.auxiliary]


def test_noise_is_a_fair_coin_for_every_value():
    images = extraction.bernoulli((50, 3, 16, 16), Rng("noise").torch())
    assert images.dtype == torch.uint8
    assert set(images.unique().tolist()) == {0, 255}
    assert (images == 255).float().mean().item() == pytest.approx(0.5, abs=0.01)
    neighbours = (images[..., 1:] == images[..., :-1]).float().mean().item()
    assert neighbours == pytest.approx(0.5, abs=0.01)
    _, context, _ = stolen("extraction-data-free")
    assert all(set(images.images.unique().tolist()) == {0, 255} for images, *_ in context.trained)
    assert [recipe.lr for _, recipe, *_ in context.trained] == [RECIPE.lr / 5] * 2, "at the whole rate it may diverge"


def test_answers_go_through_what_the_owner_serves():
    """A victim that answers otherwise than its weights is imitated as it answers."""
    attack = small("extraction-soft", ladder=[100.0])
    victim = Victim(attack.card.adversary, Small, Key(), None, lambda x: torch.full((len(x), CLASSES), 1 / CLASSES))
    _, context, _ = stolen("extraction-soft", victim=victim, ladder=[100.0])
    assert torch.allclose(context.trained[0][0].targets, torch.tensor(1 / CLASSES))


@pytest.mark.parametrize("params", [{"ladder": [0.0]}, {"ladder": [101.0]}, {"epochs": 0}, {"smoothing": 1.0}])
def test_parameters_have_bounds(params):
    with pytest.raises(ValidationError):
        small("extraction-soft", **params)
