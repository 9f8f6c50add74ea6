"""Radioactive data: do features move along the carriers, and are the p-values exact?"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import pytest
import torch
from scipy.stats import binom, combine_pvalues, kstest
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from bench.api import AccessError, ImageSet, Rng, Suspect, pixels, replace
from bench.archs import Classifier
from bench.data.augmentation import AUGMENTATIONS
from schemes import radioactive
from schemes.radioactive import Radioactive, RadioactiveKey, RadioactiveParams
from tests.fakes import CLASSES, FakeHost, cloudy_images, same_key


def network(seed: int, width: int = 24, rotation: Tensor | None = None) -> Classifier:
    """A small network in eval mode; `rotation` turns its features, and its head with them."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        stem = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, width, 3, stride=2), nn.ReLU())
        turn, head = nn.Linear(width, width, bias=False), nn.Linear(width, CLASSES)
    with torch.no_grad():
        turn.weight.copy_(torch.eye(width) if rotation is None else rotation.T)
        if rotation is not None:
            head.weight.copy_(head.weight @ rotation)
    net = nn.Sequential(stem, nn.AdaptiveAvgPool2d(2), nn.AvgPool2d(2), nn.Flatten(), turn)
    net.append(head)
    return Classifier(net, "5").eval()


def host_of() -> FakeHost:
    """Forty training images and a network that was not trained on anything; the owner has the first twelve."""
    images = photographs(40, 0)
    return FakeHost(images, photographs(80, 1), images[:12], model=lambda: network(0))


def photographs(count: int, seed: int) -> ImageSet:
    return cloudy_images(count, seed, 16, 16, cells=4, mode="bilinear")


def small(**params: Any) -> Radioactive:
    return Radioactive(**{"share": 12, "steps": 10, "lr": 30.0, **params})


@cache
def key_of(owner: int = 0, probe: int = 80) -> RadioactiveKey:
    return small(probe=probe).keygen(host_of(), Rng("owner", owner))


def suspect(model: nn.Module) -> Suspect:
    return Suspect("white-box", model=model)


def aligned_with(key: RadioactiveKey, amount: float, seed: int = 0) -> Classifier:
    """The clean host, whose classifiers moved along the carriers as training on marked images moves them."""
    model = network(seed)
    with torch.no_grad():
        model.get_submodule("net.5").weight += amount * key.carriers
    return model


# --- marking ----------------------------------------------------------------------------------------------------


def test_carriers_are_independent_unit_vectors() -> None:
    carriers = radioactive.carriers_of(10, 512, Rng("carriers").torch())
    assert carriers.norm(dim=1).tolist() == pytest.approx([1.0] * 10, abs=1e-5)
    cosines = (carriers @ carriers.T)[~torch.eye(10, dtype=torch.bool)]
    assert 0.02 < cosines.std() < 0.07
    assert cosines.abs().max() > 1e-3, "not orthogonalised"


@pytest.mark.parametrize("augment", [True, False])
def test_features_move_along_the_carrier_of_their_class(augment: bool) -> None:
    host = host_of()
    key = small(augment=augment).keygen(host, Rng("owner"))
    before, after = (radioactive.features_of(host.model(), x) for x in (host.share.images, key.marked))
    moved, directions = after - before, key.carriers[host.share.labels]
    along = (moved * directions).sum(1)
    assert (along > 0).all()
    assert float(along.mean()) == pytest.approx(key.moved)
    others = (moved @ key.carriers.T)[torch.arange(12), (host.share.labels + 1) % CLASSES]
    assert along.mean() > 2 * others.abs().mean()


def test_pixels_stay_in_the_ball_and_are_rounded_not_truncated() -> None:
    host = host_of()
    for radius in (3.0, 10.0):
        key = small(radius=radius, lr=1e4).keygen(host, Rng("owner"))
        change = key.marked.int() - host.share.images.int()
        assert int(change.abs().max()) == radius
        assert (change.abs() == radius).float().mean() > 0.5
        assert abs(float(change.float().mean())) < 0.2 * radius
    still = small(lr=1e-9).keygen(host, Rng("owner"))
    assert torch.equal(still.marked, host.share.images)


