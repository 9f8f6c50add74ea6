"""Surrogates: networks trained from fresh weights on what the victim answers.

The victim as a black box: Nils Lukas, Edward Jiang, Xinda Li, Florian Kerschbaum, SoK: How Robust is Image
Classification Deep Neural Network Watermarking?, IEEE S&P 2022 (retraining, smooth retraining, cross-architecture
retraining, distillation, transfer learning). https://arxiv.org/abs/2108.04974; authors' implementation:
https://github.com/dnn-security/Watermark-Robustness-Toolbox
Distillation: Geoffrey Hinton, Oriol Vinyals, Jeff Dean, Distilling the Knowledge in a Neural Network, 2015.
https://arxiv.org/abs/1503.02531 (no implementation by the authors)
Labels alone: Florian Tramer et al., Stealing Machine Learning Models via Prediction APIs, USENIX Security 2016.
https://arxiv.org/abs/1609.02943; authors' implementation: https://github.com/ftramer/Steal-ML
Foreign images: Tribhuvanesh Orekondy, Bernt Schiele, Mario Fritz, Knockoff Nets: Stealing Functionality of Black-Box
Models, CVPR 2019. https://arxiv.org/abs/1812.02766; authors' implementation:
https://github.com/tribhuvanesh/knockoffnets
Noise alone: Nicholas Roberts, Vinay Uday Prabhu, Matthew McAteer, Model Weight Theft With Just Noise Inputs: The
Curious Case of the Petulant Attacker, 2019. https://arxiv.org/abs/1912.08987

Where ours differs, and why:

* The strength is the share of images that are queried. Each rung is a training from the same fresh weights; larger
  shares contain smaller ones, and every image is queried once.
* Answers are asked for images as they are, and the surrogate is trained on augmented ones (Lukas et al. do the same).
* Optimiser, learning rate and schedule are those of the learner's ordinary recipe in the cell, so that no surrogate is
  worse for want of tuning; only the number of epochs is set here (60 of Lukas et al.).
* Soft answers are tempered from probabilities, softmax(log p / T), which equals softmax(z / T) of the logits z.
* Lukas et al. divide the divergence of distillation by the number of classes too; ours is Hinton et al.'s T^2 KL, and
  like Lukas et al. gives true labels no weight.
* Roberts et al. extract shallow networks of MNIST. A deep network with batch normalisation answers noise with one or
  two classes, so that little can be learnt from it: expect a surrogate near chance. Its learning rate is a fifth of
  the learner's: at the whole one, every third training on labels that hardly vary diverges.
* Knockoff nets and transfer learning need a second data set: by default one that needs no download, and in profile
  `paper` Tiny ImageNet for the ImageNet of both papers.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Annotated

import torch
from torch import Tensor, nn

from attacks._papers import TRAMER
from attacks._tuning import reset_head
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
    Recipe,
    Rng,
    Variant,
    Victim,
    last_linear,
    papers,
    replace,
)

Percent = Annotated[float, Field(gt=0, le=100)]
_OTHER_ARCH = "wrn"  # of the surrogate, where the victim already has the one that was asked for

_HINTON = Paper(
    title="Distilling the Knowledge in a Neural Network",
    authors="G. Hinton, O. Vinyals, J. Dean",
    year=2015,
    link="https://arxiv.org/abs/1503.02531",
)
_OREKONDY = Paper(
    title="Knockoff Nets: Stealing Functionality of Black-Box Models",
    authors="T. Orekondy, B. Schiele, M. Fritz",
    year=2019,
    link="https://arxiv.org/abs/1812.02766",
    code="https://github.com/tribhuvanesh/knockoffnets",
)
_ROBERTS = Paper(
    title="Model Weight Theft With Just Noise Inputs: The Curious Case of the Petulant Attacker",
    authors="N. Roberts, V. U. Prabhu, M. McAteer",
    year=2019,
    link="https://arxiv.org/abs/1912.08987",
)
_SHARES = "a ladder of shares of the images"


def tempered(probabilities: Tensor, temperature: float) -> Tensor:
    """Answers at another temperature: softmax(log p / T), N x K.

    Args:
        probabilities: N x K; those that are 0, as of a victim that shows labels alone, stay 0 at T = 1.
        temperature: T, above 0.
    """
    return (probabilities.clamp_min(torch.finfo(probabilities.dtype).tiny).log() / temperature).softmax(1)


class SurrogateParams(Params):
    """How many images are queried, and how the surrogate learns."""

    ladder: tuple[Percent, ...] = Field((10.0, 30.0, 100.0), description="% of the adversary's images that are queried")
    epochs: int = Field(60, ge=1, le=10_000, description="epochs of each surrogate")
    temperature: float = Field(1.0, gt=0, le=100, description="T, at which answers are imitated")
    smoothing: float = Field(0.0, ge=0, lt=1, description="probability spread evenly over all classes")
    arch: str | None = Field(None, description="architecture of the surrogate; none for the victim's")


class _Surrogate(Attack):
    """Queries ever more of some images and trains a network on the answers; a subclass says on which images."""

    def apply(self, victim: Victim, context: Context) -> Iterator[Attempt]:
        """Train a surrogate on the answers to the first images, of one random order, at each rung."""
        images, start, recipe = self._queried(context), self._start(context), self._recipe(context)
        answers: list[Tensor] = []
        asked = 0
        for strength in self.ladder:
            count = self._count(strength, len(images))
            if count > asked:
                answers.append(victim.query(images[asked:count]))
                asked = count
            taught = self._taught(images[:count], torch.cat(answers))
            yield Attempt(strength, model=context.train(taught, recipe, model=start(), name="surrogate"))

    @abstractmethod
    def _queried(self, context: Context) -> Tensor:
        """The images that may be queried, N x C x H x W uint8, in the order in which they are."""

    def _count(self, strength: float, total: int) -> int:
        """How many images are queried at a strength; a network cannot be trained on one alone."""
        return max(2, round(strength * total / 100))

    def _taught(self, images: Tensor, answers: Tensor) -> ImageSet:
        """What the surrogate is trained on."""
        return ImageSet(images, answers.argmax(1), tempered(answers, self.params.temperature).to(images.device))

    def _start(self, context: Context) -> Callable[[], nn.Module]:
        """Makes the surrogate as it is before it sees an answer, the same at each rung."""
        arch = _OTHER_ARCH if self.params.arch == context.arch.name else self.params.arch
        return lambda: context.fresh(arch=arch)

    def _recipe(self, context: Context) -> Recipe:
        params = self.params
        changes = {"temperature": params.temperature, "label_smoothing": params.smoothing}
        return replace(context.recipe, epochs=params.epochs, **changes)


def _shuffled(images: ImageSet, rng: Rng, most: int | None = None) -> ImageSet:
    """The images in random order, at most so many."""
    order = torch.randperm(len(images), generator=rng.torch("order"))[:most]
    return images[order.to(images.images.device)]


class _OfOwnImages(_Surrogate):
    """Queries the adversary's own images, in random order."""

    def _queried(self, context: Context) -> Tensor:
        return _shuffled(context.data, context.rng).images


