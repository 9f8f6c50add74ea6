"""How near is training to a bare step on a GPU, and does it repeat itself there? Run by `make bench` only."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch.nn import functional as F

from bench import archs
from bench.api import ImageSet, Recipe, Rng
from bench.steps import training

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
DEVICE, BATCH, STEPS = "cuda", 128, 200


def images(count: int) -> ImageSet:
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randint(256, (count, 3, 32, 32), dtype=torch.uint8, generator=generator)
    return ImageSet(pictures, torch.randint(10, (count,), generator=generator)).to(DEVICE)


def network() -> torch.nn.Module:
    return archs.build("wrn", 10, rng=Rng("speed"), device=DEVICE)


def trained(owner: ImageSet, augment: tuple[str, ...]) -> torch.nn.Module:
    model = network()
    training.train(model, owner, Recipe(1, 0.1, BATCH), rng=Rng("speed"), augment=augment, mixed_precision=True)
    return model


def bare(batch: ImageSet) -> None:
    """The same network and optimizer in bfloat16, on one batch that never changes."""
    model = network().train()
    x = (batch.images.float() / 255).contiguous(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    for _ in range(STEPS):
        with torch.autocast(DEVICE, dtype=torch.bfloat16):
            logits = model(x)
        loss = F.cross_entropy(logits.float(), batch.labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()


def images_per_second(work: Callable[[], object], rounds: int = 3) -> float:
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


def test_training_is_near_a_bare_step() -> None:
    owner = images(BATCH * STEPS)
    floor = images_per_second(partial(bare, owner[:BATCH]))
    for augment in ((), ("crop", "flip")):
        ours = images_per_second(partial(trained, owner, augment))
        print(f"\n{torch.cuda.get_device_name()}: {ours:,.0f} images/s with {augment}, bare {floor:,.0f}")
        assert ours > 0.7 * floor


def test_training_repeats_itself() -> None:
    owner = images(BATCH * STEPS)
    first, second = (torch.cat([p.flatten() for p in trained(owner, ("crop",)).parameters()]) for _ in range(2))
    assert torch.equal(first, second)
