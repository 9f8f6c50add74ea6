"""What do schemes and attacks handle? Image sets, keys, recipes, architectures, suspects.

Authors import these from `bench.api`.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

__all__ = [
    "AccessError", "Arch", "Capacity", "ContractError", "DatasetCard", "ImageSet", "Key", "Recipe", "Suspect",
    "clock_s", "pixels", "predict",
]  # fmt: skip

Access = Literal["white-box", "scores", "labels", "data set"]
JSON = bool | int | float | str | None | list[Any]


class ContractError(TypeError):
    """A scheme or an attack does not keep the contract; the message says what was expected."""


class AccessError(PermissionError):
    """A scheme asked a suspect for more than its card's access allows."""


@dataclass(frozen=True)
class DatasetCard:
    """What is known of a data set without loading it.

    Attributes:
        content: `digits` where digits are the task (so that a digit is no unrelated image), else `objects`.
        augment: the batch augmentations that leave a label true, by name.
    """

    name: str
    title: str
    classes: tuple[str, ...]
    content: Literal["digits", "objects"]
    augment: tuple[str, ...] = ("crop", "flip")


@dataclass(frozen=True)
class ImageSet:
    """Labelled images as tensors on one device.

    Attributes:
        images: N x C x H x W, uint8.
        labels: N, int64.
        targets: N x K, float32 soft labels in the `distill` situation; else None.
        exact: N, bool: rows that augmentation must leave as they are; None for none.
    """

    images: Tensor
    labels: Tensor
    targets: Tensor | None = None
    exact: Tensor | None = None

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.ndim != 4:
            raise ContractError(
                f"Expected images to be uint8 of N x C x H x W, but got {self.images.dtype} {tuple(self.images.shape)}."
            )
        for name in ("labels", "targets", "exact"):
            rows = getattr(self, name)
            if rows is not None and len(rows) != len(self.images):
                raise ContractError(f"Expected {len(self.images)} {name}, one an image, but got {len(rows)}.")

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: Tensor | slice) -> ImageSet:
        """The given rows (indices, mask or slice)."""
        return ImageSet(
            self.images[rows],
            self.labels[rows],
            None if self.targets is None else self.targets[rows],
            None if self.exact is None else self.exact[rows],
        )

    def to(self, device: torch.device | str) -> ImageSet:
        """The same set on `device`."""
        moved = (None if part is None else part.to(device) for part in self._parts())
        return ImageSet(*moved)  # type: ignore[arg-type]  # the first two are never None

    def with_images(self, images: Tensor) -> ImageSet:
        """The same rows with other images: what a data watermark does."""
        return replace(self, images=images)

    def extend(self, images: Tensor, labels: Tensor, *, exact: bool = False) -> ImageSet:
        """This set and further rows: what a trigger set does. Their labels count even when distilling.

        Args:
            images: M x C x H x W, uint8.
            labels: M, int64.
            exact: augmentation shall leave the new rows as they are.
        """
        images, labels = images.to(self.images.device), labels.to(self.labels.device)
        targets = None
        if self.targets is not None:
            targets = nn.functional.one_hot(labels, self.targets.shape[1]).to(self.targets.dtype)
        mask = torch.ones_like(labels, dtype=torch.bool) if exact else None
        return ImageSet.join([self, ImageSet(images, labels, targets, mask)])

    @staticmethod
    def join(parts: Sequence[ImageSet]) -> ImageSet:
        """One set of the rows of all `parts`, in order; they agree on whether they have targets."""
        targets = [part.targets for part in parts if part.targets is not None]
        masks = [torch.zeros_like(p.labels, dtype=torch.bool) if p.exact is None else p.exact for p in parts]
        return ImageSet(
            torch.cat([part.images for part in parts]),
            torch.cat([part.labels for part in parts]),
            torch.cat(targets) if targets else None,
            torch.cat(masks) if any(part.exact is not None for part in parts) else None,
        )

    def _parts(self) -> tuple[Tensor | None, ...]:
        return self.images, self.labels, self.targets, self.exact


def pixels(images: Tensor) -> Tensor:
    """uint8 images as float32 in [0, 1]; floats pass through."""
    return images.float().div_(255) if images.dtype == torch.uint8 else images


