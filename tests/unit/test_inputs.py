"""What stands around a stolen network: each change by hand, determinism, and that the answers really change."""

import io
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from torch import nn

from attacks import _autoencoder, _filters, answers
from bench.api import ImageSet, Rng, Suspect, pixels
from bench.registry import attacks
from bench.steps.judge import Served
from tests.fakes import FakeContext, cloudy_images, noise_images, victim_of

CHANGES = (
    "input-jpeg", "input-gaussian", "input-mean", "input-median", "input-bit-depth", "input-noise", "input-flip",
    "input-autoencoder",
)  # fmt: skip
ANSWERS = ("randomised-smoothing", "score-rounding", "labels-only", "refusing-outliers", "refusing-inconsistent")
ALL = (*CHANGES, *ANSWERS)
RANDOM = ("input-noise", "randomised-smoothing", "refusing-outliers", "refusing-inconsistent")
CHEAP = {"input-autoencoder": {"epochs": 2}, "randomised-smoothing": {"samples": 3}}
OWN = cloudy_images(60, seed=1, height=16, width=16)
QUERIES = torch.cat([pixels(noise_images(18, seed=3).images), torch.ones(3, 3, 16, 16), torch.zeros(3, 3, 16, 16)])


class Small(nn.Module):
    """A network with its head at `net.fc`."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.net = nn.Sequential()
            self.net.conv = nn.Conv2d(3, 6, 3, padding=1)
            self.net.relu = nn.ReLU()
            self.net.pool = nn.AdaptiveAvgPool2d(4)
            self.net.flat = nn.Flatten()
            self.net.fc = nn.Linear(6 * 16, 4)

    def forward(self, x):
        return self.net(5 * (x - 0.5))


class Server(FakeContext):
    """Somebody who serves a network and has images of his own."""

    def __init__(self, seed: int = 0, own: ImageSet = OWN) -> None:
        super().__init__(seed, own=own)

    @property
    def head(self):
        return "net.fc"


def servings(name, seed=0, model=None, **params):
    """What stands around the network at each rung."""
    attack = attacks()[name](**{**CHEAP.get(name, {}), **params})
    return [attempt.serving for attempt in attack.apply(victim_of(attack, model or Small()), Server(seed))]


def asked_about(serving, images=QUERIES):
    """The images that the network is asked about."""
    seen = []

    def answer(x):
        seen.append(x)
        return torch.zeros(len(x), 4)

    serving(answer, images)
    return torch.cat(seen)


@torch.no_grad()
@pytest.mark.parametrize("name", ALL)
def test_answers_are_scores_of_the_same_shape_and_others_than_the_victims(name):
    model = Small().eval()
    for serving in servings(name, model=model):
        scores = serving(model, QUERIES)
        assert scores.shape == (24, 4)
        assert scores.log_softmax(1).isfinite().all()
    assert not torch.allclose(scores.softmax(1), model(QUERIES).softmax(1), atol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("name", ALL)
def test_the_same_queries_in_the_same_order_get_the_same_answers(name):
    model = Small().eval()

    def answers(seed: int):
        return [torch.cat([s(model, q) for q in QUERIES.split(10)]) for s in servings(name, seed, model)]

    first, again, other = answers(0), answers(0), answers(1)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    if name in RANDOM:
        assert not torch.equal(first[-1], other[-1])


@pytest.mark.parametrize("name", ALL)
def test_a_suspect_behind_it_can_be_asked_and_the_images_stay(name):
    model, before = Small(), QUERIES.clone()
    weights = {n: t.clone() for n, t in model.state_dict().items()}
    for serving in servings(name, model=model):
        suspect = Suspect("scores", model=Served(model, serving))
        assert suspect.log_probs(QUERIES).isfinite().all()
    assert torch.equal(QUERIES, before)
    assert all(torch.equal(tensor, weights[n]) for n, tensor in model.state_dict().items())


@pytest.mark.parametrize("name", [name for name in CHANGES if name != "input-autoencoder"])
def test_a_stronger_change_changes_more_and_stays_in_range(name):
    smooth = pixels(OWN.images)
    changed = [asked_about(serving, smooth) for serving in servings(name)]
    errors = [(images - smooth).square().mean().item() for images in changed]
    assert errors == sorted(errors)
    assert errors[0] > 0
    for images in changed:
        assert images.shape == smooth.shape
        assert images.dtype == torch.float32
        assert images.min() >= 0
        assert images.max() <= 1


def test_jpeg_keeps_flat_images_and_loses_what_the_quality_says():
    grey = torch.full((2, 3, 16, 16), 100, dtype=torch.uint8)
    assert (_filters.jpeg(grey, 50).int() - 100).abs().max() <= 1
    images = cloudy_images(6, seed=4, height=16, width=16).images
    colourless = images[:, :1].contiguous()
    assert _filters.jpeg(colourless, 50).shape == colourless.shape
    file = io.BytesIO()
    Image.fromarray(images[0].movedim(0, 2).numpy()).save(file, "jpeg", quality=45)
    wanted = torch.from_numpy(np.array(Image.open(file))).movedim(2, 0)
    assert torch.equal(_filters.jpeg(images, 45)[0], wanted)
    (serving,) = servings("input-jpeg", ladder=[55.0])
    assert torch.equal(asked_about(serving, pixels(images))[0], pixels(wanted))


def test_filters_worked_by_hand():
    spike = torch.zeros(1, 1, 5, 5)
    spike[0, 0, 2, 2] = 0.9
    mean = _filters.mean(spike, 3)
    assert torch.allclose(mean[0, 0, 1:4, 1:4], torch.full((3, 3), 0.1))
    assert mean[0, 0, 0].abs().max() == 0
    assert not _filters.median(spike, 3).any(), "a lone pixel is no median"
    ramp = torch.arange(25.0).view(1, 1, 5, 5) / 25
    assert torch.allclose(_filters.median(ramp, 3)[0, 0, 1:4, 1:4], ramp[0, 0, 1:4, 1:4])
    flat = torch.full((2, 3, 6, 7), 0.25)
    for filtered in (_filters.mean(flat, 5), _filters.median(flat, 5), _filters.wavelet_denoised(flat, 0.1)):
        assert torch.allclose(filtered, flat), "no darkening at the border"


def test_median_is_that_of_numpy():
    images = noise_images(3, seed=5, side=9).images
    ours = _filters.median(images, 5)
    padded = np.pad(images.numpy(), ((0, 0), (0, 0), (2, 2), (2, 2)), mode="reflect")
    for row in range(9):
        for column in range(9):
            window = padded[:, :, row : row + 5, column : column + 5]
            assert np.array_equal(ours[:, :, row, column].numpy(), np.median(window, axis=(2, 3)))


def test_bit_depth_leaves_so_many_levels():
    values = torch.linspace(0, 1, 1001).view(1, 1, 7, 143)
    for bits, levels in ((4, 16), (7, 2)):
        (serving,) = servings("input-bit-depth", ladder=[bits])
        found = asked_about(serving, values).unique()
        assert torch.allclose(found, torch.linspace(0, 1, levels))


def test_flip_mirrors_all_or_a_share():
    (serving,) = servings("input-flip")
    assert torch.equal(asked_about(serving), QUERIES.flip(3))
    (serving,) = servings("input-flip", ladder=[50.0])
    kept = (asked_about(serving) == QUERIES).flatten(1).all(1)[:18]  # the others are symmetric
    assert 2 < kept.sum() < 16


def test_noise_has_its_standard_deviation_and_is_fresh():
    (serving,) = servings("input-noise", ladder=[0.05])
    grey = torch.full((50, 3, 16, 16), 0.5)
    first, second = (asked_about(serving, grey) for _ in range(2))
    assert (first - grey).std().item() == pytest.approx(0.05, rel=0.02)
    assert not torch.equal(first, second)


def test_autoencoder_learns_its_images_and_a_shorter_code_tells_less():
    images, errors = cloudy_images(64, seed=6, height=16, width=16, cells=4).images, []
    fresh = cloudy_images(64, seed=7, height=16, width=16, cells=4).images
    for factor in (3.0, 48.0):
        before = torch.get_rng_state()
        model = _autoencoder.trained(images, factor, 30, Rng("ae"))
        assert torch.equal(torch.get_rng_state(), before), "the global generator is left alone"
        errors.append((_autoencoder.reconstructed(model, pixels(fresh)) - pixels(fresh)).square().mean().item())
    assert errors[0] < errors[1]
    grey = pixels(images).mean((0, 2, 3), keepdim=True)
    assert errors[0] < 0.5 * (pixels(fresh) - grey).square().mean().item()
    codes = [_autoencoder.AutoEncoder(3, code, Rng("c").torch()).layers[:5](torch.zeros(1, 3, 32, 32)).numel()
             for code in (64, 16)]  # fmt: skip
    assert codes == [32 * 32 * 3 // 3, 32 * 32 * 3 // 12]
    odd = _autoencoder.AutoEncoder(3, 4, Rng("c").torch())(torch.rand(2, 3, 13, 21))
    assert odd.shape == (2, 3, 13, 21)


def test_smoothing_is_the_mean_over_noisy_copies():
    """A network that answers with the sign of the mean: the average is the normal distribution's."""

    def sign(x):
        above = (x.mean((1, 2, 3)) > 0.5).float()
        return 50 * torch.stack([above, 1 - above], 1)

    images = torch.full((1, 1, 1, 1), 0.6)
    (serving,) = servings("randomised-smoothing", ladder=[0.1], samples=4000)
    assert serving(sign, images).exp()[0, 0].item() == pytest.approx(0.8413, abs=0.02)
    assert asked_about(serving, torch.zeros(1, 1, 1, 1)).shape[0] == 4000


