"""One scheme and one attack of every shape that the contract knows and no built-in one has yet.

They are toys: what matters is that each passes through the harness without a special case.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from bench.api import (
    Adversary,
    Answer,
    Attack,
    AttackCard,
    Attempt,
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


def card(name: str, carrier: Any, access: Any) -> SchemeCard:
    return SchemeCard(name, f"Toy {name}", NOBODY, carrier, access, "zero-bit")


@dataclass(frozen=True)
class ImagesKey(Key):
    """A user's images and their classes."""

    images: Tensor
    labels: Tensor


@dataclass(frozen=True)
class TintKey(ImagesKey):
    """And how much redder they are when published."""

    red: int


@dataclass(frozen=True)
class ColourKey(Key):
    """A colour, 3 uint8, which the owner tells."""

    colour: Tensor
    public = ("colour",)


class Tint(Scheme[TintKey]):
    """A user's images leave a trace in whoever trains on them: carrier data, verified by scores."""

    card = card("test-tint", "data", "scores")
    key_type = TintKey

    @property
    def share(self) -> Share:
        return Share(0.1)

    def keygen(self, host: Host, rng: Rng) -> TintKey:
        red = int(torch.randint(40, 90, (1,), generator=rng.torch("red")))
        return TintKey(host.share.images, host.share.labels, red)

    def mark_data(self, images: ImageSet, key: TintKey) -> ImageSet:
        return images.with_images(self._tinted(images.images, key))

    def verify(self, suspect: Suspect, key: TintKey) -> Verdict:
        images, labels = key.images, key.labels
        gain = suspect.losses(images, labels).mean() - suspect.losses(self._tinted(images, key), labels).mean()
        return Verdict(statistic=float(gain), p_value=1.0, details={"images": len(images)})

    @staticmethod
    def _tinted(images: Tensor, key: TintKey) -> Tensor:
        tinted = images.clone()
        tinted[:, 0] = (tinted[:, 0].int() + key.red).clamp(max=255).to(torch.uint8)
        return tinted


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


class Member(Scheme[ImagesKey]):
    """A baseline that embeds nothing: was the model trained on these fifty images?"""

    card = card("test-member", "none", "scores")
    key_type = ImagesKey

    @property
    def share(self) -> Share:
        return Share(50)

    def keygen(self, host: Host, rng: Rng) -> ImagesKey:
        return ImagesKey(host.share.images, host.share.labels)

    def verify(self, suspect: Suspect, key: ImagesKey) -> Verdict:
        loss = suspect.losses(key.images, key.labels).mean()
        return Verdict(statistic=-float(loss), p_value=1.0)


class _Toy(Attack):
    """A ladder of one or two rungs."""

    class Params(Params):
        """One parameter."""

        ladder: tuple[float, ...] = Field((1.0,), description="strengths")


def attack_card(name: str, stage: Any, **adversary: Any) -> AttackCard:
    return AttackCard(name, f"Toy {name}", NOBODY, stage, Adversary(**adversary), "units")


class Blur(_Toy):
    """An attack on published images."""

    card = attack_card("test-blur", "data", images=("the owner's",))

    def apply(self, victim: Victim, context: Context) -> Iterator[Attempt]:
        for strength in self.ladder:
            blurred = avg_pool2d(victim.images.images.float(), 3, 1, 1).round().to(torch.uint8)
            yield Attempt(strength, images=victim.images.with_images(blurred))


class Smooth(_Toy):
    """An attack by the learner's recipe, judged after each epoch of one training."""

    card = attack_card("test-smooth", "training", images=("the owner's",))

    def apply(self, victim: Victim, context: Context) -> Iterator[Attempt]:
        recipe = replace(context.recipe, label_smoothing=0.1, epochs=len(self.ladder))
        for strength, model in zip(self.ladder, context.epochs(victim.images, recipe), strict=True):
            yield Attempt(strength, model=model)


def fog(answer: Answer, images: Tensor) -> Tensor:
    """The answer to paler images."""
    return answer(images * 0.5 + 0.25)


class Fog(_Toy):
    """An attack on queries."""

    card = attack_card("test-fog", "inference")

    def apply(self, victim: Victim, context: Context) -> Iterator[Attempt]:
        for strength in self.ladder:
            yield Attempt(strength, serving=fog)


class Forge(_Toy):
    """An attack on the claim: another key for the same suspect."""

    card = attack_card("test-forge", "evidence", knows=("colour",))

    def apply(self, victim: Victim, context: Context) -> Iterator[Attempt]:
        for strength in self.ladder:
            yield Attempt(strength, key=victim.forge(colour=victim.key.colour.flip(0)))
