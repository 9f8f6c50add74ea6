"""A second mark in a marked network, and copies with different marks put together.

Overwriting as an attack: Yusuke Uchida et al., Embedding Watermarks into Deep Neural Networks, ICMR 2017, section 4.4.
https://arxiv.org/abs/1701.04082; authors' implementation: https://github.com/yu4u/dnn-watermark
Collusion: Huili Chen, Bita Darvish Rouhani, Farinaz Koushanfar, DeepMarks: A Digital Fingerprinting Framework for Deep
Neural Networks, 2018. https://arxiv.org/abs/1804.03648 (no implementation by the authors). Median, minimum and maximum:
Min Wu, Wade Trappe, Z. Jane Wang, K. J. Ray Liu, Collusion-Resistant Fingerprinting for Multimedia, IEEE Signal
Processing Magazine 2004. https://doi.org/10.1109/MSP.2004.1276103

Where ours differs, and why:

* The second mark is embedded on the adversary's own images, by the recipe that owners embed with in this cell. Uchida
  et al. overwrite on the owner's data; an adversary who has these could train a network of his own.
* Each further rung of `overwriting` embeds one more fresh key over the last. `overwriting-strong` raises lambda, and
  `overwriting-layer` marks another layer (which leaves the first mark alone but for the training).
* `ambiguity` wants both marks to be found: a short embedding at a tenth of the learning rate. Every overwriting tells
  what the harness reads of the second key (`second_p_value`, `second_ber`). Where both claims hold, p-values cannot say
  whose mark was first: only the date of a commitment can.
* Colluders combine every floating-point tensor, the statistics of batch normalisation too; counters stay the victim's.
  The victim is the first copy. Whether copies of one host can be averaged at all depends on the situation: those that
  were fine-tuned from one host can, those that were trained from scratch by different batches mostly cannot.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from bench.api import (
    Adversary,
    Attack,
    AttackCard,
    Attempt,
    Context,
    Field,
    Paper,
    Params,
    Recipe,
    Variant,
    Victim,
    ladder_of,
    papers,
    replace,
)

Rule = Literal["average", "median", "minmax"]
_REGULARISED = ("uchida-random", "uchida-direct", "uchida-diff")
CARD = AttackCard(
    name="overwriting",
    title="Overwriting by fresh keys of the same scheme",
    paper=papers.UCHIDA,
    stage="model",
    adversary=Adversary("white-box", images=("own",), knows=("scheme",)),
    unit="keys embedded",
    carriers=("weights", "behaviour"),
    scales={"quick": {"ladder": [1]}, "smoke": {"ladder": [1]}},
    extensions=("on the adversary's own images", "more than one overwriting", "schemes other than Uchida et al.'s"),
    tiny={"ladder": [1]},
)
DEEPMARKS = Paper(
    title="DeepMarks: A Digital Fingerprinting Framework for Deep Neural Networks",
    authors="H. Chen, B. D. Rouhani, F. Koushanfar",
    year=2018,
    link="https://arxiv.org/abs/1804.03648",
)
MULTIMEDIA = Paper(
    title="Collusion-Resistant Fingerprinting for Multimedia",
    authors="M. Wu, W. Trappe, Z. J. Wang, K. J. R. Liu",
    year=2004,
    link="https://doi.org/10.1109/MSP.2004.1276103",
)


class Overwriting(Attack):
    """One fresh key after the other is embedded in the same network."""

    card = CARD
    Params = ladder_of(1, 2, 3, ge=1, le=20, description="fresh keys embedded, one over the other")

    def apply(self, victim: Victim, context: Context) -> Iterator[Attempt]:
        """Embed until as many keys are in as the rung says; the last one is the rival's."""
        yield from _overwritten(victim.model(), context, self.ladder)


def _overwritten(model: nn.Module, context: Context, ladder: Sequence[float], **params: Any) -> Iterator[Attempt]:
    """One attempt for each number of keys, the last of which is the rival's."""
    done, key = 0, None
    for strength in ladder:
        while done < strength:
            model, key = context.embed(model, context.recipe, f"key {done}", **params)
            done += 1
        yield Attempt(strength, model=model, rival=key)


class OverwritingStrong(Attack):
    """One fresh key, embedded with a larger weight of the embedding loss."""

    card = replace(
        CARD,
        name="overwriting-strong",
        title="Overwriting by a fresh key, embedded more strongly",
        unit="lambda",
        schemes=_REGULARISED,
        scales={"quick": {"ladder": [1.0]}, "smoke": {"ladder": [10.0]}},
        extensions=("on the adversary's own images", "lambda above the paper's 0.01"),
        tiny={"ladder": [10.0]},
    )
    Params = ladder_of(0.1, 1.0, gt=0, le=1000, description="lambda, the weight of the second key's embedding loss")

    def apply(self, victim: Victim, context: Context) -> Iterator[Attempt]:
        """Each rung overwrites the victim itself."""
        for strength in self.ladder:
            model, key = context.embed(victim.model(), context.recipe, strength=strength)
            yield Attempt(strength, model=model, rival=key)


