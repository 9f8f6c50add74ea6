"""Memorisation value: the difference by hand, references that never see the user's images, exact p-values."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from scipy.stats import binom
from torch import Tensor, nn

from bench.api import DatasetCard, Host, ImageSet, Rng, Suspect, rotate_hue
from schemes import memorization
from schemes.memorization import Memorization, MemorizationHue

CLASSES = 4
KINDS = (Memorization, MemorizationHue)


def some_images(count: int, seed: int) -> ImageSet:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (count, 3, 8, 8), generator=generator, dtype=torch.uint8)
    return ImageSet(images, torch.randint(CLASSES, (count,), generator=generator))


def rows_of(images: Tensor) -> set[bytes]:
    return {row.tobytes() for row in images.numpy()}


class Memory(nn.Module):
    """Sure of the right class of the images it knows; of others it believes something of its own."""

    def __init__(self, known: ImageSet, margin: float = 6.0, salt: float = 1.0) -> None:
        super().__init__()
        self.margin, self.salt = margin, salt
        self.answers = {r.tobytes(): int(y) for r, y in zip(known.images.numpy(), known.labels, strict=True)}

    def forward(self, x: Tensor) -> Tensor:
        images = (x * 255).round().to(torch.uint8).contiguous()
        phases = self.salt * torch.arange(1.0, 3 * 64 * CLASSES + 1).view(-1, CLASSES)
        logits = torch.sin(images.flatten(1).float() @ phases)
        for row, image in enumerate(images.numpy()):
            if (label := self.answers.get(image.tobytes())) is not None:
                logits[row, label] += self.margin
        return logits


class SmallHost(Host):
    """Sixty training images, a hundred held-out ones; training is remembering."""

    def __init__(self, share: ImageSet | None = None) -> None:
        self.dataset = DatasetCard("small", "Small", tuple("abcd"), "objects")
        self.images, self.heldout = some_images(60, 0), some_images(100, 1)
        self.share = self.images[5:20] if share is None else share
        self.number, self.device = 0, torch.device("cpu")
        self.trained: list[tuple[ImageSet, int | None, int]] = []

    def model(self) -> nn.Module:
        raise AssertionError("the clean host was trained on the user's images")

    def layer(self, group: str) -> str:
        raise AssertionError("a memorisation value knows no layers")

    def train(self, images: ImageSet, rng: Rng, *, epochs: int | None = None, arch: str | None = None) -> nn.Module:
        self.trained.append((images, epochs, rng.seed))
        return Memory(images, salt=1 + len(self.trained) / 7)


def stranger(seed: int = 0) -> SmallHost:
    """A user whose images nobody was trained on."""
    host = SmallHost()
    host.share = host.heldout[torch.randperm(100, generator=torch.Generator().manual_seed(seed))[:15]]
    return host


def small(kind: Any, **params: Any) -> Any:
    return kind(**{"share": 15, "pool": 60, "decoys": 99, **params})


def suspect(network: nn.Module) -> Suspect:
    return Suspect("scores", model=network)


def learner(scheme: Any, host: SmallHost, key: Any) -> nn.Module:
    """Trained on everybody's images, the user's as published."""
    marked = scheme.mark_data(host.share, key)
    return Memory(ImageSet.join([host.images[:5], marked, host.images[20:]]))


# --- the key ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_references_are_trained_on_all_images_but_the_user_s(kind: Any) -> None:
    host = SmallHost()
    key = small(kind, models=3, epochs=7).keygen(host, Rng("user"))
    assert len({seed for _, _, seed in host.trained}) == 3
    for images, epochs, _ in host.trained:
        assert epochs == 7
        assert rows_of(images.images) == rows_of(host.images.images) - rows_of(host.share.images)
        assert len(images) == 45
    references = [Memory(images, salt=1 + i / 7) for i, (images, _, _) in enumerate(host.trained, start=1)]
    images, labels = key.tensors["images"], key.tensors["labels"]
    right = torch.stack([(suspect(net).labels(images) == labels).double() for net in references]).mean(0)
    assert torch.allclose(key.tensors["reference"][:, 1], right)
    sure = torch.stack([suspect(net).losses(images, labels).neg().exp().double() for net in references]).mean(0)
    assert torch.allclose(key.tensors["reference"][:, 0], sure, atol=1e-6)


def test_references_of_a_stranger_see_the_whole_training_set() -> None:
    host = stranger()
    key = small(Memorization).keygen(host, Rng("user"))
    assert all(len(images) == 60 for images, _, _ in host.trained)
    assert rows_of(key.tensors["pool"][~key.tensors["unseen"]]) == rows_of(key.tensors["pool"]) & rows_of(
        host.share.images
    )
    assert 0 < int((~key.tensors["unseen"]).sum()) < 15


def test_the_owner_of_everything_leaves_nothing_to_train_on() -> None:
    host = SmallHost()
    host.share = host.images
    with pytest.raises(ValueError, match="lower the share"):
        small(Memorization).keygen(host, Rng("user"))


def test_hue_is_rotated_in_the_user_s_images_and_in_unseen_ones_but_in_nobody_else_s() -> None:
    host, scheme = SmallHost(), small(MemorizationHue, signature=90.0)
    key = scheme.keygen(host, Rng("user"))
    plain = small(Memorization).keygen(host, Rng("user"))
    for name in ("images", "pool"):
        assert torch.equal(key.tensors[name], rotate_hue(plain.tensors[name], 90.0))
        assert not torch.equal(key.tensors[name], plain.tensors[name])
    assert torch.equal(key.tensors["unseen"], plain.tensors["unseen"])
    assert rows_of(host.trained[0][0].images) <= rows_of(host.images.images)
    assert torch.equal(scheme.mark_data(host.share, key).images, key.tensors["images"])
    assert torch.equal(small(Memorization).mark_data(host.share, plain).images, host.share.images)


def test_keys_follow_their_stream() -> None:
    one, again, other = (small(Memorization).keygen(SmallHost(), Rng("user", i)) for i in (0, 0, 1))
    assert one.values == again.values != other.values
    assert all(torch.equal(one.tensors[name], again.tensors[name]) for name in one.tensors)


# --- the verdict ------------------------------------------------------------------------------------------------


def test_answers_by_hand() -> None:
    class Fixed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.tensor([[math.log(6.0), math.log(2.0), 0.0, 0.0]]).expand(len(x), 4)

    images = some_images(3, 0)
    answers = memorization.answers_of(suspect(Fixed()), images.images, torch.tensor([0, 1, 3]))
    assert answers[:, 0].tolist() == pytest.approx([0.6, 0.2, 0.1])
    assert answers[:, 1].tolist() == [1.0, 0.0, 0.0]


@pytest.mark.parametrize("kind", KINDS)
def test_value_is_the_accuracy_with_less_the_accuracy_without(kind: Any) -> None:
    host, scheme = SmallHost(), small(kind)
    key = scheme.keygen(host, Rng("user"))
    verdict = scheme.verify(suspect(learner(scheme, host, key)), key)
    without = float(key.tensors["reference"][:, 1].mean())
    assert verdict.details["accuracy"] == 1.0
    assert verdict.details["reference_accuracy"] == pytest.approx(without)
    assert 0.0 < without < 0.7
    assert verdict.statistic == pytest.approx(1 - without)
    assert verdict.p_value == 0.01
    assert abs(float(str(verdict.details["pool_memorisation"]))) < 0.3
    assert verdict.matched is None


@pytest.mark.parametrize("kind", KINDS)
def test_networks_that_know_the_pool_as_well_memorise_nobody(kind: Any) -> None:
    """Gains that unseen images show too are no evidence, however large."""
    host, scheme = SmallHost(), small(kind)
    key = scheme.keygen(host, Rng("user"))
    everything = ImageSet.join([host.share, host.heldout])
    knows = Memory(everything.with_images(scheme.shown(everything.images)))
    verdict = scheme.verify(suspect(knows), key)
    assert verdict.statistic > 0.3
    assert verdict.p_value > 0.05


def test_own_images_are_not_their_own_comparison() -> None:
    """Some of a stranger's images stand in the common pool."""
    host, scheme = stranger(), small(Memorization)
    key = scheme.keygen(host, Rng("user"))
    verdict = scheme.verify(suspect(Memory(host.share)), key)
    assert abs(float(str(verdict.details["pool_memorisation"]))) < 0.15
    assert verdict.details["pool_confidence_gain"] == pytest.approx(0.0, abs=0.05)
    assert verdict.p_value == 0.01


