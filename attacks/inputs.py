"""What stands around a stolen network: queries that are changed, and answers that are changed or refused.

Queries processed before a watermarked network sees them: Nils Lukas, Edward Jiang, Xinda Li, Florian Kerschbaum, SoK:
How Robust is Image Classification Deep Neural Network Watermarking?, IEEE S&P 2022. https://arxiv.org/abs/2108.04974;
authors' implementation: https://github.com/dnn-security/Watermark-Robustness-Toolbox
Suspicious queries refused: Shuo Shao et al., DATABench: Evaluating Dataset Auditing in Deep Learning from an
Adversarial Perspective, 2025. https://arxiv.org/abs/2507.05622; authors' implementation:
https://github.com/shaoshuo-ss/DATABench
The other methods' papers are named on their cards.

Where ours differs, and why:

* Every query is treated alike, since who serves the network cannot tell a test image from a trigger: accuracy is
  measured through the same serving.
* Filters reflect at the border instead of padding with zeros, which darkens it.
* Lukas et al. train 20 epochs beside the mean and the median filter; here nothing is trained: fine-tuning is an attack
  of its own.
* A refused query gets scores drawn at random, not zeros (DATABench): the class of the largest of ten zeros is always
  the first, which a verifier would notice, or take for a match.
* `refusing-outliers` takes the threshold from the quantile of own images' distances to one another, each but itself,
  not from a normal distribution fitted to distances that count each image as its own neighbour.
* `refusing-inconsistent` needs no images: of Guo et al.'s two variants it is the data-free one, whose consistency is
  not normalised by that of benign images.
* `randomised-smoothing` averages probabilities instead of counting votes, so that scores stay scores.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from math import ceil
from typing import Annotated

import torch
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as F

from attacks import _filters
from attacks._autoencoder import AutoEncoderParams, reconstructed, trained
from attacks._papers import DATABENCH, TRAMER
from bench.api import (
    Adversary,
    Answer,
    Attack,
    AttackCard,
    Attempt,
    Context,
    Field,
    Paper,
    Params,
    Victim,
    ladder_of,
    papers,
    predict,
    replace,
)

FLOOR = 1e-12  # of a probability, so that its logarithm is finite

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
_COHEN = Paper(
    title="Certified Adversarial Robustness via Randomized Smoothing",
    authors="J. M. Cohen, E. Rosenfeld, J. Z. Kolter",
    year=2019,
    link="https://arxiv.org/abs/1902.02918",
    code="https://github.com/locuslab/smoothing",
)
_GUO = Paper(
    title="SCALE-UP: An Efficient Black-box Input-level Backdoor Detection via Analyzing Scaled Prediction Consistency",
    authors="J. Guo, Y. Li, X. Chen, H. Guo, L. Sun, C. Liu",
    year=2023,
    link="https://arxiv.org/abs/2302.03251",
    code="https://github.com/JunfengGo/SCALE-UP",
)
_SERVES = Adversary("scores")
_CARD = AttackCard(
    name="input-jpeg",
    title="Queries compressed by JPEG",
    paper=papers.SOK,
    stage="inference",
    adversary=_SERVES,
    unit="100 - quality",
    tiny={"ladder": [55.0]},
)


# ---- queries that are changed ----------------------------------------------------------------------------------------
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
        def blurred(images: Tensor, _: torch.Generator) -> Tensor:
            reach = min(ceil(3 * strength), min(images.shape[2:]) - 1)
            return F.gaussian_blur(images, [2 * reach + 1] * 2, [strength] * 2)

        return blurred


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
        return lambda images, generator: (images + strength * _normal(images, generator)).clamp(0, 1)


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


# ---- answers that are changed ----------------------------------------------------------------------------------------
def _log(probabilities: Tensor) -> Tensor:
    return probabilities.clamp_min(FLOOR).log()


def _normal(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=generator).to(like)


@dataclass(frozen=True)
class Smoothed:
    """Answers with the mean of the probabilities for noisy copies; its `generator` is on the CPU."""

    sd: float
    samples: int
    generator: torch.Generator

    def __call__(self, answer: Answer, images: Tensor) -> Tensor:
        """Log-probabilities, N x K; the noise is not clipped, as in the paper."""
        noisy = (images + self.sd * _normal(images, self.generator) for _ in range(self.samples))
        return _log(torch.stack([answer(copies).softmax(1) for copies in noisy]).mean(0))


class SmoothingParams(Params):
    """How much noise, and how often."""

    ladder: tuple[Annotated[float, Field(gt=0, le=10)], ...] = Field(
        (0.05, 0.12, 0.25, 0.5), description="standard deviation of the noise, in units of the range [0, 1]"
    )
    samples: int = Field(100, ge=1, le=100_000, description="noisy copies of each query")


class RandomisedSmoothing(Attack):
    """The mean of the answers to noisy copies of the query."""

    card = replace(
        _CARD,
        name="randomised-smoothing",
        title="Answers averaged over noisy copies of the query",
        paper=_COHEN,
        unit="of the range (sd)",
        extensions=("a mean of probabilities instead of a vote", "DATABench's 0.05 beside the authors' strengths"),
        scales={"small": {"samples": 30}, "quick": {"samples": 20}, "smoke": {"ladder": [0.05, 0.25], "samples": 5}},
        tiny={"ladder": [0.12], "samples": 3},
    )
    Params = SmoothingParams

    def apply(self, victim: Victim, context: Context) -> Iterator[Attempt]:
        """Ever stronger noise of the same stream."""
        for sd in self.ladder:
            yield Attempt(sd, serving=Smoothed(sd, self.params.samples, context.rng.torch("noise")))


def rounded(answer: Answer, images: Tensor, *, step: float) -> Tensor:
    """Logarithms of probabilities, N x K, that are rounded to multiples of `step`; 0 counts as 1e-12."""
    return _log(answer(images).softmax(1).div(step).round() * step)


class ScoreRounding(Attack):
    """Probabilities are told to a few decimals only; of classes that are told alike the first is the largest."""

    card = replace(
        _CARD,
        name="score-rounding",
        title="Rounded probabilities",
        paper=TRAMER,
        unit="of probability",
        tiny={"ladder": [0.1]},
    )
    Params = ladder_of(0.001, 0.01, 0.1, gt=0, le=0.5, description="probabilities are multiples of this")

    def apply(self, victim: Victim, context: Context) -> Iterator[Attempt]:
        """Ever coarser steps."""
        for step in self.ladder:
            yield Attempt(step, serving=partial(rounded, step=step))


def labels_alone(answer: Answer, images: Tensor) -> Tensor:
    """Logarithms of probabilities, N x K: 1 for the predicted class, and 1e-12 for all others."""
    logits = answer(images)
    return _log(nn.functional.one_hot(logits.argmax(1), logits.shape[1]).to(logits.dtype))


class LabelsOnly(Attack):
    """The predicted class is told, and nothing else."""

    card = replace(
        _CARD, name="labels-only", title="Labels instead of scores", paper=TRAMER, unit="1: labels alone", tiny={}
    )
    Params = ladder_of(1.0, ge=1, le=1, description="1: labels alone")

    def apply(self, victim: Victim, context: Context) -> Iterator[Attempt]:
        """One rung: there is nothing to vary."""
        yield Attempt(self.ladder[0], serving=labels_alone)


# ---- answers that are refused ----------------------------------------------------------------------------------------
Suspicious = Callable[[Answer, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Refusing:
    """Answers suspicious queries with random scores; its `generator` is on the CPU.

    Attributes:
        suspicious: the network, N x C x H x W images and its N x K logits to N bools.
    """

    suspicious: Suspicious
    generator: torch.Generator

    def __call__(self, answer: Answer, images: Tensor) -> Tensor:
        """Logits, N x K; those of suspicious queries are independent normal numbers."""
        logits = answer(images)
        refused = self.suspicious(answer, images, logits)
        # Drawn for all, so that the draws do not depend on who is refused.
        return torch.where(refused[:, None], _normal(logits, self.generator), logits)


def distances(queries: Tensor, known: Tensor, neighbours: int, *, skip: int = 0) -> Tensor:
    """Mean Euclidean distance of each query to its nearest `neighbours` of the known points.

    Args:
        queries: N x D.
        known: M x D, more than `skip` of them.
        neighbours: how many count; all, if there are fewer.
        skip: how many of the nearest do not count: 1 where the queries are the known points themselves.
    """
    count = min(neighbours + skip, len(known))
    # Not by matrix products, which lose the small distances that matter here.
    parts = [torch.cdist(part, known, compute_mode="donot_use_mm_for_euclid_dist") for part in queries.split(256)]
    return torch.cat(parts).topk(count, largest=False).values[:, skip:].mean(1)


class OutlierParams(Params):
    """How many ordinary queries may be refused, and what counts as near."""

    ladder: tuple[Annotated[float, Field(gt=0, lt=100)], ...] = Field(
        (0.5, 1.0, 5.0, 10.0), description="% of ordinary images that are refused, by the quantile of own images"
    )
    neighbours: int = Field(5, ge=1, le=1000, description="nearest own images whose mean distance counts")


class RefusingOutliers(Attack):
    """Refuses queries whose features, which enter the network's head, are far from those of own images."""

    card = replace(
        _CARD,
        name="refusing-outliers",
        title="Refusal of queries unlike one's own images",
        paper=DATABENCH,
        adversary=Adversary("white-box", ("own unlabelled",)),
        unit="% of ordinary images",
        extensions=("rates beyond the authors' 0.5 %", "random scores for refused queries"),
        tiny={"ladder": [10.0]},
    )
    Params = OutlierParams

    def apply(self, victim: Victim, context: Context) -> Iterator[Attempt]:
        """Measure own images once; ever lower thresholds refuse ever more."""
        model, neighbours = victim.model().to(context.device), self.params.neighbours
        known = features(model, context.head, context.data.images.to(context.device))
        usual = distances(known, known, neighbours, skip=1)
        for percent in self.ladder:
            limit = usual.quantile(1 - percent / 100)

            def far(_: Answer, images: Tensor, __: Tensor, limit: Tensor = limit) -> Tensor:
                return distances(features(model, context.head, images), known, neighbours) > limit

            yield Attempt(percent, serving=Refusing(far, context.rng.torch("refusals")))


