"""No attack: what a scheme says of a marked model or data set that nobody touched.

For comparisons of marks alone (fidelity, effectiveness, capacity), without the cost of an attack.
Lukas, Jiang, Li, Kerschbaum, SoK: How Robust is Deep Neural Network Image Classification Watermarking?, 2022,
https://arxiv.org/abs/2108.04974, compare every attack with it; there is nothing in which ours could differ.
"""

from __future__ import annotations

from collections.abc import Iterator

from bench.api import Adversary, Attack, AttackCard, Attempt, Context, Victim, papers


class NoAttack(Attack):
    """The marked model as it is."""

    card = AttackCard(name="none", title="No attack", paper=papers.SOK, stage="none", adversary=Adversary(), unit="")

    @property
    def ladder(self) -> tuple[float, ...]:
        """There are no strengths."""
        return ()

    def apply(self, victim: Victim, context: Context) -> Iterator[Attempt]:
        """Yield nothing."""
        yield from ()
