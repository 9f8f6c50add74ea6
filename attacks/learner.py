"""What a learner does to the images and labels of a training, and whether a data watermark survives it.

Zou, Gong, Wang, Anti-Neuron Watermarking, 2022, section 5.3, figure 3, https://arxiv.org/abs/2109.09023

Where ours differs, and why: `attacks/_learner.py` says it of all such attacks; colour jitter keeps one order
(brightness, contrast, saturation, hue), which matters little and allows whole batches. `mixup` and `clean-start` are
not among the techniques of Zou et al.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from functools import partial
from typing import Annotated

import torch
from torch import Tensor

from attacks._colour import jitter
from attacks._learner import CARD, STRONGER, LearnerAttack
from attacks._papers import DATABENCH
from bench.api import (
    Adversary,
    Attack,
    Attempt,
    Context,
    Field,
    Paper,
    Params,
    Recipe,
    Rng,
    Victim,
    ladder_of,
    replace,
)


class Ordinary(LearnerAttack):
    """Random crops and flips, or what else is usual for the data set, even where the ordinary recipe goes without."""

    card = CARD
    Params = ladder_of(1.0, ge=1, le=1, description="1: as usual")

    def _changed(self, recipe: Recipe, strength: float, rng: Rng) -> Recipe:
        return replace(recipe, augment=None)


def cutout(images: Tensor, generator: torch.Generator, *, side: int, value: float = 0.5) -> Tensor:
    """Sets a square of each image to `value`; its centre is any pixel, so that it may lie partly outside.

    Args:
        images: N x C x H x W, float, on any device.
        generator: on the CPU.
        side: of the square, in pixels.
        value: put in its place; 0.5 is what networks normalise to 0.
    """
    inside = []
    for length in images.shape[2:]:
        start = torch.randint(length, (len(images), 1), generator=generator) - side // 2
        place = torch.arange(length)
        inside.append(((place >= start) & (place < start + side)).to(images.device))
    square = inside[0][:, None, :, None] & inside[1][:, None, None, :]
    return images.masked_fill(square, value)


class Cutout(LearnerAttack):
    """A grey square at a random place of each image."""

    card = replace(
        CARD,
        name="cutout",
        title="Cutout",
        paper=Paper(
            title="Improved Regularization of Convolutional Neural Networks with Cutout",
            authors="T. DeVries, G. W. Taylor",
            year=2017,
            link="https://arxiv.org/abs/1708.04552",
            code="https://github.com/uoguelph-mlrg/Cutout",
        ),
        unit="pixels",
        extensions=("16 pixels beside Zou et al.'s 8",),
        tiny={"ladder": [8]},
    )
    Params = ladder_of(8, 16, ge=1, le=512, description="side of the square, pixels")

    def _changed(self, recipe: Recipe, strength: float, rng: Rng) -> Recipe:
        return replace(recipe, transforms=(*recipe.transforms, partial(cutout, side=int(strength))))


class LabelSmoothing(LearnerAttack):
    """Labels that leave every class some probability."""

    card = replace(
        CARD,
        name="label-smoothing",
        title="Label smoothing",
        paper=Paper(
            title="Rethinking the Inception Architecture for Computer Vision",
            authors="C. Szegedy, V. Vanhoucke, S. Ioffe, J. Shlens, Z. Wojna",
            year=2016,
            link="https://arxiv.org/abs/1512.00567",
        ),
        unit="probability",
        extensions=(STRONGER,),
        tiny={"ladder": [0.1]},
    )
    Params = ladder_of(0.1, 0.3, gt=0, lt=1, description="probability spread evenly over all classes")

    def _changed(self, recipe: Recipe, strength: float, rng: Rng) -> Recipe:
        return replace(recipe, label_smoothing=strength)


def gaussian_noise(images: Tensor, generator: torch.Generator, *, sd: float) -> Tensor:
    """Images in [0, 1], N x C x H x W, plus Gaussian noise of standard deviation `sd`, clamped to [0, 1]."""
    noise = torch.randn(images.shape, generator=generator).to(images.device)
    return (images + sd * noise).clamp(0, 1)


class GaussianNoise(LearnerAttack):
    """Fresh noise on every training image."""

    card = replace(
        CARD,
        name="gaussian-noise",
        title="Gaussian noise on training images",
        unit="standard deviation",
        extensions=("strengths around the authors' 0.1",),
        tiny={"ladder": [0.1]},
    )
    Params = ladder_of(0.05, 0.1, 0.2, gt=0, le=1, description="standard deviation of the noise on images in [0, 1]")

    def _changed(self, recipe: Recipe, strength: float, rng: Rng) -> Recipe:
        return replace(recipe, transforms=(*recipe.transforms, partial(gaussian_noise, sd=strength)))


class JitterParams(Params):
    """How much colours move."""

    ladder: tuple[Annotated[float, Field(gt=0, le=10)], ...] = Field(
        (0.5, 1.0, 2.0), description="times the four ranges below"
    )
    brightness: float = Field(0.1, ge=0, le=1, description="brightness factors in 1 +- this")
    contrast: float = Field(0.2, ge=0, le=1, description="contrast factors in 1 +- this")
    saturation: float = Field(0.2, ge=0, le=1, description="saturation factors in 1 +- this")
    hue: float = Field(0.2, ge=0, le=0.5, description="turns of the hue circle within +- this; 0.5 is all of it")


class ColourJitter(LearnerAttack):
    """Random brightness, contrast, saturation and hue of each image: the hue is where ANW's mark lies."""

    card = replace(
        CARD,
        name="colour-jitter",
        title="Colour jitter",
        unit="x the authors' ranges",
        extensions=("half and twice the authors' ranges",),
        tiny={"ladder": [1.0]},
    )
    Params = JitterParams

    def _changed(self, recipe: Recipe, strength: float, rng: Rng) -> Recipe:
        ranges = {name: strength * getattr(self.params, name) for name in ("brightness", "contrast", "saturation")}
        change = partial(jitter, **ranges, hue=strength * self.params.hue)
        return replace(recipe, transforms=(*recipe.transforms, change))


