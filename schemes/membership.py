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

from abc import abstractmethod
from typing import Any, ClassVar, Literal

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
    Suspect,
    Verdict,
    replace,
)
from schemes._users import Share, contained, content, permutation_p_value, split_heldout

LARGEST = 1e6  # stands for a loss that is not finite


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

    share: Share = Field(0.01, description="the user's part of the training set, or a number of images")
    known: int = Field(100, ge=1, le=100_000, description="known members, and as many known non-members")
    decision: Literal["mean", "majority"] = Field(
        "mean", description="member if the mean loss is below the threshold, or if most images' losses are"
    )
    pool: int = Field(1000, ge=1, le=100_000, description="unseen images that the user's are compared with")
    decoys: int = Field(999, ge=9, le=99_999, description="random image sets that the user's is ranked among")


class ShadowParams(MembershipParams):
    """Hyper-parameters where the threshold comes from a shadow model."""

    epochs: int | None = Field(None, ge=1, le=10_000, description="of the shadow model; none: as many as the host's")


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
    tiny={"share": 0.05, "known": 50, "pool": 100, "decoys": 99},
)
MALT = Paper(
    "White-box vs Black-box: Bayes Optimal Strategies for Membership Inference",
    "A. Sablayrolles, M. Douze, C. Schmid, Y. Ollivier, H. Jegou",
    2019,
    "https://arxiv.org/abs/1908.11229",
)
SHADOW = {**CARD.tiny, "epochs": 1}


class _Membership(Scheme):
    """The user's claim that a network was trained on all of their images."""

    Params: ClassVar[type[MembershipParams]] = MembershipParams

    @property
    def share(self) -> float | int:
        """The user's part of the training set."""
        share: float | int = self.params.share
        return share

    @abstractmethod
    def threshold(self, suspect: Suspect, key: Key) -> float:
        """The loss below which an image is taken for a member."""

    @abstractmethod
    def learn(self, host: Host, others: ImageSet, rng: Rng) -> Key:
        """What the threshold comes from; `others` are known non-members."""

    def keygen(self, host: Host, rng: Rng) -> Key:
        """The user's images, unseen images to compare them with, and what the threshold comes from."""
        pool, rest = split_heldout(host, "membership-pool", self.params.pool, self.params.known)
        others = _some(rest[~contained(rest, host.share)], self.params.known, rng.torch("non-members"), "non-members")
        learned = self.learn(host, others, rng)
        tensors = {
            "images": host.share.images,
            "labels": host.share.labels,
            "pool": pool.images,
            "pool_labels": pool.labels,
            "unseen": ~contained(pool, host.share),
            **learned.tensors,
        }
        return Key(tensors, {"decoys": rng.child("decoys").seed, **learned.values})

    def verify(self, suspect: Suspect, key: Key) -> Verdict:
        """Is the user's mean loss below the threshold, and how small is it beside that of unseen images?

        The statistic is the threshold less the mean loss; the p-value does not depend on the threshold.
        """
        tensors = key.tensors
        own = losses_of(suspect, tensors["images"], tensors["labels"])
        pool = self._pool_losses(suspect, key)
        threshold = self.threshold(suspect, key)
        share, mean = _share_below(own, threshold), float(own.mean())
        generator = Rng("membership", str(key.values["decoys"])).torch()
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

    def _pool_losses(self, suspect: Suspect, key: Key) -> Tensor:
        """Losses of the pool without the user's own images; asked once for all users with the same pool."""
        pool, labels = key.tensors["pool"], key.tensors["pool_labels"]
        name = f"membership pool {content(pool, labels)}"
        losses: Tensor = suspect.memo(name, lambda: losses_of(suspect, pool, labels))
        return losses[key.tensors["unseen"].cpu()]


