"""Hosts, controls, keys and marked networks: steps compute what is asked of them, and nothing twice."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest
import torch
from torch import nn

from bench.api import Capacity, ContractError, ImageSet, Recipe, Rng, Scheme, Share, Verdict, predict, replace
from bench.steps import embed as marking
from bench.steps import embedding, training
from bench.steps.embedding import embedded
from bench.steps.host import train_control, train_host, train_without
from bench.steps.keys import make_keys
from bench.steps.ownership import published_images
from bench.steps.scheme_workspace import SchemeWorkspace, host_for, stored_keys
from bench.steps.workspace import Place
from tests.conftest import PLUGINS
from tests.unit.untrained import Left, equal, holds, untrained


def test_the_clean_host_learns_the_owners_images_and_is_measured_on_both_parts() -> None:
    workspace = untrained("host")
    output = train_host(workspace)
    ((model, images, recipe),) = workspace.asked
    assert equal(model, workspace.fresh())
    assert torch.equal(images.images, workspace.data.owner.images)
    assert recipe == workspace.recipe
    host = workspace.fresh()
    host.load_state_dict(output.tensors["model"])
    assert not equal(host, model), "the trained weights are kept"
    parts = {"test_accuracy": workspace.data.heldout, "unseen_accuracy": workspace.data.unseen}
    for name, part in parts.items():
        assert output.result[name] == training.accuracy(host.eval(), part)
    assert output.result["history"] == [asdict(training.Epoch(1, 0.5, None, 0.25, 2.0, 150.0))]
    assert output.result["time_s"] == 5.0
    assert output.result["split"] == {"owner": 300, "adversary": 200, "heldout": 200, **output.result["split"]}


def test_a_profile_may_leave_it_at_the_held_out_images() -> None:
    workspace = untrained("host", {"all_unseen": False})
    result = train_host(workspace).result
    assert 0 <= result["test_accuracy"] <= 1
    assert result["unseen_accuracy"] is None


@pytest.mark.parametrize("situation", ["fine-tune", "distill"])
def test_the_control_learns_as_the_marked_model_does_without_a_mark(situation: str) -> None:
    workspace = untrained("control", situations=(situation,))
    output = train_control(workspace)
    ((model, images, recipe),) = workspace.asked
    host = workspace.model("host")
    assert equal(model, host)
    assert torch.equal(images.images, workspace.data.owner.images)
    assert torch.equal(images.labels, workspace.data.owner.labels)
    if situation == "distill":
        assert images.targets is not None
        torch.testing.assert_close(images.targets, predict(host, images.images).softmax(1))
    else:
        assert images.targets is None
    assert recipe == workspace.recipe
    with torch.no_grad():
        next(model.parameters()).add_(0.1)
    expected = training.accuracy(model.eval(), workspace.data.heldout)
    every = training.accuracy(model, workspace.data.unseen)
    assert len(workspace.data.unseen) == 450, "more than the 200 that are held out"
    assert output.result == {
        "test_accuracy": expected, "unseen_accuracy": pytest.approx(every), "time_s": 5.0,
    }  # fmt: skip


def test_who_trains_without_owners_starts_as_the_host_did_and_leaves_its_weights() -> None:
    workspace = untrained("host", {"users": 2, "share": 10})
    output = train_without(workspace)
    ((model, images, recipe),) = workspace.asked
    assert (len(images), recipe) == (280, workspace.recipe)
    assert equal(model, workspace.fresh())
    assert output.result == {"time_s": 5.0}
    assert not holds(output.tensors["model"], model)


# ---- keys ------------------------------------------------------------------------------------------------------------
def test_a_key_is_made_for_each_owner_from_a_stream_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = untrained("keys", {"scheme_params": {"bits": 16}, "owners": 2})
    kind, asked = type(workspace.scheme), []
    keygen = kind.keygen

    def watched(scheme: Any, host: Any, rng: Rng) -> Any:
        asked.append((host.number, rng))
        host.note("loss", [1.0, 0.5 + host.number])
        return keygen(scheme, host, rng)

    monkeypatch.setattr(kind, "keygen", watched)
    monkeypatch.setattr(kind, "capacity", lambda scheme, host: Capacity(16 + host.number, 40, 30))
    output = make_keys(workspace)
    assert [number for number, _ in asked] == [0, 1]
    assert len({rng.path for _, rng in asked}) == 2
    result = output.result
    assert result["histories"] == {"loss": [1.0, 0.5]}, "the first owner's"
    assert [result[f"capacity_{part}"] for part in ("bits", "limit", "most")] == [16, 40, 30]
    assert 0 < result["time_s"] < 60
    made = Left(**result)
    made.groups = output.tensors
    reading = SchemeWorkspace(workspace.spec, {**workspace.inputs, "keys": made}, Place())
    first, second = reading.keys()
    assert isinstance(first, kind.key_type)
    assert not torch.equal(first.projection, second.projection)
    expected = kind.keygen(workspace.scheme, host_for(workspace, workspace.data.owner), asked[0][1])
    assert torch.equal(first.projection, expected.projection)
    monkeypatch.setattr(kind, "capacity", lambda scheme, host: None)
    without = make_keys(workspace).result
    assert [without[f"capacity_{part}"] for part in ("bits", "limit", "most")] == [None, None, None]


def test_what_is_no_key_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = untrained("keys")
    monkeypatch.setattr(type(workspace.scheme), "keygen", lambda *_: "no key")
    with pytest.raises(ContractError, match=r"Expected keygen to return a UchidaKey, but got 'no key'\."):
        make_keys(workspace)


def test_keys_that_embedding_changed_are_read_from_the_marked_model_and_others_from_where_they_were_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BENCH_PLUGINS", str(PLUGINS))
    workspace = untrained("keys", schemes=("test-moving",))
    inputs = {name: Left(keys=[[{"epoch": epoch}, False]]) for epoch, name in enumerate(("keys", "mark", "nulls"))}

    def epochs(step: str = "keys", **left: Any) -> list[int]:
        return [key.epoch for key in SchemeWorkspace(workspace.spec, left, Place()).keys(step)]

    assert epochs(**inputs) == [1]
    assert epochs("nulls", **inputs) == [2]
    assert epochs(keys=inputs["keys"]) == [0]
    assert epochs(keys=inputs["keys"], mark=Left()) == [0], "this embedding changed none"


@pytest.mark.parametrize("situation", ["train", "post-hoc"])
def test_marking_trains_on_the_published_images_and_tells_what_became_of_mark_and_network(
    monkeypatch: pytest.MonkeyPatch, situation: str
) -> None:
    monkeypatch.setenv("BENCH_PLUGINS", str(PLUGINS))
    changes = {"situation": situation, "heldout_users": 3}
    workspace, asked = untrained("mark", changes, schemes=("test-stamp",), attacks=("images-flip",)), []
    kind, owner = type(workspace.scheme), workspace.data.owner
    key, later = (kind.key_type(torch.tensor(colour, dtype=torch.uint8)) for colour in ((255, 0, 0), (0, 255, 0)))
    stored = stored_keys([key])
    workspace.inputs["keys"] = Left(**stored.result)
    workspace.inputs["keys"].groups = stored.tensors
    model, epoch = workspace.build(Rng("marked")), training.Epoch(1, 0.5, None, 0.25, 2.0, 150.0)

    def embedded(*given: Any) -> embedding.Embedded:
        asked.append(given)
        return embedding.Embedded(model.eval(), [later], [epoch])

    def green(model: nn.Module, images: ImageSet) -> float:
        assert len(images) == len(workspace.data.heldout)
        return float((images.images[:, :, 0, 0] == later.colour).all(1).float().mean())

    monkeypatch.setattr(training, "accuracy", green)
    monkeypatch.setattr(marking, "embedded", embedded)
    monkeypatch.setattr(kind, "card", replace(kind.card, refreshes=True, also="scores"))
    judged: list[tuple[bool, ImageSet]] = []

    def verify(scheme: Any, suspect: Any, key: Any) -> Verdict:
        judged.append((suspect.also is not None, suspect.images))
        return Verdict(statistic=float(key.colour[1]), p_value=0.5)

    monkeypatch.setattr(kind, "verify", verify)
    output = marking.embed(workspace)
    ((space, start, keys, (host,), publish, recipe, _),) = asked
    assert space is workspace
    assert equal(start, workspace.start())
    assert [each.colour.tolist() for each in keys] == [[255, 0, 0]]
    assert torch.equal(host.share.images, owner.images)
    assert recipe == (None if situation == "post-hoc" else workspace.recipe)
    assert torch.equal(publish(keys).images, workspace.scheme.mark_data(owner, key).images)
    assert publish(keys) is publish(keys), "the set is marked once"
    assert torch.equal(publish([later]).images, workspace.scheme.mark_data(owner, later).images)
    result = output.result
    assert [verdict["statistic"] for verdict in result["point"]["verdicts"]] == [255.0], "of the key as it is now"
    assert [verdict["statistic"] for verdict in result["clean_verdicts"]] == [255.0]
    assert (len(result["heldout_verdicts"]), result["point"]["strength"]) == (3, 0.0)
    assert [details for details, _ in judged] == [False, True, True, True, True]
    unmarked, *others = (images for _, images in judged)
    assert torch.equal(unmarked.images, owner.images)
    assert all(torch.equal(images.images, publish(keys).images) for images in others)
    assert result["history"] == [asdict(epoch)]
    assert 0 < result["time_s"] < 60
    assert result["measures"].pop("marked_test_accuracy") == 1.0, "all are stamped green"
    assert result["measures"] == published_images(workspace, workspace.scheme, keys).quality
    assert holds(output.tensors["model"], model)
    made = Left(**result)
    made.groups = output.tensors
    (kept,) = SchemeWorkspace(workspace.spec, {"mark": made, "keys": workspace.inputs["keys"]}, Place()).keys()
    assert torch.equal(kept.colour, later.colour)


@pytest.mark.parametrize(
    ("carrier", "share", "told"), [("data", "all", True), ("data", 0.5, False), ("behaviour", "all", False)]
)
def test_accuracy_on_marked_images_is_told_where_a_whole_data_set_bears_the_mark(
    monkeypatch: pytest.MonkeyPatch, carrier: str, share: Any, told: bool
) -> None:
    monkeypatch.setenv("BENCH_PLUGINS", str(PLUGINS))
    workspace = untrained("mark", schemes=("test-stamp",), attacks=("images-flip",))
    kind = type(workspace.scheme)
    monkeypatch.setattr(kind, "card", replace(kind.card, carrier=carrier))
    monkeypatch.setattr(kind, "share", Share(share))
    key = kind.key_type(torch.tensor([255, 0, 0], dtype=torch.uint8))
    found = marking._on_marked_images(workspace, workspace.scheme, [key, key], workspace.model("host"))
    assert set(found) == ({"marked_test_accuracy"} if told else set())


# ---- embedding -------------------------------------------------------------------------------------------------------
def test_embedding_trains_with_the_hooks_of_all_keys_and_marks_the_model_with_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    workspace = untrained("mark", {"scheme_params": {}})
    kind, written = type(workspace.scheme), []
    rows, model, rng = workspace.data.owner[:4], nn.Sequential(nn.Linear(1, 1), nn.Dropout()), Rng("a stream")
    epoch = training.Epoch(1, 0.5, None, 0.25, 2.0, 150.0)

    def epochs(*given: Any, **options: Any) -> Any:
        asked.append((given, options))
        model.eval()
        yield epoch
        model.train()

    def mark(scheme: Any, model: nn.Module, key: Any, host: Any) -> nn.Module:
        written.append((key, host))
        return model

    monkeypatch.setattr(training, "train_epochs", epochs)
    monkeypatch.setattr(kind, "embedding_loss", lambda scheme, model, key, batch: key and torch.tensor(key))
    monkeypatch.setattr(kind, "undecayed", lambda scheme, key: (f"w{key}", "shared"))
    monkeypatch.setattr(kind, "mark_model", mark)
    monkeypatch.setattr(type(workspace), "watched", lambda self, scheme: {"head": "net.fc"})
    published: list[Any] = []

    def run(keys: list[Any], recipe: Recipe | None) -> embedding.Embedded:
        return embedded(workspace, model, keys, ["a", "b"], lambda keys: published.append(keys) or rows, recipe, rng)

    found = run([2.0, 3.0], workspace.recipe)
    ((given, options),) = asked
    assert given == (model, rows, workspace.recipe)
    assert published == [[2.0, 3.0]]
    assert (found.model, found.keys, found.history) == (model, [2.0, 3.0], [epoch])
    assert options.pop("undecayed") == {"w2.0", "w3.0", "shared"}
    assert options.pop("extra_loss")(model, None) == 5.0
    assert options == {**workspace.training_options, "rng": rng, "watches": {"head": "net.fc"}}
    assert written == [(2.0, "a"), (3.0, "b")]
    assert not model.training
    run([None, 4.0], workspace.recipe)
    assert asked[-1][1]["extra_loss"](model, None) == 4.0
    run([None, None], workspace.recipe)
    assert asked[-1][1]["extra_loss"](model, None) is None
    model.train()
    assert run([2.0, 3.0], None).history == []
    assert (len(asked), len(published)) == (3, 3), "what is written afterwards alone trains nothing"
    assert not model.training
    monkeypatch.setattr(kind, "embedding_loss", Scheme.embedding_loss)
    run([2.0, 3.0], workspace.recipe)
    assert asked[-1][1]["extra_loss"] is None, "this scheme adds none"
    with pytest.raises(ValueError, match="zip"):
        run([2.0], workspace.recipe)


def test_keys_are_refreshed_with_the_network_that_is_being_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    workspace, asked = untrained("mark"), []
    kind, model = type(workspace.scheme), nn.Linear(1, 1)
    epochs = [training.Epoch(number, 0.5, None, 0.25, 2.0, 150.0) for number in (1, 2)]

    def refresh(scheme: Any, key: float, model: nn.Module, epoch: int) -> float:
        asked.append((key, model, epoch))
        return key + 1

    monkeypatch.setattr(kind, "card", replace(kind.card, refreshes=True))
    monkeypatch.setattr(kind, "refresh", refresh)
    monkeypatch.setattr(kind, "mark_model", lambda scheme, model, key, host: model)
    monkeypatch.setattr(kind, "undecayed", lambda scheme, key: ())
    monkeypatch.setattr(training, "train_epochs", lambda model, images, *_, **__: [images(), *epochs][1:])
    found = embedded(workspace, model, [5.0], ["host"], lambda keys: keys, workspace.recipe, Rng("stream"))
    assert asked == [(5.0, model, 1), (6.0, model, 2)]
    assert found.keys == [7.0]
