"""Attempts with a colour space that is not the owner's, against Anti-Neuron Watermarking.

Zou, Gong, Wang, Anti-Neuron Watermarking: Protecting Personal Data Against Unauthorized Neural Networks, 2022,
section 5.4, https://arxiv.org/abs/2109.09023
Code: https://github.com/zzzucf/anti-neuron-watermarking

Where ours differs, and why:

* `lct-arbitrary` is the paper's: the owner's images and signature, but a random matrix, one at each rung, so that
  the rungs of one record are as many trials (the paper: 10 % of them match; 1 in 12 would by chance).
* `lct-forged` is ours: who claims may search. An adversary with images of his own, which nobody marked, tries many
  matrices and claims with the one under which some signature looks best. What he finds was not committed to before.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import torch
from torch import Tensor, nn

from bench.api import (
    Adversary,
    Attack,
    AttackCard,
    Attempt,
    Context,
    Field,
    ImageSet,
    Key,
    Params,
    Victim,
    colour_rotations,
    ladder_of,
    papers,
    pixels,
    recoloured,
    replace,
)

Rung = Annotated[float, Field(ge=1, le=100_000)]
TINY = 1e-12  # keeps the logarithm of a vanishing probability finite
SLOTS = torch.arange(0.0, 360.0, 30.0)
# What the owner shows the arbitrator; the colour space is the secret.
_TOLD = Adversary(
    knows=("scheme", "images", "labels", "signature", "pool", "pool_labels", "unseen", "places", "decoys")
)
CARD = AttackCard(
    name="lct-arbitrary",
    title="Arbitration with a random colour space",
    paper=papers.ANW,
    stage="evidence",
    adversary=_TOLD,
    unit="which matrix",
    carriers=("data",),
    schemes=("anw-hue", "anw-user-lct"),
    tiny={"ladder": [1.0, 2.0]},
)


class ForgedParams(Params):
    """How hard the forger tries."""

    ladder: tuple[Rung, ...] = Field((1.0, 10.0, 100.0), description="matrices tried")
    images: int = Field(50, ge=2, le=10_000, description="the forger's own images")


class ArbitraryLct(Attack):
    """The owner's claim, examined in somebody else's colour space."""

    card = CARD
    Params = ladder_of(*map(float, range(1, 13)), ge=1, le=100_000, description="one random matrix a rung")

    def apply(self, victim: Victim, context: Context) -> Iterator[Attempt]:
        """One random matrix a rung."""
        for number in self.ladder:
            space = _random_space(context.rng.torch("space", int(number)))
            yield Attempt(number, key=victim.forge(space=space.to(context.device)))


class ForgedLct(Attack):
    """The best of many colour spaces for images that nobody marked."""

    card = replace(
        CARD,
        name="lct-forged",
        title="A colour space chosen to fit",
        adversary=replace(_TOLD, access="scores", images=("own",)),
        unit="matrices tried",
        extensions=("the whole attack",),
        tiny={"ladder": [1.0, 2.0], "images": 8},
    )
    Params = ForgedParams

    def apply(self, victim: Victim, context: Context) -> Iterator[Attempt]:
        """Keep the matrix and signature of the widest gap to the next best signature."""
        own = context.data[: self.params.images]
        best: tuple[float, Key] | None = None
        tried = 0
        for strength in self.ladder:
            while tried < strength:
                space = _random_space(context.rng.torch("space", tried))
                gap, signature = _widest(victim, own, space)
                if best is None or gap > best[0]:
                    claimed = {"images": own.images, "labels": own.labels, "signature": signature}
                    best = gap, victim.forge(space=space.to(context.device), **claimed)
                tried += 1
            assert best is not None  # the ladder begins at 1
            yield Attempt(strength, key=best[1])


def _random_space(generator: torch.Generator) -> Tensor:
    """3 x 3 ~ U(-1, 1), as users draw theirs."""
    return torch.rand(3, 3, generator=generator, dtype=torch.float64) * 2 - 1


@torch.no_grad()
def _widest(victim: Victim, own: ImageSet, space: Tensor) -> tuple[float, float]:
    """How far the best signature (not 0) lies below the next best one, and which it is."""
    x = pixels(own.images)
    answers = (victim.query(recoloured(x, turn)) for turn in colour_rotations(space, SLOTS))
    losses = torch.stack([nn.functional.nll_loss(answer.clamp_min(TINY).log(), own.labels) for answer in answers])
    best = int(losses[1:].argmin()) + 1
    others = torch.cat([losses[:best], losses[best + 1 :]])
    return float(others.min() - losses[best]), float(SLOTS[best])