class LayerParams(Params):
    """How often, and where."""

    ladder: tuple[Annotated[int, Field(ge=1, le=20)], ...] = Field(
        (1, 2, 3), description="fresh keys embedded, one over the other"
    )
    layer: Literal["conv2", "conv3", "conv4"] = Field("conv3", description="layer group that the second marks go to")


class OverwritingLayer(Attack):
    """Fresh keys go to a layer that does not carry the owner's mark."""

    card = replace(
        CARD,
        name="overwriting-layer",
        title="Fresh keys embedded in another layer",
        adversary=Adversary("white-box", images=("own",), knows=("scheme", "layer")),
        schemes=("uchida-*",),
        extensions=("the whole attack",),
    )
    Params = LayerParams

    def apply(self, victim: Victim, context: Context) -> Iterator[Attempt]:
        """As `overwriting`, in the layer of the parameter.

        Raises:
            ValueError: that layer carries the owner's mark.
        """
        layer = self.params.layer
        if context.layer(layer) == victim.key.layer:
            raise ValueError(
                f"Expected a layer without the owner's mark, but {layer} has it: set {self.card.name}.layer to another."
            )
        yield from _overwritten(victim.model(), context, self.ladder, layer=layer)


class AmbiguityParams(Params):
    """How long, and how gently."""

    ladder: tuple[Annotated[int, Field(ge=1, le=1000)], ...] = Field(
        (1, 3, 10), description="epochs of embedding the second key"
    )
    lr: float = Field(0.1, gt=0, le=10, description="peak learning rate, as a factor of the owner's")


class Ambiguity(Attack):
    """A second mark beside the first: whose was there before?"""

    card = replace(
        CARD,
        name="ambiguity",
        title="A second mark embedded beside the first",
        unit="epochs",
        scales={"quick": {"ladder": [3]}, "smoke": {"ladder": [1]}},
        extensions=("the whole attack",),
    )
    Params = AmbiguityParams

    def apply(self, victim: Victim, context: Context) -> Iterator[Attempt]:
        """One training for each number of epochs, each from the victim, with one and the same second key."""
        for epochs in map(int, self.ladder):
            model, key = context.embed(victim.model(), self._recipe(context.recipe, epochs))
            yield Attempt(epochs, model=model, rival=key)

    def _recipe(self, recipe: Recipe, epochs: int) -> Recipe:
        return replace(recipe, epochs=epochs, lr=self.params.lr * recipe.lr)


# Of two copies, median and middle are the average: three tell the rules apart.
_OF_THREE = {
    "paper": MULTIMEDIA,
    "scales": {"quick": {"ladder": [3]}, "smoke": {"ladder": [3]}},
    "tiny": {"ladder": [2]},
}


class CollusionParams(Params):
    """How many colluders, and how they combine their copies."""

    ladder: tuple[Annotated[int, Field(ge=2, le=50)], ...] = Field(
        (2, 3, 5), description="copies put together, the victim among them"
    )
    rule: Rule = Field("average", description="of each weight: the average, the median, or half minimum plus maximum")


class Collusion(Attack):
    """Customers whose copies of one network bear different marks put them together, weight by weight."""

    card = AttackCard(
        name="collusion-average",
        title="Collusion: the average of differently marked copies",
        paper=DEEPMARKS,
        stage="model",
        adversary=Adversary("white-box", copies=True),
        unit="copies",
        carriers=("weights",),
        scales={"quick": {"ladder": [2]}, "smoke": {"ladder": [2]}},
        extensions=("every copy has an independent key, not a code word of one family of keys",),
        tiny={"ladder": [2]},
    )
    Params = CollusionParams
    variants = (
        Variant(
            "collusion-median",
            "Collusion: the median of differently marked copies",
            {"rule": "median"},
            _OF_THREE,
        ),
        Variant(
            "collusion-minmax",
            "Collusion: the middle between the least and the greatest of differently marked copies",
            {"rule": "minmax"},
            _OF_THREE,
        ),
    )

    def apply(self, victim: Victim, context: Context) -> Iterator[Attempt]:
        """Combine the victim with the first other copies."""
        for strength in self.ladder:
            models = [victim.model(), *context.copies(int(strength) - 1)]
            yield Attempt(strength, model=combined(models, self.params.rule))


@torch.no_grad()
def combined(models: Sequence[nn.Module], rule: Rule) -> nn.Module:
    """The first network with every floating-point tensor combined over all; in place.

    Args:
        models: networks of one architecture, on one device.
        rule: `average`; `median`, of an even number the middle of the two in the middle; `minmax`, (min + max) / 2.

    Raises:
        ValueError: there is no network, or they do not have the same tensors.
    """
    states = [model.state_dict() for model in models]
    if not states or any(state.keys() != states[0].keys() for state in states):
        raise ValueError("Expected networks of one architecture, but their tensors have different names.")
    for name, tensor in states[0].items():
        if tensor.is_floating_point():
            tensor.copy_(_middle(torch.stack([state[name] for state in states]), rule))
    return models[0]


def _middle(values: Tensor, rule: Rule) -> Tensor:
    """Over dim 0."""
    if rule == "average":
        return values.mean(0)
    if rule == "minmax":
        return (values.amin(0) + values.amax(0)) / 2
    ordered, count = values.sort(0).values, len(values)
    return (ordered[(count - 1) // 2] + ordered[count // 2]) / 2
