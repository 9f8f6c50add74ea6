"""What a step that trains sees: its spec, the results of other steps, the data set, networks and the training loop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from bench import archs
from bench.contract.images import ImageSet
from bench.contract.networks import Recipe
from bench.data.catalog import DataError
from bench.data.loading import Data, load
from bench.identity import Rng
from bench.steps import training

__all__ = ["Output", "Place", "Stored", "Workspace", "recipe_of"]

PRECISIONS = ("auto", "float32", "half")


class Stored(Protocol):
    """What another step left: its identity and times (`meta`), JSON (`result`), and tensors by group."""

    @property
    def meta(self) -> dict[str, Any]:
        """Identity, label, times."""

    @property
    def result(self) -> dict[str, Any]:
        """What the step found."""

    def tensors(self, group: str) -> dict[str, Tensor]:
        """The tensors saved under this group name, on the CPU."""


@dataclass(frozen=True)
class Place:
    """Where to compute, and how precisely: of no influence on what is computed but for rounding.

    Attributes:
        data_root, download, cache: where data sets are found, and whether they may be fetched.
        precision: of training: `float32`, `half`, or `auto`, which is half on a GPU.
    """

    device: str = "cpu"
    data_root: Path | None = None
    download: bool = False
    cache: Path | None = None
    precision: str = "auto"

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ValueError(f"Expected a precision of {', '.join(PRECISIONS)}, but got {self.precision!r}.")

    @property
    def mixed(self) -> bool:
        """Whether trainings run under autocast in half precision."""
        return self.precision == "half" or (self.precision == "auto" and torch.device(self.device).type == "cuda")


@dataclass(frozen=True)
class Output:
    """What a step leaves: JSON, and tensors by group and name."""

    result: dict[str, Any]
    tensors: dict[str, dict[str, Tensor]] = field(default_factory=dict)


class Workspace:
    """A step about to be computed: typed access to its spec and inputs."""

    def __init__(
        self, spec: Mapping[str, Any], inputs: Mapping[str, Stored], place: Place, checksum: str | None = None
    ) -> None:
        self.spec = spec
        self.inputs = inputs
        self.place = place
        self.checksum = checksum
        self.device = torch.device(place.device)

    @property
    def data(self) -> Data:
        """The data set, split.

        Raises:
            DataError: its checksum is not the one that the plan was made with.
        """
        sizes = {part: self.spec[part] for part in ("owner", "adversary", "heldout")}
        return self.load(self.spec["dataset"], self.checksum, **sizes)

    def load(self, name: str, checksum: str | None, **sizes: int | None) -> Data:
        """A data set, on the device.

        Raises:
            DataError: its checksum is another.
        """
        place = self.place
        loaded = load(
            name, data_root=place.data_root, download=place.download, cache=place.cache, device=self.device, **sizes
        )
        if checksum not in (None, loaded.checksum):
            raise DataError(
                f"Expected {name} with checksum {checksum}, but found {loaded.checksum}: the data changed since the "
                "run was planned; give the same command again."
            )
        return loaded

    def accuracies(self, model: nn.Module) -> dict[str, float | None]:
        """Accuracy on the held-out images, and on all unseen ones where the profile has these asked about.

        Args:
            model: in eval mode, on the device.
        """
        return training.accuracies(model, self.data, all_unseen=self.spec.get("all_unseen", True))

    def rng(self, *names: str | int) -> Rng:
        """The stream of something within this host: named, and the same for every step that names it."""
        return Rng(self.spec["dataset"], self.spec["arch"], self.spec["seed"], *names)

    @property
    def recipe(self) -> Recipe:
        """The recipe in the spec."""
        return recipe_of(self.spec)

    def build(self, rng: Rng, arch: str | None = None) -> nn.Module:
        """An untrained network with weights from this stream, of the step's architecture or another."""
        classes = len(self.data.card.classes)
        name = arch or self.spec["arch"]
        return archs.build(name, classes, width=self.spec["width"], rng=rng, device=self.device)

    def fresh(self) -> nn.Module:
        """The untrained host; the same initial weights for clean host and marked model (paired seeds)."""
        return self.build(self.rng("init"))

    def model(self, step: str) -> nn.Module:
        """A copy of the network that an input step left, in eval mode."""
        model = self.fresh()
        model.load_state_dict({name: t.to(self.device) for name, t in self.inputs[step].tensors("model").items()})
        return model.eval()

    def start(self) -> nn.Module:
        """The network that a learner of this cell starts from."""
        return self.fresh() if self.spec.get("situation", "train") == "train" else self.model("host")

    def train(self, model: nn.Module, images: ImageSet, recipe: Recipe, rng: Rng, **extra: Any) -> training.Trained:
        """Train by the one loop, with what the data set and the device ask for."""
        return training.train(model, images, recipe, rng=rng, **self.training_options, **extra)

    @property
    def training_options(self) -> dict[str, Any]:
        """What the data set and the device ask of every training."""
        return {"augment": self.data.card.augment, "mixed_precision": self.place.mixed}


def recipe_of(spec: Mapping[str, Any]) -> Recipe:
    """The recipe in a spec, whose lists are tuples again."""
    values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in spec["recipe"].items()}
    return Recipe(**values)
