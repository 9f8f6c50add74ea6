"""Pruning of whole output channels: by the size of their filters, or by how little they answer to clean images.

By filter: Hao Li, Asim Kadav, Igor Durdanovic, Hanan Samet, Hans Peter Graf, Pruning Filters for Efficient ConvNets,
ICLR 2017. https://arxiv.org/abs/1608.08710 (no implementation by the authors)
By activation: Kang Liu, Brendan Dolan-Gavitt, Siddharth Garg, Fine-Pruning: Defending Against Backdooring Attacks on
Deep Neural Networks, RAID 2018. https://arxiv.org/abs/1805.12185; authors' implementation:
https://github.com/kangliucn/Fine-pruning-defense

Where ours differs, and why:

* Channels are set to zero instead of cut out: the network answers the same, and its layers keep their shapes.
* Li et al. leave sensitive layers alone and retrain; here every convolution loses the same share, without retraining.
* The scale and shift of a batch normalisation that reads a channel are set to zero with it: otherwise the channel
  would still answer a constant.
* Liu et al. prune until accuracy falls by a given amount; here the share is the ladder, and each rung is fine-tuned on
  its own, with the pruned channels held at zero.
* The last convolution is the last one larger than 1 x 1: in a residual block a shortcut acts after it, whose channels
  carry the block's sum.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from attacks._tuning import TuningParams, held_at_zero, own_images, tune
from attacks._weights import clear
from bench.api import Adversary, Attack, AttackCard, Attempt, Context, Field, Paper, Params, Victim

Percent = Annotated[float, Field(gt=0, lt=100)]
Norm = Literal["l1", "l2"]

_LI = Paper(
    title="Pruning Filters for Efficient ConvNets",
    authors="H. Li, A. Kadav, I. Durdanovic, H. Samet, H. P. Graf",
    year=2017,
    link="https://arxiv.org/abs/1608.08710",
)
_LIU = Paper(
    title="Fine-Pruning: Defending Against Backdooring Attacks on Deep Neural Networks",
    authors="K. Liu, B. Dolan-Gavitt, S. Garg",
    year=2018,
    link="https://arxiv.org/abs/1805.12185",
    code="https://github.com/kangliucn/Fine-pruning-defense",
)


def convolutions(model: nn.Module, device: torch.device) -> dict[str, str | None]:
    """The convolutions in the order in which they act, each with the batch normalisation that reads its output.

    Args:
        model: in eval mode, for images of 3 channels.
        device: where it is.

    Returns:
        Path of the convolution -> path of the batch normalisation; None where none reads that output itself.
    """
    found: dict[str, str | None] = {}
    made: list[tuple[Tensor, str]] = []  # keeps the outputs alive, so that each stays a tensor of its own

    def after(path: str, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        found.setdefault(path, None)
        made.append((output, path))

    def before(path: str, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        for output, source in made:
            if inputs[0] is output:
                found[source] = path

    handles = []
    for path, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            handles.append(module.register_forward_hook(partial(after, path)))
        elif isinstance(module, nn.BatchNorm2d):
            handles.append(module.register_forward_pre_hook(partial(before, path)))
    try:
        with torch.no_grad():
            model(torch.zeros(1, 3, 32, 32, device=device))
    finally:
        for handle in handles:
            handle.remove()
    return found


def silenced(model: nn.Module, conv: str, norm: str | None, channels: Tensor) -> dict[str, Tensor]:
    """What of which parameters makes output channels of a convolution 0: parameter name -> bool, of its shape.

    Args:
        model: the network.
        conv: path of the convolution.
        norm: path of the batch normalisation that reads it, or None.
        channels: O, bool.
    """
    masks = {}
    for path in filter(None, (conv, norm)):
        for name, parameter in model.get_submodule(path).named_parameters(recurse=False):
            rows = channels.view(-1, *[1] * (parameter.ndim - 1))
            masks[f"{path}.{name}"] = rows.expand(parameter.shape)
    return masks


def smallest(scores: Tensor, percent: float) -> Tensor:
    """Which of n channels are the `percent` with the least scores, rounded down: n, bool; ties in storage order."""
    chosen = torch.zeros_like(scores, dtype=torch.bool)
    chosen[scores.argsort(stable=True)[: int(percent * len(scores) / 100)]] = True
    return chosen


class ChannelParams(Params):
    """How far to prune, and by what size."""

    ladder: tuple[Percent, ...] = Field(
        tuple(map(float, range(10, 100, 10))), description="% of each convolution's output channels set to zero"
    )
    norm: Norm = Field("l1", description="size of a filter: l1 or l2 norm of its weights")


class ChannelPruning(Attack):
    """Every convolution loses the output channels with the smallest filters."""

    card = AttackCard(
        name="pruning-channels",
        title="Pruning of whole channels",
        paper=_LI,
        stage="model",
        adversary=Adversary("white-box"),
        unit="% of channels",
        extensions=("no retraining", "all layers at the same rate", "set to zero instead of cut out"),
        scales={"quick": {"ladder": [5.0, 10.0, 25.0, 50.0]}, "smoke": {"ladder": [25.0, 50.0]}},
        tiny={"ladder": [50.0]},
    )
    Params = ChannelParams

    def apply(self, victim: Victim, context: Context) -> Iterator[Attempt]:
        """Rank each layer's filters once; at each rung silence the smallest in a fresh copy."""
        pairs = convolutions(victim.model(), context.device)
        order = 1 if self.params.norm == "l1" else 2
        for percent in self.ladder:
            model = victim.model()
            for conv, norm in pairs.items():
                filters = model.get_parameter(f"{conv}.weight").detach().flatten(1)
                clear(model, silenced(model, conv, norm, smallest(filters.norm(order, dim=1), percent)))
            yield Attempt(percent, model=model)