class _Known(_Membership):
    """The threshold comes from the suspect's losses of images that are known to be members, and of others."""

    @abstractmethod
    def rule(self, members: Tensor, others: Tensor) -> float:
        """The threshold, of the losses of members and of non-members."""

    def learn(self, host: Host, others: ImageSet, rng: Rng) -> Key:
        """Images of the training set that are not the user's, and unseen ones."""
        order = torch.randperm(len(host.images), generator=rng.torch("members"))
        first = host.images[order[: self.params.known + len(host.share)].to(host.images.labels.device)]
        members = first[~contained(first, host.share)]
        if len(members) < 1:
            raise ValueError(
                f"Expected training images besides the user's {len(host.share)}, but there are none: lower the share."
            )
        members = members[: self.params.known]
        return Key(
            {
                "members": members.images,
                "member_labels": members.labels,
                "others": others.images,
                "other_labels": others.labels,
            }
        )

    def threshold(self, suspect: Suspect, key: Key) -> float:
        """By the rule, on the suspect."""
        names = (("members", "member_labels"), ("others", "other_labels"))
        members, others = (losses_of(suspect, key.tensors[images], key.tensors[labels]) for images, labels in names)
        return self.rule(members, others)


class _Shadow(_Membership):
    """The threshold comes from a network that the user trains on the own images alone (scenario ii of section 5.5)."""

    Params = ShadowParams

    @abstractmethod
    def rule(self, members: Tensor, others: Tensor) -> float:
        """The threshold, of the shadow's losses of the user's images and of others."""

    def learn(self, host: Host, others: ImageSet, rng: Rng) -> Key:
        """The threshold by the rule, on the shadow."""
        network = host.train(host.share, rng.child("shadow"), epochs=self.params.epochs)
        shadow = Suspect("scores", model=network)
        members, unseen = (losses_of(shadow, part.images, part.labels) for part in (host.share, others))
        return Key(values={"threshold": self.rule(members, unseen), "shadow_loss": float(members.mean())})

    def threshold(self, suspect: Suspect, key: Key) -> float:
        """As the shadow gave it."""
        threshold: Any = key.values["threshold"]
        return float(threshold)


class MiaStd(_Known):
    """Member if the loss is below the mean loss of known members (Yeom et al.)."""

    card = CARD

    def rule(self, members: Tensor, others: Tensor) -> float:
        """The mean loss of members."""
        return mean_threshold(members)


class MiaPow(_Known):
    """Member if the loss is below the threshold that tells known members and non-members apart best (MALT)."""

    card = replace(CARD, name="mia-pow", title="Membership inference, best threshold", paper=MALT)

    def rule(self, members: Tensor, others: Tensor) -> float:
        """The best threshold."""
        return best_threshold(members, others)


class MiaStdShadow(_Shadow):
    """The mean loss of the user's own images under a shadow model trained on them."""

    card = replace(
        CARD, name="mia-std-shadow", title="Membership inference, shadow's loss", keygen_trains=True, tiny=SHADOW
    )

    def rule(self, members: Tensor, others: Tensor) -> float:
        """The mean loss of members."""
        return mean_threshold(members)


class MiaPowShadow(_Shadow):
    """The threshold that tells the user's own images from unseen ones best under a shadow model."""

    card = replace(
        MiaPow.card,
        name="mia-pow-shadow",
        title="Membership inference, shadow's best threshold",
        keygen_trains=True,
        tiny=SHADOW,
    )

    def rule(self, members: Tensor, others: Tensor) -> float:
        """The best threshold."""
        return best_threshold(members, others)


def losses_of(suspect: Suspect, images: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropies, N float64 on the CPU; what is not finite is `LARGEST`, as far from a member as can be."""
    losses = suspect.losses(images, labels).double().cpu()
    return losses.nan_to_num(LARGEST, LARGEST, LARGEST).clamp(max=LARGEST)


def _share_below(losses: Tensor, threshold: float) -> float:
    return float((losses < threshold).double().mean())


def _some(images: ImageSet, count: int, generator: torch.Generator, what: str) -> ImageSet:
    """At most `count` of the images, drawn at random."""
    if len(images) < 1:
        raise ValueError(f"Expected held-out images to take known {what} from, but none are left: lower `pool`.")
    order = torch.randperm(len(images), generator=generator)[:count]
    return images[order.to(images.labels.device)]
