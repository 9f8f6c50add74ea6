"""Which networks? One file each; this one finds them by name and wraps them as classifiers of plain images.

A name is found without importing the files of the others. A new architecture is one file and one line below.
"""

from __future__ import annotations

import re
from importlib import import_module

import torch
from torch import Tensor, nn

from bench.api import Arch
from bench.identity import Rng, unknown

__all__ = ["Classifier", "arch", "build", "layer_path", "module_of", "names"]

_NAMES = {
    "alexnet": "bench.archs.alexnet:AlexNet",
    "densenet": "bench.archs.densenet:DenseNet",
    "resnet18": "bench.archs.resnet:ResNet18",
    "resnet50": "bench.archs.resnet:ResNet50",
    "vgg16": "bench.archs.vgg:VGG16",
    "wrn": "bench.archs.wrn:WRN",
}
# Families: a name whose numbers are given to the function that makes the architecture.
_FAMILIES = {
    r"resnet-(\d{1,3})-(\d{1,4})": "bench.archs.resnet:variant",
    r"wrn-(\d{1,3})-(\d{1,2})": "bench.archs.wrn:variant",
}
_KNOWN = (*_NAMES, "resnet-D-W", "wrn-D-K")


def names() -> list[str]:
    """The architectures' names, sorted; `arch` also takes any `resnet-D-W` and `wrn-D-K`."""
    return sorted(_NAMES)


def arch(name: str) -> Arch:
    """The architecture called `name`, for instance `wrn`, `wrn-16-2` of depth 16 and width 2, or `resnet-18-16`.

    Raises:
        ValueError: there is none of that name, or no network of that depth or width.
    """
    target, numbers = _find(name)
    module, _, maker = target.partition(":")
    return getattr(import_module(module), maker)(*numbers)


def module_of(name: str) -> str:
    """The dotted name of the module that defines an architecture; nothing is imported.

    Raises:
        ValueError: there is no architecture of that name.
    """
    return _find(name)[0].partition(":")[0]


def _find(name: str) -> tuple[str, tuple[int, ...]]:
    if name in _NAMES:
        return _NAMES[name], ()
    for pattern, target in _FAMILIES.items():
        if match := re.fullmatch(pattern, name):
            return target, tuple(map(int, match.groups()))
    raise ValueError(unknown(name, _KNOWN, "an architecture"))


def layer_path(name: str, group: str) -> str:
    """The path, within what `build` returns, of the embedding layer that Uchida et al. call `group`.

    Raises:
        ValueError: the architecture has no layer of that name.
    """
    layers = arch(name).layers
    if group not in layers:
        raise ValueError(f'Expected an embedding layer of {name} ({", ".join(layers)}), but got "{group}".')
    return f"net.{layers[group]}"


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
