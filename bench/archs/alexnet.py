"""AlexNet for small images.

Paper: ImageNet Classification with Deep Convolutional Neural Networks, Krizhevsky, Sutskever, Hinton, 2012,
https://papers.nips.cc/paper/4824. The network here is the one for 32 x 32 images that DeepStamp trains (Hong, Kim,
Dumitras, Choi 2019, https://github.com/Sanghyun-Hong/DeepStamp): 2,506,570 parameters with ten classes.

Differences from theirs: an average pool before the linear layers (the identity at 32 x 32) admits larger images;
the ReLUs work out of place; initial weights after He et al. (2015, https://arxiv.org/abs/1502.01852) instead of
PyTorch's defaults, from which eight layers without normalisation take tens of epochs to start learning.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import ClassVar

from torch import nn

from bench.api import Arch
from bench.archs.parts import scaled

__all__ = ["AlexNet"]


class AlexNet(Arch):
    """Five convolutions, three linear layers with dropout, no batch normalisation."""

    name = "alexnet"
    title = "AlexNet for small images"
    layers: ClassVar[Mapping[str, str]] = {"conv2": "conv2", "conv3": "conv3", "conv4": "conv4"}
    head = "fc3"

    def build(self, classes: int, width: float = 1.0) -> nn.Module:
        """A network with fresh weights; see `Arch.build`."""
        a, b, c, d, e = (scaled(channels, width) for channels in (64, 192, 384, 256, 128))
        net = nn.Sequential(
            OrderedDict(
                conv1=nn.Conv2d(3, a, 7, stride=2, padding=2),
                relu1=nn.ReLU(),
                pool1=nn.MaxPool2d(3, 2),
                conv2=nn.Conv2d(a, b, 5, padding=2),
                relu2=nn.ReLU(),
                pool2=nn.MaxPool2d(3, 2),
                conv3=nn.Conv2d(b, c, 3, padding=1),
                relu3=nn.ReLU(),
                conv4=nn.Conv2d(c, d, 3, padding=1),
                relu4=nn.ReLU(),
                conv5=nn.Conv2d(d, d, 3, padding=1),
                relu5=nn.ReLU(),
                pool5=nn.MaxPool2d(3, 2),
                average=nn.AdaptiveAvgPool2d(1),
                flatten=nn.Flatten(),
                drop1=nn.Dropout(0.5),
                fc1=nn.Linear(d, e),
                relu6=nn.ReLU(),
                drop2=nn.Dropout(0.5),
                fc2=nn.Linear(e, e),
                relu7=nn.ReLU(),
                fc3=nn.Linear(e, classes),
            )
        )
        for module in list(net)[:-1]:  # a head of the same size would start with losses above 5
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        return net
