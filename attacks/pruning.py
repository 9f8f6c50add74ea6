"""Magnitude pruning: set a share of the weights to zero; as the attack of Uchida et al. without retraining.

Pruning by magnitude: Song Han, Jeff Pool, John Tran, William J. Dally, Learning both Weights and Connections for
Efficient Neural Networks, NIPS 2015. https://arxiv.org/abs/1506.02626 (no implementation by the authors)
As an attack, in three orders: Yusuke Uchida et al., Embedding Watermarks into Deep Neural Networks, ICMR 2017,
section 4.3. https://arxiv.org/abs/1701.04082; authors' implementation: https://github.com/yu4u/dnn-watermark

Where ours differs, and why:

* Han et al. retrain after pruning; `pruning` does not, as in Uchida et al. `pruning-tuned` does: in one go instead of
  several rounds, at each rung anew, with the pruned weights held at zero as theirs.
* Uchida et al. prune the embedded layer alone (`pruning-embedded`). An adversary who does not know the layer prunes
  every layer at the same rate (`pruning`), or all layers by one threshold (`pruning-global`).
* The random order is one permutation for all rates, so that a higher rate only ever removes more.
* Biases and batch normalisation are left alone: they are few, and neither paper prunes them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn

from attacks._tuning import TuningParams, held_at_zero, own_images, tune
from attacks._weights import clear, prunable
from bench.api import Adversary, Attack, AttackCard, Attempt, Context, Field, Params, Rng, Variant, Victim, papers

Rate = Annotated[float, Field(gt=0, le=100)]
Order = Literal["ascending", "descending", "random"]
_ALL_LAYERS = ("all convolution and linear layers instead of the embedded layer alone",)


class PruningParams(Params):
    """How far to prune, in which order, and what is ranked together."""

    ladder: tuple[Rate, ...] = Field(tuple(map(float, range(5, 100, 5))), description="% of weights set to zero")
    order: Order = Field("ascending", description="which go first: by magnitude ascending, descending, or random")
    scope: Literal["layer", "global", "embedded"] = Field(
        "layer", description="each layer at that rate, all by one common ranking, or the layer that carries the mark"
    )


def embedded(model: nn.Module, layer: str) -> str:
    """Name of the weight tensor of the layer that carries the mark.

    Raises:
        ValueError: the model has no such layer.
    """
    name = f"{layer}.weight"
    if name not in dict(model.named_parameters()):
        raise ValueError(f"Expected a model with the embedded layer {layer!r}, but it has none: use `pruning`.")
    return name


def ranks(magnitudes: Tensor, order: Order, generator: torch.Generator) -> Tensor:
    """For each of n magnitudes, when it is pruned: 0 first, n - 1 last (int64); ties in storage order."""
    if order == "random":
        return torch.randperm(len(magnitudes), generator=generator).to(magnitudes.device)
    sequence = magnitudes.argsort(descending=order == "descending", stable=True)
    return torch.empty_like(sequence).scatter_(0, sequence, torch.arange(len(sequence), device=sequence.device))


class Pruning(Attack):
    """Every layer loses the same share of its smallest weights, or what a variant says."""

    card = AttackCard(
        name="pruning",
        title="Pruning, every layer at the same rate",
        paper=papers.HAN,
        stage="model",
        adversary=Adversary("white-box"),
        unit="% of weights",
        extensions=("no retraining",),
        scales={"quick": {"ladder": [10, 20, 30, 40, 50, 60, 70, 80, 90]}, "smoke": {"ladder": [30, 60, 90]}},
        tiny={"ladder": [50.0]},
    )
    Params: ClassVar[type[PruningParams]] = PruningParams
    variants = (
        Variant("pruning-global", "Pruning, one threshold for all layers", {"scope": "global"}),
        Variant(
            "pruning-random",
            "Pruning at random, every layer at the same rate",
            {"order": "random"},
            {"paper": papers.UCHIDA, "extensions": _ALL_LAYERS},
        ),
        Variant(
            "pruning-descending",
            "Pruning the largest weights, every layer at the same rate",
            {"order": "descending"},
            {"paper": papers.UCHIDA, "extensions": _ALL_LAYERS},
        ),
        Variant(
            "pruning-embedded",
            "Pruning the embedded layer alone",
            {"scope": "embedded"},
            {
                "paper": papers.UCHIDA,
                "adversary": Adversary("white-box", knows=("scheme", "layer")),
                "carriers": ("weights",),
                "extensions": (),
            },
        ),
    )

    def apply(self, victim: Victim, context: Context) -> Iterator[Attempt]:
        """Rank the weights once; at each rung zero round(rate * n) of them in a fresh copy."""
        for percent, masks in self._masks(victim, context.rng):
            model = victim.model()
            clear(model, masks)
            yield Attempt(percent, model=model)

    def _masks(self, victim: Victim, rng: Rng) -> Iterator[tuple[float, dict[str, Tensor]]]:
        """What is pruned at each rung: tensor name -> bool, of its shape."""
        pools = [self._ranked(victim.model(), pool, rng) for pool in self._pools(victim)]
        for percent in self.ladder:
            masks: dict[str, Tensor] = {}
            for pool in pools:
                count = round(percent * sum(place.numel() for place in pool.values()) / 100)
                masks |= {name: place < count for name, place in pool.items()}
            yield percent, masks

    def _pools(self, victim: Victim) -> list[list[str]]:
        """Names of weight tensors, grouped by what is ranked together."""
        model = victim.model()
        if self.params.scope == "embedded":
            return [[embedded(model, victim.key.layer)]]
        names = prunable(model)
        return [names] if self.params.scope == "global" else [[name] for name in names]

    def _ranked(self, model: nn.Module, names: list[str], rng: Rng) -> dict[str, Tensor]:
        """The ranks of one pool's weights, in the shapes of its tensors."""
        weights = [model.get_parameter(name).detach() for name in names]
        magnitudes = torch.cat([weight.abs().flatten() for weight in weights])
        places = ranks(magnitudes, self.params.order, rng.torch("order", names[0]))
        parts = places.split([weight.numel() for weight in weights])
        return {name: part.view(weight.shape) for name, part, weight in zip(names, parts, weights, strict=True)}


