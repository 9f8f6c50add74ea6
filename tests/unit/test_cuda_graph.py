"""Which batches replay a network's graphs, and when they are recorded anew; with a recorder that needs no GPU.

What graphs compute is compared on a GPU: `tests/benchmarks/test_gpu.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, nn

from bench import archs
from bench.api import Recipe
from bench.steps.cuda_graph import Passes
from tests.fakes.device import simulated_gpu
from tests.unit.test_device_path import trained


@dataclass
class Recorder:
    """Stands for PyTorch's: warms up as that does, and calls the network where a GPU would replay."""

    recordings: int = 0
    replayed: list[int] = field(default_factory=list)
    error: Exception | None = None

    def __call__(self, module: nn.Module, sample: tuple[Tensor], **options: Any) -> Callable[[Tensor], Tensor]:
        for _ in range(3):
            module(*sample).sum().backward()
        if self.error is not None:
            raise self.error
        self.recordings += 1

        def replay(x: Tensor) -> Tensor:
            self.replayed.append(len(x))
            found: Tensor = module(x)
            return found

        return replay


@contextmanager
def recorder(error: Exception | None = None) -> Iterator[Recorder]:
    found = Recorder(error=error)
    with mock.patch("torch.cuda.make_graphed_callables", found), mock.patch("torch.cuda.synchronize"):
        yield found


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 10)).train()


def batch(count: int) -> Tensor:
    return torch.rand(count, 3, 8, 8)


def test_only_a_batch_of_the_recorded_shape_is_replayed() -> None:
    passes = Passes(network())
    with recorder() as seen:
        passes(batch(4))
        passes.record(batch(4), nullcontext())
        passes(batch(4)), passes(batch(3)), passes(torch.rand(4, 3, 8, 8)), passes(batch(5))
    assert seen.replayed == [4, 4]


def test_a_recording_leaves_the_network_as_it_was() -> None:
    model = network()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with recorder():
        Passes(model).record(batch(4), nullcontext())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_it_is_recorded_anew_only_where_weights_lie_elsewhere() -> None:
    model = network()
    passes = Passes(model)
    with recorder() as seen:
        for _ in range(3):
            passes.record(batch(4), nullcontext())
        assert seen.recordings == 1
        with torch.no_grad():
            model[3].weight.mul_(0.5)
        passes.record(batch(4), nullcontext())
        assert seen.recordings == 1, "what is changed in place is read at the next replay"
        model[3].weight.data = model[3].weight.data.clone()
        passes.record(batch(4), nullcontext())
        assert seen.recordings == 2
        model[1].register_buffer("running_mean", torch.zeros(4))
        passes.record(batch(4), nullcontext())
        assert seen.recordings == 3


def test_a_network_that_cannot_be_recorded_is_called_and_not_tried_again() -> None:
    model = network()
    passes, before = Passes(model), [buffer.clone() for buffer in model.buffers()]
    with recorder(RuntimeError("operation not permitted when stream is capturing")) as seen:
        passes.record(batch(4), nullcontext())
        assert all(torch.equal(a, b) for a, b in zip(model.buffers(), before, strict=True))
        assert passes(batch(4)).shape == (4, 10)
        with mock.patch.object(model, "forward", side_effect=AssertionError("tried again")):
            passes.record(batch(4), nullcontext())
    assert seen.replayed == []


def test_memory_that_runs_out_is_told() -> None:
    with recorder(torch.OutOfMemoryError("CUDA out of memory")), pytest.raises(torch.OutOfMemoryError):
        Passes(network()).record(batch(4), nullcontext())


# ---- in a training ---------------------------------------------------------------------------------------------------
def replays(steps: int, recipe: Recipe, **options: Any) -> tuple[int, list[int]]:
    """How often a training on the simulated device records, and the sizes of the batches that it replays."""
    with simulated_gpu(), recorder() as seen:
        trained(steps, "cuda", recipe, **options)
        return seen.recordings, seen.replayed


def test_full_batches_of_all_epochs_are_replayed() -> None:
    assert replays(3, Recipe(2, 0.05, 8)) == (1, [8] * 6)


def test_a_short_last_batch_is_not() -> None:
    assert replays(2, Recipe(2, 0.05, 12)) == (1, [12, 12])
    assert replays(1, Recipe(2, 0.05, 12)) == (0, [])


def test_an_added_loss_leaves_the_passes_replayed() -> None:
    def added(model: nn.Module, batch: Any) -> Tensor:
        return 0.1 * next(model.parameters()).square().sum()

    assert replays(2, Recipe(1, 0.05, 8), extra_loss=added) == (1, [8, 8])


def test_what_is_watched_is_asked_for_at_each_step() -> None:
    def looking(model: nn.Module, batch: Any) -> Tensor:
        return 0.1 * batch.activations["features"].square().mean()

    options = {"extra_loss": looking, "watches": {"features": archs.layer_path("wrn", "conv2")}}
    assert replays(2, Recipe(1, 0.05, 8), **options) == (0, [])


def test_a_cpu_records_nothing() -> None:
    with recorder() as seen:
        trained(2, "cpu")
    assert (seen.recordings, seen.replayed) == (0, [])