def test_rounding_and_labels_by_hand():
    def answer(_):
        return torch.tensor([[0.643, 0.352, 0.005]]).log()

    told = [serving(answer, QUERIES[:1]).exp().tolist()[0] for serving in servings("score-rounding")]
    assert told[1] == pytest.approx([0.64, 0.35, 0.0], abs=0.006)
    assert told[2] == pytest.approx([0.6, 0.4, 0.0], abs=1e-6)
    (serving,) = servings("labels-only")
    assert serving(answer, QUERIES[:1]).exp().tolist()[0] == pytest.approx([1.0, 0.0, 0.0], abs=1e-6)


def test_distances_to_the_nearest_neighbours_by_hand():
    known = torch.tensor([[0.0], [1.0], [3.0], [7.0]])
    found = answers.distances(torch.tensor([[0.0], [5.0]]), known, 2)
    assert found.tolist() == pytest.approx([0.5, 2.0])
    assert answers.distances(known, known, 2, skip=1).tolist() == pytest.approx([2.0, 1.5, 2.5, 5.0])
    assert answers.distances(known, known, 50, skip=1).shape == (4,), "as many neighbours as there are"


@torch.no_grad()
def test_features_are_what_enters_the_head():
    model = Small().eval()
    found = answers.features(model, QUERIES)
    assert torch.allclose(model.net.fc(found), model(QUERIES), atol=1e-6)
    assert not model.net.fc._forward_pre_hooks


