"""Triggers recovered from a marked network: to unlearn them, to prune what they activate, or to claim them.

Bolun Wang, Yuanshun Yao, Shawn Shan, Huiying Li, Bimal Viswanath, Haitao Zheng, Ben Y. Zhao, Neural Cleanse:
Identifying and Mitigating Backdoor Attacks in Neural Networks, IEEE S&P 2019.
https://people.cs.uchicago.edu/~ravenben/publications/abstracts/backdoor-sp19.html; authors' implementation:
https://github.com/bolunwang/backdoor
Model inversion against trigger sets: Jialong Zhang et al., Protecting Intellectual Property of Deep Neural Networks
with Watermarking, 2018, section 5.5. https://doi.org/10.1145/3196494.3196550 (no implementation by the authors)

Where ours differs, and why:

* All classes are searched at once, each with a weight of the mask's norm of its own, which is adapted after every step
  (the authors: one class after the other, adapted after every epoch of a small data set).
* Wang et al. clean a network only where a class is an outlier. An adversary who knows that a mark is there takes the
  most suspicious class where none is; the anomaly index is a measure of the record.
* Unlearning is a training of some epochs by the cell's recipe at a tenth of its learning rate; the authors: one epoch.
* Pruned neurons are the inputs of the last layer, in the order of their activation by the trigger; no retraining.
* Zhang et al.'s triggers work on one source class, which a search over targets can miss: `neural-cleanse-pairs`
  searches every pair of source and target, as Lukas et al. (2022) do.
* `model-inversion`: the adversary is told source and target class, which is more than the paper's has, so that what it
  fails to recover is hard to recover. It descends from images of the source class, and claims the mean change, put
  on other images of that class, as a trigger set of its own; `model-inversion-innocent` does the same to a network
  without a mark, which is the number to compare with. The correlation with the owner's pattern needs the owner's key:
  `tools/inversion.py` computes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
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
    ImageSet,
    Key,
    Paper,
    Params,
    Variant,
    Victim,
    last_linear,
    papers,
    pixels,
    replace,
)

NEURAL_CLEANSE = Paper(
    title="Neural Cleanse: Identifying and Mitigating Backdoor Attacks in Neural Networks",
    authors="B. Wang, Y. Yao, S. Shan, H. Li, B. Viswanath, H. Zheng, B. Y. Zhao",
    year=2019,
    link="https://people.cs.uchicago.edu/~ravenben/publications/abstracts/backdoor-sp19.html",
    code="https://github.com/bolunwang/backdoor",
)
CARD = AttackCard(
    name="neural-cleanse-unlearn",
    title="Neural Cleanse, the recovered trigger unlearned",
    paper=NEURAL_CLEANSE,
    stage="model",
    adversary=Adversary("white-box", images=("own",)),
    unit="epochs",
    carriers=("behaviour",),
    extensions=("the most suspicious class is cleaned where none is an outlier",),
    scales={
        "smoke": {"ladder": [1], "steps": 20, "batch": 8},
        "quick": {"ladder": [1, 3], "steps": 60, "batch": 16},
        "small": {"steps": 300},
    },
    tiny={"ladder": [1], "steps": 3, "batch": 4},
)
OUTLIER = 2.0  # the authors' threshold of the anomaly index


class SearchParams(Params):
    """How triggers are searched for (section 4.2 of the paper and the authors' code)."""

    ladder: tuple[Annotated[float, Field(gt=0, le=1000)], ...] = Field((1,), description="set by the attack")
    steps: int = Field(1000, ge=1, le=100_000, description="steps of Adam")
    batch: int = Field(32, ge=1, le=10_000, description="images a step, for each class")
    lr: float = Field(0.1, gt=0, description="learning rate of the search")
    cost: float = Field(1e-3, gt=0, description="weight of the mask's L1 norm at the start")
    wanted: float = Field(0.98, gt=0, le=1, description="share of images that a trigger has to send to its target")
    patience: int = Field(5, ge=1, description="steps in a row above or below that share that change the weight")


@dataclass(frozen=True)
class Triggers:
    """Recovered triggers, one for each of K targets.

    Attributes:
        masks: K x 1 x H x W in [0, 1].
        patterns: K x C x H x W in [0, 1].
        targets: K.
        sources: K; -1 for images of all classes.
    """

    masks: Tensor
    patterns: Tensor
    targets: Tensor
    sources: Tensor

    @property
    def norms(self) -> Tensor:
        """K: the masks' L1 norms, in pixels."""
        return self.masks.flatten(1).sum(1)

    def __getitem__(self, rows: Tensor) -> Triggers:
        """Some of them."""
        return Triggers(self.masks[rows], self.patterns[rows], self.targets[rows], self.sources[rows])


def stamped(images: Tensor, mask: Tensor, pattern: Tensor) -> Tensor:
    """(1 - m) x + m p (Eq. 2), by broadcasting; all in [0, 1]."""
    return images + mask * (pattern - images)


def anomaly_indices(norms: Tensor) -> Tensor:
    """How many deviations each of K norms lies below the median: (median - norm) / (1.4826 MAD), float64.

    1.4826 makes the median absolute deviation that of a normal distribution (section 4.3). Where it is 0, norms below
    the median are infinitely far and the others at 0.
    """
    below = norms.double().median() - norms.double()
    deviation = 1.4826 * below.abs().median()
    return (below / deviation).nan_to_num(0.0, torch.inf, -torch.inf)


def search(model: nn.Module, images: Tensor, targets: Tensor, params: Any, generator: torch.Generator) -> Triggers:
    """The least mask and its pattern for each target: min CE(f((1 - m) x + m p), t) + cost |m|_1 (Eq. 3).

    The cost doubles after `patience` steps in a row in which at least a share `wanted` of the batch is called the
    target, and is divided by 2^1.5 after as many below. Kept is the smallest
    mask that reached the share so often.

    Args:
        model: in eval mode.
        images: N x C x H x W, float in [0, 1].
        targets: K classes.
        params: see `SearchParams`.
        generator: on the CPU, of the batches.
    """
    running = _Search(images, targets, params)
    for _ in range(params.steps):
        rows = torch.randint(len(images), (params.batch,), generator=generator).to(images.device)
        running.step(model, images[rows])
    return running.found()


class _Search:
    """K triggers that are searched for at once, each with a cost of its own."""

    def __init__(self, images: Tensor, targets: Tensor, params: Any) -> None:
        count, (channels, height, width) = len(targets), images.shape[1:]
        self.targets, self.params = targets, params
        self.free = [
            torch.zeros(count, depth, height, width, device=images.device, requires_grad=True)
            for depth in (1, channels)
        ]
        self.optimizer = torch.optim.Adam(self.free, lr=params.lr, betas=(0.5, 0.9))
        self.cost = torch.full((count,), params.cost, device=images.device)
        self.above, self.below = (torch.zeros(count, device=images.device) for _ in range(2))
        self.least = torch.full((count,), torch.inf, device=images.device)
        self.kept = self._squeezed()

    def _squeezed(self) -> list[Tensor]:
        """Masks and patterns in (0, 1), with their graph."""
        return [tensor.tanh() / 2 + 0.5 for tensor in self.free]

    def step(self, model: nn.Module, batch: Tensor) -> None:
        """One step of Adam on B x C x H x W images."""
        mask, pattern = self._squeezed()
        logits = model(stamped(batch, mask[:, None], pattern[:, None]).flatten(0, 1)).float()
        wanted = self.targets.repeat_interleave(len(batch))
        losses = F.cross_entropy(logits, wanted, reduction="none").view(len(mask), -1).mean(1)
        norms = mask.flatten(1).sum(1)
        gradients = torch.autograd.grad((losses + self.cost * norms).sum(), self.free)
        hits = (logits.argmax(1) == wanted).view(len(mask), -1).float().mean(1)
        self._adapt(hits >= self.params.wanted, norms.detach(), [mask.detach(), pattern.detach()])
        for tensor, gradient in zip(self.free, gradients, strict=True):
            tensor.grad = gradient
        self.optimizer.step()

    def _adapt(self, reached: Tensor, norms: Tensor, now: list[Tensor]) -> None:
        """Change the costs; keep what is the least mask so far."""
        patience = self.params.patience
        above, below = torch.where(reached, self.above + 1, 0), torch.where(reached, 0, self.below + 1)
        # One batch may be lucky: a mask counts once its trigger has reached the share as often as the cost asks for.
        better = (above == patience) & (norms < self.least)
        self.least = torch.where(better, norms, self.least)
        self.kept = [_chosen(better, new, old) for new, old in zip(now, self.kept, strict=True)]
        cost = torch.where(above == patience, 2 * self.cost, self.cost)
        self.cost = torch.where(below == patience, cost / 2**1.5, cost)
        self.above, self.below = (torch.where(run == patience, 0, run) for run in (above, below))

    def found(self) -> Triggers:
        """The kept ones; where none reached the share, the last."""
        never = self.least.isinf()
        masks, patterns = (
            _chosen(never, new, old).detach() for new, old in zip(self._squeezed(), self.kept, strict=True)
        )
        return Triggers(masks, patterns, self.targets, torch.full_like(self.targets, -1))


def _chosen(rows: Tensor, new: Tensor, old: Tensor) -> Tensor:
    return torch.where(rows[:, None, None, None], new, old)


class _Recovered(Attack):
    """Finds the most suspicious triggers of a network; a subclass makes use of them."""

    most: ClassVar[int] = 10  # outliers that are cleaned at most

    def _search(self, model: nn.Module, own: ImageSet, context: Context) -> Triggers:
        """One trigger for each class that own images have."""
        classes = own.labels.unique()
        return search(model, pixels(own.images), classes, self.params, context.rng.torch("batches"))

    def _suspicious(self, model: nn.Module, own: ImageSet, context: Context) -> tuple[Triggers, dict[str, float]]:
        """The outliers, or the least where there is none, and what the record shall tell of them."""
        found = self._search(model, own, context)
        indices = anomaly_indices(found.norms)
        order = indices.argsort(descending=True)
        outliers = int((indices > OUTLIER).sum())
        measures = {
            "anomaly_index": min(float(indices.max()), 1e6),
            "outliers": float(outliers),
            "least_mask_pixels": float(found.norms.min()),
        }
        return found[order[: min(max(outliers, 1), self.most)]], measures


class UnlearnParams(SearchParams):
    """And how they are unlearned."""

    ladder: tuple[Annotated[int, Field(ge=1, le=1000)], ...] = Field((1, 5, 10), description="epochs of unlearning")
    stamped: float = Field(0.2, gt=0, le=1, description="images that bear each trigger, as a share of the own ones")
    factor: float = Field(0.1, gt=0, le=10, description="peak learning rate, as a factor of the recipe's")


class Unlearn(_Recovered):
    """Train on images that bear the trigger and their right label."""

    card = CARD
    Params: ClassVar[type[UnlearnParams]] = UnlearnParams

    def apply(self, victim: Victim, context: Context) -> Iterator[Attempt]:
        """One training; a rung is a number of its epochs."""
        model, own = victim.model(), context.data.to(context.device)
        triggers, measures = self._suspicious(model, own, context)
        images = self._with_triggers(own, triggers, context.rng.torch("stamped"))
        lr = self.params.factor * context.recipe.lr
        recipe = replace(context.recipe, epochs=int(self.ladder[-1]), lr=lr)
        trained = context.epochs(images, recipe, model=model, name="unlearning")
        for epoch, learned in enumerate(trained, start=1):
            if epoch in self.ladder:
                yield Attempt(epoch, model=learned, measures=measures)

    def _with_triggers(self, own: ImageSet, triggers: Triggers, generator: torch.Generator) -> ImageSet:
        """All own images, and for each trigger some that bear it, of its source class where it has one."""
        count, parts = max(1, round(self.params.stamped * len(own))), [own]
        for number, source in enumerate(triggers.sources.tolist()):
            members = own if source < 0 else own[own.labels == source]
            rows = torch.randperm(len(members), generator=generator)[:count].to(own.labels.device)
            bearing = stamped(pixels(members.images[rows]), triggers.masks[number], triggers.patterns[number])
            parts.append(ImageSet(bearing.mul(255).round().to(torch.uint8), members.labels[rows]))
        return ImageSet.join(parts)


class UnlearnPairs(Unlearn):
    """A trigger is searched for each pair of source and target class."""

    card = replace(
        CARD,
        name="neural-cleanse-pairs",
        title="Neural Cleanse for every pair of source and target, unlearned",
        extensions=(*CARD.extensions, "pairs of classes"),
        scales={
            "smoke": {"ladder": [1], "steps": 5, "batch": 4},
            "quick": {"ladder": [1, 3], "steps": 30, "batch": 4},
            "small": {"steps": 100, "batch": 8},
        },
        tiny={"ladder": [1], "steps": 1, "batch": 2},
    )

    def _search(self, model: nn.Module, own: ImageSet, context: Context) -> Triggers:
        classes, parts = own.labels.unique(), []
        for source in classes.tolist():
            images, targets = pixels(own.images[own.labels == source]), classes[classes != source]
            found = search(model, images, targets, self.params, context.rng.torch("batches", source))
            parts.append(replace(found, sources=torch.full_like(targets, source)))
        return Triggers(*(torch.cat([getattr(part, name) for part in parts]) for name in Triggers.__annotations__))


class PruneParams(SearchParams):
    """And how many neurons are pruned."""

    ladder: tuple[Annotated[float, Field(gt=0, le=100)], ...] = Field(
        (5.0, 10.0, 20.0, 30.0, 50.0), description="% of the neurons before the last layer"
    )


class Prune(_Recovered):
    """The neurons that the trigger activates most beyond ordinary images are silenced."""

    card = replace(
        CARD,
        name="neural-cleanse-prune",
        title="Neural Cleanse, the neurons of the recovered trigger pruned",
        unit="% of neurons",
        scales={
            "smoke": {"ladder": [20.0], "steps": 20, "batch": 8},
            "quick": {"steps": 60, "batch": 16},
            "small": {"steps": 300},
        },
        tiny={"ladder": [20.0], "steps": 3, "batch": 4},
    )
    Params = PruneParams
    most: ClassVar[int] = 1

    def apply(self, victim: Victim, context: Context) -> Iterator[Attempt]:
        """Order the neurons once; at each rung silence the first round(rate * n), at least one."""
        model, own = victim.model(), context.data.to(context.device)
        triggers, measures = self._suspicious(model, own, context)
        clean = pixels(own.images)
        bearing = stamped(clean, triggers.masks[0], triggers.patterns[0])
        gaps = _entering(model, bearing) - _entering(model, clean)
        order = gaps.argsort(descending=True)
        for percent in self.ladder:
            model = victim.model()
            weight = model.get_parameter(f"{last_linear(model)}.weight").detach()
            weight[:, order[: max(1, round(percent / 100 * len(order)))]] = 0.0
            yield Attempt(percent, model=model, measures=measures)


@torch.no_grad()
def _entering(model: nn.Module, images: Tensor) -> Tensor:
    """Mean over N images of each of the D inputs of the last linear layer."""
    entered: list[Tensor] = []
    layer = model.get_submodule(last_linear(model))
    handle = layer.register_forward_pre_hook(lambda _, inputs: entered.append(inputs[0].sum(0)))
    try:
        for batch in images.split(256):
            model(batch)
    finally:
        handle.remove()
    return torch.stack(entered).sum(0) / len(images)


class InversionParams(Params):
    """How far the images are taken towards the target."""

    ladder: tuple[Annotated[int, Field(ge=1, le=100_000)], ...] = Field(
        (10, 50, 200), description="steps of gradient descent on the images"
    )
    step: float = Field(2 / 255, gt=0, le=1, description="size of a step on each pixel value, of images in [0, 1]")
    smooth: float = Field(0.1, ge=0, description="weight of the total variation of an image, mean over its pixels")
    images: int = Field(64, ge=1, le=10_000, description="own images of the source class that the descent begins at")
    network: Literal["victim", "innocent"] = Field("victim", description="whose trigger is looked for")


class Inversion(Attack):
    """The pattern that turns the source class into the target, recovered by gradients and claimed as a trigger."""

    card = AttackCard(
        name="model-inversion",
        title="Model inversion towards the trigger's target",
        paper=papers.ZHANG,
        stage="evidence",
        adversary=Adversary("white-box", images=("own",), knows=("scheme", "source", "target")),
        unit="steps",
        carriers=("behaviour",),
        schemes=("zhang-*",),
        committed=False,
        extensions=("source and target are told", "the recovered pattern is claimed as a trigger set"),
        scales={"quick": {"ladder": [10, 50], "images": 32}, "smoke": {"ladder": [10], "images": 16}},
        tiny={"ladder": [2], "images": 8},
    )
    Params = InversionParams
    variants = (
        Variant(
            "model-inversion-innocent",
            "Model inversion of a network without a mark",
            {"network": "innocent"},
        ),
    )

    def apply(self, victim: Victim, context: Context) -> Iterator[Attempt]:
        """One descent; at each rung its mean change is stamped on other images of the source class."""
        innocent = self.params.network == "innocent"
        model = context.innocent() if innocent else victim.model()
        own, source, target = context.data.to(context.device), victim.key.source, victim.key.target
        members = pixels(own.images[own.labels == source])
        key: Any = context.keygen(model)
        start = members[: self.params.images]
        moved, done = start, 0
        for steps in map(int, self.ladder):
            moved = self._descend(model, moved, target, steps - done)
            done = steps
            claimed = self._claimed(key, (moved - start).mean(0), members, source, target)
            yield Attempt(steps, model=model if innocent else None, key=claimed)

    def _descend(self, model: nn.Module, images: Tensor, target: int, steps: int) -> Tensor:
        """Step x <- clip(x - step sign(grad (CE(f(x), target) + smooth TV(x))))."""
        labels = torch.full((len(images),), target, device=images.device)
        for _ in range(steps):
            images = images.detach().requires_grad_()
            loss = F.cross_entropy(model(images), labels, reduction="sum")
            (gradient,) = torch.autograd.grad(loss + self.params.smooth * variation(images), images)
            images = (images - self.params.step * gradient.sign()).clamp(0, 1)
        return images.detach()

    def _claimed(self, key: Any, change: Tensor, members: Tensor, source: int, target: int) -> Key:
        """A key whose triggers are images of the source class plus the recovered change.

        Raises:
            ValueError: the adversary has no image of the source class.
        """
        if not len(members):
            raise ValueError(f"Expected own images of class {source} to begin at, but there are none: give it more.")
        size = key.pool.shape[1]
        originals = members[torch.arange(size, device=members.device) % len(members)].mul(255).round()
        triggers = (originals + 255 * change).round().clamp(0, 255).to(torch.uint8)
        row = int((key.pool_labels == source).nonzero()[0]) if (key.pool_labels == source).any() else key.row
        pool, labels = key.pool.clone(), key.pool_labels.clone()
        pool[row], labels[row] = originals.to(torch.uint8), source
        none = torch.zeros(size, dtype=torch.int64, device=members.device)
        forged: Key = replace(
            key, triggers=triggers, fresh=triggers[:0], pool=pool, pool_labels=labels, row=row,
            source=source, target=target, pattern={"change": change},
            labels=none + target, parts=none, barred=none + source,
        )  # fmt: skip
        return forged


def variation(images: Tensor) -> Tensor:
    """Total variation of N x C x H x W images: mean over pixels of the absolute differences of neighbours, summed."""
    down = (images[:, :, 1:] - images[:, :, :-1]).abs().mean((1, 2, 3))
    right = (images[..., 1:] - images[..., :-1]).abs().mean((1, 2, 3))
    return (down + right).sum()
