"""ResNet50 for small images.

Paper: Deep Residual Learning for Image Recognition, He, Zhang, Ren, Sun, 2016, https://arxiv.org/abs/1512.03385.
Blocks: torchvision's (https://github.com/pytorch/vision), whose stride sits in the 3x3 convolution.

Differences, as usual for CIFAR (and in DeepStamp and Anti-Neuron Watermarking): the stem is one 3x3 convolution of
stride 1 without pooling: 23.5 million parameters. The ReLUs work out of place. `conv2`, `conv3` and `conv4` name the
3x3 convolutions in the first block of the second, third and fourth stage: the first stage of a narrow network
averages to fewer than 128 numbers, too few for a key of 64 bits.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import ClassVar

from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from bench.api import Arch
from bench.archs.parts import scaled

__all__ = ["ResNet50"]


class _ResNet(Arch):
    """A 3x3 stem, four stages of blocks, and one linear layer.

    Attributes:
        block: torchvision's block.
        depths: blocks per stage.
    """

    block: ClassVar[type[BasicBlock] | type[Bottleneck]]
    depths: ClassVar[tuple[int, ...]]
    layers: ClassVar[Mapping[str, str]] = {
        "conv2": "stage2.0.conv2",
        "conv3": "stage3.0.conv2",
        "conv4": "stage4.0.conv2",
    }
    head = "fc"

    def build(self, classes: int, width: float = 1.0) -> nn.Module:
        """A network with fresh weights; see `Arch.build`."""
        incoming = base = scaled(64, width)
        parts: OrderedDict[str, nn.Module] = OrderedDict(
            conv=nn.Conv2d(3, base, 3, padding=1, bias=False), norm=nn.BatchNorm2d(base), relu=nn.ReLU()
        )
        for stage, depth in enumerate(self.depths):
            planes = base * 2**stage
            parts[f"stage{stage + 1}"] = self._stage(incoming, planes, depth, stride=1 if stage == 0 else 2)
            incoming = planes * self.block.expansion
        parts |= {"average": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "fc": nn.Linear(incoming, classes)}
        net = nn.Sequential(parts)
        for module in net.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.ReLU):
                module.inplace = False
        return net

    def _stage(self, incoming: int, planes: int, depth: int, stride: int) -> nn.Sequential:
        outgoing = planes * self.block.expansion
        shortcut = None
        if stride != 1 or incoming != outgoing:
            shortcut = nn.Sequential(
                nn.Conv2d(incoming, outgoing, 1, stride=stride, bias=False), nn.BatchNorm2d(outgoing)
            )
        first = self.block(incoming, planes, stride, shortcut)
        return nn.Sequential(first, *(self.block(outgoing, planes) for _ in range(depth - 1)))


class ResNet50(_ResNet):
    """Bottleneck blocks, 3-4-6-3."""

    name = "resnet50"
    title = "ResNet50 with a stem for small images"
    block = Bottleneck
    depths = (3, 4, 6, 3)
