"""Forged claims: keys made so that a network which never saw them bears them out, and keys of others replayed.

False claims by adversarial examples: Jian Liu, Rui Zhang, Sebastian Szyller, Kui Ren, N. Asokan, False Claims against
Model Ownership Resolution, USENIX Security 2024. https://arxiv.org/abs/2304.06607; authors' implementation:
https://github.com/ssg-research/Falseclaims
The scheme that bits and seeds are forged for: Yusuke Uchida et al., Embedding Watermarks into Deep Neural Networks,
ICMR 2017. https://arxiv.org/abs/1701.04082

Where ours differs, and why:

* The accused network is one that the harness trained from scratch on the adversary's images: nobody marked it.
* Every field of a forged key is the forger's own: a fresh key of the scheme, of which the forged part is replaced.
* The triggers are computed for the p-value of Zhang et al.'s schemes as it stands here: triggers have to call the
  target while they fade into their sources, so the loss is averaged over fading, too. Liu et al. look at the trigger
  accuracy, and step with other, more transferable methods besides.
* `forged-seeds` keeps to a commitment: its keys are drawn as honest ones are, and could all have been published before.
  What it shows is that a claim must tell of how many keys it is the best.
* `replayed` changes nothing: it shows that the statistic belongs to the key, not to the person. Only a commitment with
  a name tells an owner from whoever was shown the key.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.api import (
    Adversary,
    Attack,
    AttackCard,
    Attempt,
    Context,
    Field,
    Key,
    Paper,
    Params,
    Victim,
    ladder_of,
    papers,
    pixels,
    replace,
)

FALSE_CLAIMS = Paper(
    title="False Claims against Model Ownership Resolution",
    authors="J. Liu, R. Zhang, S. Szyller, K. Ren, N. Asokan",
    year=2024,
    link="https://arxiv.org/abs/2304.06607",
    code="https://github.com/ssg-research/Falseclaims",
)
CARD = AttackCard(
    name="forged-bits",
    title="A payload that is read off an innocent network",
    paper=papers.UCHIDA,
    stage="evidence",
    adversary=Adversary("white-box", images=("own",), knows=("scheme",)),
    unit="% of bits",
    carriers=("weights",),
    schemes=("uchida-*",),
    committed=False,
    extensions=("the whole attack",),
    scales={"quick": {"ladder": [25.0, 100.0]}, "smoke": {"ladder": [100.0]}},
    tiny={"ladder": [100.0]},
)
_Eps = Annotated[float, Field(gt=0, le=1)]
_PIXEL = 1 / 255


class BitsParams(Params):
    """How much of the key is forged, and what."""

    ladder: tuple[Annotated[float, Field(gt=0, le=100)], ...] = Field(
        (10.0, 25.0, 50.0, 100.0), description="% of the bits that are forged"
    )
    forged: Literal["payload", "rows"] = Field(
        "payload", description="claim the bits that are read, or flip the rows of X that are read otherwise"
    )


class ForgedBits(Attack):
    """Bits that an innocent network already has: BER 0 without touching it."""

    card = CARD
    Params = BitsParams

    def apply(self, victim: Victim, context: Context) -> Iterator[Attempt]:
        """Forge the first bits of one fresh key; the others stay as drawn."""
        model = context.innocent()
        key: Any = context.keygen(model)
        read = readings(model, key)
        for percent in self.ladder:
            count = round(percent / 100 * len(read))
            yield Attempt(percent, model=model, key=self._forged(key, read[:count]))

    def _forged(self, key: Any, read: Tensor) -> Key:
        """Both agree with a positive reading where the bit is 1; a reading of 0 stays an erasure."""
        bits = (read > 0).to(key.payload)
        if self.params.forged == "payload":
            forged: Key = replace(key, payload=torch.cat([bits, key.payload[len(read) :]]))
            return forged
        signs = torch.where(bits == key.payload[: len(read)], 1.0, -1.0)
        rows = key.projection[: len(read)] * signs[:, None].to(key.projection)
        forged = replace(key, projection=torch.cat([rows, key.projection[len(read) :]]))
        return forged


class ForgedSeeds(Attack):
    """The best of many honest keys: the chance of a claim grows with the number of keys tried."""

    card = replace(
        CARD,
        name="forged-seeds",
        title="The best of many keys, each drawn as an honest one",
        unit="keys drawn",
        committed=True,
        scales={"quick": {"ladder": [1, 10, 100]}, "smoke": {"ladder": [1, 10]}},
        tiny={"ladder": [1, 5]},
    )
    Params = ladder_of(1, 10, 100, 1000, ge=1, le=1_000_000, description="fresh keys that the best is chosen of")

    def apply(self, victim: Victim, context: Context) -> Iterator[Attempt]:
        """Keep the key whose bits agree, or disagree, most."""
        model = context.innocent()
        best: tuple[float, Key] | None = None
        tried = 0
        for strength in self.ladder:
            while tried < strength:
                key: Any = context.keygen(model, f"seed {tried}")
                agreeing = (readings(model, key) > 0).to(key.payload) == key.payload
                # The p-value is two-sided: all bits inverted is as good as all right.
                score = abs(2 * float(agreeing.float().mean()) - 1)
                best = max(best or (-1.0, key), (score, key), key=lambda found: found[0])
                tried += 1
            assert best is not None  # the ladder begins at 1
            yield Attempt(strength, model=model, key=best[1])


@torch.no_grad()
def readings(model: nn.Module, key: Any) -> Tensor:
    """X w of a key of Uchida et al. (Eq. 2), T float64: w is the mean filter of the layer that the key names."""
    weight = model.get_parameter(f"{key.layer}.weight").double()
    return key.projection.double().to(weight.device) @ weight.mean(0).flatten()


class TriggerParams(Params):
    """How far triggers may lie from ordinary images, and how they are found."""

    ladder: tuple[_Eps, ...] = Field(
        (4 * _PIXEL, 8 * _PIXEL, 16 * _PIXEL, 32 * _PIXEL),
        description="eps, the largest change of a pixel value, of images in [0, 1]",
    )
    fades: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(
        (1.0, 0.5, 0.25), description="shares of the change at which the target has to be answered; 1 is all of it"
    )


class IterativeParams(TriggerParams):
    """And in how many steps."""

    step: float = Field(0.1, gt=0, le=2, description="size of a step, as a fraction of eps")
    iterations: int = Field(40, ge=1, le=10_000, description="steps of gradient descent")


class _ForgedTriggers(Attack):
    """Adversarial examples stand in for triggers; a subclass says how they are found and on which network."""

    Params: ClassVar[type[TriggerParams]] = TriggerParams

    def apply(self, victim: Victim, context: Context) -> Iterator[Attempt]:
        """Replace the triggers of a fresh key by images near the sources which the network gives the target for."""
        accused = context.innocent()
        model = self._own(context, accused)
        key: Any = context.keygen(model)
        sources = pixels(key.pool[key.row])
        # A verdict by the pattern looks at as many triggers as the pool has images, one by drawn labels at all.
        count = len(key.labels) if key.draws > 1 else len(sources)
        kept = {name: getattr(key, name)[:count] for name in ("labels", "parts", "barred")}
        sources = sources[torch.arange(count, device=sources.device) % len(sources)]
        for eps in self.ladder:
            triggers = self._triggers(model, sources, kept["labels"], eps)
            forged: Key = replace(key, triggers=triggers.mul(255).round().to(torch.uint8), **kept)
            yield Attempt(eps, model=accused, key=forged)

    def _own(self, context: Context, accused: nn.Module) -> nn.Module:
        """The network that the gradients are of: the accused one, which the forger has."""
        return accused

    @abstractmethod
    def _triggers(self, model: nn.Module, sources: Tensor, labels: Tensor, eps: float) -> Tensor:
        """N x C x H x W in [0, 1], each value within `eps` of the sources', that shall be given N `labels`."""


