"""Fine-tuning the marked network: all layers or the last, once more in full, adversarially, with decay, on a new task.

FTLL, FTAL, RTLL and RTAL: Yossi Adi, Carsten Baum, Moustapha Cisse, Benny Pinkas, Joseph Keshet, Turning Your Weakness
Into a Strength: Watermarking Deep Neural Networks by Backdooring, USENIX Security 2018.
https://arxiv.org/abs/1802.04633; authors' implementation: https://github.com/adiyoss/WatermarkNN
Their numbers, adversarial training and regularisation: Nils Lukas, Edward Jiang, Xinda Li, Florian Kerschbaum, SoK: How
Robust is Image Classification Deep Neural Network Watermarking?, IEEE S&P 2022. https://arxiv.org/abs/2108.04974;
authors' implementation: https://github.com/dnn-security/Watermark-Robustness-Toolbox
A second training in full, and one on another task: Yusuke Uchida et al., Embedding Watermarks into Deep Neural
Networks, ICMR 2017, Table 8. https://arxiv.org/abs/1701.04082; https://github.com/yu4u/dnn-watermark

Where ours differs, and why:

* All train on the adversary's own images, which the owner never had; Uchida et al. train again on the training set.
* The learning rate is constant, or falls along a cosine where a profile says so. Lukas et al.'s code goes on with that
  of the optimiser that it loads: 0.001 is what it asks for, but does not set. Regularisation takes 0.01, at which a
  decay of 0.1 shrinks the weights within its epochs.
* Frozen layers keep their batch statistics: freezing parameters alone, as theirs, lets the statistics move.
* A new last layer is uniform within 1/sqrt(inputs), in every architecture.
* `fine-tuning-full` is the recipe by which the mark was embedded, from its first learning rate on; a rung is a part of
  that one training. In situation `fine-tune` that is the short recipe of the profile.
* Adversarial images keep to one eps a rung; theirs mix three, of 1,000 images each. An ordinary step follows each
  adversarial one. Step and iterations are theirs.
* Regularisation ends after fixed epochs; theirs stops early, after 50 at most.
* `cross-domain` has the answers of another task, so that the accuracy on the owner's means nothing. It tells the
  accuracy on a fifth of the other data set that it does not train on. Only marks in the weights can survive it.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil
from typing import Annotated, Any, Literal

import torch
from torch import nn

from attacks._perturbation import Perturbation
from attacks._tuning import StepParams, TuningParams, own_images, reset_head, short, tune, visited
from bench.api import (
    Adversary,
    Attack,
    AttackCard,
    Attempt,
    Context,
    Field,
    ImageSet,
    Paper,
    Params,
    Variant,
    Victim,
    last_linear,
    papers,
    replace,
)

Epochs = Annotated[int, Field(ge=1, le=1000)]
Percent = Annotated[float, Field(gt=0, le=100)]

_ADI = Paper(
    title="Turning Your Weakness Into a Strength: Watermarking Deep Neural Networks by Backdooring",
    authors="Y. Adi, C. Baum, M. Cisse, B. Pinkas, J. Keshet",
    year=2018,
    link="https://arxiv.org/abs/1802.04633",
    code="https://github.com/adiyoss/WatermarkNN",
)
_LABELLED = Adversary("white-box", images=("own",))
_UNLABELLED = Adversary("white-box", images=("own unlabelled",))
# A few hundred images are few steps: they have to be larger ones.
_SMOKE: dict[str, Any] = {"ladder": [1, 2], "lr": 0.01, "batch_size": 32}
_QUICK: dict[str, Any] = {"ladder": [1, 2, 5], "lr": 0.003, "batch_size": 32}
_STEPS: dict[str, Any] = {"lr": 0.01, "batch_size": 32, "schedule": "cosine"}
_QUICK_HEAD: dict[str, Any] = {"ladder": [2, 5, 10], "lr": 0.03, "batch_size": 32}


class FineTuningParams(StepParams):
    """How long to train, and what."""

    ladder: tuple[Epochs, ...] = Field((1, 2, 3, 4, 5), description="epochs of training")
    layers: Literal["all", "last"] = Field("all", description="what is trained: all layers, or the last linear one")
    fresh: bool = Field(False, description="begin with a new last layer")


class FineTuning(Attack):
    """All layers are trained further on the true labels, or what a variant says."""

    card = AttackCard(
        name="ftal",
        title="Fine-tuning of all layers",
        paper=_ADI,
        stage="model",
        adversary=_LABELLED,
        unit="epochs",
        extensions=("every epoch is judged",),
        scales={"quick": _QUICK, "smoke": _SMOKE},
        tiny={"ladder": [1], "lr": 0.01, "batch_size": 32},
    )
    Params = FineTuningParams
    variants = (
        Variant("ftll", "Fine-tuning of the last layer", {"layers": "last"}),
        Variant(
            "rtal",
            "A new last layer, then training of all layers on the victim's labels",
            {"fresh": True},
            {
                "adversary": _UNLABELLED,
                "scales": {"quick": {**_QUICK_HEAD, "lr": 0.01}, "smoke": _SMOKE},
            },
        ),
        Variant(
            "rtll",
            "A new last layer, trained alone on the victim's labels",
            {"fresh": True, "layers": "last", "ladder": [2, 4, 6, 8, 10]},
            {"adversary": _UNLABELLED, "scales": {"quick": _QUICK_HEAD, "smoke": {**_SMOKE, "lr": 0.03}}},
        ),
    )

    def apply(self, victim: Victim, context: Context) -> Iterator[Attempt]:
        """One training of as many epochs as the last rung."""
        model = victim.model()
        if self.params.fresh:
            reset_head(model, context.rng.torch("head"))
        self._freeze(model)
        images = own_images(self.card.adversary, victim, context)
        networks = context.epochs(images, short(context, self.params, int(self.ladder[-1])), model=model)
        for strength, network in visited(networks, [(epochs, int(epochs)) for epochs in self.ladder]):
            # What is yielded can be another attack's victim, which shall be able to train all of it.
            yield Attempt(strength, model=network.requires_grad_())
            self._freeze(network)

    def _freeze(self, model: nn.Module) -> None:
        """Leave only what is to be trained trainable."""
        model.requires_grad_(self.params.layers == "all")
        model.get_submodule(last_linear(model)).requires_grad_()


class ShareParams(Params):
    """How much of a whole training."""

    ladder: tuple[Percent, ...] = Field((25.0, 50.0, 75.0, 100.0), description="% of the recipe's epochs, rounded up")


class FullFineTuning(Attack):
    """The recipe by which the mark was embedded, a second time without the mark."""

    card = AttackCard(
        name="fine-tuning-full",
        title="A second training in full, the learning rate restarted",
        paper=papers.UCHIDA,
        stage="model",
        adversary=_LABELLED,
        unit="% of a training",
        extensions=("judged on the way", "on images that the owner never had"),
        scales={"quick": {"ladder": [50.0, 100.0]}, "smoke": {"ladder": [50.0, 100.0]}},
        tiny={"ladder": [50.0]},
    )
    Params = ShareParams

    def apply(self, victim: Victim, context: Context) -> Iterator[Attempt]:
        """One training by the ordinary recipe, as it is."""
        images = own_images(self.card.adversary, victim, context)
        networks = context.epochs(images, context.recipe, model=victim.model())
        rungs = [(percent, ceil(percent / 100 * context.recipe.epochs)) for percent in self.ladder]
        for strength, network in visited(networks, rungs):
            yield Attempt(strength, model=network)


class AdversarialParams(TuningParams):
    """How far the adversarial images may go, and how they are found."""

    ladder: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(
        (0.01, 0.1, 0.25), description="eps, the change of each pixel value in [0, 1]"
    )
    step: float = Field(0.01, gt=0, le=1, description="size of each step of the search, in pixel values")
    iterations: int = Field(40, ge=1, le=1000, description="steps of the search for every batch")


class AdversarialFineTuning(Attack):
    """Fine-tuning on adversarial images too, under the labels that the victim gives to the clean ones."""

    card = AttackCard(
        name="adversarial-fine-tuning",
        title="Adversarial fine-tuning",
        paper=papers.SOK,
        stage="model",
        adversary=_UNLABELLED,
        unit="eps",
        extensions=("one eps a rung", "an ordinary step after each adversarial one"),
        scales={
            "quick": {"ladder": [0.03, 0.1], "step": 0.03, "iterations": 4, "epochs": 3, **_STEPS},
            "smoke": {"ladder": [0.03, 0.1], "step": 0.03, "iterations": 2, "epochs": 1, **_STEPS},
        },
        tiny={"ladder": [0.03], "step": 0.03, "iterations": 2, "epochs": 1, "lr": 0.01},
    )
    Params = AdversarialParams

    def apply(self, victim: Victim, context: Context) -> Iterator[Attempt]:
        """A training at each rung, from a fresh copy and on the same streams."""
        images = own_images(self.card.adversary, victim, context)
        for eps in self.ladder:
            search = Perturbation(eps, self.params.step, self.params.iterations, context.rng.torch("start"))
            yield Attempt(eps, model=tune(context, victim.model(), images, self.params, "training", perturb=search))


class RegularisationParams(TuningParams):
    """How strong the decay is, and for how long."""

    ladder: tuple[Annotated[float, Field(gt=0, le=10)], ...] = Field(
        (0.03, 0.1, 0.25), description="weight decay of the first epochs"
    )
    decayed: int = Field(5, ge=1, le=1000, description="epochs of strong decay, before those of fine-tuning")
    lr: float = Field(0.01, gt=0, le=1, description="learning rate")


class Regularisation(Attack):
    """A burst of weight decay, then fine-tuning under the labels that the victim gives."""

    card = AttackCard(
        name="regularisation",
        title="Strong weight decay, then fine-tuning",
        paper=papers.SOK,
        stage="model",
        adversary=_UNLABELLED,
        unit="weight decay",
        extensions=("decays of 0.03 and 0.25 beside the authors' 0.1", "no early stopping"),
        scales={
            "quick": {"ladder": [0.03, 0.1], "epochs": 8, "batch_size": 32, "schedule": "cosine"},
            "smoke": {"ladder": [0.1], "decayed": 1, "epochs": 1, "lr": 0.03, "batch_size": 32},
        },
        tiny={"ladder": [0.1], "decayed": 1, "epochs": 1},
    )
    Params = RegularisationParams

    def apply(self, victim: Victim, context: Context) -> Iterator[Attempt]:
        """Two trainings at each rung, from a fresh copy and on the same streams."""
        images = own_images(self.card.adversary, victim, context)
        for decay in self.ladder:
            recipe = replace(short(context, self.params, self.params.decayed), weight_decay=decay)
            model = context.train(images, recipe, model=victim.model(), name="decay")
            yield Attempt(decay, model=tune(context, model, images, self.params, "tuning"))


class CrossDomainParams(ShareParams):
    """How much of a whole training, and on what."""

    auxiliary: str = Field("digits-m", min_length=1, max_length=200, description="the data set of the new task")
    batch_size: int | None = Field(None, ge=2, le=4096, description="images a step; none for the recipe's")


class CrossDomain(Attack):
    """A second training in full on another data set, with a new last layer for its classes."""

    card = AttackCard(
        name="cross-domain",
        title="Fine-tuning on another task",
        paper=papers.UCHIDA,
        stage="model",
        adversary=Adversary("white-box", images=("out of domain",)),
        unit="% of a training",
        carriers=("weights",),
        auxiliary="auxiliary",
        extensions=("judged on the way", "other data sets than Caltech-101 and CIFAR-10"),
        scales={
            "paper": {"auxiliary": "caltech101"},
            "quick": {"ladder": [50.0, 100.0], "auxiliary": "photographs", "batch_size": 16},
            "smoke": {"ladder": [50.0, 100.0], "auxiliary": "photographs"},
        },
        tiny={"ladder": [50.0], "auxiliary": "photographs"},
    )
    Params = CrossDomainParams

    def apply(self, victim: Victim, context: Context) -> Iterator[Attempt]:
        """One training by the ordinary recipe."""
        learned, kept = _split(context.auxiliary(self.params.auxiliary), context.rng.torch("kept"))
        model, classes = victim.model(), int(max(learned.labels.max(), kept.labels.max())) + 1
        reset_head(model, context.rng.torch("head"), classes)
        recipe = replace(context.recipe, batch_size=self.params.batch_size or context.recipe.batch_size)
        networks = context.epochs(learned, recipe, model=model)
        rungs = [(percent, ceil(percent / 100 * context.recipe.epochs)) for percent in self.ladder]
        for strength, network in visited(networks, rungs):
            right = context.predict(network, kept.images).argmax(1) == kept.labels
            yield Attempt(strength, model=network, measures={"new_task_accuracy": right.float().mean().item()})


def _split(images: ImageSet, generator: torch.Generator) -> tuple[ImageSet, ImageSet]:
    """Four fifths to train on, and a fifth to measure on; at least one image each."""
    order = torch.randperm(len(images), generator=generator).to(images.labels.device)
    count = max(1, len(images) // 5)
    return images[order[count:]], images[order[:count]]