class Extraction(_OfOwnImages):
    """On images of the adversary's own, without their labels."""

    card = AttackCard(
        name="extraction-soft",
        title="Surrogate trained on the victim's scores",
        paper=papers.SOK,
        stage="model",
        adversary=Adversary("scores", ("own unlabelled",)),
        unit="% of own images",
        extensions=(_SHARES,),
        scales={
            "small": {"ladder": [30.0, 100.0], "epochs": 20},
            "quick": {"ladder": [30.0, 100.0], "epochs": 40},
            "smoke": {"ladder": [100.0], "epochs": 15},
        },
        tiny={"ladder": [50.0, 100.0], "epochs": 2},
    )
    Params = SurrogateParams
    variants = (
        Variant("distillation", "Distillation of the victim's scores", {"temperature": 3.0}, {"paper": _HINTON}),
        Variant(
            "extraction-hard",
            "Surrogate trained on the victim's labels",
            card={"paper": TRAMER, "adversary": Adversary("labels", ("own unlabelled",))},
        ),
        Variant("extraction-smooth", "Surrogate trained on smoothed scores of the victim", {"smoothing": 0.3}),
        Variant(
            "extraction-cross",
            "Surrogate of another architecture, trained on the victim's scores",
            {"arch": "densenet"},
            {
                "extensions": (_SHARES, "WRN where the victim has the architecture that is asked for"),
                # A hundred layers cost a CPU too much.
                "scales": {
                    "small": {"ladder": [100.0], "epochs": 20, "arch": "vgg16"},
                    "quick": {"ladder": [100.0], "epochs": 20, "arch": "vgg16"},
                    "smoke": {"ladder": [100.0], "epochs": 15, "arch": "vgg16"},
                },
                "tiny": {"ladder": [50.0, 100.0], "epochs": 1, "arch": "vgg16"},
            },
        ),
    )


class KnockoffParams(SurrogateParams):
    """Which data set is queried, and how much of it."""

    auxiliary: str = Field("photographs", description="the data set whose images are queried")
    most: int | None = Field(None, ge=2, description="how many of its images are used at most; none for all")


