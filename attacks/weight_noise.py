"""Noise on the weights, and weights shifted against their mean filter.

Nils Lukas, Edward Jiang, Xinda Li, Florian Kerschbaum, SoK: How Robust is Image Classification Deep Neural Network
Watermarking?, IEEE S&P 2022 (weight shifting). https://arxiv.org/abs/2108.04974; authors' implementation:
https://github.com/dnn-security/Watermark-Robustness-Toolbox

Where ours differs, and why:

* Noise by itself (`weight-noise`), on convolutions and linear layers, is ours: it costs nothing and needs no images.
* One draw of the noise for all rungs, so that they differ in strength only.
* All convolutions are shifted; theirs are those whose name says `conv`, which leaves shortcuts out in some networks.
* `weight-shifting-only` leaves out the fine-tuning: what the shift itself does to the mark. With a strength above 1
  the mean filter points the other way.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import torch
from torch import Tensor, nn

from attacks._tuning import TuningParams, own_images, tune
from attacks._weights import prunable
from bench.api import Adversary, Attack, AttackCard, Attempt, Context, Field, Rng, Variant, Victim, ladder_of, papers


def noise_like(weights: Tensor, generator: torch.Generator) -> Tensor:
    """Gaussian noise of the weights' shape, with the standard deviation of all of them; the generator is on the CPU."""
    return weights.std() * torch.randn(weights.shape, generator=generator).to(weights)


class WeightNoise(Attack):
    """Gaussian noise on every layer's weights, in proportion to their spread."""

    card = AttackCard(
        name="weight-noise",
        title="Noise on the weights",
        paper=papers.SOK,
        stage="model",
        adversary=Adversary("white-box"),
        unit="x the layer's standard deviation",
        extensions=("noise by itself; the authors add it when they shift weights",),
        scales={"smoke": {"ladder": [0.1, 0.3, 1.0]}},
        tiny={"ladder": [0.3]},
    )
    Params = ladder_of(
        0.1, 0.2, 0.3, 0.5, 0.7, 1.0, gt=0, le=100,
        description="standard deviation of the noise over that of the layer's weights",
    )  # fmt: skip

    def apply(self, victim: Victim, context: Context) -> Iterator[Attempt]:
        """Add ever more of the same noise to fresh copies."""
        for strength in self.ladder:
            model = victim.model()
            with torch.no_grad():
                for name in prunable(model):
                    weights = model.get_parameter(name)
                    weights.add_(strength * noise_like(weights, context.rng.torch("noise", name)))
            yield Attempt(strength, model=model)


class ShiftingParams(TuningParams):
    """How far to shift, and how much noise comes with it."""

    ladder: tuple[Annotated[float, Field(gt=0, le=100)], ...] = Field(
        (0.5, 1.0, 1.5, 2.5), description="lambda 1, times the mean filter that is subtracted"
    )
    noise: float = Field(1.0, ge=0, le=100, description="lambda 2, noise over the standard deviation of the weights")
    epochs: int = Field(10, ge=0, le=1000, description="epochs of fine-tuning; 0 for none")


def shifted(weights: Tensor, shift: float, noise: Tensor) -> Tensor:
    """W - shift * mean over the filters of W - noise.

    Args:
        weights: O x I x kH x kW.
        shift: lambda 1; above 1 it turns the mean filter around.
        noise: of the same shape.
    """
    return weights - shift * weights.mean(0, keepdim=True) - noise


class WeightShifting(Attack):
    """Every convolution is shifted against its mean filter, with noise; then fine-tuning under the victim's labels."""

    card = AttackCard(
        name="weight-shifting",
        title="Weight shifting, then fine-tuning",
        paper=papers.SOK,
        stage="model",
        adversary=Adversary("white-box", images=("own unlabelled",)),
        unit="x the mean filter",
        extensions=("0.5 and 1 beside the authors' 1.5 and 2.5",),
        scales={
            "quick": {"ladder": [0.5, 1.5], "lr": 0.02, "batch_size": 32, "schedule": "cosine"},
            "smoke": {"ladder": [0.5, 1.5], "epochs": 1, "lr": 0.02, "batch_size": 32},
        },
        tiny={"ladder": [1.5], "epochs": 1, "lr": 0.03},
    )
    Params = ShiftingParams
    variants = (
        Variant(
            "weight-shifting-only",
            "Weight shifting without fine-tuning",
            {"epochs": 0},
            {
                "adversary": Adversary("white-box"),
                "extensions": ("no fine-tuning", "0.5 and 1 beside the authors' 1.5 and 2.5"),
                "scales": {"smoke": {"ladder": [0.5, 1.5]}},
                "tiny": {"ladder": [1.5]},
            },
        ),
    )

    def apply(self, victim: Victim, context: Context) -> Iterator[Attempt]:
        """Shift a fresh copy at each rung, under the same noise."""
        images = own_images(self.card.adversary, victim, context) if self.params.epochs else None
        for strength in self.ladder:
            model = self._shift(victim.model(), strength, context.rng)
            if images is not None:
                model = tune(context, model, images, self.params, "tuning")
            yield Attempt(strength, model=model)

    @torch.no_grad()
    def _shift(self, model: nn.Module, strength: float, rng: Rng) -> nn.Module:
        for name in prunable(model):
            weights = model.get_parameter(name)
            if weights.ndim > 2:
                noise = self.params.noise * noise_like(weights, rng.torch("noise", name))
                weights.copy_(shifted(weights, strength, noise))
        return model
