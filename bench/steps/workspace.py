"""What does a step see? Its spec, its inputs and where to compute, as the objects that authors know."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from bench import archs, data
from bench.api import Attack, Context, Host, ImageSet, Key, Recipe, Rng, Scheme
from bench.registry import attacks, make, schemes
from bench.steps import training

__all__ = ["AttackContext", "Job", "Output", "Place", "Stored", "host_for", "host_of", "start", "stored_keys"]


class Stored(Protocol):
    """What another step left: its identity and times (`meta`), JSON (`result`), and tensors by group."""

    @property
    def meta(self) -> dict[str, Any]: ...  # noqa: D102

    @property
    def result(self) -> dict[str, Any]: ...  # noqa: D102

    def tensors(self, group: str) -> dict[str, Tensor]:
        """The tensors saved under this group name, on the CPU."""


@dataclass(frozen=True)
class Place:
    """Where to compute: of no influence on what is computed.

    Attributes:
        data_root, download, cache: where data sets are found, and whether they may be fetched.
    """

    device: str = "cpu"
    data_root: Path | None = None
    download: bool = False
    cache: Path | None = None


@dataclass(frozen=True)
class Output:
    """What a step leaves: JSON, and tensors by group and name."""

    result: dict[str, Any]
    tensors: dict[str, dict[str, Tensor]] = field(default_factory=dict)


def stored_keys(keys: Sequence[Key]) -> Output:
    """Keys as a step leaves them; `Job.keys` reads them."""
    values = [[dict(key.values), bool(key.tensors)] for key in keys]
    return Output({"keys": values}, {f"key{i}": dict(key.tensors) for i, key in enumerate(keys) if key.tensors})


class Job:
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
    def data(self) -> data.Data:
        """The data set, split.

        Raises:
            DataError: its checksum is not the one that the plan was made with.
        """
        sizes = {part: self.spec[part] for part in ("owner", "adversary", "heldout")}
        place = self.place
        loaded = data.load(
            self.spec["dataset"],
            data_root=place.data_root, download=place.download, cache=place.cache, device=self.device, **sizes,
        )  # fmt: skip
        if self.checksum not in (None, loaded.checksum):
            raise data.DataError(
                f"Expected {self.spec['dataset']} with checksum {self.checksum}, but found {loaded.checksum}: the data "
                "changed since the run was planned; give the same command again."
            )
        return loaded

    def rng(self, *names: str | int) -> Rng:
        """The stream of something within this host: named, and the same for every step that names it."""
        return Rng(self.spec["dataset"], self.spec["arch"], self.spec["seed"], *names)

    @property
    def scheme(self) -> Scheme:
        """The scheme with its parameters."""
        return make(schemes()[self.spec["scheme"]], self.spec["scheme_params"])

    @property
    def attack(self) -> Attack:
        """The attack with its parameters."""
        return make(attacks()[self.spec["attack"]], self.spec["attack_params"])

    @property
    def recipe(self) -> Recipe:
        """The recipe in the spec."""
        return _recipe(self.spec)

    def build(self, rng: Rng) -> nn.Module:
        """An untrained network of the step's architecture, with weights from this stream."""
        classes = len(self.data.card.classes)
        return archs.build(self.spec["arch"], classes, width=self.spec["width"], rng=rng, device=self.device)

    def fresh(self) -> nn.Module:
        """The untrained host; the same initial weights for clean host and marked model (paired seeds)."""
        return self.build(self.rng("init"))

    def model(self, step: str) -> nn.Module:
        """A copy of the network that an input step left, in eval mode."""
        model = self.fresh()
        model.load_state_dict({name: t.to(self.device) for name, t in self.inputs[step].tensors("model").items()})
        return model.eval()

    def keys(self, step: str = "keys") -> list[Key]:
        """The keys that an input step left, by default the owners', on the device."""
        stored = self.inputs[step]
        return [
            Key(stored.tensors(f"key{i}") if named else {}, values).to(self.device)
            for i, (values, named) in enumerate(stored.result["keys"])
        ]

    def train(self, model: nn.Module, images: ImageSet, recipe: Recipe, rng: Rng, **extra: Any) -> training.Trained:
        """Train by the one loop, with what the data set and the device ask for."""
        mixed = self.device.type == "cuda"
        augment = self.data.card.augment
        return training.train(model, images, recipe, rng=rng, augment=augment, mixed_precision=mixed, **extra)


class _HostView(Host):
    """The clean host as keygen sees it."""

    def __init__(self, job: Job, share: ImageSet, number: int, model: Callable[[], nn.Module], recipe: Recipe) -> None:
        self.arch = archs.arch(job.spec["arch"])
        self.dataset = job.data.card
        self.images = job.data.owner
        self.heldout = job.data.heldout
        self.share = share
        self.number = number
        self.device = job.device
        self._job, self._model, self._recipe = job, model, recipe

    def model(self) -> nn.Module:
        return self._model()

    def layer(self, group: str) -> str:
        return archs.layer_path(self._job.spec["arch"], group)

    def train(self, images: ImageSet, rng: Rng, *, epochs: int | None = None) -> nn.Module:
        recipe = self._recipe if epochs is None else replace(self._recipe, epochs=epochs)
        model = self._job.build(rng.child("init"))
        return self._job.train(model, images.to(self.device), recipe, rng.child("training")).model


class AttackContext(Context):
    """What an attack may use."""

    def __init__(self, job: Job) -> None:
        self.data = job.data.adversary
        self.rng = job.rng("attack", job.spec["attack"])
        self.recipe = job.recipe
        self.arch = archs.arch(job.spec["arch"])
        self.device = job.device
        self._job = job

    def fresh(self, name: str = "surrogate") -> nn.Module:
        """An untrained network; see `Context.fresh`."""
        return self._job.build(self.rng.child("init", name))

    def epochs(
        self, images: ImageSet, recipe: Recipe, *, model: nn.Module | None = None, name: str = "training"
    ) -> Iterator[nn.Module]:
        """One training, an epoch at a time; see `Context.epochs`."""
        model = start(self._job) if model is None else model.to(self.device)
        images, rng = images.to(self.device), self.rng.child(name)
        mixed, augment = self.device.type == "cuda", self._job.data.card.augment
        for _ in training.train_epochs(model, images, recipe, rng=rng, augment=augment, mixed_precision=mixed):
            yield model


def _recipe(spec: Mapping[str, Any]) -> Recipe:
    values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in spec["recipe"].items()}
    return Recipe(**values)


def host_for(job: Job, share: ImageSet, number: int = 0) -> Host:
    """What an owner of this share sees of the clean host."""
    host_spec = job.inputs["host"].meta["identity"]["spec"]
    return _HostView(job, share, number, lambda: job.model("host"), _recipe(host_spec))


def host_of(job: Job, images: ImageSet, model: Callable[[], nn.Module], recipe: Recipe) -> Host:
    """What an owner sees of a host that no step has left: of these images, trained by this recipe."""
    return _HostView(job, images, 0, model, recipe)


def start(job: Job) -> nn.Module:
    """The network that a learner of this cell starts from."""
    return job.fresh() if job.spec.get("situation", "train") == "train" else job.model("host")
