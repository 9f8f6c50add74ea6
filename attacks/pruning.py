"""Magnitude pruning: set a share of the weights to zero, and do not retrain.

Pruning by magnitude: Song Han, Jeff Pool, John Tran, William J. Dally, Learning both Weights and Connections for
Efficient Neural Networks, NIPS 2015. https://arxiv.org/abs/1506.02626 (no implementation by the authors)
As an attack, in three orders: Yusuke Uchida et al., Embedding Watermarks into Deep Neural Networks, ICMR 2017,
section 4.3. https://arxiv.org/abs/1701.04082; authors' implementation: https://github.com/yu4u/dnn-watermark

Where ours differs, and why:

* Han et al. retrain after pruning; we do not, as in Uchida et al. Fine-tuning is an attack of its own.
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

from bench.api import Attack, AttackCard, Claim, Context, Field, Key, Paper, Params, Rng, Victim, replace

Rate = Annotated[float, Field(gt=0, le=100)]
Order = Literal["ascending", "descending", "random"]

_HAN = Paper(
    title="Learning both Weights and Connections for Efficient Neural Networks",
    authors="S. Han, J. Pool, J. Tran, W. J. Dally",
    year=2015,
    link="https://arxiv.org/abs/1506.02626",
)
_UCHIDA = Paper(
    title="Embedding Watermarks into Deep Neural Networks",
    authors="Y. Uchida, Y. Nagai, S. Sakazawa, S. Satoh",
    year=2017,
    link="https://arxiv.org/abs/1701.04082",
    code="https://github.com/yu4u/dnn-watermark",
)
_CARD = AttackCard(
    name="pruning",
    title="Pruning, every layer at the same rate",
    paper=_HAN,
    stage="model",
    knowledge="the model's weights; no data, and nothing of the scheme",
    unit="% of weights",
    extensions=("no retraining",),
    tiny={"ladder": [50.0]},
)
_ALL_LAYERS = "all convolution and linear layers instead of the embedded layer alone"


_ORDER = "which go first: by magnitude ascending, descending, or random"
_SCOPE = "each layer at that rate, or all by one common ranking"


class LadderParams(Params):
    """How far to prune, and in which order."""

    ladder: tuple[Rate, ...] = Field(tuple(map(float, range(5, 100, 5))), description="% of weights set to zero")
    order: Order = Field("ascending", description=_ORDER)


class PruningParams(LadderParams):
    """What an adversary can choose who does not know the layer that carries a mark."""

    scope: Literal["layer", "global"] = Field("layer", description=_SCOPE)


class GlobalParams(LadderParams):
    """One ranking over all layers by default."""

    scope: Literal["layer", "global"] = Field("global", description=_SCOPE)


class RandomParams(PruningParams):
    """Random order by default."""

    order: Order = Field("random", description=_ORDER)


class DescendingParams(PruningParams):
    """Largest first by default."""

    order: Order = Field("descending", description=_ORDER)


class EmbeddedParams(LadderParams):
    """Only the embedded layer: an attack of its own, since its adversary must know the scheme."""

    scope: Literal["embedded"] = Field("embedded", description="only the layer that carries the mark")


def prunable(model: nn.Module) -> list[str]:
    """Names of all convolution and linear weight tensors, each once even where layers share it."""
    kinds = (nn.modules.conv._ConvNd, nn.Linear)
    weights = {f"{path}.weight" for path, module in model.named_modules() if isinstance(module, kinds)}
    return [name for name, _ in model.named_parameters() if name in weights]


def embedded(model: nn.Module, key: Key) -> str:
    """Name of the weight tensor that carries the mark.

    Raises:
        ValueError: the key names no layer, or the model has no such layer.
    """
    layer = key.values.get("layer")
    name = f"{layer}.weight"
    if layer is None or name not in dict(model.named_parameters()):
        raise ValueError(
            f"Expected a key that names the embedded layer of this model, but its layer is {layer!r}: use "
            "`pruning`, which needs no key, or a scheme that marks one layer."
        )
    return name


def ranks(magnitudes: Tensor, order: Order, generator: torch.Generator) -> Tensor:
    """For each of n magnitudes, when it is pruned: 0 first, n - 1 last (int64); ties in storage order."""
    if order == "random":
        return torch.randperm(len(magnitudes), generator=generator).to(magnitudes.device)
    sequence = magnitudes.argsort(descending=order == "descending", stable=True)
    return torch.empty_like(sequence).scatter_(0, sequence, torch.arange(len(sequence), device=sequence.device))


class Pruning(Attack):
    """Every layer loses the same share of its smallest weights."""

    card = _CARD
    Params: ClassVar[type[LadderParams]] = PruningParams

    def apply(self, victim: Victim, context: Context) -> Iterator[Claim]:
        """Rank the weights once; at each rung zero round(rate * n) of them in a fresh copy."""
        pools = [self._ranked(victim.model(), pool, context.rng) for pool in self._pools(victim)]
        for percent in self.ladder:
            model = victim.model()
            for pool in pools:
                self._prune(model, pool, percent)
            yield Claim(percent, model=model)

    def _pools(self, victim: Victim) -> list[list[str]]:
        """Names of weight tensors, grouped by what is ranked together."""
        model = victim.model()
        if self.params.scope == "embedded":
            return [[embedded(model, victim.key)]]
        names = prunable(model)
        return [names] if self.params.scope == "global" else [[name] for name in names]

    def _ranked(self, model: nn.Module, names: list[str], rng: Rng) -> dict[str, Tensor]:
        """The ranks of one pool's weights, in the shapes of its tensors."""
        weights = [model.get_parameter(name).detach() for name in names]
        magnitudes = torch.cat([weight.abs().flatten() for weight in weights])
        places = ranks(magnitudes, self.params.order, rng.torch("order", names[0]))
        parts = places.split([weight.numel() for weight in weights])
        return {name: part.view(weight.shape) for name, part, weight in zip(names, parts, weights, strict=True)}

    @torch.no_grad()
    def _prune(self, model: nn.Module, pool: dict[str, Tensor], percent: float) -> None:
        count = round(percent * sum(place.numel() for place in pool.values()) / 100)
        for name, place in pool.items():
            model.get_parameter(name).masked_fill_(place < count, 0.0)


class PruningGlobal(Pruning):
    """The smallest weights of the whole network, so that layers of small weights go first."""

    card = replace(_CARD, name="pruning-global", title="Pruning, one threshold for all layers")
    Params = GlobalParams


class PruningRandom(Pruning):
    """Every layer loses a random share: a control."""

    card = replace(
        _CARD,
        name="pruning-random",
        title="Pruning at random, every layer at the same rate",
        paper=_UCHIDA,
        extensions=(_ALL_LAYERS,),
    )
    Params = RandomParams


class PruningDescending(Pruning):
    """Every layer loses its largest weights: a control."""

    card = replace(
        _CARD,
        name="pruning-descending",
        title="Pruning the largest weights, every layer at the same rate",
        paper=_UCHIDA,
        extensions=(_ALL_LAYERS,),
    )
    Params = DescendingParams


class PruningEmbedded(Pruning):
    """Only the embedded layer (Uchida et al., section 4.3)."""

    card = replace(
        _CARD,
        name="pruning-embedded",
        title="Pruning the embedded layer alone",
        paper=_UCHIDA,
        knowledge="the model's weights, the scheme, and the layer that carries the mark; no data",
        carriers=("weights",),
        extensions=(),
    )
    Params = EmbeddedParams
