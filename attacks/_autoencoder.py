"""A small convolutional auto-encoder, and its training.

Its form is that of Meng, Chen, MagNet, 2017, https://arxiv.org/abs/1705.09064, who reform adversarial queries by one,
with strided convolutions in the place of pooling.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.api import Field, Params, Rng, pixels

__all__ = ["AutoEncoder", "AutoEncoderParams", "reconstructed", "trained"]

_HALVINGS = 3
_CELL = 2**_HALVINGS


class AutoEncoderParams(Params):
    """How much is left of an image, and how long the auto-encoder learns."""

    ladder: tuple[Annotated[float, Field(gt=0, le=192)], ...] = Field(
        (3.0, 12.0, 48.0), description="numbers of an image to each number of its code"
    )
    epochs: int = Field(150, ge=1, le=10_000, description="epochs of each auto-encoder")


class AutoEncoder(nn.Module):
    """Three strided convolutions to a code of 1/8 of the height and the width, and three back.

    Args:
        channels: of the images.
        code: channels of the code.
        generator: of the initial weights, on the CPU.
    """

    def __init__(self, channels: int, code: int, generator: torch.Generator) -> None:
        super().__init__()
        widths = (channels, 32, 64, code)
        layers: list[nn.Module] = []
        for inner, outer in pairwise(widths):
            layers += [nn.utils.skip_init(nn.Conv2d, inner, outer, 4, stride=2, padding=1), nn.ReLU()]
        layers.pop()  # the code may be negative
        for inner, outer in pairwise(widths[::-1]):
            layers += [nn.utils.skip_init(nn.ConvTranspose2d, inner, outer, 4, stride=2, padding=1), nn.ReLU()]
        layers[-1] = nn.Sigmoid()
        self.layers = nn.Sequential(*layers)
        for layer in layers:
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) and layer.bias is not None:
                nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu", generator=generator)
                nn.init.zeros_(layer.bias)

    def forward(self, images: Tensor) -> Tensor:
        """The images as their codes tell them: N x C x H x W in [0, 1], of any size."""
        height, width = images.shape[2:]
        padded = F.pad(images, [0, -width % _CELL, 0, -height % _CELL], mode="replicate")
        return self.layers(padded)[..., :height, :width]


@torch.enable_grad()
def trained(
    images: Tensor, factor: float, epochs: int, rng: Rng, batch_size: int = 32, lr: float = 3e-3
) -> AutoEncoder:
    """An auto-encoder of these images, by the mean squared error and Adam with a cosine schedule.

    Args:
        images: N x C x H x W, uint8, on the device where it is trained.
        factor: how many numbers of an image there are to each of its code.
        epochs: how many.
        rng: of the initial weights and the order.
        batch_size: images a step.
        lr: of the first step.
    """
    channels = images.shape[1]
    code = max(1, round(channels * _CELL**2 / factor))
    model = AutoEncoder(channels, code, rng.torch("weights")).to(images.device)
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    order = rng.torch("order")
    for _ in range(epochs):
        for rows in torch.randperm(len(images), generator=order).to(images.device).split(batch_size):
            batch = pixels(images[rows])
            optimizer.zero_grad(set_to_none=True)
            F.mse_loss(model(batch), batch).backward()
            optimizer.step()
        schedule.step()
    return model.eval().requires_grad_(False)


def reconstructed(model: AutoEncoder, images: Tensor, batch_size: int = 1024) -> Tensor:
    """Float images in [0, 1], N x C x H x W, through the auto-encoder."""
    return torch.cat([model(batch) for batch in images.split(batch_size)])
