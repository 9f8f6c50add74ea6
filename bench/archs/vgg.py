"""VGG16 with batch normalisation for small images.

Paper: Very Deep Convolutional Networks for Large-Scale Image Recognition, Simonyan, Zisserman, 2015,
https://arxiv.org/abs/1409.1556, configuration D. As usual for CIFAR (and in DeepStamp, Hong et al. 2019) one linear
layer replaces the three: 14.7 million parameters.

Differences: an average pool before the linear layer (the identity at 32 x 32) admits larger images; the ReLUs work
out of place.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import ClassVar

from torch import nn

from bench.api import Arch
from bench.archs.parts import scaled

__all__ = ["VGG16"]

_STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))


class VGG16(Arch):
    """Five stages of 3x3 convolutions, each ended by a 2x2 max pooling, and one linear layer."""

    name = "vgg16"
    title = "VGG16 with batch normalisation"
    layers: ClassVar[Mapping[str, str]] = {
        "conv2": "stage1.conv2",
        "conv3": "stage3.conv2",
        "conv4": "stage5.conv2",
    }
    head = "fc"

    def build(self, classes: int, width: float = 1.0) -> nn.Module:
        """A network with fresh weights; see `Arch.build`."""
        parts: OrderedDict[str, nn.Module] = OrderedDict()
        incoming = 3
        for number, (channels, depth) in enumerate(_STAGES, start=1):
            parts[f"stage{number}"] = _stage(incoming, scaled(channels, width), depth)
            incoming = scaled(channels, width)
        parts |= {
            "average": nn.AdaptiveAvgPool2d(1),
            "flatten": nn.Flatten(),
            "fc": nn.Linear(incoming, classes),
        }
        net = nn.Sequential(parts)
        for module in net.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        return net


def _stage(incoming: int, channels: int, depth: int) -> nn.Sequential:
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    for number in range(1, depth + 1):
        parts[f"conv{number}"] = nn.Conv2d(incoming, channels, 3, padding=1)
        parts[f"norm{number}"] = nn.BatchNorm2d(channels)
        parts[f"relu{number}"] = nn.ReLU()
        incoming = channels
    parts["pool"] = nn.MaxPool2d(2)
    return nn.Sequential(parts)
