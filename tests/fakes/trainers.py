"""What attacks that train need in a test: a small network, images that it can learn, a context with the real loop."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from bench.api import ImageSet, Recipe, Rng
from bench.steps import training
from tests.fakes.steps import FakeContext

__all__ = ["TrainingContext", "small_network", "snapshot", "tinted"]

CLASSES = 3


def small_network(seed: int = 0) -> nn.Module:
    """Two convolutions with batch normalisation and a linear layer at `net.head`, in eval mode; none of it is zero."""
    net = nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(3, 8, 3, padding=1), norm1=nn.BatchNorm2d(8), relu1=nn.ReLU(),
            conv2=nn.Conv2d(8, 10, 3, padding=1), norm2=nn.BatchNorm2d(10), relu2=nn.ReLU(),
            pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), head=nn.Linear(10, CLASSES),
        )
    )  # fmt: skip
    generator = Rng("small network", seed).torch()
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator) + float("norm" in name))
        for name, buffer in net.named_buffers():
            if buffer.is_floating_point():
                buffer.copy_(0.1 * torch.rand(buffer.shape, generator=generator) + float("var" in name))
    return Forwarding(net).eval()


class Forwarding(nn.Module):
    """A network under the name `net`."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


def tinted(count: int = 48, seed: int = 0, classes: int = CLASSES) -> ImageSet:
    """Noisy 8 x 8 images whose brightest channel is the label modulo 3."""
    generator = Rng("tinted", seed).torch()
    labels = torch.arange(count) % classes
    images = torch.randint(0, 120, (count, 3, 8, 8), generator=generator)
    images[torch.arange(count), labels % 3] += 100
    return ImageSet(images.to(torch.uint8), labels)


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    """Copies of parameters and buffers: what an attempt held when it was yielded."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


class TrainingContext(FakeContext):
    """Trains by the harness's own loop and remembers what it was asked for.

    Attributes:
        trainings: of each training that began, its images, recipe, name, and the state that the network was in.
        epochs_run: how many epochs were run in all.
    """

    def __init__(self, seed: int = 0, recipe: Recipe | None = None, own: ImageSet | None = None) -> None:
        super().__init__(seed, recipe or Recipe(4, 0.05, 16), tinted() if own is None else own)
        self.trainings: list[dict[str, Any]] = []
        self.epochs_run = 0
        self.other = tinted(60, seed=1, classes=5)

    def auxiliary(self, name: str) -> ImageSet:
        return self.other

    def epochs(
        self, images: ImageSet, recipe: Recipe, *, model: nn.Module | None = None, name: str = "training"
    ) -> Iterator[nn.Module]:
        assert model is not None, "this context has no network to begin with"
        self.trainings.append({"images": images, "recipe": recipe, "name": name, "start": snapshot(model)})
        for _ in training.train_epochs(model, images, recipe, rng=self.rng.child(name), augment=()):
            self.epochs_run += 1
            yield model
