"""DeepStamp: the networks, the losses, and what W makes of images."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.api import ImageSet, Rng, Suspect, replace
from schemes.deepstamp import DeepStamp, DeepStampKey, _Training, discriminator, visualiser, watermarker
from tests.fakes import FakeHost, cloudy_images, same_key

TINY: dict[str, Any] = {"epochs": 2, "batch_size": 16, "decoys": 39, "probe": 4, "model_decoys": 4}


def cloudy(count: int, seed: int, height: int = 32, width: int = 32) -> ImageSet:
    """Dark and bright images."""
    return cloudy_images(count, seed, height, width, cells=6, classes=2, shade=0.4)


def classifier(seed: int = 0) -> nn.Module:
    """A small network with batch normalisation and dropout."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        body = nn.Sequential(nn.Conv2d(3, 4, 5, 4), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten())
        return nn.Sequential(body, nn.Dropout(0.5), nn.Linear(64, 2)).eval()


def host_of(count: int = 64, height: int = 32, width: int = 32) -> FakeHost:
    """A host of two classes, which is asked to train nothing: F is the clean host itself."""
    return FakeHost(cloudy(count, 0, height, width), cloudy(8, 1, height, width), classes=2, model=classifier)


@pytest.fixture(scope="module")
def owner() -> tuple[DeepStamp, DeepStampKey]:
    """One key, trained for a moment."""
    scheme = DeepStamp(**TINY)
    return scheme, scheme.keygen(host_of(), Rng("owner", 0))


