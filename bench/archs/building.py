"""Builds networks with seeded weights, wrapped as classifiers of plain images."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench.archs.lookup import arch
from bench.identity import Rng

__all__ = ["Classifier", "build"]


class Classifier(nn.Module):
    """A network with the normalisation of its input inside: images in [0, 1] in, logits out.

    Args:
        net: takes normalised images, N x C x H x W.
        head: path within `net` of the last linear layer.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, net: nn.Module, head: str) -> None:
        super().__init__()
        self.net = net
        self.head = head
        self.register_buffer("mean", torch.full((3, 1, 1), 0.5))
        self.register_buffer("std", torch.full((3, 1, 1), 0.25))

    def forward(self, images: Tensor) -> Tensor:
        """Logits, N x K, of float images in [0, 1]."""
        return self.net((images - self.mean) / self.std)

    def features(self, images: Tensor) -> Tensor:
        """What enters the head, N x D: the feature vectors of the images."""
        entered: list[Tensor] = []
        handle = self.net.get_submodule(self.head).register_forward_pre_hook(
            lambda _, inputs: entered.append(inputs[0])
        )
        try:
            self(images)
        finally:
            handle.remove()
        return entered[0]


def build(name: str, classes: int, *, width: float = 1.0, rng: Rng, device: torch.device | str = "cpu") -> Classifier:
    """A fresh network whose weights depend on `rng` alone, whatever the device.

    Args:
        name: of the architecture.
        classes: number of outputs.
        width: multiplies the channel counts.
        rng: the stream of this network's initial weights.
        device: where it shall live.
    """
    network = arch(name)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(rng.child("weights").seed)
        net = network.build(classes, width)
    model = Classifier(net, network.head).to(device)
    return model.to(memory_format=torch.channels_last)
