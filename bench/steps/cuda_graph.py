"""A network's forward and backward pass as CUDA graphs: a GPU is told once what to do, not at every step.

A step of a small network is hundreds of short kernels, and launching them takes longer than computing them. A graph
records them once and launches all at once (https://docs.pytorch.org/docs/stable/notes/cuda.html, "CUDA Graphs"). The
kernels are the same, and so are the numbers.
"""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from typing import cast

import torch
from torch import Tensor, nn

__all__ = ["Passes"]


class Passes:
    """Calls a network in training mode, and replays its graphs where the batch has the recorded shape.

    A graph reads and writes the memory that it was recorded with, so that it is recorded anew when weights lie
    elsewhere, or other layers are trained. What a forward pass does in Python beside its kernels happens at recording
    alone. The answers to one batch are overwritten by those to the next.

    Args:
        model: on a GPU, with no hook that must be called at each step.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._replay: Callable[[Tensor], Tensor] | None = None
        self._shape: torch.Size | None = None
        self._recorded: list[object] = []

    def __call__(self, x: Tensor) -> Tensor:
        """Logits, N x K, of float images N x C x H x W."""
        if self._replay is None or x.shape != self._shape:
            logits: Tensor = self.model(x)
            return logits
        return self._replay(x)

    def record(self, x: Tensor, scope: AbstractContextManager[object]) -> None:
        """Record both passes, unless the graphs still fit; buffers stay as they are.

        A network that cannot be recorded, because its forward pass waits for the device, is called as it is.

        Args:
            x: a batch, of any values.
            scope: entered for the recording: autocast, without its cache.

        Raises:
            torch.OutOfMemoryError: the batch does not fit.
        """
        if self._recorded == (state := self._state()):
            return
        self.release()
        self._shape, self._recorded = x.shape, state
        kept = [buffer.clone() for buffer in self.model.buffers()]
        _expect_two_streams()
        try:
            # A recording that fails leaves PyTorch on its own stream.
            with scope, torch.cuda.stream(torch.cuda.current_stream()), warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # PyTorch warns of the first product on a thread
                made = torch.cuda.make_graphed_callables(_Whole(self.model), (x,), allow_unused_input=True)
                self._replay = cast(Callable[[Tensor], Tensor], made)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:
            torch.cuda.synchronize()
        for buffer, before in zip(self.model.buffers(), kept, strict=True):
            buffer.copy_(before)

    def release(self) -> None:
        """Give the graphs and their memory back: they refer to themselves, so that only the collector finds them."""
        if self._replay is not None:
            self._replay, self._recorded = None, []
            gc.collect()

    def _state(self) -> list[object]:
        """What a graph was recorded with: where tensors lie, which are trained, and the mode of each layer."""
        tensors = (*self.model.parameters(), *self.model.buffers())
        return [
            *((tensor.data_ptr(), tensor.requires_grad) for tensor in tensors),
            *(module.training for module in self.model.modules()),
        ]


class _Whole(nn.Module):
    """A module around the network, because recording replaces the `forward` of what it is given."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x)
        return logits


def _expect_two_streams() -> None:
    """Gradients are written on the stream of the recording; PyTorch waits for it, and would warn of that."""
    with suppress(AttributeError):  # PyTorch before 2.10 says nothing
        torch.autograd.graph.set_warn_on_accumulate_grad_stream_mismatch(False)