class TunedParams(PruningParams, TuningParams):
    """How far to prune, in which order, and how to train then."""

    ladder: tuple[Rate, ...] = Field((50.0, 70.0, 80.0, 90.0, 95.0), description="% of weights set to zero")
    enforced: bool = Field(True, description="hold the pruned weights at zero; else they may grow again")


class PruningTuned(Pruning):
    """Every layer loses the same share of its smallest weights; what is left is trained."""

    card = AttackCard(
        name="pruning-tuned",
        title="Pruning, then fine-tuning with the pruned weights held at zero",
        paper=papers.HAN,
        stage="model",
        adversary=Adversary("white-box", images=("own",)),
        unit="% of weights",
        extensions=("one round of pruning", "every layer at the same rate"),
        scales={
            "quick": {"ladder": [50.0, 80.0, 95.0], "lr": 0.01, "batch_size": 32},
            "smoke": {"ladder": [60.0], "epochs": 1, "lr": 0.01, "batch_size": 32},
        },
        tiny={"ladder": [50.0], "epochs": 1},
    )
    Params = TunedParams

    def apply(self, victim: Victim, context: Context) -> Iterator[Attempt]:
        """Rank the weights once; at each rung prune a fresh copy and fine-tune it, on the same streams."""
        images = own_images(self.card.adversary, victim, context)
        for percent, masks in self._masks(victim, context.rng):
            model = victim.model()
            clear(model, masks)
            with held_at_zero(model, masks if self.params.enforced else {}):
                model = tune(context, model, images, self.params, "tuning")
            yield Attempt(percent, model=model)
