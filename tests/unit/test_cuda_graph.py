"""Which batches replay a network's graphs, and when they are recorded anew; with a recorder that needs no GPU.

What graphs compute is compared on a GPU: `tests/benchmarks/test_gpu.py`.
"""

from __future__ import annotations

import weakref
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
from bench.steps import training
from bench.steps.cuda_graph import Passes
from tests.fakes.device import simulated_gpu
from tests.unit.test_device_path import trained


@dataclass
class Recorder:
    """Stands for PyTorch's: warms up as that does, and calls the network where a GPU would replay."""

    recordings: int = 0
    replayed: list[int] = field(default_factory=list)
    alive: list[Any] = field(default_factory=list)
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

        vars(replay)["itself"] = replay  # as what PyTorch makes: only the collector frees it
        self.alive.append(weakref.ref(replay))
        return replay


@contextmanager
def recorder(error: Exception | None = None) -> Iterator[Recorder]:
    found = Recorder(error=error)
    with (
        mock.patch("torch.cuda.make_graphed_callables", found),
        mock.patch("torch.cuda.synchronize"),
        mock.patch("torch.cuda.current_stream"),
    ):
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


def test_it_is_recorded_anew_where_other_layers_are_trained() -> None:
    """A frozen layer's statistics stand still; a graph would go on moving them."""
    model = network()
    passes = Passes(model)
    with recorder() as seen:
        for change in (lambda: None, lambda: model[1].eval(), lambda: model[1].requires_grad_(False), lambda: None):
            change()
            passes.record(batch(4), nullcontext())
    assert seen.recordings == 3


def test_graphs_that_no_longer_fit_are_gone_before_new_ones_are_made() -> None:
    model = network()
    passes = Passes(model)
    with recorder() as seen:
        passes.record(batch(4), nullcontext())
        model[1].eval()
        passes.record(batch(4), nullcontext())
        assert [found() is None for found in seen.alive] == [True, False]
        passes.release()
        assert [found() is None for found in seen.alive] == [True, True]
        passes(batch(4)), passes.record(batch(4), nullcontext())
    assert (seen.recordings, seen.replayed) == (3, [])


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


def test_a_training_gives_its_graphs_back_however_it_ends() -> None:
    with simulated_gpu(), recorder() as seen:
        trained(3, "cuda", Recipe(2, 0.05, 8))
        with pytest.raises(KeyError):
            trained(3, "cuda", Recipe(2, 0.05, 8), extra_loss=lambda model, batch: {}["loss"])
    assert [found() for found in seen.alive] == [None, None]


# ---- one kernel for all weights --------------------------------------------------------------------------------------
@pytest.mark.filterwarnings("ignore:torch.cuda.amp.GradScaler is enabled")
@pytest.mark.parametrize("bfloat16", [True, False])
def test_weights_are_updated_by_one_kernel_but_with_float16(bfloat16: bool) -> None:
    """With float16 the first step may be skipped, and PyTorch's one kernel would begin with any momentum."""
    model = network()
    with simulated_gpu(), mock.patch("torch.cuda.is_bf16_supported", return_value=bfloat16) as asked:
        steps = training._Steps(model.to("cuda"), Recipe(1, 0.1, 8), 8, None, {}, (), True)
    assert asked.call_args.kwargs == {"including_emulation": False}
    assert bool(steps.optimizer.defaults["fused"]) == bfloat16
    assert bool(steps.optimizer.defaults["foreach"]) == (not bfloat16)
    assert steps.half == (torch.bfloat16 if bfloat16 else torch.float16)
