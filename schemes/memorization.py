"""Memorisation value of a user's images: how much more often is a network right that was trained with them?

What Neural Networks Memorize and Why: Discovering the Long Tail via Influence Estimation, Feldman, Zhang, 2020,
https://arxiv.org/abs/2008.03703 (section 1.1, Eq. 1). Code: https://pluskid.github.io/influence-memorization/
As measured in Zou, Gong, Wang, Anti-Neuron Watermarking, 2022, section 5.6, https://arxiv.org/abs/2109.09023: 26.8 %
for a user's images, 34.8 % once their hue was rotated.

Where ours differs, and why:

* Feldman and Zhang leave out one image at a time, estimated by thousands of networks trained on random subsets; here
  all of a user's images are left out at once, as in section 5.6, by few networks (`models`).
* The suspect is the one network that was trained with them; theirs is a mean over such networks too.
* Networks without the user's images train on all others, by the host's recipe; section 5.6 does not say.
* Neither paper gives a p-value. Ours asks by how much the suspect is surer of the right class than the networks
  without them (`scores`; correctness alone ties too often), and ranks the mean over the user's images among equally
  many drawn at random from the user's and from unseen ones: to a network that saw neither, all are alike.
* A network that gives all images of a class the same answer shows nothing of what it saw: p is 1. Without this, the
  references' answers alone would be compared.
* `memorization-hue`: every user rotates by the same 60 degrees, and unseen images are rotated too before comparing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bench.api import (
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
    Variant,
    Verdict,
    rotate_hue,
)
from schemes._users import contained, content, permutation_p_value, split_heldout

SAME = 1e-6  # probabilities of float32 that differ by less are one answer
RANKED = "the p-value: an exact rank of the gain in confidence among images drawn from the user's and unseen ones"
CARD = SchemeCard(
    name="memorization",
    title="Memorisation value",
    paper=Paper(
        "What Neural Networks Memorize and Why: Discovering the Long Tail via Influence Estimation",
        "V. Feldman, C. Zhang",
        2020,
        "https://arxiv.org/abs/2008.03703",
        "https://pluskid.github.io/influence-memorization/",
    ),
    carrier="none",
    access="scores",
    payload="zero-bit",
    situations=("post-hoc",),
    keygen_trains=True,
    extensions=("all of a user's images at once, as in Anti-Neuron Watermarking", RANKED),
    scales={
        "smoke": {"share": 0.05, "models": 1, "epochs": 1, "pool": 100},
        "quick": {"share": 0.05, "models": 1, "epochs": 4, "pool": 300, "decoys": 499},
        # Networks that are judged on images which they never saw need not memorise: fewer epochs do.
        "small": {"share": 0.02, "models": 1, "epochs": 8},
    },
    tiny={"share": 0.1, "models": 1, "epochs": 1, "pool": 100, "decoys": 99},
)


class MemorizationParams(Params):
    """Hyper-parameters of both."""

    share: Share = Field(Share(0.01), description="the user's part of the training set, or a number of images")
    models: int = Field(2, ge=1, le=100, description="networks trained without the user's images")
    epochs: int | None = Field(None, ge=1, le=10_000, description="of these networks; none: as many as the host's")
    pool: int = Field(1000, ge=1, le=100_000, description="unseen images that the user's are compared with")
    decoys: int = Field(999, ge=9, le=99_999, description="random image sets that the user's is ranked among")
    signature: float = Field(0.0, ge=0, lt=360, description="rotation of the user's hue, degrees; 0 marks nothing")


@dataclass(frozen=True)
class MemorizationKey(Key):
    """A user's images as published, and what networks without them say.

    Attributes:
        images, labels: N x 3 x H x W uint8, and N.
        reference: N x 2 float64: probability of the true class, and whether it is the answer.
        pool, pool_labels, pool_reference: the same of images that nobody trained on.
        unseen: M bool: rows of the pool that are not the user's own.
        decoys: seed of the random image sets.
    """

    images: Tensor
    labels: Tensor
    reference: Tensor
    pool: Tensor
    pool_labels: Tensor
    pool_reference: Tensor
    unseen: Tensor
    decoys: int


class Memorization(Scheme[MemorizationKey]):
    """The memorisation value of the user's images as they are, or with rotated hue."""

    card = CARD
    Params = MemorizationParams
    key_type = MemorizationKey
    variants = (
        Variant(
            "memorization-hue",
            "Memorisation value of images with rotated hue",
            {"signature": 60.0},
            {
                "carrier": "data",
                "situations": ("train",),
                "extensions": (*CARD.extensions, "unseen images are rotated as well"),
            },
        ),
    )

    def shown(self, images: Tensor) -> Tensor:
        """N x C x H x W uint8 images as the user publishes them: with their hue rotated in YIQ."""
        return rotate_hue(images, self.params.signature) if self.params.signature else images

    def mark_data(self, images: ImageSet, key: MemorizationKey) -> ImageSet:
        """The user's images with rotated hue (Anti-Neuron Watermarking, section 4.1)."""
        return images.with_images(self.shown(images.images)) if self.params.signature else images

    def keygen(self, host: Host, rng: Rng) -> MemorizationKey:
        """Train networks without the user's images, and note their answers to these and to unseen ones."""
        own, (pool, _) = host.share, split_heldout(host, "membership-pool", self.params.pool)
        others = host.images[~contained(host.images, own)]
        if len(others) < 2:
            raise ValueError(
                f"Expected a training set of more than the user's {len(own)} images, but it has {len(host.images)}: "
                "lower the share."
            )
        unseen = ~contained(pool, own)
        own, pool = (part.with_images(self.shown(part.images)) for part in (own, pool))
        answers = [
            self._reference(host, others, rng.child("reference", i), (own, pool)) for i in range(self.params.models)
        ]
        own_reference, pool_reference = (torch.stack(part).mean(0) for part in zip(*answers, strict=True))
        return MemorizationKey(
            own.images, own.labels, own_reference, pool.images, pool.labels, pool_reference, unseen,
            rng.child("decoys").seed,
        )  # fmt: skip

    def verify(self, suspect: Suspect, key: MemorizationKey) -> Verdict:
        """The suspect's accuracy on the user's images less that of networks without them, -1 to 1."""
        pool = suspect.memo(
            f"memorization pool {content(key.pool, key.pool_labels)}",
            lambda: answers_of(suspect, key.pool, key.pool_labels),
        )
        own = answers_of(suspect, key.images, key.labels)
        labels = torch.cat([key.labels, key.pool_labels]).cpu()
        gain, unseen = own - key.reference.cpu(), key.unseen.cpu()
        pool_gain = (pool - key.pool_reference.cpu())[unseen]
        generator = Rng("memorization", str(key.decoys)).torch()
        details: dict[str, Any] = {
            "accuracy": float(own[:, 1].mean()),
            "reference_accuracy": float(key.reference[:, 1].mean()),
            "confidence_gain": float(gain[:, 0].mean()),
        }
        if len(pool_gain):
            details["pool_memorisation"] = float(pool_gain[:, 1].mean())
            details["pool_confidence_gain"] = float(pool_gain[:, 0].mean())
        p_value = permutation_p_value(gain[:, 0], pool_gain[:, 0], self.params.decoys, generator)
        if not tells_apart(torch.cat([own, pool])[:, 0], labels):
            p_value = 1.0
        return Verdict(statistic=float(gain[:, 1].mean()), p_value=p_value, details=details)

    def _reference(
        self, host: Host, others: ImageSet, rng: Rng, parts: tuple[ImageSet, ImageSet]
    ) -> tuple[Tensor, Tensor]:
        """Answers of one network trained without the user's images."""
        network = Suspect("scores", model=host.train(others, rng, epochs=self.params.epochs))
        own, pool = (answers_of(network, part.images, part.labels) for part in parts)
        return own, pool


def tells_apart(confidence: Tensor, labels: Tensor) -> bool:
    """Whether two images of one class get different answers; if none do, the network remembers no image."""
    groups = (confidence[labels == label] for label in labels.unique())
    return any(float(group.max() - group.min()) > SAME for group in groups)


def answers_of(suspect: Suspect, images: Tensor, labels: Tensor) -> Tensor:
    """Probability of the true class, and whether it is the answer: N x 2 float64 on the CPU.

    A network whose answer is not finite gives the true class no probability, and is wrong.
    """
    log_probs, labels = suspect.log_probs(images).double().cpu(), labels.cpu()
    confidence = log_probs.gather(1, labels[:, None]).squeeze(1).exp().nan_to_num(0.0, 0.0, 0.0)
    correct = (log_probs.argmax(1) == labels) & log_probs.isfinite().any(1)
    return torch.stack([confidence, correct.double()], 1)
