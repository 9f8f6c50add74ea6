"""What is done to the answers of a stolen network: averaged, rounded, hidden, or refused.

Suspicious queries refused: Shuo Shao et al., DATABench: Evaluating Dataset Auditing in Deep Learning from an
Adversarial Perspective, 2025. https://arxiv.org/abs/2507.05622; authors' implementation:
https://github.com/shaoshuo-ss/DATABench
The other methods' papers are named on their cards.

Where ours differs, and why:

* Every query is treated alike, since who serves the network cannot tell a test image from a trigger: accuracy is
  measured through the same serving.
* A refused query gets scores drawn at random, not zeros (DATABench): the class of the largest of ten zeros is always
  the first, which a verifier would notice, or take for a match.
* `refusing-outliers` takes the threshold from the quantile of own images' distances to one another, each but itself,
  not from a normal distribution fitted to distances that count each image as its own neighbour.
* `refusing-inconsistent` needs no images: of Guo et al.'s two variants it is the data-free one, whose consistency is
  not normalised by that of benign images.
* `randomised-smoothing` averages probabilities instead of counting votes, so that scores stay scores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import torch
from torch import Tensor, nn

from attacks import _filters
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
    last_linear,
    predict,
    replace,
)

FLOOR = 1e-12  # of a probability, so that its logarithm is finite

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
_CARD = AttackCard(
    name="labels-only",
    title="Labels instead of scores",
    paper=TRAMER,
    stage="inference",
    adversary=Adversary("scores"),
    unit="1: labels alone",
)


# ---- answers that are changed ----------------------------------------------------------------------------------------
def _log(probabilities: Tensor) -> Tensor:
    return probabilities.clamp_min(FLOOR).log()


@dataclass(frozen=True)
class Smoothed:
    """Answers with the mean of the probabilities for noisy copies; its `generator` is on the CPU."""

    sd: float
    samples: int
    generator: torch.Generator

    def __call__(self, answer: Answer, images: Tensor) -> Tensor:
        """Log-probabilities, N x K; the noise is not clipped, as in the paper."""
        noisy = (images + self.sd * _filters.normal(images, self.generator) for _ in range(self.samples))
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

    card = _CARD
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
        return torch.where(refused[:, None], _filters.normal(logits, self.generator), logits)


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
        known = features(model, context.data.images.to(context.device))
        usual = distances(known, known, neighbours, skip=1)
        for percent in self.ladder:
            limit = usual.quantile(1 - percent / 100)

            def far(_: Answer, images: Tensor, __: Tensor, limit: Tensor = limit) -> Tensor:
                return distances(features(model, images), known, neighbours) > limit

            yield Attempt(percent, serving=Refusing(far, context.rng.torch("refusals")))


@torch.no_grad()
def features(model: nn.Module, images: Tensor) -> Tensor:
    """What enters the last linear layer of the network, N x D float32, in eval mode."""
    entered: list[Tensor] = []
    layer = model.get_submodule(last_linear(model))
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
