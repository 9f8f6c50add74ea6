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

from bench.api import Attack, AttackCard, Claim, Context, Paper, Recipe, Rng, Victim

__all__ = ["CARD", "STRONGER", "LearnerAttack"]

ANW = Paper(
    title="Anti-Neuron Watermarking: Protecting Personal Data Against Unauthorized Neural Networks",
    authors="Z. Zou, B. Gong, L. Wang",
    year=2022,
    link="https://arxiv.org/abs/2109.09023",
    code="https://github.com/zzzucf/anti-neuron-watermarking",
)
CARD = AttackCard(
    name="augment-crop-flip",
    title="Ordinary training, with the data set's augmentation",
    paper=ANW,
    stage="training",
    knowledge="the published images and their labels; nothing of the scheme",
    unit="x the ordinary recipe",
    carriers=("data", "none"),
)
STRONGER = "strengths beyond the authors'"


class LearnerAttack(Attack):
    """Trains once a rung; a subclass says what becomes of the recipe."""

    def apply(self, victim: Victim, context: Context) -> Iterator[Claim]:
        """Train on the published images by the changed recipe, from the same streams at each rung."""
        for strength in self.ladder:
            recipe = self._changed(context.recipe, strength, context.rng)
            yield Claim(strength, model=context.train(victim.images, recipe, name="learner"))

    @abstractmethod
    def _changed(self, recipe: Recipe, strength: float, rng: Rng) -> Recipe:
        """The recipe at one strength."""