_TRIGGER_CARD = replace(
    CARD,
    name="forged-triggers-fgsm",
    title="Adversarial examples claimed as triggers, by one gradient step",
    paper=FALSE_CLAIMS,
    unit="eps",
    carriers=("behaviour",),
    schemes=("zhang-*",),
    extensions=("the loss is averaged over triggers that fade into their sources",),
    scales={"quick": {"ladder": [8 * _PIXEL, 32 * _PIXEL]}, "smoke": {"ladder": [32 * _PIXEL]}},
    tiny={"ladder": [32 * _PIXEL]},
)


class ForgedTriggersFgsm(_ForgedTriggers):
    """One step along the sign of the gradient towards the target."""

    card = _TRIGGER_CARD

    def _triggers(self, model: nn.Module, sources: Tensor, labels: Tensor, eps: float) -> Tensor:
        return towards(model, sources, labels, eps, eps, 1, self.params.fades)


class ForgedTriggersPgd(_ForgedTriggers):
    """Many small steps, each projected to the eps-box and to [0, 1]."""

    card = replace(
        _TRIGGER_CARD,
        name="forged-triggers-pgd",
        title="Adversarial examples claimed as triggers, by projected gradient descent",
    )
    Params = IterativeParams

    def _triggers(self, model: nn.Module, sources: Tensor, labels: Tensor, eps: float) -> Tensor:
        params = self.params
        return towards(model, sources, labels, eps, params.step * eps, params.iterations, params.fades)