def size_of(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def training(mark: float | Tensor = 0.5, network: nn.Module | None = None, **params: Any) -> _Training:
    filled = torch.full((4, 32, 32), mark) if isinstance(mark, float) else mark
    return _Training(DeepStamp(**{**TINY, **params}).params, filled, network or classifier(), Rng("training"))


# --- the networks ----------------------------------------------------------------------------------------------


def test_networks_have_the_parameters_of_the_released_code() -> None:
    assert [size_of(build()) for build in (watermarker, discriminator, visualiser)] == [8_692, 1_245, 21_732]


def test_networks_have_the_right_shapes() -> None:
    marks = torch.rand(2, 4, 40, 56)
    assert watermarker()(torch.rand(2, 7, 40, 56)).shape == marks.shape
    assert visualiser()(marks).shape == marks.shape
    assert discriminator()(torch.rand(2, 3, 32, 32)).shape == (2, 1, 1, 1)
    assert discriminator()(torch.rand(2, 3, 48, 40)).shape == (2, 1, 5, 3)


# --- the losses ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("distance", "wanted"), [("l1", 0.3), ("l2", 0.09)])
def test_distance_between_marks_by_hand(distance: str, wanted: float) -> None:
    trained = training(0.5, distance=distance)
    trained.V = nn.Identity()
    assert float(trained.v_loss(torch.full((3, 4, 32, 32), 0.8))) == pytest.approx(wanted)


def test_task_loss_is_that_of_the_true_labels_at_the_images_own_size() -> None:
    class Sizes(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            assert x.shape[2:] == (40, 24)
            return torch.tensor([[0.0, 3.0]]).log_softmax(1).expand(len(x), 2)

    batch = cloudy(4, 0, 40, 24)
    stamped = torch.rand(4, 3, 32, 32)
    wanted = -torch.tensor([0.0, 3.0]).log_softmax(0).mean()  # two images of each class
    assert float(training(network=Sizes()).task_loss(stamped, batch)) == pytest.approx(float(wanted))


def test_a_step_descends_on_the_losses_that_the_history_shows() -> None:
    """V's, D's and W's first losses, computed a second time from the initial networks."""
    trained, again = (training(task=2.0, similarity=3.0, adversarial=0.5, lr_v=1e-9, lr_d=1e-9) for _ in range(2))
    batch = cloudy(8, 2)
    x, w = batch.images.float() / 255, again.mark
    drawn = again.W(torch.cat([x, w.expand(8, 4, 32, 32)], 1))
    plain, stamped = (0.5 * m[:, 3:] * m[:, :3] + (1 - 0.5 * m[:, 3:]) * x for m in (w, drawn))
    v_plain, v_drawn = ((again.V(m) - w).abs().mean() for m in (w, drawn))
    real, fake = (again.D(images).sigmoid() for images in (plain, stamped))
    task = F.cross_entropy(again.classifier(stamped), batch.labels)
    wanted = {
        "V": v_plain + v_drawn,
        "D": -real.log().mean() - (1 - fake).log().mean(),
        "W": -0.5 * fake.log().mean() + 3 * v_drawn + 2 * task,
        "task": task,
        "alpha": drawn[:, 3].mean(),
    }
    found = trained.step(batch)
    assert {name: float(part) for name, part in found.items()} == pytest.approx(
        {name: float(part.detach()) for name, part in wanted.items()}, rel=1e-4
    )


def test_a_step_moves_w_v_and_d_and_leaves_f_alone() -> None:
    trained = training(gradient_matching="intended")
    nets = (trained.W, trained.V, trained.D, trained.classifier)
    before = [{name: tensor.clone() for name, tensor in net.state_dict().items()} for net in nets]
    trained.step(cloudy(8, 2))
    moved = [
        any(not torch.equal(tensor, old[name]) for name, tensor in net.state_dict().items())
        for net, old in zip(nets, before, strict=True)
    ]
    assert moved == [True, True, True, False]
    assert all(parameter.grad is None for parameter in trained.classifier.parameters())


def test_gradient_matching_has_a_gradient_only_as_intended() -> None:
    trained, batch = training(gradient_matching="intended"), cloudy(8, 2)
    clean = batch.images.float() / 255
    assert float(trained.gradient_gap(clean, clean, batch).detach()) < 1e-5
    stamped = (0.7 * clean).requires_grad_()
    gap = trained.gradient_gap(clean, stamped, batch)
    (gradient,) = torch.autograd.grad(gap, stamped)
    assert float(gap.detach()) > 1e-3
    assert float(gradient.abs().max()) > 0
    assert not any(parameter.requires_grad for parameter in training().classifier.parameters())


def test_gradient_matching_changes_what_w_learns() -> None:
    losses = [training(gradient_matching=which).step(cloudy(8, 2)) for which in ("off", "intended")]
    assert losses[1]["W"] > losses[0]["W"]
    assert losses[1]["task"] == losses[0]["task"]


# --- the key ---------------------------------------------------------------------------------------------------


def test_key_holds_w_and_the_mark_and_the_history_of_training(owner: tuple[DeepStamp, DeepStampKey]) -> None:
    scheme, key = owner
    assert set(key.W) == set(watermarker().state_dict())
    assert not any(tensor.requires_grad for tensor in key.W.values())
    assert key.mark.shape == (4, 32, 32)
    host = host_of()
    assert same_key(scheme.keygen(host, Rng("owner", 0)), key)
    assert set(host.notes) == {"loss of W", "loss of V", "loss of D", "task", "alpha"}
    assert all(len(numbers) == scheme.params.epochs for numbers in host.notes.values())


def test_keys_follow_their_stream_and_leave_the_global_one_alone(owner: tuple[DeepStamp, DeepStampKey]) -> None:
    scheme, key = owner
    state = torch.get_rng_state()
    again = scheme.keygen(host_of(), Rng("owner", 0))
    assert torch.equal(torch.get_rng_state(), state)
    assert same_key(key, again)
    other = DeepStamp(**{**TINY, "epochs": 1, "images": 16}).keygen(host_of(), Rng("owner", 1))
    assert not torch.equal(key.mark, other.mark)
    assert not torch.equal(key.W["0.weight"], other.W["0.weight"])


def test_w_learns_on_training_images_alone_and_on_as_many_as_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []
    step = _Training.step

    def watched(self: _Training, batch: ImageSet) -> dict[str, Tensor]:
        seen.append(batch.images)
        return step(self, batch)

    monkeypatch.setattr(_Training, "step", watched)
    host = host_of()
    DeepStamp(**{**TINY, "images": 20, "epochs": 1}).keygen(host, Rng("owner"))
    rows = {image.numpy().tobytes() for image in torch.cat(seen)}
    assert len(torch.cat(seen)) == len(rows) == 20
    assert rows <= {image.numpy().tobytes() for image in host.images.images}
    assert not rows & {image.numpy().tobytes() for image in host.heldout.images}


def test_sizes_that_are_not_multiples_of_eight() -> None:
    host, scheme = host_of(16, 36, 50), DeepStamp(**{**TINY, "epochs": 1})
    key = scheme.keygen(host, Rng("owner"))
    assert key.mark.shape == (4, 36, 50)
    assert scheme.mark_data(host.images, key).images.shape == (16, 3, 36, 50)


# --- what W makes of images ------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_the_mark_neither_vanishes_nor_saturates(seed: int) -> None:
    scheme, host = DeepStamp(**{**TINY, "epochs": 3}), host_of()
    key = scheme.keygen(host, Rng("stability", seed))
    alpha = scheme.synthesise(host.images.images, key)[:, 3]
    on = key.mark[3] > 0.5
    assert 0.02 < float(alpha.mean()) < 0.98
    assert float(alpha[:, on].mean()) > 0.2
    assert all(float(value) < 1e3 for numbers in host.notes.values() for value in numbers)
    assert 1e-4 < key.visibility < 0.1


def test_stamping_blends_what_w_draws_in_eval_mode(owner: tuple[DeepStamp, DeepStampKey]) -> None:
    scheme, key = owner
    images = cloudy(10, 5).images
    network = watermarker()
    network.load_state_dict(dict(key.W))
    x = images.float() / 255
    with torch.no_grad():
        w = network.eval()(torch.cat([x, key.mark.expand(10, 4, 32, 32)], 1))
    a = 0.5 * w[:, 3:]
    wanted = (255 * (a * w[:, :3] + (1 - a) * x)).round()
    assert (scheme.stamp(images, key).float() - wanted).abs().max() <= 1


@pytest.mark.parametrize("cuts", [(1, 99, 30), (64, 66), (130,)])
def test_chunks_give_the_same_as_the_whole(owner: tuple[DeepStamp, DeepStampKey], cuts: tuple[int, ...]) -> None:
    scheme, key = owner
    images = cloudy(130, 5)
    whole = scheme.mark_data(images, key).images
    assert torch.equal(torch.cat([scheme.stamp(chunk, key) for chunk in images.images.split(cuts)]), whole)


def test_marks_differ_between_images(owner: tuple[DeepStamp, DeepStampKey]) -> None:
    scheme, key = owner
    images = cloudy(20, 5).images
    drawn = scheme.synthesise(images, key)
    assert ((drawn > 0) & (drawn < 1)).all(), "alpha is never 0: a learned mark touches every pixel"
    assert float(drawn.std(0).mean()) > 2 / 255
    same = scheme.synthesise(images[:1].expand(5, -1, -1, -1), key)
    assert float(same.std(0).max()) < 1e-6


def test_finds_its_mark_and_no_other_s(owner: tuple[DeepStamp, DeepStampKey]) -> None:
    scheme, key = owner
    images = cloudy(200, 5)
    marked = Suspect("data set", images=scheme.mark_data(images, key))
    verdict = scheme.verify(marked, key)
    assert verdict.p_value == 1 / 40
    assert verdict.details["visibility"] == key.visibility
    others = [
        replace(key, mark=DeepStamp(**TINY).draw_key(host_of(), Rng("other", i)).mark, decoys=i) for i in range(20)
    ]
    assert sum(scheme.verify(marked, other).p_value <= 0.1 for other in others) <= 7
    clean = Suspect("data set", images=images)
    assert sum(scheme.verify(clean, other).p_value <= 0.1 for other in (key, *others)) <= 7


@pytest.mark.parametrize("count", [0, 1])
def test_a_host_with_no_or_one_heldout_image(count: int) -> None:
    host, scheme = host_of(16), DeepStamp(**{**TINY, "epochs": 1})
    host.heldout = host.heldout[:count]
    key = scheme.keygen(host, Rng("owner"))
    assert (len(key.probe), key.visibility > 0) == (count, bool(count))
