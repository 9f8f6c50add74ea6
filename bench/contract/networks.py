"""Architectures, training recipes, and how a network is asked."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor, nn

from bench.contract.images import pixels

__all__ = ["Arch", "Batch", "Descending", "Descent", "Recipe", "clock_s", "last_linear", "predict"]


@dataclass(frozen=True)
class Recipe:
    """How a network is trained. The harness chooses one per profile; a `training` attack changes it.

    Attributes:
        lr: peak learning rate.
        schedule: `onecycle`, `step` (times `gamma` at each milestone), `cosine` or `constant`.
        milestones: as fractions of the epochs.
        warmup: epochs in which the learning rate rises to where the schedule has it.
        temperature: T, by which logits are divided before the loss, which is multiplied by T^2 (Hinton et al. 2015,
            section 2); soft targets are taken to be at that temperature already.
        augment: batch augmentations by name; None takes the data set's.
        transforms: further transforms of a batch, `(float N x C x H x W in [0, 1], generator) -> the same`.
        mix: mixes the images of a batch and what the network shall answer, `(float N x C x H x W in [0, 1], N x K
            probabilities, generator) -> the same`, after all transforms.
        perturb: adversarial training, `(model, images, labels) -> images`, before the ordinary step.
        descent: draws the batches and takes the steps in the loop's place (DP-SGD), or None.
    """

    epochs: int
    lr: float
    batch_size: int = 128
    optimizer: Literal["sgd", "adam"] = "sgd"
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-4
    schedule: Literal["onecycle", "step", "cosine", "constant"] = "onecycle"
    milestones: tuple[float, ...] = ()
    gamma: float = 0.1
    warmup: float = 0.0
    augment: tuple[str, ...] | None = None
    label_smoothing: float = 0.0
    temperature: float = 1.0
    transforms: tuple[Callable[[Tensor, torch.Generator], Tensor], ...] = ()
    mix: Callable[[Tensor, Tensor, torch.Generator], tuple[Tensor, Tensor]] | None = None
    perturb: Callable[[nn.Module, Tensor, Tensor], Tensor] | None = None
    descent: Descent | None = None


class Descent(Protocol):
    """How a network descends where it is not by the mean gradient of a shuffled batch; carried by a recipe."""

    def start(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, *, images: int, steps: int, seed: int
    ) -> Descending:
        """Prepare one training.

        Args:
            model: on its device, in contiguous memory.
            optimizer: of all its trainable parameters.
            images: how many there are to train on.
            steps: an epoch.
            seed: of whatever is random.

        Raises:
            ValueError: this network cannot be trained so.
        """


class Descending(Protocol):
    """One training by a `Descent`."""

    def rows(self, generator: torch.Generator) -> Iterator[Tensor]:
        """Row numbers (int64, on the CPU) of each batch of an epoch."""

    def scope(self) -> AbstractContextManager[None]:
        """Entered for each epoch."""

    def step(self, count: int, loss: Callable[[slice], Tensor]) -> None:
        """One step on a batch of `count` images; `loss` gives the SUM of the losses of a slice of them."""


@dataclass(frozen=True)
class Batch:
    """What an embedding loss sees of one training step.

    Attributes:
        images: N x C x H x W, float32 in [0, 1], augmented.
        labels: N, int64.
        logits: N x K, with their graph; on a GPU the next batch's are written over them.
        activations: outputs of the layers that the scheme's card watches, by the name used there.
    """

    images: Tensor
    labels: Tensor
    logits: Tensor
    activations: Mapping[str, Tensor]


class Arch(ABC):
    """One network architecture; one file in `bench/archs/`.

    Attributes:
        name: as typed on the command line.
        layers: embedding layers by Uchida's group names (`conv2`, `conv3`, `conv4`), as paths of submodules.
        head: path of the last linear layer, whose input is the feature vector.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    layers: ClassVar[Mapping[str, str]]
    head: ClassVar[str]

    @abstractmethod
    def build(self, classes: int, width: float = 1.0) -> nn.Module:
        """A network with fresh weights from torch's default generator, which the caller has seeded.

        Args:
            classes: number of outputs (logits).
            width: multiplies every channel count; 1 is the published network.
        """


def clock_s(device: torch.device) -> float:
    """Seconds on a monotonic clock, after the device has finished what was asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


@torch.no_grad()
def predict(model: nn.Module, images: Tensor, batch_size: int | None = None) -> Tensor:
    """Logits, N x K float32, of N x C x H x W images (uint8, or float in [0, 1]), in eval mode.

    The default batch keeps a CPU's activations in its cache and a GPU busy.
    """
    size = batch_size or (128 if images.device.type == "cpu" else 1024)
    was_training = model.training
    model.eval()
    batches = (pixels(batch).contiguous(memory_format=torch.channels_last) for batch in images.split(size))
    logits = torch.cat([model(batch).float() for batch in batches])
    model.train(was_training)
    return logits


def last_linear(model: nn.Module) -> str:
    """The path of the last linear layer, whose input is the feature vector, in a network of any architecture.

    Raises:
        ValueError: the network has none.
    """
    paths = [path for path, module in model.named_modules() if isinstance(module, nn.Linear)]
    if not paths:
        raise ValueError("Expected a network with a linear layer, but it has none: use another attack.")
    return paths[-1]
