"""A learner who changes one thing in the training, and what all such attacks share.

As tested on data watermarks: Zihang Zou, Boqing Gong, Liqiang Wang, Anti-Neuron Watermarking: Protecting Personal Data
Against Unauthorized Neural Networks, ECCV 2022, section 5.3 and figure 3. https://arxiv.org/abs/2109.09023; authors'
implementation: https://github.com/zzzucf/anti-neuron-watermarking. Most techniques have papers of their own, named on
the cards.

Each rung is a whole training of the learner's ordinary recipe with one thing changed, on the same random streams, so
that only the strength differs. The authors test one strength each (cutout 8, label smoothing 0.1, noise 0.1, FGSM 0.01,
output noise 0.1, colour jitter once); ours climb to stronger ones, which the p-value of a claim can then be followed
along.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator

from bench.api import Adversary, Attack, AttackCard, Attempt, Context, Recipe, Rng, Victim, papers

__all__ = ["CARD", "PUBLISHED", "STRONGER", "LearnerAttack"]

PUBLISHED = Adversary(images=("the owner's",))
CARD = AttackCard(
    name="augment-crop-flip",
    title="Ordinary training, with the data set's augmentation",
    paper=papers.ANW,
    stage="training",
    adversary=PUBLISHED,
    unit="x the ordinary recipe",
    carriers=("data", "none"),
)
STRONGER = "strengths beyond the authors'"


class LearnerAttack(Attack):
    """Changes the learner's recipe; a subclass says how. The harness trains by it."""

    def apply(self, victim: Victim, context: Context) -> Iterator[Attempt]:
        """A changed recipe at each rung; the training's streams are the same at each."""
        for strength in self.ladder:
            yield Attempt(strength, recipe=self._changed(context.recipe, strength, context.rng))

    @abstractmethod
    def _changed(self, recipe: Recipe, strength: float, rng: Rng) -> Recipe:
        """The recipe at one strength."""
