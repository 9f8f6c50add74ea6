"""What does an author import? The contract of schemes and attacks, on one page.

A scheme or an attack is one file in `schemes/` or `attacks/`. It imports from this module (and torch, numpy,
scipy), never from the rest of the harness, which owns data, training, seeds, devices, storage and judging:

* a **scheme** overrides the hooks it needs: `keygen`, `mark_data`, `embedding_loss`, `mark_model`, `verify`,
  `capacity`. Marking data and adding a loss are all that embedding is, so the harness runs any scheme from
  scratch, while fine-tuning and while distilling; none of that is a scheme's business.
* an **attack** overrides `apply`, a generator over its ladder of strengths. It yields claims (a suspect, or a
  key); the harness judges them. An attack never grades itself.

Images are `N x C x H x W`, uint8 where they are stored and float32 in [0, 1] where a network sees them;
networks normalise inside. Labels are int64. Every random number comes from the `Rng` that a hook is given.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, ClassVar, Literal, final

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from bench.identity import Rng, digest
from bench.parts import (
    JSON,
    Access,
    AccessError,
    Arch,
    Capacity,
    ContractError,
    DatasetCard,
    ImageSet,
    Key,
    Recipe,
    Suspect,
    clock_s,
    pixels,
)  # fmt: skip
from bench.records import Point, Search, Verdict
from bench.stats import bits_p_value, cosine_p_value, fisher_p_value, rank_p_value

__all__ = [
    "AccessError",
    "Arch",
    "Attack",
    "AttackCard",
    "Capacity",
    "Claim",
    "Context",
    "ContractError",
    "DatasetCard",
    "Field",
    "Host",
    "ImageSet",
    "Key",
    "Paper",
    "Params",
    "Point",
    "Recipe",
    "Rng",
    "Scheme",
    "SchemeCard",
    "Search",
    "Suspect",
    "Verdict",
    "Victim",
    "bits_p_value",
    "cosine_p_value",
    "digest",
    "fisher_p_value",
    "pixels",
    "rank_p_value",
    "replace",
]

Carrier = Literal["weights", "behaviour", "data", "none"]
Stage = Literal["data", "training", "model", "inference", "evidence", "none"]
Situation = Literal["train", "fine-tune", "distill", "post-hoc"]


class Params(BaseModel):
    """Hyper-parameters of a scheme or an attack: typed fields whose defaults are the paper's values.

    Give each a bound and a description, `bits: int = Field(256, ge=1, description="payload length")`, and it is
    settable as `--set scheme.bits=128`, shown by `bench show` and part of every record.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


@dataclass(frozen=True)
class Paper:
    """Where a method comes from."""

    title: str
    authors: str
    year: int
    link: str
    code: str | None = None


@dataclass(frozen=True)
class SchemeCard:
    """What a scheme declares; the contract suite proves each line against behaviour.

    Attributes:
        name: as typed on the command line.
        carrier: what holds the mark; `none` for baselines that embed nothing.
        access: what verification needs of the suspect.
        payload: does a mark say only "mine" (`zero-bit`) or carry a message (`multi-bit`)?
        situations: how it can be embedded; `("post-hoc",)` for a scheme that writes into a trained model.
        stand_alone: a host can carry only one owner at a time (weight marks overwrite each other).
        keygen_trains: key generation trains networks, so fresh keys for the null test are few.
        key_arch: parameter that names the architecture against whose clean host keys are made; without one, or where
            it is None, that of the cell.
        also: a further access that `verify` uses for details if `suspect.offers(it)`; its p-value must not need it.
        extensions: the parts that are ours and not the authors', one line each. Never blur that.
        tiny: parameters of a test configuration that runs in about a second on a CPU.
    """

    name: str
    title: str
    paper: Paper
    carrier: Carrier
    access: Access
    payload: Literal["zero-bit", "multi-bit"]
    situations: tuple[Situation, ...] = ("train", "fine-tune", "distill")
    stand_alone: bool = False
    keygen_trains: bool = False
    key_arch: str | None = None
    also: Access | None = None
    extensions: tuple[str, ...] = ()
    tiny: Mapping[str, JSON] = field(default_factory=dict)


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


class Host(ABC):
    """What an owner has at hand when making a key: the clean host, the data, the harness's training.

    Attributes:
        arch: the architecture.
        dataset: the data set's card.
        images: the owner's training set.
        share: this owner's own part of it (all of it for the owner of a model).
        heldout: images that no host is trained on.
        number: which of the host's owners this is: 0, 1, ...
        device: where tensors live.
    """

    arch: Arch
    dataset: DatasetCard
    images: ImageSet
    share: ImageSet
    heldout: ImageSet
    number: int
    device: torch.device

    @abstractmethod
    def model(self) -> nn.Module:
        """A fresh copy of the clean host, in eval mode."""

    @abstractmethod
    def layer(self, group: str) -> str:
        """The path, within `model()`, of the embedding layer called `group` (`conv2` ...).

        Raises:
            ValueError: the architecture has no such layer.
        """

    @abstractmethod
    def train(self, images: ImageSet, rng: Rng, *, epochs: int | None = None) -> nn.Module:
        """A network like the host, trained from scratch on `images` by the host's recipe, in eval mode.

        Args:
            images: of any number.
            rng: of its weights, order and augmentation.
            epochs: None for as many as the recipe says.
        """


class _Configured:
    """What schemes and attacks share: a card, and validated parameters."""

    card: ClassVar[Any]
    Params: ClassVar[type[Params]] = Params

    def __init__(self, **params: Any) -> None:
        self.params: Any = self.Params(**params)


class Scheme(_Configured, ABC):
    """Base of all schemes. Override `keygen` and `verify`, and the marking hooks that the scheme needs."""

    card: ClassVar[SchemeCard]

    @property
    def share(self) -> float | int:
        """The owner's part of the training set: a fraction (float) or a number of images (int)."""
        return 1.0

    @property
    def heldout_share(self) -> float | int:
        """What a held-out user has, whose images nobody was trained on: as many images as an owner."""
        return self.share

    @property
    def owns_all(self) -> bool:
        """Whether the owner's part is the whole training set (a share of 1 is a single image)."""
        return isinstance(self.share, float) and self.share == 1.0

    @abstractmethod
    def keygen(self, host: Host, rng: Rng) -> Key:
        """Draw one owner's secrets. Called once per owner; two calls with different `rng` are independent."""

    def mark_data(self, images: ImageSet, key: Key) -> ImageSet:
        """Mark the owner's share before training: transform its images, or extend it by triggers."""
        return images

    def embedding_loss(self, model: nn.Module, key: Key) -> Tensor | None:
        """Added to the task loss in every training step (already weighted), a scalar; None for nothing."""
        return None

    def undecayed(self, key: Key) -> tuple[str, ...]:
        """Names of parameters that weight decay shall leave alone while embedding."""
        return ()

    def mark_model(self, model: nn.Module, key: Key, host: Host) -> nn.Module:
        """Mark a trained model; return it."""
        return model

    @abstractmethod
    def verify(self, suspect: Suspect, key: Key) -> Verdict:
        """Is the suspect this owner's? Under the null (the suspect never saw the key) the p-value must be valid."""

    def capacity(self, host: Host) -> Capacity | None:
        """What a mark can say; None for a zero-bit mark."""
        return None


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


class Attack(_Configured, ABC):
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
