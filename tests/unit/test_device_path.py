"""What is given for a GPU stays there, and no step of a training waits for it; on a simulated device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from attacks._learner import LearnerAttack
from bench import archs
from bench.api import Batch, ImageSet, Recipe, Rng
from bench.registry import attacks, make, schemes
from bench.steps import training
from bench.steps.optimizer import optimizer_of
from tests.fakes import FakeHost
from tests.fakes.device import on_device, simulated_gpu

RECIPE = Recipe(1, 0.05, 8)


# ---- the simulated device itself -------------------------------------------------------------------------------------
def test_tensors_of_two_devices_are_refused_as_on_a_gpu() -> None:
    with simulated_gpu():
        there, here = torch.ones(3, device="cuda"), torch.ones(3)
        assert (there.device.type, here.device.type, there.cpu().device.type) == ("cuda", "cpu", "cpu")
        assert (there + 1).is_cuda
        assert (there * torch.tensor(2.0)).is_cuda, "a number of the CPU may take part"
        for mixed in (lambda: there + here, lambda: torch.cat([there, here]), lambda: torch.stack([there[0], here[0]])):
            with pytest.raises(RuntimeError, match="same device"):
                mixed()
        with pytest.raises(TypeError, match="numpy"):
            there.numpy()


def test_whatever_waits_is_counted() -> None:
    with simulated_gpu() as gpu:
        there = torch.arange(4.0, device="cuda")
        there.sum().item(), there.tolist(), there.nonzero(), bool(there.any()), float(there[0]), there.cpu()
        there[there > 1], torch.ones(3).sum().item(), there[torch.tensor([0, 1])]
        assert gpu.waits == {
            "item": 1, "tolist": 1, "nonzero": 1, "__bool__": 1, "__float__": 1, "to the CPU": 1, "mask": 1,
        }  # fmt: skip


def test_a_network_moves_as_a_whole_and_its_gradients_are_there() -> None:
    with simulated_gpu():
        model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)).to("cuda")
        assert all(on_device(each) for each in (*model.parameters(), *model.buffers()))
        model(torch.ones(2, 3, 8, 8, device="cuda")).sum().backward()
        assert all(on_device(p.grad) for p in model.parameters())
        with pytest.raises(RuntimeError, match="same device"):
            model(torch.ones(2, 3, 8, 8))


# ---- trainings -------------------------------------------------------------------------------------------------------
def images(count: int) -> ImageSet:
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randint(256, (count, 3, 32, 32), dtype=torch.uint8, generator=generator)
    return ImageSet(pictures, torch.randint(10, (count,), generator=generator))


def trained(steps: int, device: str, recipe: Recipe = RECIPE, **options: Any) -> torch.nn.Module:
    """A narrow network after so many steps."""
    owner = images(8 * steps).to(device)
    model = archs.build("wrn", 10, width=0.125, rng=Rng("device"), device=device)
    options = {"augment": ("crop", "flip"), "mixed_precision": True, **options}
    return training.train(model, owner, recipe, rng=Rng("device"), **options).model


def waits(steps: int, recipe: Recipe = RECIPE, **options: Any) -> dict[str, int]:
    """How often a training of one epoch waited for the device."""
    with simulated_gpu() as gpu:
        trained(steps, "cuda", recipe, **options)
        return dict(gpu.waits)


def embedding(name: str) -> dict[str, Any]:
    """The hooks by which a scheme embeds its key while training."""
    with simulated_gpu():
        host_model = archs.build("wrn", 10, width=0.125, rng=Rng("device"), device="cuda")
        layer = archs.layer_path("wrn", "conv2")
        scheme = make(schemes()[name], schemes()[name].card.tiny)
        host = FakeHost(model=lambda: host_model, layers={"conv2": layer})
        host.device = torch.device("cuda")
        key = scheme.keygen(host, Rng("key"))

    def loss(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        return scheme.embedding_loss(model, key, batch)

    return {"extra_loss": loss, "undecayed": scheme.undecayed(key)}


def changed(name: str) -> Recipe:
    """The recipe that an attack makes of the learner's."""
    attack = make(attacks()[name], attacks()[name].card.tiny)
    assert isinstance(attack, LearnerAttack)
    return attack._changed(RECIPE, attack.ladder[-1], Rng("attack"))


LEARNERS = [
    name for name, cls in attacks().items() if cls.card.stage == "training" and issubclass(cls, LearnerAttack)
    and name != "dp-sgd"
]  # fmt: skip
UCHIDA = [name for name in schemes() if name.startswith("uchida") and name != "uchida-posthoc"]
CASES: dict[str, Callable[[], tuple[Recipe, dict[str, Any]]]] = {
    "plain": lambda: (RECIPE, {"augment": ()}),
    "augmented": lambda: (RECIPE, {}),
    "adam": lambda: (replace(RECIPE, optimizer="adam"), {}),
    "label smoothing and temperature": lambda: (replace(RECIPE, label_smoothing=0.1, temperature=3.0), {}),
    **{name: (lambda name=name: (RECIPE, embedding(name))) for name in UCHIDA},
    **{name: (lambda name=name: (changed(name), {})) for name in LEARNERS},
}


@pytest.mark.parametrize("case", CASES)
def test_no_step_waits_for_the_device(case: str) -> None:
    """A training of five steps waits as often as one of two: once, when the epoch is read out."""
    recipe, options = CASES[case]()
    assert waits(2, recipe, **options) == waits(5, recipe, **options) == {"tolist": 1}


def test_a_loss_that_waits_is_seen() -> None:
    """What the test above would find: `item` in an added loss."""

    def looking(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        return 0.1 * batch.logits.square().mean() if batch.logits.mean().item() < 1e9 else None

    assert waits(5, extra_loss=looking) == {"tolist": 1, "item": 5}


def test_the_simulated_device_computes_what_the_cpu_does(monkeypatch: pytest.MonkeyPatch) -> None:
    # PyTorch's one kernel for all weights, which only a GPU is given, rounds otherwise on some processors.
    monkeypatch.setattr(training, "optimizer_of", lambda *given, fused: optimizer_of(*given, fused=True))
    with simulated_gpu():
        there = [p.detach().cpu() for p in trained(3, "cuda").parameters()]
    # Autocast of the simulated device casts nothing.
    here = list(trained(3, "cpu", mixed_precision=False).parameters())
    assert all(torch.equal(one, other) for one, other in zip(there, here, strict=True))
