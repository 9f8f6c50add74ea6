"""Wide residual networks as Uchida et al. built them: the host of their watermark.

Paper: Wide Residual Networks, Zagoruyko, Komodakis, 2016, https://arxiv.org/abs/1605.07146; in the form of Embedding
Watermarks into Deep Neural Networks, Uchida, Nagai, Sakazawa, Satoh, 2017, https://arxiv.org/abs/1701.04082, Table 3.
Authors' implementation: https://github.com/yu4u/dnn-watermark (Keras).

The authors' network differs from the standard one, and we follow the authors: every convolution has a bias; the
order is convolution, batch normalisation, ReLU; the shortcut is a bare 1x1 convolution of the block's input where the
width changes; nothing follows the addition; 2x2 max pooling between groups replaces strides. WRN-10-4 has 1,200,170
trainable parameters. Initial weights are Glorot-uniform and biases 0, Keras's defaults.

Differences from theirs: batch normalisation keeps PyTorch's momentum and epsilon; the last average pool is global
(the same at 32 x 32).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn

from bench.api import Arch
from bench.archs.parts import scaled

__all__ = ["WRN"]


class WRN(Arch):
    """A wide residual network; by default WRN-10-4.

    A width multiplier scales the widening factor: at 1/4, WRN-10-4 is WRN-10-1, and the stem keeps its 16 filters.

    Attributes:
        depth: convolutional layers, 6 N + 4 for N blocks per group.
        widening: the widening factor k.
        pattern: names of the family's members, by depth and widening factor.
    """

    name = "wrn"
    title = "Wide residual network WRN-10-4"
    pattern: ClassVar[str] = r"wrn-(?P<D>\d{1,3})-(?P<K>\d{1,2})"
    depth: ClassVar[int] = 10
    widening: ClassVar[int] = 4
    layers: ClassVar[Mapping[str, str]] = {
        "conv2": "group1.0.conv2",
        "conv3": "group2.0.conv2",
        "conv4": "group3.0.conv2",
    }
    head = "fc"

    @classmethod
    def member(cls, depth: int, widening: int) -> Arch:
        """WRN-`depth`-`widening`.

        Raises:
            ValueError: there is no such network.
        """
        if depth < 10 or depth % 6 != 4 or widening < 1:
            raise ValueError(
                f"Expected wrn-D-K with a depth D of 10, 16, 22, 28 ... and a width K of at least 1, "
                f"but got wrn-{depth}-{widening}."
            )
        names = {"name": f"wrn-{depth}-{widening}", "title": f"Wide residual network WRN-{depth}-{widening}"}
        return type(f"WRN{depth}x{widening}", (WRN,), {**names, "depth": depth, "widening": widening})()

    def build(self, classes: int, width: float = 1.0) -> nn.Module:
        """A network with fresh weights; see `Arch.build`."""
        blocks = (self.depth - 4) // 6
        first, second, third = (scaled(channels * self.widening, width) for channels in (16, 32, 64))
        net = nn.Sequential(
            OrderedDict(
                conv=nn.Conv2d(3, 16, 3, padding=1),
                norm=nn.BatchNorm2d(16),
                relu=nn.ReLU(),
                group1=_group(16, first, blocks),
                pool1=nn.MaxPool2d(2),
                group2=_group(first, second, blocks),
                pool2=nn.MaxPool2d(2),
                group3=_group(second, third, blocks),
                average=nn.AdaptiveAvgPool2d(1),
                flatten=nn.Flatten(),
                fc=nn.Linear(third, classes),
            )
        )
        for module in net.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        return net


def _group(incoming: int, channels: int, blocks: int) -> nn.Sequential:
    first = _Block(incoming, channels)
    return nn.Sequential(first, *(_Block(channels, channels) for _ in range(blocks - 1)))


class _Block(nn.Module):
    """Two convolutions, each with batch normalisation and ReLU, and a shortcut around them."""

    def __init__(self, incoming: int, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(incoming, channels, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(channels)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(channels)
        self.relu2 = nn.ReLU()
        self.shortcut = nn.Identity() if incoming == channels else nn.Conv2d(incoming, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu1(self.norm1(self.conv1(x)))
        y = self.relu2(self.norm2(self.conv2(y)))
        return self.shortcut(x) + y