def test_a_step_is_the_one_of_normalised_pixels() -> None:
    """One step against finite differences: change of the pixel = lr * std^2 * d(phi . u) / d(pixel)."""
    host, params = host_of(), RadioactiveParams(steps=1, lr=100.0, lam_ft=0.0, lam_img=0.0, radius=255.0)
    model, image = network(0), host.images.images[:1]
    along = radioactive.carriers_of(1, 24, Rng("u").torch())
    marked = radioactive.mark(model, image, along, params, (), Rng("views").torch())

    def score(x: Tensor) -> float:
        return float((model.features(x).detach().double() * along).sum())

    x = pixels(image)
    for place in ((0, 0, 8, 8), (0, 2, 5, 11), (0, 1, 3, 3)):
        nudge = torch.zeros_like(x)
        nudge[place] = 0.02
        slope = (score(x + nudge) - score(x - nudge)) / 0.04
        wanted = 255 * 100.0 * 0.25**2 * slope
        assert float(marked[place]) - float(image[place]) == pytest.approx(wanted, abs=0.51 + 0.1 * abs(wanted))


def test_penalties_keep_images_and_features_near() -> None:
    host = host_of()
    moved = [small(**p).keygen(host, Rng("owner")) for p in ({"lam_img": 0.0}, {"lam_img": 0.01}, {"lam_ft": 5.0})]
    free, near, bound = ((key.marked.float() - host.share.images.float()).abs().mean() for key in moved)
    assert near < 0.7 * free
    assert moved[2].moved < 0.5 * moved[0].moved
    assert bound > 0


@pytest.mark.parametrize("views", [(), ("crop",), ("flip",), ("crop", "flip")])
def test_views_are_those_of_the_augmentation(views: tuple[str, ...]) -> None:
    """Every view is one that the harness's augmentation can give, and all of these occur."""
    image = photographs(1, 5).images.float()
    seen = radioactive.seen(image.expand(600, -1, -1, -1), views, Rng("views").torch())
    found = {view.numpy().tobytes() for view in seen}
    possible, generator = image.expand(600, -1, -1, -1), Rng("others").torch()
    for name in views:
        possible = AUGMENTATIONS[name](possible, generator)
    wanted = {view.numpy().tobytes() for view in possible}
    assert found == wanted
    assert len(found) == (25 if "crop" in views else 1) * (2 if "flip" in views else 1)


def test_images_are_marked_in_the_order_of_the_share_and_of_no_other_number() -> None:
    host, key = host_of(), key_of()
    marked = small().mark_data(host.share, key)
    assert torch.equal(marked.images, key.marked)
    assert torch.equal(marked.labels, host.share.labels)
    assert not torch.equal(marked.images, host.share.images)
    with pytest.raises(ValueError, match="owner's own images"):
        small().mark_data(host.heldout, key)


def test_keys_follow_their_stream() -> None:
    one, again, other = (small(steps=2).keygen(host_of(), Rng("owner", i)) for i in (0, 0, 1))
    assert same_key(one, again)
    assert not torch.equal(one.carriers, other.carriers)
    assert torch.equal(one.probe, other.probe)


# --- detection --------------------------------------------------------------------------------------------------


def test_the_same_network_is_aligned_by_the_identity() -> None:
    aligned, misfit = radioactive.aligned_classifiers(network(0), key_of())
    assert misfit < 1e-5
    assert aligned is not None
    W = network(0).get_submodule("net.5").weight.detach().double()  # type: ignore[operator, union-attr]  # a tensor
    A = key_of().features.double()
    torch.testing.assert_close(A @ aligned.T, A @ W.T, rtol=1e-4, atol=1e-6)


