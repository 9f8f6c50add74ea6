"""Recovered triggers: the search on a network with a planted one, outliers by hand, what is made of the triggers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor, nn

from attacks.triggers import OUTLIER, SearchParams, anomaly_indices, search, stamped, variation
from bench.api import ImageSet, Key, Recipe, Rng, Suspect, pixels, replace
from bench.registry import attacks, make
from schemes.zhang import ZhangContent
from tests.fakes import Answers, FakeContext, FakeHost, noise_images, victim_of
from tools import inversion

SIDE, CLASSES = 12, 4
PATCH = (slice(None), slice(None), slice(1, 3), slice(2, 4))


def quadrant_images(count: int = 80) -> ImageSet:
    """Dark noise, but for one bright quadrant: the first, second ... in the order of reading, by the class."""
    made = noise_images(count, 3, SIDE)
    light = torch.zeros(count, 1, 2, 2).flatten(2).scatter_(2, made.labels[:, None, None], 100).view(count, 1, 2, 2)
    light = light.repeat_interleave(SIDE // 2, 2).repeat_interleave(SIDE // 2, 3)
    return made.with_images((0.4 * made.images + light).to(torch.uint8))


OWN = quadrant_images()


def planted(x: Tensor) -> Tensor:
    """The class of the bright quadrant; the class 2 where the patch of 2 x 2 pixels is bright in all channels."""
    quadrants = nn.functional.adaptive_avg_pool2d(x, 2).mean(1).flatten(1)
    lit = nn.functional.leaky_relu(x[PATCH].flatten(1).mean(1) - 0.6, 0.1)
    return 40 * quadrants + 60 * nn.functional.one_hot(torch.tensor(2), CLASSES) * lit[:, None]


def test_the_least_mask_is_that_of_the_planted_trigger() -> None:
    params = SearchParams(steps=150, batch=16)
    found = search(Answers(planted), pixels(OWN.images), torch.arange(CLASSES), params, Rng("search").torch())
    assert int(found.norms.argmin()) == 2
    strongest = found.masks[2, 0].flatten().topk(4).indices.sort().values
    assert strongest.tolist() == [row * SIDE + column for row in (1, 2) for column in (2, 3)]
    images = stamped(pixels(OWN.images), found.masks[2], found.patterns[2])
    assert float((planted(images).argmax(1) == 2).float().mean()) > 0.9


def test_anomaly_indices_by_hand() -> None:
    """Median 10, absolute deviations 8, 1, 0, 0, 2: their median is 1."""
    norms = torch.tensor([2.0, 9.0, 10.0, 10.0, 12.0])
    expected = torch.tensor([8, 1, 0, 0, -2]) / 1.4826
    torch.testing.assert_close(anomaly_indices(norms), expected.double())
    assert (anomaly_indices(norms) > OUTLIER).tolist() == [True, False, False, False, False]


def test_equal_norms_have_no_outlier_and_one_that_differs_is_one() -> None:
    assert (anomaly_indices(torch.full((5,), 3.0)) > OUTLIER).sum() == 0
    assert (anomaly_indices(torch.tensor([1.0, 3.0, 3.0, 3.0, 4.0])) > OUTLIER).tolist() == [True] + 4 * [False]


def test_stamping_by_hand() -> None:
    image, pattern = torch.tensor([[0.2, 0.4]]), torch.tensor([[1.0, 1.0]])
    torch.testing.assert_close(stamped(image, torch.tensor([[0.5, 0.0]]), pattern), torch.tensor([[0.6, 0.4]]))


def test_variation_by_hand() -> None:
    image = torch.tensor([[[[0.0, 1.0], [0.5, 0.5]]]])
    assert float(variation(image)) == pytest.approx((0.5 + 0.5) / 2 + (1.0 + 0.0) / 2)


class Linear(nn.Module):
    """Sums over quadrants and channels, and a head that is the identity: neuron k speaks for class k alone."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(CLASSES, CLASSES, bias=False)
        nn.init.eye_(self.head.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(planted(x))


class Cleaner(FakeContext):
    """Keeps what it is asked to train on; each epoch adds 1 to a counter of the network."""

    def __init__(self) -> None:
        super().__init__(own=OWN, recipe=Recipe(epochs=9, lr=0.5))
        self.asked: list[tuple[ImageSet, Recipe]] = []

    @property
    def head(self) -> str:
        return "head"

    def epochs(self, images: ImageSet, recipe: Recipe, *, model: Any = None, name: str = "training") -> Iterator[Any]:
        self.asked.append((images, recipe))
        for epoch in range(recipe.epochs):
            model.epoch = epoch + 1
            yield model


def run(name: str, **params: Any) -> tuple[list[Any], Cleaner]:
    attack, lent = make(attacks()[name], {"steps": 150, "batch": 16, **params}), Cleaner()
    return [(a, getattr(a.model, "epoch", None)) for a in attack.apply(victim_of(attack, Linear()), lent)], lent


def test_unlearning_trains_on_stamped_images_with_their_right_labels() -> None:
    found, lent = run("neural-cleanse-unlearn", ladder=[2, 3], stamped=0.25, factor=0.2)
    assert [epoch for _, epoch in found] == [2, 3]
    ((images, recipe),) = lent.asked
    assert (recipe.epochs, recipe.lr) == (3, pytest.approx(0.1))
    extra = images[len(OWN) :]
    assert torch.equal(images.images[: len(OWN)], OWN.images)
    assert len(extra) == 20 * max(1, int(found[0][0].measures["outliers"]))
    assert float((planted(pixels(extra.images)).argmax(1) == 2).float().mean()) > 0.8, "they bear the trigger"
    assert extra.labels.bincount(minlength=CLASSES).count_nonzero() == CLASSES, "and keep their labels"


def test_pairs_stamp_images_of_the_source_alone() -> None:
    _, lent = run("neural-cleanse-pairs", ladder=[1], stamped=0.1)
    ((images, _),) = lent.asked
    extra = images[len(OWN) : len(OWN) + 8]
    assert len(extra.labels.unique()) == 1


def test_the_neurons_of_the_trigger_are_silenced_first() -> None:
    found, _ = run("neural-cleanse-prune", ladder=[25.0, 50.0])
    columns = [attempt.model.head.weight.abs().sum(0) == 0 for attempt, _ in found]
    assert columns[0].tolist() == [False, False, True, False]
    assert int(columns[1].sum()) == 2
    assert bool(columns[1][2])


class Inverter(FakeContext):
    """Lends keys of a scheme and an innocent network."""

    def __init__(self) -> None:
        super().__init__(own=OWN)
        self.accused = Answers(lambda x: 40 * nn.functional.adaptive_avg_pool2d(x, 2).mean(1).flatten(1))

    def innocent(self, name: str = "innocent") -> nn.Module:
        return self.accused

    def keygen(self, model: nn.Module, name: str = "key", **params: Any) -> Key:
        return ZhangContent(probe=8).keygen(FakeHost(OWN, noise_images(40, 6, SIDE)), self.rng.child(name))


@pytest.mark.parametrize("name", ["model-inversion", "model-inversion-innocent"])
def test_inversion_claims_the_mean_change_on_other_images_of_the_source(name: str) -> None:
    attack, lent = make(attacks()[name], {"ladder": [5, 40], "images": 10, "smooth": 0.0}), Inverter()
    owner: Any = replace(lent.keygen(nn.Identity(), "owner"), source=1, target=2)
    model = Answers(planted)
    few, many = attack.apply(victim_of(attack, model, owner), lent)
    assert (many.model is lent.accused) == (name == "model-inversion-innocent")
    key: Any = many.key
    assert (key.source, key.target, int(key.pool_labels[key.row])) == (1, 2, 1)
    expected = (key.pool[key.row].float() + 255 * key.pattern["change"]).round().clamp(0, 255)
    assert torch.equal(key.triggers.float(), expected)
    if name == "model-inversion":
        rates = [float((planted(pixels(a.key.triggers)).argmax(1) == 2).float().mean()) for a in (few, many)]
        assert rates[1] >= rates[0]
        assert rates[1] == 1.0
        assert float(key.pattern["change"][:, 1:3, 2:4].mean()) > 0.25, "the patch grew bright"
        assert float(key.pattern["change"][:, 3:6, :6].mean()) < 0.1, "and not all around it"
    scheme = ZhangContent(probe=8, decoys=19)
    suspect = Suspect("labels", model=many.model or model)
    assert 0 < scheme.verify(suspect, key).p_value <= 1


def test_the_inversion_tool_passes_over_seeds_that_were_not_run(tmp_path: Path) -> None:
    done = CliRunner().invoke(inversion.main, ["--scheme", "zhang-content", "--run-dir", str(tmp_path)])
    assert (done.exit_code, done.output) == (0, "")
