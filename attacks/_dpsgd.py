"""Differentially private descent (DP-SGD), by Opacus.

Deep Learning with Differential Privacy, Abadi, Chu, Goodfellow, McMahan, Mironov, Talwar, Zhang 2016, algorithm 1,
https://arxiv.org/abs/1607.00133; Opacus: https://opacus.ai.

What is done, so that a reader can say what it is worth:

* Poisson sampling: each of the N images joins each step with probability q = 1 / ceil(N / batch size), by itself.
  There are 1 / q steps an epoch, and an image may pass several times in one or not at all. So the accountants of the
  sampled Gaussian mechanism apply as they stand (neighbouring sets differ by one image more or less): what T steps
  spend follows from q, T and the noise multiplier alone.
* The gradient of each image is clipped to `max_grad_norm`, over all layers together; Gaussian noise of standard
  deviation `noise_multiplier * max_grad_norm` is added to their sum, which is divided by the expected batch q N.
* The noise comes from an ordinary seeded generator on the device, so that a record can be computed again; who knows
  the seed can take the noise off. For an experiment, not for a release.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Private", "PrivateDescent", "poisson"]

# Images whose gradients are in memory at a time: each takes as much as the network itself.
PART = 32


def poisson(count: int, steps: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Rows of each of `steps` batches: every one of `count` joins with probability 1 / `steps`, by itself."""
    for _ in range(steps):
        yield (torch.rand(count, generator=generator) * steps < 1).nonzero().squeeze(1)


@dataclass(frozen=True)
class PrivateDescent:
    """A recipe's `descent`: clipped, noisy steps on batches drawn at random.

    Attributes:
        noise_multiplier: standard deviation of the noise over the clipping norm, from 0 on.
        max_grad_norm: each image's gradient is clipped to it, above 0.
    """

    noise_multiplier: float
    max_grad_norm: float

    def start(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, *, images: int, steps: int, seed: int
    ) -> Private:
        """One private training; see `bench.api.Recipe`.

        Raises:
            ValueError: the network mixes the images of a batch, a number is out of bounds, or Opacus is missing.
        """
        if not (math.isfinite(self.noise_multiplier) and self.noise_multiplier >= 0 and self.max_grad_norm > 0):
            raise ValueError(f"Expected a noise multiplier from 0 on and a clipping norm above 0, but got {self}.")
        for name, module in model.named_modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                raise ValueError(
                    f"Expected a network without batch normalisation, which mixes the images of a batch, but got "
                    f"{name}: replace it, for instance by opacus.validators.ModuleValidator.fix."
                )
        return Private(self, model, optimizer, images, steps, seed)


class Private:
    """One training by `PrivateDescent`."""

    def __init__(
        self,
        descent: PrivateDescent,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        images: int,
        steps: int,
        seed: int,
    ) -> None:
        self.model, self.images, self.steps, self.opacus = model, images, steps, _opacus()
        device = next(model.parameters()).device
        self.optimizer: Any = self.opacus.optimizers.DPOptimizer(
            optimizer,
            noise_multiplier=descent.noise_multiplier,
            max_grad_norm=descent.max_grad_norm,
            expected_batch_size=images / steps,
            generator=torch.Generator(device).manual_seed(seed),
        )

    def rows(self, generator: torch.Generator) -> Iterator[Tensor]:
        """Random batches of random sizes; see `poisson`."""
        return poisson(self.images, self.steps, generator)

    @contextmanager
    def scope(self) -> Iterator[None]:
        """Scope in which `step` may be called: hooks on the layers keep each image's gradient."""
        watched = self.opacus.GradSampleModule(self.model, loss_reduction="sum")
        try:
            with warnings.catch_warnings():
                # The first layer's input, an image, needs no gradient; PyTorch warns that its hook runs all the same.
                warnings.filterwarnings("ignore", message="Full backward hook is firing")
                yield
        finally:
            watched.to_standard_module()
            _tidy(self.model)

    def step(self, count: int, loss: Callable[[slice], Tensor]) -> None:
        """One noisy step.

        Args:
            count: images in the batch; a step without any is noise alone.
            loss: the sum of the losses of these rows, whose activations are contiguous (Opacus reads the memory of
                channels-last images in the wrong order).
        """
        self.optimizer.zero_grad(set_to_none=True)
        if count == 0:
            for parameter in self.optimizer.params:
                parameter.grad_sample = torch.zeros_like(parameter)[None]
            self.optimizer.step()
        for start in range(0, count, PART):
            loss(slice(start, start + PART)).backward()
            self.optimizer.signal_skip_step(start + PART < count)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)


def _tidy(model: nn.Module) -> None:
    """Remove what Opacus leaves behind on layers and parameters."""
    for module in model.modules():
        module.__dict__.pop("activations", None)
    for parameter in model.parameters():
        parameter.__dict__.pop("summed_grad", None)
        parameter.grad = None


def _opacus() -> ModuleType:
    try:
        import opacus
        import opacus.optimizers
    except ImportError as error:
        raise ValueError('Expected Opacus to be installed for DP-SGD: pip install "watermark-bench[dp]".') from error
    return opacus