def mixup(images: Tensor, targets: Tensor, generator: torch.Generator, *, alpha: float) -> tuple[Tensor, Tensor]:
    """A batch mixed with itself in another order: lambda x + (1 - lambda) x', and targets alike (Zhang et al., Eq. 1).

    Args:
        images: N x C x H x W, float.
        targets: N x K, probabilities.
        generator: on the CPU; draws one lambda from Beta(alpha, alpha) for the batch, as the authors' code does.
        alpha: the larger, the nearer lambda is to a half.
    """
    from scipy.special import betaincinv

    share = float(betaincinv(alpha, alpha, torch.rand((), generator=generator, dtype=torch.float64).item()))
    partner = torch.randperm(len(images), generator=generator).to(images.device)
    return share * images + (1 - share) * images[partner], share * targets + (1 - share) * targets[partner]


class Mixup(LearnerAttack):
    """Training on mixtures of two images, with the same mixture of their labels."""

    card = replace(
        CARD,
        name="mixup",
        title="Mixup",
        paper=Paper(
            title="mixup: Beyond Empirical Risk Minimization",
            authors="H. Zhang, M. Cisse, Y. N. Dauphin, D. Lopez-Paz",
            year=2018,
            link="https://arxiv.org/abs/1710.09412",
            code="https://github.com/facebookresearch/mixup-cifar10",
        ),
        unit="alpha",
        extensions=("not among the techniques of Zou et al.",),
        tiny={"ladder": [1.0]},
    )
    Params = ladder_of(0.2, 1.0, gt=0, le=100, description="alpha of the Beta distribution of the share of an image")

    def _changed(self, recipe: Recipe, strength: float, rng: Rng) -> Recipe:
        return replace(recipe, mix=partial(mixup, alpha=strength))


class CleanStart(Attack):
    """A network of own images, which nobody marked, is trained on the published ones for a part of the usual epochs."""

    card = replace(
        CARD,
        name="clean-start",
        title="Short training on the published images from a network of one's own",
        paper=DATABENCH,
        adversary=Adversary(images=("the owner's", "own")),
        unit="% of epochs saved",
        extensions=("not among the techniques of Zou et al.", "a ladder of lengths of the training"),
        scales={"quick": {"ladder": [50.0, 90.0]}, "smoke": {"ladder": [50.0]}},
        tiny={"ladder": [50.0]},
    )
    Params = ladder_of(
        25.0, 50.0, 75.0, 90.0, gt=0, lt=100, description="% of the learner's ordinary epochs that are saved; one stays"
    )

    def apply(self, victim: Victim, context: Context) -> Iterator[Attempt]:
        """Ever shorter trainings, each from the same network."""
        clean = context.innocent()
        for percent in self.ladder:
            epochs = max(1, round((1 - percent / 100) * context.recipe.epochs))
            recipe = replace(context.recipe, epochs=epochs)
            model = context.train(victim.images, recipe, model=deepcopy(clean), name="learner")
            yield Attempt(percent, model=model)
