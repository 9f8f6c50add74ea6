"""Attempts with a colour space that is not the owner's, against Anti-Neuron Watermarking.

Zou, Gong, Wang, Anti-Neuron Watermarking: Protecting Personal Data Against Unauthorized Neural Networks, 2022,
section 5.4, https://arxiv.org/abs/2109.09023
Code: https://github.com/zzzucf/anti-neuron-watermarking

Where ours differs, and why:

* `lct-arbitrary` is the paper's: the owner's images and signature, but a random matrix, one at each rung, so that
  the rungs of one record are as many trials (the paper: 10 % of them match; 1 in 12 would by chance).
* `lct-forged` is ours: who claims may search. An adversary with images of his own, which nobody marked, tries many
  matrices and claims with the one under which some signature looks best. What he finds was not committed to before.
* `lct-optimised` is ours, too: a matrix has nine free entries, and whoever has the network can follow their gradient.
  The claim is ranked among random sets of the forger's and of unseen images, so he does not ask for a signature that
  looks good on all images, but for one that looks better on his own than on those.
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
SMALL = 1e-6  # keeps the ratio of two vanishing losses finite, as the scheme does
SLOTS = torch.arange(0.0, 360.0, 30.0)
_ONE = {"signatures": None, "parts": None}  # a forger claims one for all images
# What the owner shows the arbitrator; the colour space is the secret.
_TOLD = Adversary(
    knows=(
        "scheme", "images", "labels", "signature", "signatures", "parts", "pool", "pool_labels", "unseen", "places",
        "decoys",
    )
)  # fmt: skip
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
        committed=False,
        tiny={"ladder": [1.0, 2.0], "images": 8},
    )
    Params = ForgedParams

    def apply(self, victim: Victim, context: Context) -> Iterator[Attempt]:
        """Keep the matrix and signature whose loss lies farthest below that without one."""
        own = context.data[: self.params.images]
        best: tuple[float, Key] | None = None
        tried = 0
        for strength in self.ladder:
            while tried < strength:
                space = _random_space(context.rng.torch("space", tried))
                gap, signature = _widest(victim, own, space)
                if best is None or gap > best[0]:
                    claimed = {"images": own.images, "labels": own.labels, "signature": signature, **_ONE}
                    best = gap, victim.forge(space=space.to(context.device), **claimed)
                tried += 1
            assert best is not None  # the ladder begins at 1
            yield Attempt(strength, key=best[1])


class OptimisedParams(Params):
    """How long the forger descends, and from how many matrices."""

    ladder: tuple[Annotated[int, Field(ge=1, le=100_000)], ...] = Field(
        (10, 100, 300), description="steps of Adam on the matrix"
    )
    images: int = Field(50, ge=2, le=10_000, description="the forger's own images")
    starts: int = Field(4, ge=1, le=1000, description="random matrices that the descent begins at")
    lr: float = Field(0.02, gt=0, le=1, description="learning rate, for entries within -1 and 1")


class OptimisedLct(Attack):
    """A colour space descended to by gradients, for images that nobody marked."""

    card = replace(
        CARD,
        name="lct-optimised",
        title="A colour space optimised to fit",
        adversary=replace(_TOLD, access="white-box", images=("own",)),
        unit="steps",
        committed=False,
        extensions=("the whole attack",),
        scales={
            "smoke": {"ladder": [2], "images": 8, "starts": 1},
            "quick": {"ladder": [5, 20], "images": 30, "starts": 2},
        },
        tiny={"ladder": [1, 2], "images": 6, "starts": 1},
    )
    Params = OptimisedParams

    def apply(self, victim: Victim, context: Context) -> Iterator[Attempt]:
        """At each rung, the best matrix and signature that any start has come to."""
        model, own = victim.model(), context.data[: self.params.images].to(context.device)
        pool = ImageSet(victim.key.pool, victim.key.pool_labels).to(context.device)
        begun = [_random_space(context.rng.torch("space", start)) for start in range(self.params.starts)]
        spaces = torch.stack(begun).to(context.device).requires_grad_()
        optimizer = torch.optim.Adam([spaces], lr=self.params.lr)
        signatures = [int(_advantages(model, own, pool, space.detach()).argmax()) + 1 for space in spaces]
        best: tuple[float, Tensor, int] | None = None
        done, rows = 0, context.rng.torch("pool")
        for strength in map(int, self.ladder):
            for _ in range(done, strength):
                unseen = pool[torch.randperm(len(pool), generator=rows)[: len(own)].to(context.device)]
                gains = [
                    _advantages(model, own, unseen, space)[signature - 1]
                    for space, signature in zip(spaces, signatures, strict=True)
                ]
                (gradient,) = torch.autograd.grad(-torch.stack(gains).sum(), spaces)
                spaces.grad = gradient.nan_to_num(0.0)
                optimizer.step()
            done = strength
            for space in spaces.detach().clone():
                found = _advantages(model, own, pool, space).detach()
                best = _better(best, (float(found.max()), space, int(found.argmax()) + 1))
            assert best is not None  # there is at least one start
            claimed = {"images": own.images, "labels": own.labels, "signature": float(SLOTS[best[2]]), **_ONE}
            yield Attempt(strength, key=victim.forge(space=best[1], **claimed))


def _better(one: tuple[float, Tensor, int] | None, other: tuple[float, Tensor, int]) -> tuple[float, Tensor, int]:
    return other if one is None or other[0] > one[0] else one


def _advantages(model: nn.Module, own: ImageSet, unseen: ImageSet, space: Tensor) -> Tensor:
    """For each signature but none: by how much its gap on the own images exceeds that on the unseen ones, or 0.

    A gap is the log of the mean loss without a signature over that at this one, as the scheme ranks it.
    """
    ours, theirs = _gaps(model, own, space), _gaps(model, unseen, space)
    return ours - theirs.clamp_min(0)


def _gaps(model: nn.Module, images: ImageSet, space: Tensor) -> Tensor:
    """Of all signatures but none; differentiable in the matrix."""
    x = pixels(images.images)
    turned = torch.cat([recoloured(x, turn) for turn in colour_rotations(space, SLOTS.to(x.device))])
    losses = nn.functional.cross_entropy(model(turned).float(), images.labels.repeat(len(SLOTS)), reduction="none")
    logs = (losses.view(len(SLOTS), -1).mean(1) + SMALL).log()
    return logs[0] - logs[1:]


def _random_space(generator: torch.Generator) -> Tensor:
    """3 x 3 ~ U(-1, 1), as users draw theirs."""
    return torch.rand(3, 3, generator=generator, dtype=torch.float64) * 2 - 1


@torch.no_grad()
def _widest(victim: Victim, own: ImageSet, space: Tensor) -> tuple[float, float]:
    """How far the best signature lies below none, and which it is."""
    x = pixels(own.images)
    answers = (victim.query(recoloured(x, turn)) for turn in colour_rotations(space, SLOTS))
    losses = torch.stack([nn.functional.nll_loss(answer.clamp_min(TINY).log(), own.labels) for answer in answers])
    best = int(losses[1:].argmin()) + 1
    return float(losses[0] - losses[best]), float(SLOTS[best])
