"""A workspace with a scheme, its keys and its attacks, and the clean host as key generation sees it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from bench import archs
from bench.contract.attack import Attack
from bench.contract.images import ImageSet
from bench.contract.keys import Key
from bench.contract.networks import Recipe
from bench.contract.scheme import Host, Scheme
from bench.identity import Rng
from bench.registry import attacks, make, schemes
from bench.steps.workspace import Output, Workspace, recipe_of

__all__ = ["HostView", "SchemeWorkspace", "host_for", "stored_keys"]


def stored_keys(keys: Sequence[Key]) -> Output:
    """Keys as a step leaves them; `SchemeWorkspace.keys` reads them."""
    packed = [key.packed() for key in keys]
    values = [[dict(values), bool(tensors)] for tensors, values in packed]
    return Output({"keys": values}, {f"key{i}": tensors for i, (tensors, _) in enumerate(packed) if tensors})


class SchemeWorkspace(Workspace):
    """A step about to be computed that has to do with a scheme, or with an attack on one."""

    @property
    def scheme(self) -> Scheme[Any]:
        """The scheme with its parameters."""
        return make(schemes()[self.spec["scheme"]], self.spec["scheme_params"])

    @property
    def attacks(self) -> list[Attack]:
        """The attacks in order, with their parameters; all but the last have one rung."""
        return [make(attacks()[name], params) for name, params in self.spec["attacks"]]

    def keys(self, step: str = "keys") -> list[Key]:
        """The keys that an input step left, by default the owners', on the device."""
        # Where the key changes while embedding, the marked model's keys are those that embedding ended with.
        step = "mark" if step == "keys" and "mark" in self.inputs and self.inputs["mark"].result.get("keys") else step
        stored, kind = self.inputs[step], self.scheme.key_type
        return [
            kind.unpacked(stored.tensors(f"key{i}") if named else {}, values).to(self.device)
            for i, (values, named) in enumerate(stored.result["keys"])
        ]

    def watched(self, scheme: Scheme[Any]) -> Mapping[str, str]:
        """The layers that the scheme's card watches, as paths of submodules."""
        arch = self.spec["arch"]
        head = f"net.{archs.arch(arch).head}"
        return {name: head if name == "head" else archs.layer_path(arch, name) for name in scheme.card.watches}


class HostView(Host):
    """The clean host as key generation sees it."""

    def __init__(
        self,
        workspace: Workspace,
        images: ImageSet,
        share: ImageSet,
        number: int,
        model: Callable[[], nn.Module],
        recipe: Recipe,
    ) -> None:
        self.arch = archs.arch(workspace.spec["arch"])
        self.dataset = workspace.data.card
        self.images = images
        self.heldout = workspace.data.heldout
        self.share = share
        self.number = number
        self.device = workspace.device
        self._workspace, self._model, self._recipe = workspace, model, recipe

    def model(self) -> nn.Module:
        """A fresh copy of the clean host; see `Host.model`."""
        return self._model()

    def layer(self, group: str) -> str:
        """The embedding layer of a group; see `Host.layer`."""
        return archs.layer_path(self._workspace.spec["arch"], group)

    def train(self, images: ImageSet, rng: Rng, *, epochs: int | None = None) -> nn.Module:
        """A network trained from scratch by the host's recipe; see `Host.train`."""
        recipe = self._recipe if epochs is None else replace(self._recipe, epochs=epochs)
        model = self._workspace.build(rng.child("init"))
        return self._workspace.train(model, images.to(self.device), recipe, rng.child("training")).model


def host_for(workspace: Workspace, share: ImageSet, number: int = 0) -> Host:
    """What an owner of this share sees of the clean host."""
    recipe = recipe_of(workspace.inputs["host"].meta["identity"]["spec"])
    return HostView(workspace, workspace.data.owner, share, number, lambda: workspace.model("host"), recipe)