def test_alignment_undoes_a_rotation_of_the_features() -> None:
    rotation = torch.linalg.qr(torch.randn(24, 24, generator=torch.Generator().manual_seed(7))).Q
    straight, _ = radioactive.aligned_classifiers(network(0), key_of())
    turned, misfit = radioactive.aligned_classifiers(network(0, rotation=rotation), key_of())
    assert straight is not None
    assert turned is not None
    assert misfit < 1e-4
    torch.testing.assert_close(turned, straight, rtol=1e-3, atol=1e-4)


def test_other_widths_are_aligned_too() -> None:
    aligned, misfit = radioactive.aligned_classifiers(network(3, width=40), key_of())
    assert aligned is not None
    assert aligned.shape == (CLASSES, 24)
    assert 0 < misfit < 1


def test_classifiers_that_moved_along_the_carriers_are_found() -> None:
    key = key_of()
    weak, strong = (small().verify(suspect(aligned_with(key, amount)), key) for amount in (0.0, 2.0))
    assert strong.p_value < 1e-6 < 0.01 < weak.p_value
    assert strong.statistic > 0.6
    assert len(strong.details["cosines"]) == CLASSES
    assert strong.details["dimension"] == 24, "of the marking network"
    against = small().verify(suspect(aligned_with(key, -2.0)), key)
    assert against.p_value > 0.99
    other = small().verify(suspect(aligned_with(key_of(1), 2.0)), key)
    assert other.p_value > 0.01


def test_heads_trained_on_marked_features_are_found_and_on_clean_features_are_not() -> None:
    """The setting of section 4.2: learners keep the features, and train a logistic regression on them."""
    host = host_of()
    host.share = host.images

    def p_value(images: Tensor, key: RadioactiveKey) -> float:
        model = network(0)
        head: Any = model.get_submodule("net.5")
        features = radioactive.features_of(model, images)
        fitted = LogisticRegression(C=100.0, max_iter=2000).fit(features.numpy(), host.images.labels.numpy())
        with torch.no_grad():
            head.weight.copy_(torch.from_numpy(fitted.coef_))
        return small().verify(suspect(model), key).p_value

    keys = [small(share=40, steps=40).keygen(host, Rng("owner", owner)) for owner in range(6)]
    marked = [p_value(key.marked, key) for key in keys]
    clean = [p_value(host.images.images, key) for key in keys]
    assert max(marked) < 0.01
    assert combine_pvalues(marked).pvalue < 1e-9
    assert combine_pvalues(clean).pvalue > 0.05


def test_only_classes_with_images_count() -> None:
    host = host_of()
    host.share = host.images[torch.tensor([0, 2, 4, 6])]
    key = small(share=4).keygen(host, Rng("owner"))
    assert key.classes == (0, 2)
    model = network(0)
    with torch.no_grad():
        model.get_submodule("net.5").weight[1::2] += 9 * key.carriers[1::2]
    verdict = small().verify(suspect(model), key)
    assert len(verdict.details["cosines"]) == 2
    assert verdict.p_value > 0.01


@pytest.mark.parametrize(("seed", "probe"), [(0, 80), (5, 80), (5, 10)])
def test_p_values_are_uniform_on_networks_that_never_saw_the_key(seed: int, probe: int) -> None:
    """On the marking network itself, on another, and with fewer images than features: exact, as the carriers are."""
    made, examined = key_of(0, probe), suspect(network(seed))
    p_values = []
    for trial in range(400):
        carriers = radioactive.carriers_of(CLASSES, 24, Rng("fresh", trial).torch())
        key = replace(made, carriers=carriers)
        p_values.append(small().verify(examined, key).p_value)
    assert kstest(p_values, "uniform").pvalue > 1e-3
    for level in (0.01, 0.1):
        assert sum(p <= level for p in p_values) <= binom.isf(1e-3, 400, level)


