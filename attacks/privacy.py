"""Learners who hide what single images did: noise on the answers, and differentially private training.

Zou, Gong, Wang, Anti-Neuron Watermarking, 2022, section 5.3, figure 3, https://arxiv.org/abs/2109.09023

Where ours differs from theirs and from the papers of the techniques, and why (see `attacks/_learner.py` too):

* What they call differential privacy is Gaussian noise on the logits: here `output-noise`. `dp-sgd` is the real thing.
* DP-SGD starts from fresh weights in every situation, with group instead of batch normalisation, which would mix the
  images of a batch (Opacus makes the same replacement); Abadi et al. used networks without normalisation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from typing import Annotated

import torch
from torch import Tensor, nn

from attacks._dpsgd import PrivateDescent
from attacks._learner import CARD, STRONGER
from bench.api import (
    Adversary,
    Answer,
    Attack,
    Attempt,
    Context,
    Field,
    Paper,
    Params,
    Recipe,
    Victim,
    ladder_of,
    replace,
)


@dataclass(frozen=True)
class LogitNoise:
    """Adds fresh noise to every answer; its `generator` is on the CPU."""

    sd: float
    generator: torch.Generator

    def __call__(self, answer: Answer, images: Tensor) -> Tensor:
        """Logits, N x K, plus noise of standard deviation `sd`."""
        logits = answer(images)
        return logits + self.sd * torch.randn(logits.shape, generator=self.generator).to(logits)


class OutputNoise(Attack):
    """The network as it is answers with noise: the same queries in the same order get the same noise."""

    card = replace(
        CARD,
        name="output-noise",
        title="Gaussian noise on the logits",
        stage="inference",
        adversary=Adversary("scores"),
        carriers=("weights", "behaviour", "data", "none"),
        unit="standard deviation",
        extensions=(STRONGER, "on any network that answers queries"),
        tiny={"ladder": [0.1, 1.0]},
    )
    Params = ladder_of(0.1, 0.3, 1.0, gt=0, le=100, description="standard deviation of the noise on each logit")

    def apply(self, victim: Victim, context: Context) -> Iterator[Attempt]:
        """Ever stronger noise of the same stream."""
        for sd in self.ladder:
            yield Attempt(sd, serving=LogitNoise(sd, context.rng.torch("noise")))


class PrivacyParams(Params):
    """How much noise there is on the gradients, and how long each may be."""

    ladder: tuple[Annotated[float, Field(ge=0.1, le=100)], ...] = Field(
        (0.5, 1.0), description="noise multiplier: standard deviation of the noise over the clipping norm"
    )
    max_grad_norm: float = Field(1.0, gt=0, description="each image's gradient is clipped to this norm")
    delta: float = Field(1e-5, gt=0, lt=1, description="probability for which the privacy loss epsilon is not claimed")


class DPSGD(Attack):
    """Differentially private training: no image, marked or not, can move the network by much.

    Batch normalisation is replaced by group normalisation first. Each claim tells the epsilon that its training
    spent, by Renyi accounting of the Poisson-sampled Gaussian mechanism. Needs the extra `dp` (Opacus).
    """

    card = replace(
        CARD,
        name="dp-sgd",
        title="Differentially private training",
        paper=Paper(
            title="Deep Learning with Differential Privacy",
            authors="M. Abadi, A. Chu, I. Goodfellow, H. B. McMahan, I. Mironov, K. Talwar, L. Zhang",
            year=2016,
            link="https://arxiv.org/abs/1607.00133",
        ),
        unit="noise multiplier",
        extensions=("Zou et al. tested noise on the outputs instead: `output-noise`",),
        tiny={"ladder": [1.0]},
    )
    Params = PrivacyParams

    def apply(self, victim: Victim, context: Context) -> Iterator[Attempt]:
        """Train a fresh network by noisy, clipped steps of the learner's recipe."""
        for multiplier in self.ladder:
            recipe = replace(context.recipe, descent=PrivateDescent(multiplier, self.params.max_grad_norm))
            network = without_batch_norm(context.fresh("learner"))
            model = context.train(victim.images, recipe, model=network, name="learner")
            spent = epsilon(len(victim.images), recipe, multiplier, self.params.delta)
            yield Attempt(multiplier, model=model, measures={"epsilon": spent, "delta": self.params.delta})


def without_batch_norm(model: nn.Module) -> nn.Module:
    """A copy of the network in which Opacus has replaced batch by group normalisation, of up to 32 groups.

    Raises:
        ValueError: Opacus is not installed.
    """
    try:
        from opacus.validators import ModuleValidator
    except ImportError as error:
        raise ValueError('Expected Opacus to be installed for DP-SGD: pip install "watermark-bench[dp]".') from error
    fixed: nn.Module = ModuleValidator.fix(model)
    return fixed


def epsilon(images: int, recipe: Recipe, multiplier: float, delta: float) -> float:
    """What a private training by this recipe spends, at `delta`, by Renyi differential privacy.

    Mironov, Talwar, Zhang 2019, https://arxiv.org/abs/1908.10530. An epoch has ceil(images / batch size) steps, in each
    of which an image takes part with probability one over that number.
    """
    from opacus.accountants import RDPAccountant
    from opacus.accountants.analysis import rdp

    per_epoch = ceil(images / recipe.batch_size)
    orders = RDPAccountant.DEFAULT_ALPHAS
    spent = rdp.compute_rdp(
        q=1 / per_epoch,
        noise_multiplier=multiplier,
        steps=per_epoch * recipe.epochs,
        orders=orders,
    )
    return float(rdp.get_privacy_spent(orders=orders, rdp=spent, delta=delta)[0])
