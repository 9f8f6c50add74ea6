"""ResNets for small images, in five depths and any width.

Paper: Deep Residual Learning for Image Recognition, He, Zhang, Ren, Sun, 2016, https://arxiv.org/abs/1512.03385.
Blocks: torchvision's (https://github.com/pytorch/vision), whose stride sits in the 3x3 convolution.

Differences, as usual for CIFAR (and in DeepStamp and Anti-Neuron Watermarking): the stem is one 3x3 convolution of
stride 1 without pooling (ResNet18: 11.2 million parameters, ResNet50: 23.5). The ReLUs work out of place. `conv2`,
`conv3` and `conv4` name the second convolutions of the first block (3x3 in either kind of block) of the second, third
and fourth stage: the first stage of a narrow network averages to fewer than 128 numbers, too few for a key of 64 bits.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from torch import nn

from bench.api import Arch
from bench.archs.parts import scaled

__all__ = ["ResNet18", "ResNet50"]


if TYPE_CHECKING:
    from torchvision.models.resnet import BasicBlock, Bottleneck

# Layers of the network -> blocks in each stage; those of 50 layers and more have bottlenecks.
_STAGES: Mapping[int, tuple[int, ...]] = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}


class _ResNet(Arch):
    """A 3x3 stem, four stages of blocks, and one linear layer.

    Attributes:
        depth: layers, one of `_STAGES`.
        base: channels of the stem; the stages have 1, 2, 4 and 8 times as many.
        pattern: names of the family's members, by depth and channels of the stem (64 as published).
    """

    pattern: ClassVar[str] = r"resnet-(?P<D>\d{1,3})-(?P<W>\d{1,4})"
    depth: ClassVar[int]
    base: ClassVar[int] = 64
    layers: ClassVar[Mapping[str, str]] = {
        "conv2": "stage2.0.conv2",
        "conv3": "stage3.0.conv2",
        "conv4": "stage4.0.conv2",
    }
    head = "fc"

    @classmethod
    def member(cls, depth: int, base: int) -> Arch:
        """A ResNet of `depth` layers with `base` channels in its stem.

        Raises:
            ValueError: there is no such network.
        """
        if depth not in _STAGES or base < 4 or base % 4:
            raise ValueError(
                f"Expected resnet-D-W with a depth D of {', '.join(map(str, _STAGES))} and a width W of 4, 8, 12 ... "
                f"channels, but got resnet-{depth}-{base}."
            )
        names = {"name": f"resnet-{depth}-{base}", "title": f"ResNet{depth} with {base} channels in its stem"}
        return type(f"ResNet{depth}x{base}", (_ResNet,), {**names, "depth": depth, "base": base})()

    def build(self, classes: int, width: float = 1.0) -> nn.Module:
        """A network with fresh weights; see `Arch.build`."""
        from torchvision.models.resnet import BasicBlock, Bottleneck  # costs most of a second to import

        block = Bottleneck if self.depth >= 50 else BasicBlock
        incoming = base = scaled(self.base, width)
        parts: OrderedDict[str, nn.Module] = OrderedDict(
            conv=nn.Conv2d(3, base, 3, padding=1, bias=False), norm=nn.BatchNorm2d(base), relu=nn.ReLU()
        )
        for stage, blocks in enumerate(_STAGES[self.depth]):
            planes = base * 2**stage
            parts[f"stage{stage + 1}"] = _stage(block, blocks, incoming, planes, stride=1 if stage == 0 else 2)
            incoming = planes * block.expansion
        parts |= {"average": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "fc": nn.Linear(incoming, classes)}
        net = nn.Sequential(parts)
        for module in net.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.ReLU):
                module.inplace = False
        return net


def _stage(
    block: type[BasicBlock] | type[Bottleneck], blocks: int, incoming: int, planes: int, stride: int
) -> nn.Sequential:
    outgoing = planes * block.expansion
    shortcut = None
    if stride != 1 or incoming != outgoing:
        shortcut = nn.Sequential(nn.Conv2d(incoming, outgoing, 1, stride=stride, bias=False), nn.BatchNorm2d(outgoing))
    first = block(incoming, planes, stride, shortcut)
    return nn.Sequential(first, *(block(outgoing, planes) for _ in range(blocks - 1)))


class ResNet18(_ResNet):
    """Basic blocks, 2-2-2-2."""

    name = "resnet18"
    title = "ResNet18 with a stem for small images"
    depth = 18


class ResNet50(_ResNet):
    """Bottleneck blocks, 3-4-6-3."""

    name = "resnet50"
    title = "ResNet50 with a stem for small images"
    depth = 50