class FinePruningParams(TuningParams):
    """How far to prune, and how to train then."""

    ladder: tuple[Percent, ...] = Field(
        (20.0, 40.0, 60.0, 80.0, 95.0), description="% of the last convolution's output channels set to zero"
    )
    epochs: int = Field(10, ge=0, le=1000, description="epochs of fine-tuning; 0 for none")
    lr: float = Field(0.01, gt=0, le=1, description="learning rate")


class FinePruning(Attack):
    """The last convolution's channels that answer least to clean images are pruned; then fine-tuning."""

    card = AttackCard(
        name="fine-pruning",
        title="Fine-pruning",
        paper=_LIU,
        stage="model",
        adversary=Adversary("white-box", images=("own",)),
        unit="% of channels",
        extensions=("shares of channels instead of a limit on accuracy",),
        scales={
            "quick": {"ladder": [50.0, 80.0], "epochs": 5, "batch_size": 32},
            "smoke": {"ladder": [50.0], "epochs": 1, "batch_size": 32},
        },
        tiny={"ladder": [50.0], "epochs": 1},
    )
    Params = FinePruningParams

    def apply(self, victim: Victim, context: Context) -> Iterator[Attempt]:
        """Rank the channels once; at each rung silence the least active in a fresh copy and fine-tune it."""
        images = own_images(self.card.adversary, victim, context)
        conv, norm = last_convolution(victim.model(), context.device)
        activations = mean_activations(victim.model(), norm or conv, images.images, context)
        for percent in self.ladder:
            model = victim.model()
            with held_at_zero(model, silenced(model, conv, norm, smallest(activations, percent))):
                model = tune(context, model, images, self.params, "tuning")
            yield Attempt(percent, model=model)


def last_convolution(model: nn.Module, device: torch.device) -> tuple[str, str | None]:
    """Paths of the last convolution larger than 1 x 1, or else the last one, and of its batch normalisation or None.

    Raises:
        ValueError: the network has no convolution.
    """
    pairs = list(convolutions(model, device).items())
    if not pairs:
        raise ValueError("Expected a network with convolutions, but it has none: use `pruning-tuned`.")
    large = [pair for pair in pairs if model.get_parameter(f"{pair[0]}.weight").shape[2:].numel() > 1]
    return (large or pairs)[-1]


def mean_activations(model: nn.Module, path: str, images: Tensor, context: Context) -> Tensor:
    """The mean over images and positions of the rectified output of a layer: O, float.

    Args:
        model: the network.
        path: of a layer whose output is N x O x H x W.
        images: N x C x H x W.
        context: asks the network.
    """
    sums: list[Tensor] = []
    handle = model.get_submodule(path).register_forward_hook(
        lambda module, inputs, output: sums.append(output.relu().mean((2, 3)).sum(0))
    )
    try:
        context.predict(model, images)
    finally:
        handle.remove()
    return torch.stack(sums).sum(0) / len(images)
