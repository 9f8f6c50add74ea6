"""The contract of an attack: card, victim, what is lent, and what is yielded at each rung."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, ClassVar, Literal, final

import torch
from torch import Tensor, nn

from bench.contract.fields import JSON, Configured, ContractError, Key, Paper
from bench.contract.images import ImageSet
from bench.contract.networks import Arch, Recipe, clock_s
from bench.contract.scheme import Carrier
from bench.contract.verdict import Point
from bench.identity import Rng

__all__ = ["Attack", "AttackCard", "Claim", "Context", "Stage", "Victim"]


Stage = Literal["data", "training", "model", "inference", "evidence", "none"]


@dataclass(frozen=True)
class AttackCard:
    """What an attack declares.

    Attributes:
        knowledge: what the adversary has and knows: which data, labels or not, the scheme or not.
        unit: of the strengths, for instance `% of weights`.
        carriers: the carriers that it can act on.
        schemes: names or globs of the only schemes that it is made for; empty for all.
        owner_data: the adversary has the owner's training images too, as some papers assume.
        extensions, tiny: as in `SchemeCard`.
    """

    name: str
    title: str
    paper: Paper
    stage: Stage
    knowledge: str
    unit: str
    carriers: tuple[Carrier, ...] = ("weights", "behaviour", "data", "none")
    schemes: tuple[str, ...] = ()
    owner_data: bool = False
    extensions: tuple[str, ...] = ()
    tiny: Mapping[str, JSON] = field(default_factory=dict)


class Victim:
    """What an attack is given.

    Attributes:
        key: of the first owner. Only attacks whose card says that the adversary knows the scheme may read from
            it, and then only what the card names (for instance the embedded layer, never the payload).
    """

    def __init__(self, model: nn.Module, key: Key, images: ImageSet | None = None) -> None:
        self._model = model
        self._images = images
        self.key = key

    @property
    def images(self) -> ImageSet:
        """The published, marked images: for the stages `data` and `training`, or by the card's `owner_data`.

        Raises:
            ContractError: this attack's card gives it no right to them.
        """
        if self._images is None:
            raise ContractError(
                "Expected an attack that uses the owner's images to be of stage data or training, or to declare "
                "owner_data on its card; the adversary's own images are context.data."
            )
        return self._images

    def model(self) -> nn.Module:
        """A fresh copy of the marked model, which the attack may change."""
        return copy.deepcopy(self._model)


@dataclass(frozen=True)
class Claim:
    """What an attack yields at one rung: what the attacker ends with. The harness judges it.

    Give a `model` (model stage), or `images` alone (data stage: the harness trains a model on them), or a `model`
    and a `transform` before it (inference stage), or the `key` of a forger (evidence stage).

    Attributes:
        strength: in the card's unit, increasing, above 0; 0 is the victim before the attack.
        measures: what the attack can say of its cost, for instance `{"psnr_db": 31.2}`; never its success.
    """

    strength: float
    model: nn.Module | None = None
    images: ImageSet | None = None
    transform: Callable[[Tensor], Tensor] | None = None
    key: Key | None = None
    measures: Mapping[str, float] = field(default_factory=dict)


class Context(ABC):
    """What the harness lends to an attack.

    Attributes:
        data: the adversary's images, disjoint from the owner's training set.
        rng: the attack's random stream.
        recipe: the learner's ordinary recipe; change it with `replace`.
    """

    data: ImageSet
    rng: Rng
    recipe: Recipe
    arch: Arch
    device: torch.device

    @abstractmethod
    def fresh(self, name: str = "surrogate") -> nn.Module:
        """An untrained network of the victim's architecture, with the attacker's own initial weights."""

    @abstractmethod
    def epochs(
        self, images: ImageSet, recipe: Recipe, *, model: nn.Module | None = None, name: str = "training"
    ) -> Iterator[nn.Module]:
        """Train `model` and yield it after every epoch, in eval mode.

        None trains as the learner of this cell does: a fresh network, or the clean host in situation `fine-tune`.
        `name` names the random stream: two trainings in one attack want two names. It is one network that goes on
        learning: a claim on it must be judged before the next epoch begins.
        """

    def train(
        self, images: ImageSet, recipe: Recipe, *, model: nn.Module | None = None, name: str = "training"
    ) -> nn.Module:
        """The network after the last of the recipe's epochs, in eval mode."""
        last = deque(self.epochs(images, recipe, model=model, name=name), maxlen=1)
        if not last:
            raise ContractError(f"Expected a recipe of at least one epoch, but got {recipe.epochs}.")
        return last[0]


class Attack(Configured, ABC):
    """Base of all attacks. Override `apply`; `run` is final, validates the ladder and has every claim judged."""

    card: ClassVar[AttackCard]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "run" in cls.__dict__:
            raise ContractError(f"Expected {cls.__name__} to override apply(victim, context), but it overrides run.")

    @property
    def ladder(self) -> tuple[float, ...]:
        """The strengths in increasing order; by default the parameter `ladder`. Only stage `none` has none."""
        return tuple(self.params.ladder)

    @final
    def examined(self, count: int) -> tuple[float, ...]:
        """`count` strengths spread evenly over the ladder, the last among them: where null models are tested."""
        ladder, steps = self.ladder, min(count, len(self.ladder))
        return tuple(ladder[round((i + 1) * len(ladder) / steps) - 1] for i in range(steps))

    @abstractmethod
    def apply(self, victim: Victim, context: Context) -> Iterator[Claim]:
        """Yield one claim per rung of the ladder, in order, so that one run visits all strengths."""

    @final
    def run(self, victim: Victim, context: Context, judge: Callable[[Claim], Point]) -> list[Point]:
        """Walk the ladder and have each claim judged.

        Raises:
            ContractError: the ladder is not increasing, or `apply` does not yield exactly its strengths.
        """
        ladder = self.ladder
        if bool(ladder) == (self.card.stage == "none") or any(b <= a for a, b in pairwise((0.0, *ladder))):
            raise ContractError(f"Expected the ladder of {self.card.name} to increase from above 0, but got {ladder}.")
        points: list[Point] = []
        spent_s = 0.0
        claims = self.apply(victim, context)
        for strength in (*ladder, None):
            start_s = clock_s(context.device)
            claim = next(claims, None)
            spent_s += clock_s(context.device) - start_s
            got = None if claim is None else claim.strength
            if got != strength:
                raise ContractError(
                    f"Expected {self.card.name} to yield strength {strength} after {len(points)} rungs, but got {got}."
                )
            if claim is not None:
                points.append(judge(claim).model_copy(update={"attack_time_s": spent_s}))
        return points
