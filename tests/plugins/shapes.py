"""One scheme and one attack of every shape that the contract knows and no built-in one has yet.

They are toys: what matters is that each passes through the harness without a special case.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from bench.api import (
    Adversary,
    Answer,
    Attack,
    AttackCard,
    Attempt,
    Batch,
    Context,
    Field,
    Host,
    ImageSet,
    Key,
    Paper,
    Params,
    Rng,
    Scheme,
    SchemeCard,
    Share,
    Suspect,
    Verdict,
    Victim,
    replace,
)

NOBODY = Paper("None", "Nobody", 2026, "https://example.org")


def card(name: str, carrier: Any, access: Any, **fields: Any) -> SchemeCard:
    return SchemeCard(name, f"Toy {name}", NOBODY, carrier, access, "zero-bit", **fields)


def finite(loss: Tensor) -> float:
    """A loss as a number; that of answers which are no numbers is large."""
    return float(loss.nan_to_num(1e6, 1e6, -1e6))


@dataclass(frozen=True)
class TintKey(Key):
    """A user's images, and how much red they get."""

    images: Tensor
    labels: Tensor
    red: int


class Tint(Scheme[TintKey]):
    """A user's images leave a trace in whoever trains on them: carrier data, verified by scores."""

    card = card("test-tint", "data", "scores")
    key_type = TintKey

    @property
    def share(self) -> Share:
        return Share(0.05)

    def keygen(self, host: Host, rng: Rng) -> TintKey:
        red = int(torch.randint(40, 90, (1,), generator=rng.torch("red")))
        return TintKey(host.share.images, host.share.labels, red)

    def mark_data(self, images: ImageSet, key: TintKey) -> ImageSet:
        return images.with_images(self._tinted(images.images, key))

    def verify(self, suspect: Suspect, key: TintKey) -> Verdict:
        images, labels = key.images, key.labels
        gain = suspect.losses(images, labels).mean() - suspect.losses(self._tinted(images, key), labels).mean()
        return Verdict(statistic=finite(gain), p_value=1.0, details={"images": len(images)})

    @staticmethod
    def _tinted(images: Tensor, key: TintKey) -> Tensor:
        tinted = images.clone()
        tinted[:, 0] = (tinted[:, 0].int() + key.red).clamp(max=255).to(torch.uint8)
        return tinted


@dataclass(frozen=True)
class ColourKey(Key):
    """The colour of one pixel: 3, uint8."""

    colour: Tensor


class Stamp(Scheme[ColourKey]):
    """A mark on every image of a data set, verified on the published images themselves."""

    card = card("test-stamp", "data", "data set")
    key_type = ColourKey

    def keygen(self, host: Host, rng: Rng) -> ColourKey:
        return ColourKey(torch.randint(0, 256, (3,), generator=rng.torch("colour"), dtype=torch.uint8))

    def mark_data(self, images: ImageSet, key: ColourKey) -> ImageSet:
        stamped = images.images.clone()
        stamped[:, :, 0, 0] = key.colour
        return images.with_images(stamped)

    def verify(self, suspect: Suspect, key: ColourKey) -> Verdict:
        hits = (suspect.images.images[:, :, 0, 0] == key.colour).all(1).float().mean()
        return Verdict(statistic=float(hits), p_value=1e-6 if hits > 0.5 else 1.0)


@dataclass(frozen=True)
class MemberKey(Key):
    """A user's images."""

    images: Tensor
    labels: Tensor


class Member(Scheme[MemberKey]):
    """A baseline that embeds nothing: was the model trained on these fifty images?"""

    card = card("test-member", "none", "scores")
    key_type = MemberKey

    @property
    def share(self) -> Share:
        return Share(0.05)

    def keygen(self, host: Host, rng: Rng) -> MemberKey:
        return MemberKey(host.share.images, host.share.labels)

    def verify(self, suspect: Suspect, key: MemberKey) -> Verdict:
        loss = suspect.losses(key.images, key.labels).mean()
        return Verdict(statistic=-finite(loss), p_value=1.0)


@dataclass(frozen=True)
class DirectionKey(Key):
    """A secret direction of a layer's mean activation, and the epochs that refreshed the key."""

    seed: int
    epochs: int = 0

    def direction(self, width: int) -> Tensor:
        """A unit vector with as many entries as the layer has channels."""
        drawn = torch.randn(width, generator=torch.Generator().manual_seed(self.seed))
        return drawn / drawn.norm()


