"""Networks of known behaviour, and an owner's host that lends what a test gives it and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from bench.api import Arch, DatasetCard, Host, ImageSet, Key, Recipe, Rng, pixels
from tests.fakes.images import CLASSES, noise_images

__all__ = ["Answers", "FakeHost", "Nearest", "Remembers", "always", "keyed", "same_key", "sines", "user"]


class Answers(nn.Module):
    """A network whose logits are `rule` of images in [0, 1]."""

    def __init__(self, rule: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.rule = rule

    def forward(self, x: Tensor) -> Tensor:
        return self.rule(x)


def always(*logits: float) -> Answers:
    """A network that answers every image with these logits."""
    return Answers(lambda x: torch.tensor([logits]) + 0 * x.flatten(1)[:, :1])


def sines(seed: int, side: int = 12) -> Answers:
    """A network whose answers depend on the image alone, in no meaningful way."""
    weight = torch.randn(3 * side * side, CLASSES, generator=torch.Generator().manual_seed(seed))
    return Answers(lambda x: torch.sin(x.flatten(1) @ weight))


class Nearest(nn.Module):
    """A network that knows the given images: the nearer an image is to the one it resembles, the surer its label."""

    def __init__(self, known: ImageSet) -> None:
        super().__init__()
        self.known, self.labels = pixels(known.images).flatten(1), known.labels

    def forward(self, x: Tensor) -> Tensor:
        nearest, which = torch.cdist(x.flatten(1), self.known).min(1)
        return nn.functional.one_hot(self.labels[which], CLASSES) * (4 * torch.exp(-nearest))[:, None]


class Remembers(nn.Module):
    """A network sure by `margin` of the class of the very images it knows, and of all others of something of its own.

    Args:
        known: what it knows, pixel for pixel.
        margin: added to the right logit.
        noise: amplitude of all logits besides.
        salt: makes this part another network's.
    """

    def __init__(self, known: ImageSet, margin: float = 5.0, noise: float = 0.0, salt: float = 1.0) -> None:
        super().__init__()
        self.margin, self.noise, self.salt = margin, noise, salt
        self.answers = {r.tobytes(): int(y) for r, y in zip(known.images.numpy(), known.labels, strict=True)}

    def forward(self, x: Tensor) -> Tensor:
        images = (x * 255).round().to(torch.uint8).contiguous()
        flat = images.flatten(1).float()
        phases = self.salt * torch.arange(1.0, CLASSES * flat.shape[1] + 1).view(-1, CLASSES)
        logits = self.noise * torch.sin(flat @ phases)
        for row, image in enumerate(images.numpy()):
            if (label := self.answers.get(image.tobytes())) is not None:
                logits[row, label] += self.margin
        return logits


class FakeHost(Host):
    """An owner's host; what a test does not give, a scheme must not ask for.

    Args:
        images: the training set; eighty images of noise by default.
        heldout: forty by default.
        share: the owner's part; all by default.
        model: makes the clean host.
        learn: stands for training; `trained` keeps what it was asked for: images, epochs and seed.
        layers: path of a layer by its group.
    """

    arch: Arch
    recipe: Recipe

    def __init__(
        self,
        images: ImageSet | None = None,
        heldout: ImageSet | None = None,
        share: ImageSet | None = None,
        *,
        number: int = 0,
        classes: int = CLASSES,
        content: Any = "objects",
        model: Callable[[], nn.Module] | None = None,
        learn: Callable[[ImageSet], nn.Module] | None = None,
        layers: Mapping[str, str] | None = None,
    ) -> None:
        self.dataset = DatasetCard("small", "Small", tuple("abcdefgh"[:classes]), content)
        self.images = noise_images(80, 0) if images is None else images
        self.heldout = noise_images(40, 1) if heldout is None else heldout
        self.share = self.images if share is None else share
        self.number, self.device = number, torch.device("cpu")
        self.trained: list[tuple[ImageSet, int | None, int]] = []
        self._model, self._learn, self._layers = model, learn, layers or {}

    def model(self) -> nn.Module:
        assert self._model is not None, "this scheme needs no clean host"
        return self._model()

    def layer(self, group: str) -> str:
        assert group in self._layers, "this scheme knows no layers"
        return self._layers[group]

    def train(self, images: ImageSet, rng: Rng, *, epochs: int | None = None) -> nn.Module:
        assert self._learn is not None, "this scheme trains nothing"
        self.trained.append((images, epochs, rng.seed))
        return self._learn(images)


def keyed(kind: Any, host: Host | None = None, seed: int = 0, **params: Any) -> tuple[Any, Any]:
    """A scheme of Anti-Neuron Watermarking that does little, and a user's key; see `user`."""
    scheme = kind(**{"starts": 0, "decoys": 199, "pool": 100, **params})
    return scheme, scheme.keygen(host or user(), Rng("test", seed))


def user(count: int = 20, heldout: int = 120, number: int = 0, *, rows: Tensor | None = None) -> FakeHost:
    """A user who owns the first images of the training set, or these rows of the held-out images."""
    images, unseen = noise_images(100, 0, 12), noise_images(heldout, 1, 12)
    return FakeHost(images, unseen, images[:count] if rows is None else unseen[rows], number=number)


def same_key(one: Key, other: Key) -> bool:
    """Whether two keys hold the same secrets."""
    (tensors, values), (others, other_values) = one.packed(), other.packed()
    same = values == other_values and tensors.keys() == others.keys()
    return same and all(torch.equal(tensor, others[name]) for name, tensor in tensors.items())