def clock_s(device: torch.device) -> float:
    """Seconds on a monotonic clock, after the device has finished what was asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


@torch.no_grad()
def predict(model: nn.Module, images: Tensor, batch_size: int | None = None) -> Tensor:
    """Logits, N x K float32, of N x C x H x W images (uint8, or float in [0, 1]), in eval mode.

    The default batch keeps a CPU's activations in its cache and a GPU busy.
    """
    size = batch_size or (128 if images.device.type == "cpu" else 1024)
    was_training = model.training
    model.eval()
    batches = (pixels(batch).contiguous(memory_format=torch.channels_last) for batch in images.split(size))
    logits = torch.cat([model(batch).float() for batch in batches])
    model.train(was_training)
    return logits


@dataclass(frozen=True)
class Key:
    """All secrets of one owner; stored as safetensors and JSON, never as a pickle.

    Attributes:
        tensors: for instance the projection matrix, the payload bits or the trigger images.
        values: JSON values, for instance the embedded layer's name or a target class.
        history: no secret: what key generation that trains has to show, by name a number per epoch (`loss of W`).
    """

    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    values: Mapping[str, JSON] = field(default_factory=dict)
    history: Mapping[str, Sequence[float]] = field(default_factory=dict)

    def to(self, device: torch.device | str) -> Key:
        """The same key with its tensors on `device`."""
        return replace(self, tensors={name: tensor.to(device) for name, tensor in self.tensors.items()})


@dataclass(frozen=True)
class Capacity:
    """What a mark can say.

    Attributes:
        bits: payload bits carried; for a signature space log2 of its distinguishable keys.
        limit: an upper bound known for this host, or None.
    """

    bits: float
    limit: float | None = None


@dataclass(frozen=True)
class Recipe:
    """How a network is trained. The harness chooses one per profile; a `training` attack changes it.

    Attributes:
        lr: peak learning rate.
        schedule: `onecycle`, `step` (times `gamma` at each milestone), `cosine` or `constant`.
        milestones: as fractions of the epochs.
        augment: batch augmentations by name; None takes the data set's.
        transforms: further transforms of a batch, `(float N x C x H x W in [0, 1], generator) -> the same`.
        perturb: adversarial training, `(model, images, labels) -> images`, before the ordinary step.
        privacy: DP-SGD's `noise_multiplier` and `max_grad_norm`, or None.
    """

    epochs: int
    lr: float
    batch_size: int = 128
    optimizer: Literal["sgd", "adam"] = "sgd"
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-4
    schedule: Literal["onecycle", "step", "cosine", "constant"] = "onecycle"
    milestones: tuple[float, ...] = ()
    gamma: float = 0.1
    augment: tuple[str, ...] | None = None
    label_smoothing: float = 0.0
    transforms: tuple[Callable[[Tensor, torch.Generator], Tensor], ...] = ()
    perturb: Callable[[nn.Module, Tensor, Tensor], Tensor] | None = None
    privacy: Mapping[str, float] | None = None


class Arch(ABC):
    """One network architecture; one file in `bench/archs/`.

    Attributes:
        name: as typed on the command line.
        layers: embedding layers by Uchida's group names (`conv2`, `conv3`, `conv4`), as paths of submodules.
        head: path of the last linear layer, whose input is the feature vector.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    layers: ClassVar[Mapping[str, str]]
    head: ClassVar[str]

    @abstractmethod
    def build(self, classes: int, width: float = 1.0) -> nn.Module:
        """A network with fresh weights from torch's default generator, which the caller has seeded.

        Args:
            classes: number of outputs (logits).
            width: multiplies every channel count; 1 is the published network.
        """


class Suspect:
    """What a verifier may look at: as much as the card's access allows, with every query counted.

    Args:
        access: the scheme's access; asking for more raises `AccessError`.
        model: the suspect network, None if the suspect is a data set.
        images: the suspect data set, None if the suspect is a network.
        also: a further access that the card declares and the examiner grants, or None.
    """

    def __init__(
        self,
        access: Access,
        *,
        model: nn.Module | None = None,
        images: ImageSet | None = None,
        also: Access | None = None,
    ) -> None:
        self.access = access
        self.also = also
        self.queries = 0
        self._model = model.eval() if model is not None else None
        self._images = images
        self._memory: dict[str, tuple[Any, int]] = {}

    def offers(self, access: Access) -> bool:
        """May it be asked with this access? Ask first where the card only says `also`."""
        part = self._images if access == "data set" else self._model
        return part is not None and access in (self.access, self.also)

    @property
    def model(self) -> nn.Module:
        """The network itself, in eval mode (white box only)."""
        return self._need(self._model, "white-box")

    @property
    def images(self) -> ImageSet:
        """The suspect data set."""
        return self._need(self._images, "data set")

    def log_probs(self, images: Tensor) -> Tensor:
        """Log-probabilities, N x K float32, of N x C x H x W images (uint8, or float in [0, 1])."""
        return self._answers(images, "scores", "white-box")

    def labels(self, images: Tensor) -> Tensor:
        """Predicted classes, N int64."""
        return self._answers(images, "labels", "scores", "white-box").argmax(1)

    def losses(self, images: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy of each image, N float32 (needs scores)."""
        return -self.log_probs(images).gather(1, labels.to(images.device)[:, None]).squeeze(1)

    def memo(self, name: str, compute: Callable[[], Any]) -> Any:
        """Compute once per suspect: for what does not depend on the key, for instance null statistics.

        Its queries count for every claim that uses it, as if each stood alone.
        """
        if name in self._memory:
            self.queries += self._memory[name][1]
        else:
            before = self.queries
            value = compute()
            self._memory[name] = value, self.queries - before
        return self._memory[name][0]

    def _need(self, part: Any, *allowed: Access) -> Any:
        if self.access not in allowed and self.also not in allowed:
            raise AccessError(
                f"Expected a scheme with access {' or '.join(map(repr, allowed))}, but its card says {self.access!r}: "
                "declare the access that verification needs, or ask for less."
            )
        if part is None:
            raise AccessError(f"This suspect has nothing for access {self.access!r}.")
        return part

    def _answers(self, images: Tensor, *allowed: Access) -> Tensor:
        model: nn.Module = self._need(self._model, *allowed)
        self.queries += len(images)
        return predict(model, images).log_softmax(1)