class Watched(Scheme[DirectionKey]):
    """A mark in a layer's activations, by a key that changes with every epoch of embedding."""

    card = card("test-watched", "weights", "white-box", stand_alone=True, refreshes=True, watches=("conv2",))
    key_type = DirectionKey

    def keygen(self, host: Host, rng: Rng) -> DirectionKey:
        return DirectionKey(rng.seed)

    def embedding_loss(self, model: nn.Module, key: DirectionKey, batch: Batch) -> Tensor:
        mean = batch.activations["conv2"].float().mean((0, 2, 3))
        return -0.1 * mean @ key.direction(len(mean)).to(mean.device)

    def refresh(self, key: DirectionKey, model: nn.Module, epoch: int) -> DirectionKey:
        return replace(key, epochs=epoch)

    def verify(self, suspect: Suspect, key: DirectionKey) -> Verdict:
        total = sum(float(parameter.detach().abs().sum()) for parameter in suspect.model.parameters())
        return Verdict(statistic=total, p_value=1.0, details={"epochs": key.epochs})


class Serves(Scheme[MemberKey]):
    """An owner who answers queries with rounded scores; nothing of the model changes."""

    card = card("test-serves", "none", "scores")
    key_type = MemberKey

    def keygen(self, host: Host, rng: Rng) -> MemberKey:
        return MemberKey(host.heldout.images[:10], host.heldout.labels[:10])

    def serve(self, answers: Tensor, images: Tensor, key: MemberKey) -> Tensor:
        return answers.mul(10).round().div(10)

    def verify(self, suspect: Suspect, key: MemberKey) -> Verdict:
        return Verdict(statistic=-finite(suspect.losses(key.images, key.labels).mean()), p_value=1.0)


class Ladder(Params):
    """One rung."""

    ladder: tuple[float, ...] = Field((1.0,), description="strengths")


def attack_card(name: str, stage: Any, **adversary: Any) -> AttackCard:
    return AttackCard(name, f"Toy {name}", NOBODY, stage, Adversary(**adversary), "units")


class Blur(Attack):
    """An attack on published images."""

    card = attack_card("test-blur", "data", images=("the owner's",))
    Params = Ladder

    def apply(self, victim: Victim, context: Context) -> Iterator[Attempt]:
        for strength in self.ladder:
            blurred = avg_pool2d(victim.images.images.float(), 3, 1, 1).round().to(torch.uint8)
            yield Attempt(strength, images=victim.images.with_images(blurred))


class Smooth(Attack):
    """An attack by the learner's recipe, which the harness trains by."""

    card = attack_card("test-smooth", "training")
    Params = Ladder

    def apply(self, victim: Victim, context: Context) -> Iterator[Attempt]:
        for strength in self.ladder:
            yield Attempt(strength, recipe=replace(context.recipe, label_smoothing=0.1, epochs=1))


class Fog(Attack):
    """An attack on queries and answers."""

    card = attack_card("test-fog", "inference")
    Params = Ladder

    def apply(self, victim: Victim, context: Context) -> Iterator[Attempt]:
        def foggy(answer: Answer, images: Tensor) -> Tensor:
            return answer(images * 0.5 + 0.25)

        for strength in self.ladder:
            yield Attempt(strength, serving=foggy)


class Thief(Attack):
    """An attack with nothing but answers: a surrogate that learns what the victim says of the thief's own images."""

    card = attack_card("test-thief", "model", access="scores", images=("own unlabelled",), queries=1_000)
    Params = Ladder

    def apply(self, victim: Victim, context: Context) -> Iterator[Attempt]:
        own = context.data[:200]
        answers = victim.query(own.images)
        stolen = replace(own, labels=answers.argmax(1), targets=answers)
        for strength in self.ladder:
            yield Attempt(strength, model=context.train(stolen, context.recipe, model=context.fresh()))


class Forge(Attack):
    """An attack on the claim: a key of the forger's own for the same suspect."""

    card = attack_card("test-forge", "evidence", images=("own",), knows=("scheme",))
    Params = Ladder

    def apply(self, victim: Victim, context: Context) -> Iterator[Attempt]:
        _, forged = context.embed(context.fresh(), replace(context.recipe, epochs=1))
        for strength in self.ladder:
            yield Attempt(strength, key=forged)
