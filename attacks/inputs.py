"""Queries that are changed before a stolen network sees them.

Queries processed before a watermarked network sees them: Nils Lukas, Edward Jiang, Xinda Li, Florian Kerschbaum, SoK:
How Robust is Image Classification Deep Neural Network Watermarking?, IEEE S&P 2022. https://arxiv.org/abs/2108.04974;
authors' implementation: https://github.com/dnn-security/Watermark-Robustness-Toolbox
The other methods' papers are named on their cards.

Where ours differs, and why:

* Every query is treated alike, since who serves the network cannot tell a test image from a trigger: accuracy is
  measured through the same serving.
* Filters reflect at the border instead of padding with zeros, which darkens it.
* Lukas et al. train 20 epochs beside the mean and the median filter; here nothing is trained: fine-tuning is an attack
  of its own.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from attacks import _filters
from attacks._autoencoder import AutoEncoderParams, reconstructed, trained
from bench.api import (
    Adversary,
    Answer,
    Attack,
    AttackCard,
    Attempt,
    Context,
    Paper,
    Victim,
    ladder_of,
    papers,
    replace,
)

_XU = Paper(
    title="Feature Squeezing: Detecting Adversarial Examples in Deep Neural Networks",
    authors="W. Xu, D. Evans, Y. Qi",
    year=2018,
    link="https://arxiv.org/abs/1704.01155",
    code="https://github.com/mzweilin/EvadeML-Zoo",
)
_MENG = Paper(
    title="MagNet: a Two-Pronged Defense against Adversarial Examples",
    authors="D. Meng, H. Chen",
    year=2017,
    link="https://arxiv.org/abs/1705.09064",
    code="https://github.com/Trevillie/MagNet",
)
_CARD = AttackCard(
    name="input-jpeg",
    title="Queries compressed by JPEG",
    paper=papers.SOK,
    stage="inference",
    adversary=Adversary("scores"),
    unit="100 - quality",
    tiny={"ladder": [55.0]},
)


Change = Callable[[Tensor, torch.Generator], Tensor]


@dataclass(frozen=True)
class Changed:
    """Asks about changed images; its `generator` is on the CPU."""

    change: Change
    generator: torch.Generator

    def __call__(self, answer: Answer, images: Tensor) -> Tensor:
        """The answers, N x K, for what becomes of N x C x H x W images in [0, 1]."""
        return answer(self.change(images, self.generator))


class _Input(Attack):
    """Changes every query; a subclass says how."""

    def apply(self, victim: Victim, context: Context) -> Iterator[Attempt]:
        """Ever stronger changes, whose draws are the same at each rung."""
        for strength in self.ladder:
            yield Attempt(strength, serving=Changed(self._change(strength, context), context.rng.torch("draws")))

    @abstractmethod
    def _change(self, strength: float, context: Context) -> Change:
        """What becomes of a batch of float images in [0, 1] at one strength."""


class InputJpeg(_Input):
    """Compressed with loss and decoded, grey or RGB."""

    card = _CARD
    Params = ladder_of(5.0, 35.0, 55.0, gt=0, lt=100, description="100 minus the JPEG quality")

    def _change(self, strength: float, context: Context) -> Change:
        quality = max(1, round(100 - strength))
        return lambda images, _: _filters.jpeg(images.mul(255).round().to(torch.uint8), quality).to(images) / 255


class InputGaussian(_Input):
    """Smoothed by a Gaussian that reaches three standard deviations."""

    card = replace(
        _CARD,
        name="input-gaussian",
        title="Queries smoothed by a Gaussian",
        unit="pixels (sd)",
        extensions=("a standard deviation of 1 beside the authors' 0.5, 0.6 and 0.7",),
        tiny={"ladder": [0.7]},
    )
    Params = ladder_of(0.5, 0.6, 0.7, 1.0, gt=0, le=10, description="standard deviation of the Gaussian, in pixels")

    def _change(self, strength: float, context: Context) -> Change:
        return lambda images, _: _filters.gaussian(images, strength)


class InputMean(_Input):
    """The mean of a window around each pixel."""

    card = replace(
        _CARD,
        name="input-mean",
        title="Queries smoothed by a mean filter",
        unit="pixels a side",
        extensions=("a window of 5 beside the authors' 3", "no fine-tuning"),
        tiny={"ladder": [3]},
    )
    Params = _filters.WindowParams

    def _change(self, strength: float, context: Context) -> Change:
        return lambda images, _: _filters.mean(images, int(strength))


class InputMedian(_Input):
    """The median of a window around each pixel."""

    card = replace(
        _CARD,
        name="input-median",
        title="Queries smoothed by a median filter",
        unit="pixels a side",
        extensions=("a window of 5 beside the authors' 3", "no fine-tuning"),
        tiny={"ladder": [3]},
    )
    Params = _filters.WindowParams

    def _change(self, strength: float, context: Context) -> Change:
        return lambda images, _: _filters.median(images, int(strength))


class InputBitDepth(_Input):
    """Rounded to the nearest of 2^(8 - bits lost) equally spaced levels from 0 to 1."""

    card = replace(
        _CARD,
        name="input-bit-depth",
        title="Queries of fewer bits a value",
        paper=_XU,
        unit="bits lost of 8",
        tiny={"ladder": [6]},
    )
    Params = ladder_of(4, 5, 6, 7, ge=1, le=7, description="bits that every value loses: 4 leave 16 levels, 7 leave 2")

    def _change(self, strength: float, context: Context) -> Change:
        top = 2 ** (8 - int(strength)) - 1
        return lambda images, _: images.mul(top).round().div(top)


class InputNoise(_Input):
    """Fresh Gaussian noise on every value, clipped: the same queries in the same order get the same noise."""

    card = replace(
        _CARD,
        name="input-noise",
        title="Queries with Gaussian noise",
        unit="of the range (sd)",
        tiny={"ladder": [0.05]},
    )
    Params = ladder_of(
        0.01, 0.03, 0.05, 0.1, gt=0, le=1, description="standard deviation of the noise, in units of the range [0, 1]"
    )

    def _change(self, strength: float, context: Context) -> Change:
        return lambda images, generator: (images + strength * _filters.normal(images, generator)).clamp(0, 1)


class InputFlip(_Input):
    """Mirrored left to right."""

    card = replace(_CARD, name="input-flip", title="Queries mirrored", unit="% of queries", tiny={})
    Params = ladder_of(100.0, gt=0, le=100, description="% of the queries, at random, that are mirrored left to right")

    def _change(self, strength: float, context: Context) -> Change:
        def mirrored(images: Tensor, generator: torch.Generator) -> Tensor:
            chosen = torch.rand(len(images), generator=generator) < strength / 100
            return torch.where(chosen.to(images.device)[:, None, None, None], images.flip(3), images)

        return mirrored


class InputAutoEncoder(_Input):
    """Replaced by what an auto-encoder of own images makes of them."""

    card = replace(
        _CARD,
        name="input-autoencoder",
        title="Queries reconstructed by an auto-encoder",
        paper=_MENG,
        adversary=Adversary("scores", ("own unlabelled",)),
        unit="x fewer numbers",
        extensions=("a ladder of lengths of the code",),
        scales={
            "small": {"epochs": 40},
            "quick": {"ladder": [3.0, 12.0], "epochs": 20},
            "smoke": {"ladder": [12.0], "epochs": 10},
        },
        tiny={"ladder": [12.0], "epochs": 2},
    )
    Params = AutoEncoderParams

    def _change(self, strength: float, context: Context) -> Change:
        model = trained(context.data.images.to(context.device), strength, self.params.epochs, context.rng)
        return lambda images, _: reconstructed(model, images)
