"""DenseNet-BC for small images.

Paper: Densely Connected Convolutional Networks, Huang, Liu, van der Maaten, Weinberger, 2017,
https://arxiv.org/abs/1608.06993; authors' implementation: https://github.com/liuzhuang13/DenseNet (Lua).
Dense blocks and transitions: torchvision's (https://github.com/pytorch/vision).

This is the network of the paper's CIFAR experiments, DenseNet-BC with depth L = 100 and growth rate k = 12: a 3x3 stem
of 2 k filters and stride 1, three blocks of 16 layers (1x1 to 4 k channels, then 3x3 to k), each transition halves the
channels and the resolution. 769,162 parameters with ten classes.

Differences from theirs: the ReLUs work out of place; the last average pool is global (the same at 32 x 32). `conv2`,
`conv3` and `conv4` name the 3x3 convolution of the first layer of the three blocks, whose mean filters have 432
numbers: enough for a key of 256 bits, but not for one that takes two numbers a bit.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import ClassVar

from torch import nn

from bench.api import Arch
from bench.archs.parts import scaled

__all__ = ["DenseNet"]

_GROWTH = 12
_LAYERS = (16, 16, 16)


class DenseNet(Arch):
    """DenseNet-BC-100-12. A width multiplier scales the growth rate, and the stem with it."""

    name = "densenet"
    title = "DenseNet-BC with 100 layers and growth rate 12"
    layers: ClassVar[Mapping[str, str]] = {
        "conv2": "block1.denselayer1.conv2",
        "conv3": "block2.denselayer1.conv2",
        "conv4": "block3.denselayer1.conv2",
    }
    head = "fc"

    def build(self, classes: int, width: float = 1.0) -> nn.Module:
        """A network with fresh weights; see `Arch.build`."""
        from torchvision.models import DenseNet as _Torchvision  # costs most of a second to import

        growth = scaled(_GROWTH, width)
        whole = _Torchvision(growth, _LAYERS, num_init_features=2 * growth, num_classes=classes)
        parts = whole.features
        stem = nn.Conv2d(3, 2 * growth, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(stem.weight)
        net = nn.Sequential(
            OrderedDict(
                conv=stem,
                block1=parts.denseblock1,
                transition1=parts.transition1,
                block2=parts.denseblock2,
                transition2=parts.transition2,
                block3=parts.denseblock3,
                norm=parts.norm5,  # torchvision's name of the last one: its largest networks have four blocks
                relu=nn.ReLU(),
                average=nn.AdaptiveAvgPool2d(1),
                flatten=nn.Flatten(),
                fc=whole.classifier,
            )
        )
        for module in net.modules():
            if isinstance(module, nn.ReLU):
                module.inplace = False
        return net
