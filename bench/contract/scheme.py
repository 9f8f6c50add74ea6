"""The contract of a scheme: its card, the host that keys are made against, and the hooks that a scheme overrides."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Literal, TypeVar

import torch
from torch import Tensor, nn

from bench.contract.fields import JSON, Configured, Paper, Share
from bench.contract.images import DatasetCard, ImageSet
from bench.contract.keys import Capacity, Key
from bench.contract.networks import Arch, Batch
from bench.contract.suspect import Access, Suspect
from bench.contract.verdict import Verdict
from bench.identity import Rng

__all__ = ["Carrier", "Host", "Scheme", "SchemeCard", "Situation"]

Carrier = Literal["weights", "behaviour", "data", "none"]
Situation = Literal["train", "fine-tune", "distill", "post-hoc"]
K = TypeVar("K", bound=Key)


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
        refreshes: the key changes after each epoch of embedding (`refresh`).
        key_arch: parameter that names the architecture against whose clean host keys are made; without one, or where
            it is None, that of the cell.
        payload_parameter: parameter that says how many bits a payload has, which `bench capacity` searches.
        layer_parameter: parameter that says which layer group carries the mark.
        watches: layers whose activations `embedding_loss` asks for: groups (`conv2` ...) or `head`.
        also: a further access that `verify` uses for details if `suspect.offers(it)`; its p-value must not need it.
        extensions: the parts that are ours and not the authors', one line each. Never blur that.
        scales: profile -> the parameters that differ from the paper's at that scale.
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
    refreshes: bool = False
    key_arch: str | None = None
    payload_parameter: str | None = None
    layer_parameter: str | None = None
    watches: tuple[str, ...] = ()
    also: Access | None = None
    extensions: tuple[str, ...] = ()
    scales: Mapping[str, Mapping[str, JSON]] = field(default_factory=dict)
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
        notes: what key generation that trains has to show, by name a number per epoch; see `note`.
    """

    arch: Arch
    dataset: DatasetCard
    images: ImageSet
    share: ImageSet
    heldout: ImageSet
    number: int
    device: torch.device

    @property
    def notes(self) -> dict[str, list[float]]:
        """The histories noted so far."""
        return self.__dict__.setdefault("_notes", {})

    def note(self, name: str, values: Sequence[float]) -> None:
        """Keep a training's history (`loss of W`, a number per epoch): part of the record, never of the key."""
        self.notes[name] = [float(value) for value in values]

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


class Scheme(Configured, ABC, Generic[K]):
    """Base of all schemes. Override `keygen` and `verify`, and the marking hooks that the scheme needs.

    Attributes:
        card: what the scheme declares.
        key_type: the dataclass of its keys.
    """

    card: ClassVar[SchemeCard]
    key_type: ClassVar[type[Key]]

    @property
    def share(self) -> Share:
        """The owner's part of the training set: the parameter `share` where the scheme has one."""
        found: Any = getattr(self.params, "share", None)
        return found if isinstance(found, Share) else Share("all")

    @property
    def heldout_share(self) -> Share:
        """What a held-out user has, whose images nobody was trained on: as many images as an owner."""
        return self.share

    @abstractmethod
    def keygen(self, host: Host, rng: Rng) -> K:
        """Draw one owner's secrets. Called once per owner; two calls with different `rng` are independent."""

    def mark_data(self, images: ImageSet, key: K) -> ImageSet:
        """Mark the owner's share before training: transform its images, or extend it by triggers."""
        return images

    def embedding_loss(self, model: nn.Module, key: K, batch: Batch) -> Tensor | None:
        """Added to the task loss in every training step (already weighted), a scalar; None for nothing."""
        return None

    def refresh(self, key: K, model: nn.Module, epoch: int) -> K:
        """The key after an epoch of embedding (1, 2, ...), where the card says that it `refreshes`."""
        return key

    def undecayed(self, key: K) -> tuple[str, ...]:
        """Names of parameters that weight decay shall leave alone while embedding."""
        return ()

    def mark_model(self, model: nn.Module, key: K, host: Host) -> nn.Module:
        """Mark a trained model; return it."""
        return model

    def serve(self, answers: Tensor, images: Tensor, key: K) -> Tensor:
        """What an owner who answers queries says instead of the model's scores (N x K); by default the same."""
        return answers

    @abstractmethod
    def verify(self, suspect: Suspect, key: K) -> Verdict:
        """Is the suspect this owner's? Under the null (the suspect never saw the key) the p-value must be valid."""

    def capacity(self, host: Host) -> Capacity | None:
        """What a mark can say; None for a zero-bit mark."""
        return None
