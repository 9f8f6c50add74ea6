"""One scheme and one attack of every shape that the contract knows and no built-in one has yet.

They are toys: what matters is that each passes through the harness without a special case.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from bench.api import (
    Attack,
    AttackCard,
    Claim,
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
    Suspect,
    Verdict,
    Victim,
    replace,
)

NOBODY = Paper("None", "Nobody", 2026, "https://example.org")


def card(name: str, carrier: Any, access: Any) -> SchemeCard:
    return SchemeCard(name, f"Toy {name}", NOBODY, carrier, access, "zero-bit")


class Tint(Scheme):
    """A user's images leave a trace in whoever trains on them: carrier data, verified by scores."""

    card = card("test-tint", "data", "scores")

    @property
    def share(self) -> float:
        return 0.1

    def keygen(self, host: Host, rng: Rng) -> Key:
        red = int(torch.randint(40, 90, (1,), generator=rng.torch("red")))
        return Key({"images": host.share.images, "labels": host.share.labels}, {"red": red})

    def mark_data(self, images: ImageSet, key: Key) -> ImageSet:
        return images.with_images(self._tinted(images.images, key))

    def verify(self, suspect: Suspect, key: Key) -> Verdict:
        images, labels = key.tensors["images"], key.tensors["labels"]
        gain = suspect.losses(images, labels).mean() - suspect.losses(self._tinted(images, key), labels).mean()
        return Verdict(statistic=float(gain), p_value=1.0, details={"images": len(images)})

    @staticmethod
    def _tinted(images: Tensor, key: Key) -> Tensor:
        tinted = images.clone()
        tinted[:, 0] = (tinted[:, 0].int() + int(str(key.values["red"]))).clamp(max=255).to(torch.uint8)
        return tinted


class Stamp(Scheme):
    """A mark on every image of a data set, verified on the published images themselves."""

    card = card("test-stamp", "data", "data set")

    def keygen(self, host: Host, rng: Rng) -> Key:
        return Key({"colour": torch.randint(0, 256, (3,), generator=rng.torch("colour"), dtype=torch.uint8)})

    def mark_data(self, images: ImageSet, key: Key) -> ImageSet:
        stamped = images.images.clone()
        stamped[:, :, 0, 0] = key.tensors["colour"]
        return images.with_images(stamped)

    def verify(self, suspect: Suspect, key: Key) -> Verdict:
        hits = (suspect.images.images[:, :, 0, 0] == key.tensors["colour"]).all(1).float().mean()
        return Verdict(statistic=float(hits), p_value=1e-6 if hits > 0.5 else 1.0)


class Member(Scheme):
    """A baseline that embeds nothing: was the model trained on these fifty images?"""

    card = card("test-member", "none", "scores")

    @property
    def share(self) -> int:
        return 50

    def keygen(self, host: Host, rng: Rng) -> Key:
        return Key({"images": host.share.images, "labels": host.share.labels})

    def verify(self, suspect: Suspect, key: Key) -> Verdict:
        loss = suspect.losses(key.tensors["images"], key.tensors["labels"]).mean()
        return Verdict(statistic=-float(loss), p_value=1.0)


class _Toy(Attack):
    """A ladder of one or two rungs."""

    class Params(Params):
        """One parameter."""

        ladder: tuple[float, ...] = Field((1.0,), description="strengths")


def attack_card(name: str, stage: Any) -> AttackCard:
    return AttackCard(name, f"Toy {name}", NOBODY, stage, "nothing", "units")


class Blur(_Toy):
    """An attack on published images."""

    card = attack_card("test-blur", "data")

    def apply(self, victim: Victim, context: Context) -> Iterator[Claim]:
        for strength in self.ladder:
            blurred = avg_pool2d(victim.images.images.float(), 3, 1, 1).round().to(torch.uint8)
            yield Claim(strength, images=victim.images.with_images(blurred))


class Smooth(_Toy):
    """An attack by the learner's recipe, judged after each epoch of one training."""

    card = attack_card("test-smooth", "training")

    def apply(self, victim: Victim, context: Context) -> Iterator[Claim]:
        recipe = replace(context.recipe, label_smoothing=0.1, epochs=len(self.ladder))
        for strength, model in zip(self.ladder, context.epochs(victim.images, recipe), strict=True):
            yield Claim(strength, model=model)


class Fog(_Toy):
    """An attack on queries."""

    card = attack_card("test-fog", "inference")

    def apply(self, victim: Victim, context: Context) -> Iterator[Claim]:
        for strength in self.ladder:
            yield Claim(strength, model=victim.model(), transform=lambda x: x * 0.5 + 0.25)


class Forge(_Toy):
    """An attack on the claim: another key for the same suspect."""

    card = attack_card("test-forge", "evidence")

    def apply(self, victim: Victim, context: Context) -> Iterator[Claim]:
        for strength in self.ladder:
            forged = {name: tensor.flip(0) for name, tensor in victim.key.tensors.items()}
            yield Claim(strength, key=Key(forged, victim.key.values))