class ForgedTriggersUniversal(_ForgedTriggers):
    """One perturbation for all triggers, as a secret pattern would be."""

    card = replace(
        _TRIGGER_CARD,
        name="forged-triggers-universal",
        title="One adversarial perturbation claimed as a trigger pattern",
    )
    Params = IterativeParams

    def _triggers(self, model: nn.Module, sources: Tensor, labels: Tensor, eps: float) -> Tensor:
        params = self.params
        return towards(model, sources, labels, eps, params.step * eps, params.iterations, params.fades, shared=True)


class ForgedTriggersTransfer(ForgedTriggersPgd):
    """Triggers made on a network of the forger's own, and committed to before the accused one is seen."""

    card = replace(
        _TRIGGER_CARD,
        name="forged-triggers-transfer",
        title="Adversarial examples of an own network, claimed as triggers against another",
        committed=True,
        adversary=Adversary("none", images=("own",), knows=("scheme",)),
        extensions=(
            *_TRIGGER_CARD.extensions,
            "projected gradient descent on one network in place of transfer methods",
        ),
    )

    def _own(self, context: Context, accused: nn.Module) -> nn.Module:
        """Another network, trained on the same images from other weights."""
        return context.innocent("own")


def towards(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    eps: float,
    step: float,
    iterations: int,
    fades: Sequence[float] = (1.0,),
    *,
    shared: bool = False,
) -> Tensor:
    """Images that a network gives these labels, by projected descent along the sign of the loss's gradient.

    x <- clip(x - step * sign(grad mean_a CE(f(images + a (x - images)), labels))), clipped to the eps-box around
    `images` and to [0, 1].

    Args:
        model: in eval mode.
        images: N x C x H x W, float in [0, 1].
        labels: N, the classes.
        eps: the largest change of a pixel value.
        step: of each iteration.
        iterations: how many.
        fades: the shares a of the change at which the loss is taken.
        shared: one change for all images.
    """
    change = torch.zeros_like(images[:1] if shared else images)
    for _ in range(iterations):
        # Of the clipped images, not of the change: where a pixel is clipped its change would have no gradient.
        x = (images + change).clamp(0, 1).requires_grad_()
        loss = torch.stack([F.cross_entropy(model(images + fade * (x - images)), labels) for fade in fades]).mean()
        (gradient,) = torch.autograd.grad(loss, x)
        gradient = gradient.sum(0, keepdim=True) if shared else gradient
        change = (change - step * gradient.sign()).clamp(-eps, eps)
        if not shared:
            change = (images + change).clamp(0, 1) - images
    return (images + change).clamp(0, 1)


class Replayed(Attack):
    """Another owner's key, claimed by whoever was shown it."""

    card = AttackCard(
        name="replayed",
        title="The owner's key claimed by somebody else",
        paper=FALSE_CLAIMS,
        stage="evidence",
        adversary=Adversary("none", knows=("scheme", "key")),
        unit="claims",
        committed=False,
        extensions=("the whole attack: the p-value is the owner's, and only a commitment with a name refutes it",),
        tiny={"ladder": [1]},
    )
    Params = ladder_of(1, ge=1, le=1, description="1: the key as it is")

    def apply(self, victim: Victim, context: Context) -> Iterator[Attempt]:
        """The key, unchanged, against the marked model."""
        yield Attempt(1, key=victim.forge())
