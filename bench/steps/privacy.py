"""How does a network learn without remembering any one image? DP-SGD, by Opacus.

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

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from bench.api import Recipe

__all__ = ["PrivateDescent", "poisson", "refuse"]

# Images whose gradients are in memory at a time: each takes as much as the network itself.
PART = 32


def refuse(recipe: Recipe, model: nn.Module, *, extra_loss: bool) -> None:
    """Check that this network can be trained privately by this recipe, which asks for it.

    Raises:
        ValueError: something in the network or the recipe would see the images without noise; or a number is missing.
    """
    privacy = recipe.privacy or {}
    if not privacy.get("noise_multiplier", -1) >= 0 or not privacy.get("max_grad_norm", 0) > 0:
        raise ValueError(
            "Expected privacy to give a noise_multiplier from 0 on and a max_grad_norm above 0, "
            f"but got {dict(privacy)}."
        )
    if recipe.perturb is not None:
        raise ValueError("Expected privacy or adversarial steps, but got both: leave out `perturb` or `privacy`.")
    if extra_loss:
        raise ValueError("Expected privacy or an added loss, but got both: embed by data, or train without `privacy`.")
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            raise ValueError(
                f"Expected a network without batch normalisation, which mixes the images of a batch, but got {name}: "
                "replace it, for instance by group normalisation with opacus.validators.ModuleValidator.fix."
            )


def poisson(count: int, steps: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Rows of each of `steps` batches: every one of `count` joins with probability 1 / `steps`, by itself."""
    for _ in range(steps):
        yield (torch.rand(count, generator=generator) * steps < 1).nonzero().squeeze(1)


class PrivateDescent:
    """Clipped, noisy steps of an optimiser.

    Args:
        model: without batch normalisation; see `refuse`.
        optimizer: of all its trainable parameters.
        privacy: `noise_multiplier` and `max_grad_norm`.
        batch: expected number of images in a step.
        seed: of the noise.

    Raises:
        ValueError: Opacus is not installed.
    """

    def __init__(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, privacy: Mapping[str, float], batch: float, seed: int
    ) -> None:
        self.model, self.opacus = model, _opacus()
        device = next(model.parameters()).device
        self.optimizer: Any = self.opacus.optimizers.DPOptimizer(
            optimizer,
            noise_multiplier=privacy["noise_multiplier"],
            max_grad_norm=privacy["max_grad_norm"],
            expected_batch_size=batch,
            generator=torch.Generator(device).manual_seed(seed),
        )

    @contextmanager
    def hooked(self) -> Iterator[None]:
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
