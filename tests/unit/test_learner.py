"""What a learner does to the training: each transform by hand, each rung one thing changed and nothing else."""

import math
import sys
from dataclasses import fields
from itertools import pairwise

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torchvision.transforms import functional as vision

from attacks import _colour, adversarial, learner, privacy
from attacks._dpsgd import Private, PrivateDescent
from bench.api import ImageSet, Point, Recipe, Rng, replace
from bench.contract.networks import predict
from bench.steps import training
from bench.steps.judge import Served
from tests.fakes import FakeContext, victim_of
from tests.unit.trained import small_net

RNG = Rng("test learner")
RECIPE = Recipe(epochs=2, lr=0.05, batch_size=16)
ALL = [
    learner.Ordinary,
    learner.Cutout,
    learner.LabelSmoothing,
    learner.GaussianNoise,
    adversarial.AdversarialFGSM,
    adversarial.AdversarialPGD,
    learner.ColourJitter,
    learner.Mixup,
    privacy.OutputNoise,
    privacy.DPSGD,
]


def published(count: int = 48, size: int = 8) -> ImageSet:
    """Two classes: a bright left half, a bright right half."""
    images = torch.randint(0, 100, (count, 3, size, size), generator=RNG.torch("images"), dtype=torch.uint8)
    labels = torch.arange(count) % 2
    images[labels == 0, :, :, : size // 2] += 120
    images[labels == 1, :, :, size // 2 :] += 120
    return ImageSet(images, labels)


def network() -> nn.Module:
    return small_net(channels=12)


class Learner(FakeContext):
    """Trains small networks, and keeps the recipes and names that it was asked for."""

    def __init__(self, recipe: Recipe = RECIPE) -> None:
        super().__init__(recipe=recipe)
        self.rng = RNG.child("attack")
        self.asked: list[tuple[Recipe, str]] = []

    def fresh(self, name="surrogate", arch=None):
        return network()

    def epochs(self, images, recipe, *, model=None, name="training"):
        self.asked.append((recipe, name))
        model = network() if model is None else model
        for _ in training.train_epochs(model, images, recipe, rng=self.rng.child(name), augment=("flip",)):
            yield model


def attacked(attack, context=None):
    """What the attack yields at each rung."""
    return list(attack.apply(victim_of(attack, network(), images=published()), context or Learner()))


def changed_recipes(attack, context=None):
    """The recipe of each rung, and nothing else."""
    attempts = attacked(attack, context)
    assert all(attempt.model is None and attempt.images is None for attempt in attempts)
    return [attempt.recipe for attempt in attempts]


def ended_with(attempt):
    """The network as it is served, trained as the harness would."""
    model = attempt.model or network()
    if attempt.recipe is not None:
        training.train(model, published(), attempt.recipe, rng=RNG.child("attack", "learner"), augment=("flip",))
    return model if attempt.serving is None else Served(model, attempt.serving)


def same(first: nn.Module, second: nn.Module) -> bool:
    one, other = first.state_dict(), second.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def ordinary() -> nn.Module:
    model = network()
    training.train(model, published(), RECIPE, rng=RNG.child("attack", "learner"), augment=("flip",))
    return model


def test_names_and_authors_values():
    values = {
        "augment-crop-flip": 1.0,
        "cutout": 8,
        "label-smoothing": 0.1,
        "gaussian-noise": 0.1,
        "adversarial-fgsm": 0.01,
        "adversarial-pgd": 8 / 255,
        "colour-jitter": 1.0,
        "mixup": 0.2,
        "output-noise": 0.1,
        "dp-sgd": 1.0,
    }
    assert [attack.card.name for attack in ALL] == list(values)
    for attack in ALL:
        assert values[attack.card.name] in attack().ladder
        assert len(attack().ladder) <= 3
        if attack is not privacy.OutputNoise:
            assert (attack.card.stage, attack.card.carriers) == ("training", ("data", "none"))


@pytest.mark.parametrize("attack", ALL)
def test_every_attack_walks_its_ladder_twice_alike(attack):
    def answers() -> list[torch.Tensor]:
        found = []

        def judge(attempt):
            found.append(predict(ended_with(attempt), published().images))
            return Point(strength=attempt.strength)

        points = attack().run(victim_of(attack(), network(), images=published()), Learner(), judge)
        assert [point.strength for point in points] == list(attack().ladder)
        return found

    first = answers()
    assert all(torch.equal(a, b) for a, b in zip(first, answers(), strict=True))
    assert not any(torch.equal(a, b) for a, b in pairwise(first))


@pytest.mark.parametrize(
    ("attack", "changed"),
    [
        (learner.Ordinary, set()),
        (learner.Cutout, {"transforms"}),
        (learner.LabelSmoothing, {"label_smoothing"}),
        (learner.GaussianNoise, {"transforms"}),
        (adversarial.AdversarialFGSM, {"perturb"}),
        (adversarial.AdversarialPGD, {"perturb"}),
        (learner.ColourJitter, {"transforms"}),
        (learner.Mixup, {"mix"}),
        (privacy.DPSGD, {"descent"}),
    ],
)
def test_a_rung_changes_one_thing_and_shares_its_streams(attack, changed):
    earlier = (lambda images, generator: images,)
    context = Learner(replace(RECIPE, transforms=earlier))
    attempts = attacked(attack(), context)
    asked = context.asked or [(attempt.recipe, "learner") for attempt in attempts]
    assert len(asked) == len(attempts)
    for recipe, name in asked:
        assert name == "learner"
        found = {f.name for f in fields(recipe) if getattr(recipe, f.name) != getattr(context.recipe, f.name)}
        assert found == changed
        assert recipe.transforms[:1] == earlier


def test_the_data_sets_augmentation_joins_a_recipe_without():
    bare = replace(RECIPE, augment=())
    (attempt,) = attacked(learner.Ordinary(), Learner(bare))
    assert same(ended_with(attempt), ordinary())
    assert not same(ended_with(replace(attempt, recipe=bare)), ordinary())


def test_the_control_is_ordinary_training():
    (attempt,) = attacked(learner.Ordinary())
    assert same(ended_with(attempt), ordinary())
    for ladder in ([0.5], [2.0], [1.0, 2.0]):
        with pytest.raises(ValidationError):
            learner.Ordinary(ladder=ladder)


def test_mixup_mixes_images_and_targets_by_one_share():
    images = torch.rand(40, 3, 4, 4, generator=RNG.torch("mixed"))
    targets = torch.eye(40)
    mixed, told = learner.mixup(images, targets, RNG.torch("draws"), alpha=1.0)
    assert torch.allclose(torch.einsum("nk,kchw->nchw", told, images), mixed, atol=1e-6), "as the targets say"
    assert torch.allclose(told.sum(1), torch.ones(40))
    assert told.diagonal().min() > 0
    shares = told.diagonal().unique()
    assert ((shares - shares.min()).abs() < 1e-6).logical_or(shares > 0.999).all(), "one for the batch"
    again, _ = learner.mixup(images, targets, RNG.torch("draws"), alpha=1.0)
    assert torch.equal(mixed, again)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_shares_of_mixup_are_of_the_beta_distribution(alpha):
    generator, pair = RNG.torch("beta", alpha), torch.eye(2)
    drawn = []
    while len(drawn) < 2000:
        told = learner.mixup(torch.zeros(2, 1, 1, 1), pair, generator, alpha=alpha)[1]
        if told[0, 1] > 0:  # the partner was the other one
            drawn.append(told[0, 0].item())
    found = torch.tensor(drawn)
    assert found.mean().item() == pytest.approx(0.5, abs=0.03)
    assert found.var().item() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.15)


class Owner(Learner):
    """A learner who has trained a network of his own."""

    def __init__(self, recipe: Recipe = RECIPE) -> None:
        super().__init__(recipe)
        self.clean = network()
        training.train(self.clean, published(60), RECIPE, rng=RNG.child("own"), augment=())

    def innocent(self):
        return self.clean


def test_a_clean_start_is_a_shorter_training_from_the_network_of_ones_own():
    context = Owner(replace(RECIPE, epochs=8))
    before = {name: tensor.clone() for name, tensor in context.clean.state_dict().items()}
    attempts = attacked(learner.CleanStart(ladder=[25.0, 50.0, 99.0]), context)
    assert [recipe.epochs for recipe, _ in context.asked] == [6, 4, 1]
    assert {name for _, name in context.asked} == {"learner"}
    for name, tensor in context.clean.state_dict().items():
        assert torch.equal(tensor, before[name]), "each rung trains a copy"
    wanted = network()
    wanted.load_state_dict(before)
    recipe, rng = replace(RECIPE, epochs=1), context.rng.child("learner")
    training.train(wanted, published(), recipe, rng=rng, augment=("flip",))
    assert same(attempts[-1].model, wanted)
    assert not same(attempts[0].model, attempts[1].model)


def test_label_smoothing_is_the_strength():
    assert [recipe.label_smoothing for recipe in changed_recipes(learner.LabelSmoothing())] == [0.1, 0.3]


@pytest.mark.parametrize("side", [1, 3, 8, 40])
def test_cutout_image_by_image(side):
    images = torch.rand(60, 3, 12, 16, generator=RNG.torch("cutout"))
    got = learner.cutout(images, RNG.torch("places"), side=side)
    generator = RNG.torch("places")
    rows, columns = (torch.randint(n, (60, 1), generator=generator).flatten().tolist() for n in (12, 16))
    for image, row, column, cut in zip(images, rows, columns, got, strict=True):
        top, left = row - side // 2, column - side // 2
        image = image.clone()
        image[:, max(top, 0) : max(top + side, 0), max(left, 0) : max(left + side, 0)] = 0.5
        assert torch.equal(cut, image)


def test_cutout_centres_lie_anywhere_and_squares_partly_outside():
    images = torch.zeros(4000, 1, 10, 10)
    holes = learner.cutout(images, RNG.torch("many"), side=5)[:, 0] > 0
    areas = holes.sum((1, 2))
    assert areas.max() == 25
    assert areas.min() == 9, "the centre in a corner leaves 3 x 3"
    side = (3 + 4 + 6 * 5 + 4 + 3) / 10
    assert float(areas.float().mean()) == pytest.approx(side**2, rel=0.02)
    centres = learner.cutout(images, RNG.torch("centres"), side=1).mean((0, 1)) / 0.5
    assert centres.numpy() == pytest.approx(0.01, abs=0.007)


def test_noise_has_its_strength_and_stays_in_range():
    grey = torch.full((8, 3, 32, 32), 0.5)
    noisy = learner.gaussian_noise(grey, RNG.torch("noise"), sd=0.1)
    assert float(noisy.std()) == pytest.approx(0.1, rel=0.02)
    assert float(noisy.mean()) == pytest.approx(0.5, abs=0.003)
    assert torch.equal(noisy, learner.gaussian_noise(grey, RNG.torch("noise"), sd=0.1))
    white = learner.gaussian_noise(torch.ones(8, 3, 32, 32), RNG.torch("noise"), sd=0.2)
    assert white.max() == 1.0
    assert float((white == 1).float().mean()) == pytest.approx(0.5, abs=0.02)


def brightness_net() -> nn.Module:
    """Class 1 the surer, the brighter the left and the darker the right half."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 2, bias=False))
    halves = torch.ones(3, 8, 8)
    halves[:, :, 4:] = -1
    model[1].weight.data = torch.stack([torch.zeros(192), halves.flatten() / 50])
    return model


@pytest.mark.parametrize("label", [0, 1])
def test_one_step_of_the_adversary_by_hand(label):
    images = torch.full((2, 3, 8, 8), 0.5)
    images[1] = 0.98
    labels = torch.tensor([label, label])
    model = brightness_net()
    x = adversarial.Perturbation(0.05, 0.05, 1)(model, images, labels)
    away = 0.05 if label == 0 else -0.05
    assert torch.allclose(x[0, :, :, :4], torch.tensor(0.5 + away))
    assert torch.allclose(x[0, :, :, 4:], torch.tensor(0.5 - away))
    assert x[1].max() == 1.0
    assert x[1].min() == pytest.approx(0.93)
    assert not x.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())
    loss = nn.functional.cross_entropy
    assert loss(model(x), labels) > loss(model(images), labels) + 0.05


def test_the_adversary_stays_within_eps_and_starts_anywhere():
    images = torch.rand(16, 3, 8, 8, generator=RNG.torch("box"))
    labels = torch.arange(16) % 2
    adversary = adversarial.Perturbation(0.03, 0.02, 5, RNG.torch("start"))
    first, second = adversary(brightness_net(), images, labels), adversary(brightness_net(), images, labels)
    for x in (first, second):
        assert (x - images).abs().max() <= 0.03 + 1e-6
        assert 0 <= x.min() <= x.max() <= 1
    starts = adversarial.Perturbation(0.03, 0.02, 0, RNG.torch("start"))
    one, other = starts(brightness_net(), images, labels), starts(brightness_net(), images, labels)
    assert not torch.equal(one, other)
    assert float((one - images).abs().max()) == pytest.approx(0.03, rel=0.02)
    assert torch.equal(
        one, adversarial.Perturbation(0.03, 0.02, 0, RNG.torch("start"))(brightness_net(), images, labels)
    )


def test_adversarial_recipes_carry_the_strength():
    attacks = (adversarial.AdversarialFGSM(), adversarial.AdversarialPGD(step=0.5, iterations=3))
    found = [recipe.perturb for attack in attacks for recipe in changed_recipes(attack)]
    assert [(a.eps, a.step, a.iterations) for a in found] == [
        (0.01, 0.01, 1),
        (0.03, 0.03, 1),
        (4 / 255, 2 / 255, 3),
        (8 / 255, 4 / 255, 3),
    ]
    assert [a.start is None for a in found] == [True, True, False, False]


def pictures(count: int = 24) -> torch.Tensor:
    """Random pixels, and all that is awkward about hue: greys, pure colours, ties, black and white."""
    images = torch.rand(count, 3, 9, 7, generator=RNG.torch("pictures"))
    corners = torch.cartesian_prod(*[torch.tensor([0.0, 0.5, 1.0])] * 3)
    images[:, :, 0] = corners[torch.arange(7) * 3 + 5].T
    images[:, :, 1] = corners[torch.arange(7) * 2].T
    images[0] = images[0].mean(0)
    images[1] = 0.0
    images[2] = 1.0
    return images


@pytest.mark.parametrize(
    ("ours", "theirs", "low", "high"),
    [
        (_colour.adjust_brightness, vision.adjust_brightness, 0.0, 2.5),
        (_colour.adjust_contrast, vision.adjust_contrast, 0.0, 2.5),
        (_colour.adjust_saturation, vision.adjust_saturation, 0.0, 2.5),
        (_colour.adjust_hue, vision.adjust_hue, -0.5, 0.5),
    ],
)
def test_colours_agree_with_torchvisions_image_by_image(ours, theirs, low, high):
    images = pictures()
    factors = torch.linspace(low, high, len(images))
    got = ours(images, factors[:, None, None, None])
    for image, factor, changed in zip(images, factors.tolist(), got, strict=True):
        assert torch.allclose(changed, theirs(image, factor), atol=2e-6)
    last = ours(images.contiguous(memory_format=torch.channels_last), factors[:, None, None, None])
    assert torch.allclose(last, got, atol=1e-6)


def test_jitter_is_the_four_in_their_order():
    images = pictures()
    ranges = {"brightness": 0.3, "contrast": 0.6, "saturation": 1.5, "hue": 0.7}
    got = _colour.jitter(images, RNG.torch("jitter"), **ranges)
    draws = 2 * torch.rand(4, len(images), generator=RNG.torch("jitter")) - 1
    for image, (b, c, s, h), changed in zip(images, draws.T.tolist(), got, strict=True):
        image = vision.adjust_contrast(vision.adjust_brightness(image, 1 + 0.3 * b), 1 + 0.6 * c)
        image = vision.adjust_hue(vision.adjust_saturation(image, max(0.0, 1 + 1.5 * s)), 0.5 * h)
        assert torch.allclose(changed, image, atol=1e-5)
    still = _colour.jitter(images, RNG.torch("jitter"), brightness=0, contrast=0, saturation=0, hue=0)
    assert torch.allclose(still, images, atol=1e-6)


def test_the_jitter_scales_the_authors_ranges():
    found = [recipe.transforms[-1].keywords for recipe in changed_recipes(learner.ColourJitter())]
    authors = {"brightness": 0.1, "contrast": 0.2, "saturation": 0.2, "hue": 0.2}
    for scale, ranges in zip((0.5, 1.0, 2.0), found, strict=True):
        assert ranges == pytest.approx({name: scale * value for name, value in authors.items()})


def test_output_noise_is_fresh_at_each_query_and_the_same_in_each_record():
    def served(sd: float) -> nn.Module:
        return ended_with(attacked(privacy.OutputNoise(ladder=[sd]))[0])

    clean, images = predict(network(), published().images), published().images
    attempts = attacked(privacy.OutputNoise(ladder=[0.5, 1.0]))
    weak, strong = (predict(ended_with(attempt), images) - clean for attempt in attempts)
    assert torch.allclose(strong, 2 * weak, atol=1e-5)
    assert float(strong.std()) == pytest.approx(1.0, rel=0.2)
    again = [predict(served(1.0), images) for _ in range(2)]
    assert torch.equal(again[0], again[1])
    assert torch.equal(again[0], clean + strong)
    asked_twice = ended_with(attempts[1])
    assert not torch.allclose(predict(asked_twice, images), again[0])
    assert same(asked_twice.model, network()), "the weights are the victim's"
    assert all(attempt.recipe is attempt.model is None for attempt in attempts), "nobody trains"


def test_private_networks_have_group_normalisation():
    context = Learner()
    claims = attacked(privacy.DPSGD(max_grad_norm=0.5), context)
    for claim, (recipe, _), multiplier in zip(claims, context.asked, (0.5, 1.0), strict=True):
        assert recipe.descent == PrivateDescent(multiplier, 0.5)
        norm = claim.model[1]
        assert isinstance(norm, nn.GroupNorm)
        assert (norm.num_groups, norm.num_channels) == (math.gcd(32, 12), 12)
        assert claim.measures["delta"] == 1e-5
    assert claims[0].measures["epsilon"] > claims[1].measures["epsilon"] > 0


def test_epsilon_of_full_batches_by_hand():
    """Without sampling the Renyi divergence of order a is T a / (2 s^2); then the best order's conversion."""
    recipe = Recipe(20, 0.1, 500)
    steps, delta = 20, 1e-5
    orders = [1 + k / 1000 for k in range(500, 60_000)]
    by_hand = min(
        steps * a / (2 * 4.0**2) + math.log((a - 1) / a) - (math.log(delta) + math.log(a)) / (a - 1) for a in orders
    )
    assert privacy.epsilon(400, recipe, 4.0, delta) == pytest.approx(by_hand, rel=0.01)


@pytest.mark.parametrize("count", [40, 33])
def test_epsilon_counts_the_steps_that_training_takes(count, monkeypatch):
    from opacus.accountants.analysis import rdp

    steps, accounted = [], {}
    compute = rdp.compute_rdp
    monkeypatch.setattr(rdp, "compute_rdp", lambda **options: accounted.update(options) or compute(**options))
    monkeypatch.setattr(Private, "step", lambda self, count, loss: steps.append(count))
    recipe = replace(RECIPE, epochs=50, descent=PrivateDescent(1.0, 1.0))
    training.train(privacy.without_batch_norm(network()), published(count), recipe, rng=RNG, augment=())
    spent = privacy.epsilon(count, recipe, 1.0, 1e-5)
    assert accounted["steps"] == len(steps) == 150
    assert accounted["q"] * count == pytest.approx(sum(steps) / len(steps), rel=0.05)
    assert accounted["noise_multiplier"] == 1.0
    assert privacy.epsilon(count, replace(recipe, epochs=100), 1.0, 1e-5) > spent
    assert privacy.epsilon(4000, recipe, 1.0, 1e-5) < spent, "seldom seen, hardly known"


def test_privacy_without_opacus_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "opacus.validators", None)
    with pytest.raises(ValueError, match=r'for DP-SGD: pip install "watermark-bench\[dp\]"\.$'):
        attacked(privacy.DPSGD())
