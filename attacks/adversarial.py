"""Learners who train on adversarial images too.

Zou, Gong, Wang, Anti-Neuron Watermarking, 2022, section 5.3, figure 3, https://arxiv.org/abs/2109.09023

Where ours differs from theirs and from the papers of the techniques, and why (see `attacks/_learner.py` too):

* FGSM acts on images in [0, 1]; theirs on normalised ones, clamped to [-1, 1], where 0.01 is a smaller step.
* Madry et al. train on the images of PGD alone; here an ordinary step follows each adversarial one, as with Zou et
  al.'s FGSM, so that the two attacks differ in the adversary only.
"""

from __future__ import annotations

from typing import Annotated

from attacks._learner import CARD, STRONGER, LearnerAttack
from attacks._perturbation import Perturbation
from bench.api import Field, Paper, Params, Recipe, Rng, ladder_of, replace

_Eps = Annotated[float, Field(gt=0, le=1)]


class AdversarialFGSM(LearnerAttack):
    """A step on adversarial images of one gradient step before every ordinary step."""

    card = replace(
        CARD,
        name="adversarial-fgsm",
        title="Adversarial training by the fast gradient sign method",
        paper=Paper(
            title="Explaining and Harnessing Adversarial Examples",
            authors="I. J. Goodfellow, J. Shlens, C. Szegedy",
            year=2015,
            link="https://arxiv.org/abs/1412.6572",
        ),
        unit="eps",
        extensions=(STRONGER,),
        tiny={"ladder": [0.01]},
    )
    Params = ladder_of(0.01, 0.03, gt=0, le=1, description="eps, the change of each pixel value in [0, 1]")

    def _changed(self, recipe: Recipe, strength: float, rng: Rng) -> Recipe:
        return replace(recipe, perturb=Perturbation(strength, strength, 1))


class PGDParams(Params):
    """How far the adversary may go, and in how many steps."""

    ladder: tuple[_Eps, ...] = Field((4 / 255, 8 / 255), description="eps, the change of each pixel value in [0, 1]")
    step: float = Field(0.25, gt=0, le=2, description="size of a step, as a fraction of eps")
    iterations: int = Field(7, ge=1, le=100, description="steps of the adversary for every step of the learner")


class AdversarialPGD(LearnerAttack):
    """A step on adversarial images of projected gradient ascent before every ordinary step."""

    card = replace(
        CARD,
        name="adversarial-pgd",
        title="Adversarial training by projected gradient descent",
        paper=Paper(
            title="Towards Deep Learning Models Resistant to Adversarial Attacks",
            authors="A. Madry, A. Makelov, L. Schmidt, D. Tsipras, A. Vladu",
            year=2018,
            link="https://arxiv.org/abs/1706.06083",
            code="https://github.com/MadryLab/cifar10_challenge",
        ),
        unit="eps",
        extensions=("not among the techniques of Zou et al.", "an ordinary step after each adversarial one"),
        tiny={"ladder": [8 / 255], "iterations": 2, "step": 0.5},
    )
    Params = PGDParams

    def _changed(self, recipe: Recipe, strength: float, rng: Rng) -> Recipe:
        step = self.params.step * strength
        return replace(recipe, perturb=Perturbation(strength, step, self.params.iterations, rng.torch("start")))