@torch.no_grad()
def test_outliers_are_refused_and_own_images_at_the_rate_that_is_asked_for():
    model = Small().eval()
    ordinary = pixels(cloudy_images(400, seed=8, height=16, width=16).images)
    strange = torch.cat([torch.ones(20, 3, 16, 16), torch.zeros(20, 3, 16, 16)])
    rates = []
    for serving in servings("refusing-outliers", model=model, ladder=[5.0, 20.0]):
        kept = (serving(model, ordinary) == model(ordinary)).all(1)
        rates.append(1 - kept.float().mean().item())
        refused = serving(model, strange)
        assert not (refused == model(strange)).any()
        assert len(refused.argmax(1).unique()) > 1, "no single class gives a refusal away"
    assert rates[0] < rates[1]
    assert rates == pytest.approx([0.05, 0.2], abs=0.1)


def test_consistency_by_hand():
    """The class is whether the image is brighter than a half: dark images change theirs when they are scaled."""

    def answer(x):
        above = (x.mean((1, 2, 3)) > 0.5).float()
        return torch.stack([1 - above, above], 1)

    images = torch.tensor([0.9, 0.1, 0.3, 0.02]).view(4, 1, 1, 1).expand(4, 1, 2, 2)
    factors = (3.0, 5.0, 7.0, 9.0, 11.0)  # 0.1: 0.3, 0.5, then brighter; 0.3: all brighter; 0.02: none
    for least, wanted in ((1.0, [1, 0, 0, 1]), (0.4, [1, 1, 0, 1]), (0.5, [1, 0, 0, 1])):
        found = answers.consistent(answer, images, answer(images), factors=factors, least=least)
        assert found.int().tolist() == wanted
    for low, high in pairwise(servings("refusing-inconsistent")):
        assert low.suspicious.keywords["least"] > high.suspicious.keywords["least"]


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("input-mean", {"ladder": [4]}),
        ("input-median", {"ladder": [1]}),
        ("input-bit-depth", {"ladder": [8]}),
        ("score-rounding", {"ladder": [0.6]}),
        ("randomised-smoothing", {"samples": 0}),
        ("refusing-inconsistent", {"factors": []}),
        ("refusing-outliers", {"ladder": [100.0]}),
    ],
)
def test_parameters_have_bounds(name, params):
    with pytest.raises(ValidationError):
        attacks()[name](**params)