@torch.no_grad()
def features(model: nn.Module, head: str, images: Tensor) -> Tensor:
    """What enters the layer `head` of the network, N x D float32, in eval mode."""
    entered: list[Tensor] = []
    layer = model.get_submodule(head)
    handle = layer.register_forward_pre_hook(lambda _, inputs: entered.append(inputs[0].flatten(1).float()))
    try:
        predict(model, images)
    finally:
        handle.remove()
    return torch.cat(entered)


class ConsistencyParams(Params):
    """Which factors, and how much disagreement passes for suspicious still."""

    ladder: tuple[Annotated[float, Field(gt=0, lt=100)], ...] = Field(
        (10.0, 30.0, 50.0), description="% of the brightened copies that may be answered otherwise for a refusal"
    )
    factors: tuple[Annotated[float, Field(gt=1, le=255)], ...] = Field(
        (3.0, 5.0, 7.0, 9.0, 11.0), min_length=1, description="factors of all pixel values of the copies"
    )


class RefusingInconsistent(Attack):
    """Refuses queries that are answered alike however bright they are made, as those with a trigger tend to be."""

    card = replace(
        _CARD,
        name="refusing-inconsistent",
        title="Refusal of queries whose label survives brightening",
        paper=_GUO,
        unit="% of copies",
        extensions=("a ladder of thresholds: 50 % is DATABench's 0.5", "random scores for refused queries"),
        tiny={"ladder": [30.0]},
    )
    Params = ConsistencyParams

    def apply(self, victim: Victim, context: Context) -> Iterator[Attempt]:
        """Ever lower thresholds refuse ever more."""
        for percent in self.ladder:
            suspicious = partial(consistent, factors=self.params.factors, least=1 - percent / 100)
            yield Attempt(percent, serving=Refusing(suspicious, context.rng.torch("refusals")))


def consistent(answer: Answer, images: Tensor, logits: Tensor, *, factors: tuple[float, ...], least: float) -> Tensor:
    """Whether the scaled prediction consistency of each query is at least so much, N bools.

    SPC(x) = mean over n of [f(clip(n x)) = f(x)] (Guo et al. 2023).
    """
    labels = logits.argmax(1)
    agree = torch.stack([answer((factor * images).clamp(0, 1)).argmax(1) == labels for factor in factors])
    return agree.float().mean(0) >= least - 1e-6
