"""The contract of a scheme: card, host, and the hooks that a scheme overrides."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from bench.contract.fields import JSON, Capacity, Configured, Key, Paper
from bench.contract.images import DatasetCard, ImageSet
from bench.contract.networks import Arch
from bench.contract.suspect import Access, Suspect
from bench.contract.verdict import Verdict
from bench.identity import Rng

__all__ = ["Carrier", "Host", "Scheme", "SchemeCard", "Situation"]


Carrier = Literal["weights", "behaviour", "data", "none"]
Situation = Literal["train", "fine-tune", "distill", "post-hoc"]


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


class Scheme(Configured, ABC):
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