def test_networks_that_cannot_be_read_are_not_claimed() -> None:
    class Filtered(nn.Module):
        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.model = model

        def forward(self, x: Tensor) -> Tensor:
            return self.model(x)

    key, broken, dead = key_of(), network(0), network(0)
    with torch.no_grad():
        broken.get_submodule("net.5").weight[0, 0] = math.nan
        dead.get_submodule("net.5").weight.zero_()  # type: ignore[union-attr, operator]  # a tensor
    for model in (nn.Sequential(nn.Flatten(), nn.Linear(3, 4)), broken):
        verdict = small().verify(suspect(model), key)
        assert (verdict.p_value, verdict.statistic) == (1.0, 0.0)
    assert small().verify(suspect(dead), key).p_value > 0.5
    found = small().verify(suspect(Filtered(aligned_with(key, 2.0))), key)
    assert found.p_value < 1e-6, "what stands before the network does not hide it from a white box"


def test_needs_the_weights() -> None:
    assert Radioactive.card.access == "white-box"
    with pytest.raises(AccessError):
        small().verify(Suspect("scores", model=network(0)), key_of())


def test_owners_share_the_alignment() -> None:
    examined, calls = suspect(network(0)), []
    original = radioactive.aligned_classifiers

    def counted(model: nn.Module, key: RadioactiveKey) -> Any:
        calls.append(1)
        return original(model, key)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(radioactive, "aligned_classifiers", counted)
        first, second = (small().verify(examined, key_of(owner)) for owner in (0, 1))
    assert len(calls) == 1
    assert first.p_value != second.p_value


@pytest.mark.parametrize(("heldout", "share"), [(0, 12), (1, 12), (80, 1)])
def test_with_no_or_one_image_to_align_by_or_to_mark_there_is_no_error(heldout: int, share: int) -> None:
    host = host_of()
    host.heldout, host.share = host.heldout[:heldout], host.share[:share]
    key = small().keygen(host, Rng("owner"))
    assert (len(key.probe), len(key.marked)) == (heldout, share)
    assert small().verify(suspect(network(3)), key).p_value > 0.01


def test_keys_with_features_or_images_of_their_own_are_not_mixed_up_on_one_suspect() -> None:
    key = key_of()
    others = replace(key, features=key.features.flip(0)), replace(key, probe=key.probe.flip(0))
    one = suspect(aligned_with(key, 0.5))
    for asked in (key, *others):
        assert small().verify(one, asked) == small().verify(suspect(one.model), asked)


def test_the_statistic_is_the_mean_cosine_and_the_details_say_how_well_features_were_aligned() -> None:
    key = key_of()
    verdict = small().verify(suspect(aligned_with(key, 0.5)), key)
    cosines = verdict.details["cosines"]
    assert len(cosines) == len(key.classes) > 1
    assert verdict.statistic == pytest.approx(sum(cosines) / len(cosines))
    assert verdict.details["feature_shift"] == key.moved
    assert 0 <= verdict.details["alignment_residual"] < 1


@pytest.mark.parametrize("sign", [1, -1])
def test_rounding_takes_no_cosine_beyond_one(monkeypatch: pytest.MonkeyPatch, sign: int) -> None:
    key = replace(key_of(), carriers=key_of().carriers * 1.5)
    aligned = sign * key.carriers.double()
    monkeypatch.setattr(radioactive, "aligned_classifiers", lambda *_: (aligned, 0.0))
    verdict = small().verify(suspect(network(0)), key)
    assert set(verdict.details["cosines"]) == {sign}


def test_classifiers_that_cannot_be_aligned_are_said_to_be_unreadable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(radioactive, "aligned_classifiers", lambda *_: (None, None))
    verdict = small().verify(suspect(network(0)), key_of())
    assert (verdict.statistic, verdict.p_value, verdict.details) == (0.0, 1.0, {"unreadable": True})