class Knockoff(_Surrogate):
    """On images of another data set, at random: the strategy `random` of Orekondy et al."""

    card = replace(
        Extraction.card,
        name="knockoff",
        title="Knockoff net: surrogate trained on the victim's scores of foreign images",
        paper=_OREKONDY,
        adversary=Adversary("scores", ("out of domain",)),
        unit="% of foreign images",
        auxiliary="auxiliary",
        scales={
            "paper": {"auxiliary": "tiny-imagenet"},
            "small": {"ladder": [30.0, 100.0], "epochs": 10, "most": 6000},
            "quick": {"ladder": [30.0, 100.0], "epochs": 20, "most": 1000},
            "smoke": {"ladder": [100.0], "epochs": 5, "most": 500},
        },
        tiny={"ladder": [50.0, 100.0], "epochs": 1, "auxiliary": "photographs", "most": 200},
    )
    Params = KnockoffParams

    def _queried(self, context: Context) -> Tensor:
        return _shuffled(context.auxiliary(self.params.auxiliary), context.rng, self.params.most).images


class TransferParams(KnockoffParams):
    """What the surrogate is trained on before it sees an answer."""

    auxiliary: str = Field("photographs", description="the data set that the surrogate is trained on first")
    pretraining: int = Field(60, ge=1, le=10_000, description="epochs on that data set")


class Transfer(_OfOwnImages):
    """From a network that was trained on another data set, with a fresh head for the victim's classes."""

    card = replace(
        Extraction.card,
        name="transfer",
        title="Surrogate trained on another data set first, then on the victim's scores",
        adversary=Adversary("scores", ("own unlabelled", "out of domain")),
        auxiliary="auxiliary",
        extensions=(_SHARES, "the victim's scores instead of true labels", "pretrained within the attack"),
        scales={
            "paper": {"auxiliary": "tiny-imagenet"},
            "small": {"ladder": [30.0, 100.0], "epochs": 10, "pretraining": 10, "most": 3000},
            "quick": {"ladder": [30.0, 100.0], "epochs": 20, "pretraining": 10, "most": 1000},
            "smoke": {"ladder": [100.0], "epochs": 8, "pretraining": 2, "most": 500},
        },
        tiny={"ladder": [50.0, 100.0], "epochs": 1, "pretraining": 1, "auxiliary": "photographs", "most": 200},
    )
    Params = TransferParams

    def _start(self, context: Context) -> Callable[[], nn.Module]:
        foreign = _shuffled(context.auxiliary(self.params.auxiliary), context.rng.child("foreign"), self.params.most)
        model = super()._start(context)()
        path = last_linear(model)
        head = model.get_submodule(path)
        reset_head(model, context.rng.torch("head"), int(foreign.labels.max()) + 1)
        recipe = replace(context.recipe, epochs=self.params.pretraining)
        context.train(foreign, recipe, model=model, name="pretraining")
        model.set_submodule(path, head)
        return lambda: deepcopy(model)


class NoiseParams(SurrogateParams):
    """How much noise is asked about, and what it looks like."""

    ladder: tuple[Annotated[int, Field(ge=2, le=10_000_000)], ...] = Field(
        (10_000, 30_000, 100_000), description="images of noise that are queried"
    )
    side: int = Field(32, ge=8, le=1024, description="height and width of the images, in pixels")


class DataFree(_Surrogate):
    """On noise: every value of every image is black or white by the toss of a coin."""

    card = replace(
        Extraction.card,
        name="extraction-data-free",
        title="Surrogate trained on the victim's scores of noise",
        paper=_ROBERTS,
        adversary=Adversary("scores"),
        unit="images of noise",
        extensions=("a ladder of numbers of images", "each colour channel by itself"),
        scales={
            "small": {"ladder": [3000, 10_000], "epochs": 10},
            "quick": {"ladder": [500], "epochs": 10},
            "smoke": {"ladder": [100], "epochs": 5},
        },
        tiny={"ladder": [64, 128], "epochs": 1},
    )
    Params = NoiseParams

    def _queried(self, context: Context) -> Tensor:
        shape = (int(self.ladder[-1]), 3, self.params.side, self.params.side)
        return bernoulli(shape, context.rng.torch("noise")).to(context.device)

    def _count(self, strength: float, total: int) -> int:
        return int(strength)

    def _recipe(self, context: Context) -> Recipe:
        recipe = super()._recipe(context)
        return replace(recipe, lr=recipe.lr / 5)


def bernoulli(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Images of independent values that are 0 or 255 with equal probability, uint8, on the CPU."""
    return torch.randint(0, 2, shape, generator=generator, dtype=torch.uint8) * 255
