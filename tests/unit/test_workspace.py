"""What a step is lent: data, networks, a training, the layers that a card watches, and streams of its own."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from bench import archs
from bench.api import Recipe, Rng, replace
from bench.steps import training
from bench.steps import workspace as workspaces
from bench.steps.scheme_workspace import host_for
from bench.steps.workspace import Place, Workspace, recipe_of
from tests.unit.untrained import equal, untrained


def test_data_are_loaded_from_the_place_onto_its_device_and_dealt_as_the_spec_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[str, dict[str, Any]]] = []
    workspace = untrained("host")
    monkeypatch.setattr(workspaces, "load", lambda name, **options: asked.append((name, options)) or Data())
    place = Place("meta", Path("root"), True, Path("cache"))
    assert Workspace(workspace.spec, {}, place, "0").data
    device = torch.device("meta")
    lent = {"data_root": Path("root"), "download": True, "cache": Path("cache"), "device": device}
    assert asked[-1] == ("digits-m", {**lent, "owner": 300, "adversary": 200, "heldout": 200})
    assert Workspace(workspace.spec, {}, place).load("other", None)
    assert asked[-1] == ("other", lent)


class Data:
    """Data of which nothing is known but the checksum."""

    checksum = "0"


def test_networks_have_the_spec_s_width_and_an_answer_for_each_class() -> None:
    workspace = untrained("host", {"width": 0.25})
    classes = len(workspace.data.card.classes)
    for arch in (None, "vgg16"):
        made = workspace.build(Rng("a stream"), arch)
        expected = archs.build(arch or "wrn", classes, width=0.25, rng=Rng("a stream"))
        assert [tensor.shape for tensor in made.parameters()] == [tensor.shape for tensor in expected.parameters()]
        assert equal(made, expected)


def test_the_learner_starts_untrained_unless_the_situation_begins_with_the_host() -> None:
    for situation in ("train", "fine-tune", "distill", "post-hoc", None):
        workspace = untrained("host", {"situation": situation} if situation else {})
        first = workspace.fresh() if situation in ("train", None) else workspace.model("host")
        assert equal(workspace.start(), first)
    assert not equal(workspace.fresh(), workspace.model("host"))
    assert not workspace.model("host").training


def test_training_is_told_what_the_data_set_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    monkeypatch.setattr(training, "train", lambda *given, **options: asked.append((given, options)))
    workspace = Workspace(untrained("host").spec, {}, Place())
    model, images, rng = nn.Identity(), workspace.data.owner, Rng("a stream")
    workspace.train(model, images, workspace.recipe, rng, watches={})
    options = {"rng": rng, "augment": workspace.data.card.augment, "mixed_precision": False, "watches": {}}
    assert asked == [((model, images, workspace.recipe), options)]


def test_a_recipe_is_read_as_it_was_written() -> None:
    recipe = Recipe(3, 0.2, schedule="step", milestones=(0.3, 0.6), augment=("flip",))
    stored = {**asdict(recipe), "milestones": [0.3, 0.6], "augment": ["flip"]}
    assert recipe_of({"recipe": stored}) == recipe


def test_an_owner_sees_the_clean_host_and_trains_by_its_recipe() -> None:
    workspace = untrained("keys", {"recipe": {"epochs": 9, "lr": 9.0}})
    share = workspace.data.owner[:7]
    host = host_for(workspace, share, 2)
    assert (host.number, host.device, host.arch.name, host.dataset.name) == (2, workspace.device, "wrn", "digits-m")
    assert host.share is share
    for mine, part in ((host.images, workspace.data.owner), (host.heldout, workspace.data.heldout)):
        assert torch.equal(mine.images, part.images)
    assert equal(host.model(), workspace.model("host"))
    assert host.model() is not host.model()
    assert isinstance(host.model().get_submodule(host.layer("conv2")), nn.Conv2d)
    assert host.layer("conv2") != host.layer("conv3")
    recipe = recipe_of(workspace.inputs["host"].meta["identity"]["spec"])
    one = host.train(share, Rng("a"))
    host.train(share, Rng("a"), epochs=1)
    host.train(share, Rng("b"))
    (first, images, whole), (second, _, shorter), (third, *_) = workspace.asked
    assert (whole, shorter) == (recipe, replace(recipe, epochs=1))
    assert torch.equal(images.images, share.images)
    assert equal(first, second)
    assert not equal(first, third)
    assert not equal(first, workspace.fresh())
    assert not equal(one, first)
    assert host_for(workspace, share).number == 0


def test_the_layers_that_a_card_watches_are_those_of_the_step_s_architecture() -> None:
    workspace = untrained("mark")
    kind = type("Watching", (type(workspace.scheme),), {})
    kind.card = replace(kind.card, watches=("head", "conv2"))
    paths, model = workspace.watched(kind()), workspace.model("host")
    assert list(paths) == ["head", "conv2"]
    assert isinstance(model.get_submodule(paths["head"]), nn.Linear)
    assert paths["conv2"] == archs.layer_path("wrn", "conv2")


def test_streams_differ_by_data_set_architecture_seed_and_name() -> None:
    spec = untrained("host").spec
    changes: list[dict[str, Any]] = [{}, {"dataset": "another"}, {"arch": "another"}, {"seed": 7}]
    assert len({Workspace({**spec, **change}, {}, Place()).rng("name").seed for change in changes}) == 4
    assert Workspace(spec, {}, Place()).rng("another").seed != Workspace(spec, {}, Place()).rng("name").seed
