"""The contract of an attack: its card, the adversary as data, the victim, what is lent, what it yields at each rung."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from itertools import pairwise
from typing import Any, ClassVar, Literal, final

import torch
from torch import Tensor, nn

from bench.contract.fields import JSON, Configured, ContractError, Paper
from bench.contract.images import ImageSet
from bench.contract.keys import Key
from bench.contract.networks import Arch, Recipe, clock_s, predict
from bench.contract.scheme import Carrier
from bench.contract.suspect import AccessError
from bench.contract.verdict import Point
from bench.identity import Rng

__all__ = ["Adversary", "Answer", "Attack", "AttackCard", "Attempt", "Context", "Serving", "Stage", "Victim"]

Stage = Literal["data", "training", "model", "inference", "evidence", "none"]
Images = Literal["own", "own unlabelled", "out of domain", "the owner's"]
Answer = Callable[[Tensor], Tensor]
Serving = Callable[[Answer, Tensor], Tensor]


@dataclass(frozen=True)
class Adversary:
    """Who attacks, as data: what is not declared here is not handed out.

    Attributes:
        access: to the victim: its weights, scores, predicted labels, or none.
        images: the adversary's own (with or without labels), those of another data set, the owner's published ones.
        knows: public fields of the owner's key (`layer` ...), by name; `scheme` for its method, `key` for all of the
            key, as whoever it is shown to knows it.
        queries: most images that may be sent to the victim; None for no limit.
        copies: further copies of the same host, each with a mark of its own, as other customers hold them.
    """

    access: Literal["white-box", "scores", "labels", "none"] = "none"
    images: tuple[Images, ...] = ()
    knows: tuple[str, ...] = ()
    queries: int | None = None
    copies: bool = False

    def __str__(self) -> str:
        """For people: `white-box access; own images; knows scheme, layer`."""
        parts = [f"{self.access} access", f"{' and '.join(self.images)} images" if self.images else "no images"]
        parts += ["other customers' copies"] if self.copies else []
        parts += [f"knows {', '.join(self.knows)}"] if self.knows else []
        return "; ".join([*parts, *([f"{self.queries:,} queries"] if self.queries is not None else [])])


@dataclass(frozen=True)
class AttackCard:
    """What an attack declares.

    Attributes:
        adversary: what the attacker has and knows; the harness hands out nothing else.
        unit: of the strengths, for instance `% of weights`.
        carriers: the carriers that it can act on.
        schemes: names or globs of the only schemes that it is made for; empty for all.
        auxiliary: parameter that names another data set, for `context.auxiliary`.
        remedy: the function stays the same, so that owners who read weights can align the network to their own first.
        committed: of a forgery (stage `evidence`): it works with a key that was committed to (published as a digest,
            with its owner's name) before the suspect was seen. False for one that needs to see the suspect first.
        scales: profile -> the parameters that differ from the paper's at that scale.
        extensions, tiny: as in `SchemeCard`.
    """

    name: str
    title: str
    paper: Paper
    stage: Stage
    adversary: Adversary
    unit: str
    carriers: tuple[Carrier, ...] = ("weights", "behaviour", "data", "none")
    schemes: tuple[str, ...] = ()
    auxiliary: str | None = None
    remedy: bool = False
    committed: bool = True
    extensions: tuple[str, ...] = ()
    scales: Mapping[str, Mapping[str, JSON]] = field(default_factory=dict)
    tiny: Mapping[str, JSON] = field(default_factory=dict)


class _Known:
    """The fields of the owner's key that the adversary was told."""

    def __init__(self, key: Key, names: tuple[str, ...]) -> None:
        self._key, self._names = key, names

    def __getattr__(self, name: str) -> Any:
        key, names = self.__dict__["_key"], self.__dict__["_names"]
        if "key" not in names and (name not in names or name not in key.public):
            raise AccessError(
                f"Expected an adversary who knows the key's {name!r}, but the attack's card declares "
                f"{', '.join(names) or 'nothing'} and the scheme makes {', '.join(key.public) or 'nothing'} public: "
                "declare it in `knows`, or ask for less."
            )
        return getattr(key, name)


class Victim:
    """What an attack acts on, as far as its adversary may.

    Args:
        adversary: of the attack's card.
        model: makes a fresh copy of the marked network.
        answer: images to probabilities, as the victim serves them; None to ask the network itself.
        key: of the first owner.
        images: the published, marked images.
    """

    def __init__(
        self,
        adversary: Adversary,
        model: Callable[[], nn.Module],
        key: Key,
        images: ImageSet | None = None,
        answer: Answer | None = None,
    ) -> None:
        self.adversary = adversary
        self.queries = 0
        self._model, self._key, self._images, self._answer = model, key, images, answer

    @property
    def images(self) -> ImageSet:
        """The published, marked images.

        Raises:
            AccessError: the adversary does not have them.
        """
        if "the owner's" not in self.adversary.images or self._images is None:
            raise AccessError(
                "Expected an adversary with the owner's images, but its card declares "
                f'{" and ".join(self.adversary.images) or "none"}: add "the owner\'s", or use context.data.'
            )
        return self._images

    def model(self) -> nn.Module:
        """A fresh copy of the marked network, which the attack may change.

        Raises:
            AccessError: the adversary is not white-box.
        """
        if self.adversary.access != "white-box":
            raise AccessError(
                f"Expected a white-box adversary, but its card says {self.adversary.access!r}: use victim.query."
            )
        return self._model()

    def query(self, images: Tensor) -> Tensor:
        """Probabilities, N x K, that the victim answers with; one-hot where it shows labels alone.

        Args:
            images: N x C x H x W, uint8, or float in [0, 1].

        Raises:
            AccessError: the adversary has no access, or more queries are asked than its budget allows.
        """
        access, budget = self.adversary.access, self.adversary.queries
        if access == "none":
            raise AccessError("Expected an adversary with access to the victim, but its card says 'none'.")
        self.queries += len(images)
        if budget is not None and self.queries > budget:
            raise AccessError(f"Expected at most {budget} queries, as the card says, but got {self.queries}.")
        if self._answer is None:
            model = self._model()
            self._answer = lambda batch: predict(model, batch).softmax(1)
        answers = self._answer(images)
        return answers if access != "labels" else nn.functional.one_hot(answers.argmax(1), answers.shape[1]).float()

    @property
    def key(self) -> Any:
        """What the adversary was told of the owner's key: `victim.key.layer`; other fields raise `AccessError`."""
        return _Known(self._key, self.adversary.knows)

    def forge(self, **changes: Any) -> Key:
        """A key of the same scheme with other fields; those left as they are must be known to the adversary.

        Raises:
            AccessError: a field that is not given is a secret.
        """
        for part in fields(self._key):
            if part.name not in changes:
                getattr(self.key, part.name)
        return replace(self._key, **changes)


@dataclass(frozen=True)
class Attempt:
    """What an attack yields at one rung: what the attacker ends with. The harness judges it.

    Give one of the first five; what is not given stays the victim's. Images or a recipe alone are what the learner of
    this cell trains a network on, or by.

    Attributes:
        strength: in the card's unit, increasing, above 0; 0 is the victim before the attack.
        model: a network (stage `model`).
        images: a training set (stage `data`).
        recipe: how the learner trains (stage `training`).
        serving: wraps the whole answer, `(answer, images) -> scores`, where `answer` maps N x C x H x W floats in
            [0, 1] to logits N x K (stage `inference`).
        key: of a forger (stage `evidence`); with a `model`, it is claimed against that one.
        rival: a second owner's key, which is examined beside the first owner's: the record's measures `second_p_value`
            and `second_ber`.
        measures: what the attack can say of its cost, for instance `{"psnr_db": 31.2}`; never its success.
    """

    strength: float
    model: nn.Module | None = None
    images: ImageSet | None = None
    recipe: Recipe | None = None
    serving: Serving | None = None
    key: Key | None = None
    rival: Key | None = None
    measures: Mapping[str, float] = field(default_factory=dict)


class Context(ABC):
    """What the harness lends to an attack.

    Attributes:
        rng: the attack's random stream.
        recipe: the learner's ordinary recipe; change it with `replace`.
        arch: the victim's architecture.
        device: where to compute.
    """

    rng: Rng
    recipe: Recipe
    arch: Arch
    device: torch.device

    @property
    @abstractmethod
    def data(self) -> ImageSet:
        """The adversary's own images, disjoint from the owner's training set; labels are -1 where it has none.

        Raises:
            AccessError: the adversary has no images of its own.
        """

    @abstractmethod
    def auxiliary(self, name: str) -> ImageSet:
        """The training part of another data set, which the card's parameter `auxiliary` names, at the host's size.

        Raises:
            AccessError: the adversary has no images out of domain, or the card does not name this set.
        """

    @abstractmethod
    def fresh(self, name: str = "surrogate", arch: str | None = None) -> nn.Module:
        """An untrained network with the attacker's own initial weights, of the victim's architecture by default."""

    @abstractmethod
    def epochs(
        self, images: ImageSet, recipe: Recipe, *, model: nn.Module | None = None, name: str = "training"
    ) -> Iterator[nn.Module]:
        """Train `model` and yield it after every epoch, in eval mode.

        None trains as the learner of this cell does: a fresh network, or the clean host in situation `fine-tune`.
        `name` names the random stream: two trainings in one attack want two names. It is one network that goes on
        learning: an attempt on it must be judged before the next epoch begins.
        """

    @abstractmethod
    def embed(self, model: nn.Module, recipe: Recipe, name: str = "embedding", **params: Any) -> tuple[nn.Module, Key]:
        """`model` with a fresh key of the same scheme embedded by the scheme's own hooks, on `data`; and that key.

        Args:
            model: trained in place.
            recipe: of the training.
            name: of the random stream.
            params: the scheme's parameters where the adversary takes others than the owner (`strength=0.1`).

        Raises:
            ValueError: the scheme has no such parameter, or it is out of bounds.
        """

    @abstractmethod
    def keygen(self, model: nn.Module, name: str = "key", **params: Any) -> Key:
        """A fresh key of the same scheme, made on `data` as if `model` were the host; nothing is embedded.

        `name` and `params` as for `embed`, and the same `ValueError`.
        """

    @abstractmethod
    def copies(self, count: int) -> list[nn.Module]:
        """Further copies of the victim's host, each marked with a fresh key as the victim is, on the owner's data.

        The first ones are the same however many are asked for.

        Raises:
            AccessError: the adversary has no other customers' copies.
        """

    @abstractmethod
    def innocent(self, name: str = "innocent") -> nn.Module:
        """A network that never saw the owner's key, in eval mode; one for each name, trained once.

        Trained from scratch on `data` by the recipe of the clean host, which need not be that of the embedding.
        """

    @abstractmethod
    def layer(self, group: str) -> str:
        """The path, within a network of the victim's architecture, of the layer group `conv2`, `conv3` or `conv4`."""

    def predict(self, model: nn.Module, images: Tensor) -> Tensor:
        """Logits, N x K float32, in eval mode, of N x C x H x W images (uint8, or float in [0, 1])."""
        return predict(model, images)

    def train(
        self, images: ImageSet, recipe: Recipe, *, model: nn.Module | None = None, name: str = "training"
    ) -> nn.Module:
        """The network after the last of the recipe's epochs, in eval mode."""
        last = deque(self.epochs(images, recipe, model=model, name=name), maxlen=1)
        if not last:
            raise ContractError(f"Expected a recipe of at least one epoch, but got {recipe.epochs}.")
        return last[0]


class Attack(Configured, ABC):
    """Base of all attacks. Override `apply`; `run` is final, validates the ladder and has every attempt judged."""

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
    def apply(self, victim: Victim, context: Context) -> Iterator[Attempt]:
        """Yield one attempt per rung of the ladder, in order, so that one run visits all strengths."""

    @final
    def run(self, victim: Victim, context: Context, judge: Callable[[Attempt], Point]) -> list[Point]:
        """Walk the ladder and have each attempt judged.

        Raises:
            ContractError: the ladder is not increasing, or `apply` does not yield exactly its strengths.
        """
        ladder = self.ladder
        if bool(ladder) == (self.card.stage == "none") or any(b <= a for a, b in pairwise((0.0, *ladder))):
            raise ContractError(f"Expected the ladder of {self.card.name} to increase from above 0, but got {ladder}.")
        points: list[Point] = []
        spent_s = 0.0
        attempts = self.apply(victim, context)
        for strength in (*ladder, None):
            start_s = clock_s(context.device)
            attempt = next(attempts, None)
            spent_s += clock_s(context.device) - start_s
            got = None if attempt is None else attempt.strength
            if got != strength:
                raise ContractError(
                    f"Expected {self.card.name} to yield strength {strength} after {len(points)} rungs, but got {got}."
                )
            if attempt is not None:
                point = judge(attempt)
                spent_s += point.attack_time_s  # the harness trained for the attacker
                asked = {"victim_queries": float(victim.queries)} if victim.queries else {}
                update = {"attack_time_s": spent_s, "measures": {**point.measures, **asked}}
                points.append(point.model_copy(update=update))
        return points