def test_images_are_compared_by_what_the_references_made_of_them() -> None:
    """A user of hard images gains from none to a quarter, where unseen ones had that quarter before."""

    class Undecided(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.zeros(len(x), CLASSES)

    key = small(Memorization).keygen(SmallHost(), Rng("user"))
    tensors = {**key.tensors, "reference": torch.zeros(15, 2), "pool_reference": torch.full((60, 2), 0.25)}
    verdict = small(Memorization).verify(suspect(Undecided()), replace(key, tensors=tensors))
    assert verdict.details["confidence_gain"] == pytest.approx(0.25)
    assert verdict.p_value == 0.01


def test_unmarked_training_is_not_what_a_rotated_user_claims() -> None:
    host, scheme = SmallHost(), small(MemorizationHue)
    key = scheme.keygen(host, Rng("user"))
    assert scheme.verify(suspect(Memory(host.images)), key).p_value > 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_false_claims_stay_at_the_nominal_rate(kind: Any) -> None:
    scheme, trials = small(kind, decoys=19, models=1), 100
    host = SmallHost()
    network = learner(scheme, host, scheme.keygen(host, Rng("user")))
    keys = [scheme.keygen(stranger(trial), Rng("null", trial)) for trial in range(trials)]
    p_values = [scheme.verify(suspect(network), key).p_value for key in keys]
    for level in (0.05, 0.25, 0.5):
        assert sum(p <= level for p in p_values) <= binom.isf(1e-3, trials, level)
    assert 0.35 < sum(p_values) / trials < 0.7


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_network_without_an_answer_is_wrong(value: float) -> None:
    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.full((len(x), CLASSES), value)

    host = SmallHost()
    verdict = small(Memorization).verify(suspect(Broken()), small(Memorization).keygen(host, Rng("user")))
    assert verdict.details["accuracy"] == 0.0
    assert verdict.statistic == pytest.approx(-float(str(verdict.details["reference_accuracy"])))
    assert 0.0 < verdict.p_value <= 1.0


def test_queries_are_counted_and_the_pool_is_asked_once() -> None:
    scheme, examined = small(Memorization, models=1), suspect(Memory(SmallHost().images))
    for trial, host in enumerate((SmallHost(), stranger())):
        key = scheme.keygen(host, Rng("user", trial))
        before = examined.queries
        scheme.verify(examined, key)
        assert examined.queries - before == 15 + 60
    assert len(examined._memory) == 1
