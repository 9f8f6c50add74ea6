"""Quantisation: the weights of each layer keep few bits.

As an attack on watermarks: Nils Lukas, Edward Jiang, Xinda Li, Florian Kerschbaum, SoK: How Robust is Image
Classification Deep Neural Network Watermarking?, IEEE S&P 2022. https://arxiv.org/abs/2108.04974; authors'
implementation: https://github.com/dnn-security/Watermark-Robustness-Toolbox

Where ours differs, and why:

* Weights of convolutions and linear layers alone; theirs quantises every parameter, batch normalisation's too.
* 2^bits levels; theirs has 2^bits edges, between which lies one level fewer.
* `quantisation` does not train: theirs trains for an epoch, after which the weights are off the grid again
  (`quantisation-trained`).
* Levels for each output channel (`quantisation-channel`), as deployed networks have them, are ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from attacks._tuning import TuningParams, own_images, tune
from attacks._weights import prunable
from bench.api import Adversary, Attack, AttackCard, Attempt, Context, Field, Variant, Victim, papers

BITS = 32  # of a weight before the attack
Removed = Annotated[int, Field(ge=1, le=BITS - 1)]


class QuantisationParams(TuningParams):
    """How many bits to take away, and what shares its levels."""

    ladder: tuple[Removed, ...] = Field((24, 26, 27, 28, 29, 30), description="bits taken away of the 32 of a weight")
    scope: Literal["tensor", "channel"] = Field(
        "tensor", description="one set of levels for a layer's weights, or one for each output channel"
    )
    epochs: int = Field(0, ge=0, le=1000, description="epochs of fine-tuning; 0 for none")


def quantised(weights: Tensor, bits: int, scope: Literal["tensor", "channel"] = "tensor") -> Tensor:
    """Each weight at the middle of its bin, of 2^bits equal ones from the least to the greatest weight.

    Args:
        weights: O x ..., float.
        bits: at least 1.
        scope: bins for the whole tensor, or for each of the O output channels.

    Returns:
        Of the same shape; equal weights stay as they are.
    """
    rows = weights.flatten(1) if scope == "channel" else weights.reshape(1, -1)
    low, high = rows.aminmax(dim=1, keepdim=True)
    width = (high - low) / 2**bits
    bins = ((rows - low) / width).floor().clamp(0, 2**bits - 1)
    return torch.where(width > 0, low + (bins + 0.5) * width, rows).view(weights.shape)


class Quantisation(Attack):
    """Every layer's weights on equally spaced levels, or what a variant says."""

    card = AttackCard(
        name="quantisation",
        title="Quantisation, levels for each layer",
        paper=papers.SOK,
        stage="model",
        adversary=Adversary("white-box"),
        unit="of 32 bits removed",
        extensions=("no training", "weights alone", "1 to 8 bits beside the authors' 5 and 6"),
        scales={"smoke": {"ladder": [24, 28, 30]}},
        tiny={"ladder": [28]},
    )
    Params = QuantisationParams
    variants = (
        Variant("quantisation-channel", "Quantisation, levels for each output channel", {"scope": "channel"}),
        Variant(
            "quantisation-trained",
            "Quantisation, then an epoch of fine-tuning",
            {"epochs": 1},
            {
                "adversary": Adversary("white-box", images=("own unlabelled",)),
                "extensions": ("weights alone", "2 to 8 bits beside the authors' 5 and 6"),
                "scales": {
                    "quick": {"ladder": [24, 28, 29, 30], "lr": 0.003, "batch_size": 32},
                    "smoke": {"ladder": [28, 30], "lr": 0.01, "batch_size": 32},
                },
            },
        ),
    )

    def apply(self, victim: Victim, context: Context) -> Iterator[Attempt]:
        """Quantise a fresh copy at each rung."""
        images = own_images(self.card.adversary, victim, context) if self.params.epochs else None
        for removed in self.ladder:
            model = self._coarse(victim.model(), BITS - int(removed))
            if images is not None:
                model = tune(context, model, images, self.params, "tuning")
            yield Attempt(removed, model=model)

    @torch.no_grad()
    def _coarse(self, model: nn.Module, bits: int) -> nn.Module:
        for name in prunable(model):
            weights = model.get_parameter(name)
            weights.copy_(quantised(weights, bits, self.params.scope))
        return model
