"""How near is training to a bare step on a GPU, what do CUDA graphs change, and does it repeat itself there?

Run by `make bench` only.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any
from unittest import mock

import pytest
import torch
from torch.nn import functional as F

from bench import archs
from bench.api import Batch, ImageSet, Recipe, Rng
from bench.runner.arithmetic import pin
from bench.steps import training
from tests.benchmarks.figures import Figures

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
DEVICE, BATCH, STEPS = "cuda", 128, 100
ARCHS = ("wrn", "alexnet", "vgg16", "resnet50")


@pytest.fixture(autouse=True)
def pinned() -> None:
    pin(DEVICE)


def images(count: int) -> ImageSet:
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randint(256, (count, 3, 32, 32), dtype=torch.uint8, generator=generator)
    return ImageSet(pictures, torch.randint(10, (count,), generator=generator)).to(DEVICE)


def network(arch: str = "wrn", width: float = 1.0) -> torch.nn.Module:
    return archs.build(arch, 10, width=width, rng=Rng("speed"), device=DEVICE)


def without_graphs() -> AbstractContextManager[Any]:
    return mock.patch("torch.cuda.make_graphed_callables", lambda model, sample, **_: model)


def optimizer_of(model: torch.nn.Module) -> torch.optim.Optimizer:
    settings = {"lr": 0.001, "momentum": 0.9, "weight_decay": 5e-4}
    return torch.optim.SGD(model.parameters(), **settings, nesterov=True, fused=True)


def bare(arch: str, batch: ImageSet) -> Callable[[], None]:
    """Steps of the same network and optimizer in bfloat16, on one batch that never changes."""
    model = network(arch).train().to(memory_format=torch.channels_last)
    x = (batch.images.float() / 255).contiguous(memory_format=torch.channels_last)
    optimizer = optimizer_of(model)

    def steps() -> None:
        for _ in range(STEPS):
            with torch.autocast(DEVICE, dtype=torch.bfloat16):
                logits = model(x)
            loss = F.cross_entropy(logits.float(), batch.labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

    return steps


def images_per_second(work: Callable[[], object], rounds: int = 2) -> float:
    """The quickest of some rounds, after one that does not count."""
    work()
    times = []
    for _ in range(rounds):
        torch.cuda.synchronize()
        start = time.perf_counter()
        work()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return BATCH * STEPS / min(times)


def loop_images_per_second(arch: str, owner: ImageSet, augment: tuple[str, ...]) -> float:
    """The quickest epoch of the loop but for the first, in which graphs are recorded."""
    recipe = Recipe(3, 0.001, BATCH)
    trained = training.train(network(arch), owner, recipe, rng=Rng("speed"), augment=augment, mixed_precision=True)
    return max(epoch.images_per_s for epoch in trained.history[1:])


@pytest.mark.parametrize("arch", ARCHS)
def test_training_is_near_a_bare_step(arch: str, figures: Figures) -> None:
    owner = images(BATCH * STEPS)
    floor = images_per_second(bare(arch, owner[:BATCH]))
    found = {}
    for name, augment in {"plain": (), "augmented": ("crop", "flip")}.items():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        found[name] = round(loop_images_per_second(arch, owner, augment))
    memory = round(torch.cuda.max_memory_allocated() / 2**20)
    with without_graphs():
        found["augmented, no graphs"] = round(loop_images_per_second(arch, owner, ("crop", "flip")))
    figures.machine["gpu"] = torch.cuda.get_device_name()
    details = {"bare_images_per_s": round(floor), "images_per_s": found, "peak_mib": memory}
    assert figures.add("gpu_loop_ratio", found["augmented"] / floor, case=arch, at_least=0.93, **details)


# ---- the same numbers ------------------------------------------------------------------------------------------------
def added(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    return 0.01 * batch.logits.float().square().mean() + 1e-4 * sum(p.square().sum() for p in model.parameters())


def move(model: torch.nn.Module) -> None:
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()


def trained(arch: str = "wrn", width: float = 0.25, moved: bool = False, frozen: bool = False, **options: Any) -> Any:
    """Parameters and buffers after two epochs, the last batch of which is short."""
    model = network(arch, width)
    if frozen:
        model.requires_grad_(False)
        list(model.modules())[-1].requires_grad_(True)
    options = {"augment": ("crop", "flip"), "mixed_precision": True, **options}
    recipe = Recipe(2, 0.01, 64, optimizer=options.pop("optimizer", "sgd"))
    for _ in training.train_epochs(model, images(64 * 20 + 40), recipe, rng=Rng("same"), **options):
        if moved:
            move(model)
    return torch.cat([tensor.detach().flatten().float() for tensor in (*model.parameters(), *model.buffers())])


CASES: dict[str, dict[str, Any]] = {
    "batch normalisation": {},
    "dropout and Adam": {"arch": "alexnet", "optimizer": "adam"},
    "a deep network": {"arch": "resnet50", "width": 0.125},
    "an added loss": {"extra_loss": added},
    "float32": {"mixed_precision": False},
    "weights that move between epochs": {"moved": True},
    "the last layer alone": {"frozen": True},
}


@pytest.mark.parametrize("case", CASES)
def test_graphs_train_the_same_network(case: str) -> None:
    with without_graphs():
        plain = trained(**CASES[case])
    replay, replays = torch.cuda.CUDAGraph.replay, list[object]()

    def counted(graph: torch.cuda.CUDAGraph) -> None:
        replays.append(graph)
        replay(graph)

    with mock.patch.object(torch.cuda.CUDAGraph, "replay", counted):
        replayed = trained(**CASES[case])
    assert len(replays) == 2 * 2 * 20, "both passes of the 20 full batches of two epochs"
    assert torch.equal(plain, replayed), f"largest difference {(plain - replayed).abs().max():.3g}"


class Waiting(torch.nn.Sequential):
    """Cannot be recorded."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = super().forward(x)
        return found if found.sum().item() > -1e9 else -found


def test_a_network_that_waits_for_the_device_trains_without_graphs() -> None:
    def weights() -> torch.Tensor:
        torch.manual_seed(0)
        model = Waiting(torch.nn.Flatten(), torch.nn.Linear(3072, 10)).to(DEVICE)
        training.train(model, images(256), Recipe(2, 0.01, 64), rng=Rng("w"), augment=(), mixed_precision=True)
        return model[1].weight.detach()

    with without_graphs():
        plain = weights()
    assert torch.equal(plain, weights())
    assert trained().isfinite().all(), "and what is trained after it is recorded as always"


def test_training_repeats_itself() -> None:
    first, second = trained(), trained()
    assert torch.equal(first, second)
