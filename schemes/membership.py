"""Membership inference by a threshold on the loss: the baselines that Anti-Neuron Watermarking compares itself with.

MIA-std: Yeom, Giacomelli, Fredrikson, Jha, Privacy Risk in Machine Learning: Analyzing the Connection to Overfitting,
2018, https://arxiv.org/abs/1709.01604. No implementation by the authors is linked there.
MIA-pow (MALT): Sablayrolles, Douze, Schmid, Ollivier, Jegou, White-box vs Black-box: Bayes Optimal Strategies for
Membership Inference, 2019, https://arxiv.org/abs/1908.11229. No implementation by the authors is linked there.
As compared in Zou, Gong, Wang, Anti-Neuron Watermarking, 2022, section 5.5, https://arxiv.org/abs/2109.09023;
code: https://github.com/zzzucf/anti-neuron-watermarking

Where ours differs, and why:

* Losses are cross-entropies, that is with log-softmax; the comparison's notebook takes the negated logit for a loss.
* They are of unaugmented images in eval mode, on both sides of the threshold.
* The claim is one for all of a user's images: is their mean loss below the threshold? Both papers decide image by
  image, which stands in the details (`member_share`, and `pool_share` for unseen images).
* MIA-std says yes to about half of the users whose images were trained on: their mean loss is as likely above the
  mean of other members as below it. `decision=majority` counts images instead, which a skewed loss favours.
* MIA-pow tries every threshold between two known losses (the notebook: 1,001 steps around the mean).
* The papers give no p-value; ours does not use their thresholds. It ranks the user's mean loss among equally many
  images drawn at random from the user's and from unseen ones, which are all alike to a network that never saw either.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

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
)
from schemes._users import contained, content, finite, permutation_p_value, split_heldout


def mean_threshold(members: Tensor) -> float:
    """Yeom et al., adversary 2: the mean loss of known members."""
    return float(members.mean())


def best_threshold(members: Tensor, others: Tensor) -> float:
    """MALT's global threshold: the loss below which `member` is right most often, both sides counting alike.

    Candidates lie halfway between two neighbouring losses, and beyond the ends; the lowest of the best is taken.
    """
    losses = torch.cat([members, others]).unique()
    ends = torch.stack([losses[0] - 1, losses[-1] + 1])
    candidates = torch.cat([ends[:1], (losses[1:] + losses[:-1]) / 2, ends[1:]])
    hits = (members[None] < candidates[:, None]).double().mean(1)
    false = (others[None] < candidates[:, None]).double().mean(1)
    return float(candidates[int((hits - false).argmax())])


class MembershipParams(Params):
    """Hyper-parameters of all kinds."""

    share: Share = Field(Share(0.01), description="the user's part of the training set, or a number of images")
    threshold: Literal["mean", "best"] = Field(
        "mean", description="loss below which an image is a member: members' mean, or what tells both apart best"
    )
    source: Literal["known", "shadow"] = Field(
        "known", description="what the threshold comes from: known images, or a network trained on the user's own"
    )
    known: int = Field(100, ge=1, le=100_000, description="known members, and as many known non-members")
    epochs: int | None = Field(None, ge=1, le=10_000, description="of the shadow model; none: as many as the host's")
    decision: Literal["mean", "majority"] = Field(
        "mean", description="member if the mean loss is below the threshold, or if most images' losses are"
    )
    pool: int = Field(1000, ge=1, le=100_000, description="unseen images that the user's are compared with")
    decoys: int = Field(999, ge=9, le=99_999, description="random image sets that the user's is ranked among")


@dataclass(frozen=True)
class MembershipKey(Key):
    """A user's images, and what the threshold comes from.

    Attributes:
        images, labels: the user's, N x 3 x H x W uint8, and their classes.
        pool, pool_labels: images that nobody trained on; `unseen`: rows of these that are not the user's own.
        decoys: seed of the random image sets.
        members, member_labels, others, other_labels: known members and non-members (source `known`).
        threshold, shadow_loss: as the shadow gave them (source `shadow`).
    """

    images: Tensor
    labels: Tensor
    pool: Tensor
    pool_labels: Tensor
    unseen: Tensor
    decoys: int
    members: Tensor | None = None
    member_labels: Tensor | None = None
    others: Tensor | None = None
    other_labels: Tensor | None = None
    threshold: float | None = None
    shadow_loss: float | None = None


CARD = SchemeCard(
    name="mia-std",
    title="Membership inference, mean training loss",
    paper=Paper(
        "Privacy Risk in Machine Learning: Analyzing the Connection to Overfitting",
        "S. Yeom, I. Giacomelli, M. Fredrikson, S. Jha",
        2018,
        "https://arxiv.org/abs/1709.01604",
    ),
    carrier="none",
    access="scores",
    payload="zero-bit",
    situations=("post-hoc",),
    extensions=(
        "one decision for all of a user's images",
        "the p-value: an exact rank of the mean loss among images drawn from the user's and unseen ones",
    ),
    scales={
        "smoke": {"share": 0.05, "known": 50, "pool": 100, "decoys": 199},
        "quick": {"share": 0.05, "pool": 300, "decoys": 499},
        "small": {"share": 0.02},
    },
    tiny={"share": 0.05, "known": 50, "pool": 100, "decoys": 99},
)
MALT = Paper(
    "White-box vs Black-box: Bayes Optimal Strategies for Membership Inference",
    "A. Sablayrolles, M. Douze, C. Schmid, Y. Ollivier, H. Jegou",
    2019,
    "https://arxiv.org/abs/1908.11229",
)
_SHADOW: dict[str, Any] = {"keygen_trains": True, "tiny": {**CARD.tiny, "epochs": 1}}


class Membership(Scheme[MembershipKey]):
    """The user's claim that a network was trained on all of their images."""

    card = CARD
    Params = MembershipParams
    key_type = MembershipKey
    variants = (
        Variant("mia-pow", "Membership inference, best threshold", {"threshold": "best"}, {"paper": MALT}),
        Variant("mia-std-shadow", "Membership inference, shadow's loss", {"source": "shadow"}, _SHADOW),
        Variant(
            "mia-pow-shadow",
            "Membership inference, shadow's best threshold",
            {"threshold": "best", "source": "shadow"},
            {"paper": MALT, **_SHADOW},
        ),
    )

    def keygen(self, host: Host, rng: Rng) -> MembershipKey:
        """The user's images, unseen images to compare them with, and what the threshold comes from."""
        pool, rest = split_heldout(host, "membership-pool", self.params.pool, self.params.known)
        others = _some(rest[~contained(rest, host.share)], self.params.known, rng.torch("non-members"), "non-members")
        learn = self._known if self.params.source == "known" else self._shadow
        return MembershipKey(
            host.share.images,
            host.share.labels,
            pool.images,
            pool.labels,
            ~contained(pool, host.share),
            rng.child("decoys").seed,
            **learn(host, others, rng),
        )

    def verify(self, suspect: Suspect, key: MembershipKey) -> Verdict:
        """Is the user's mean loss below the threshold, and how small is it beside that of unseen images?

        The statistic is the threshold less the mean loss; the p-value does not depend on the threshold.
        """
        own = losses_of(suspect, key.images, key.labels)
        pool = self._pool_losses(suspect, key)
        threshold = self.threshold(suspect, key)
        share, mean = _share_below(own, threshold), float(own.mean())
        generator = Rng("membership", str(key.decoys)).torch()
        return Verdict(
            statistic=threshold - mean,
            p_value=permutation_p_value(-own, -pool, self.params.decoys, generator),
            matched=mean < threshold if self.params.decision == "mean" else share > 0.5,
            chance=0.5,
            details={
                "threshold": threshold,
                "mean_loss": mean,
                "member_share": share,
                "pool_mean_loss": float(pool.mean()) if len(pool) else None,
                "pool_share": _share_below(pool, threshold) if len(pool) else None,
            },
        )

    def threshold(self, suspect: Suspect, key: MembershipKey) -> float:
        """The loss below which an image is taken for a member: as the shadow gave it, or by the rule on the suspect."""
        if key.threshold is not None:
            return key.threshold
        known = (key.members, key.member_labels), (key.others, key.other_labels)
        members, others = (losses_of(suspect, x, y) for x, y in known if x is not None and y is not None)
        return self.rule(members, others)

    def rule(self, members: Tensor, others: Tensor) -> float:
        """The threshold, of the losses of members and of non-members."""
        return mean_threshold(members) if self.params.threshold == "mean" else best_threshold(members, others)

    def _known(self, host: Host, others: ImageSet, rng: Rng) -> dict[str, Any]:
        """Images of the training set that are not the user's, and unseen ones."""
        order = torch.randperm(len(host.images), generator=rng.torch("members"))
        first = host.images[order[: self.params.known + len(host.share)].to(host.images.labels.device)]
        members = first[~contained(first, host.share)]
        if len(members) < 1:
            raise ValueError(
                f"Expected training images besides the user's {len(host.share)}, but there are none: lower the share."
            )
        members = members[: self.params.known]
        return {
            "members": members.images,
            "member_labels": members.labels,
            "others": others.images,
            "other_labels": others.labels,
        }

    def _shadow(self, host: Host, others: ImageSet, rng: Rng) -> dict[str, Any]:
        """The threshold by the rule, on a network trained on the user's images alone (scenario ii of section 5.5)."""
        network = host.train(host.share, rng.child("shadow"), epochs=self.params.epochs)
        shadow = Suspect("scores", model=network)
        members, unseen = (losses_of(shadow, part.images, part.labels) for part in (host.share, others))
        return {"threshold": self.rule(members, unseen), "shadow_loss": float(members.mean())}

    def _pool_losses(self, suspect: Suspect, key: MembershipKey) -> Tensor:
        """Losses of the pool without the user's own images; asked once for all users with the same pool."""
        name = f"membership pool {content(key.pool, key.pool_labels)}"
        losses: Tensor = suspect.memo(name, lambda: losses_of(suspect, key.pool, key.pool_labels))
        return losses[key.unseen.cpu()]


def losses_of(suspect: Suspect, images: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropies, N float64 on the CPU, made finite."""
    return finite(suspect.losses(images, labels))


def _share_below(losses: Tensor, threshold: float) -> float:
    return float((losses < threshold).double().mean())


def _some(images: ImageSet, count: int, generator: torch.Generator, what: str) -> ImageSet:
    """At most `count` of the images, drawn at random."""
    if len(images) < 1:
        raise ValueError(f"Expected held-out images to take known {what} from, but none are left: lower `pool`.")
    order = torch.randperm(len(images), generator=generator)[:count]
    return images[order.to(images.labels.device)]
