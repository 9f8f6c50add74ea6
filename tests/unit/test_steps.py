"""Steps compute what is asked of them, and nothing twice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench import archs
from bench.api import Capacity, ContractError, ImageSet, Recipe, Rng, Scheme, Share, Verdict, predict, replace
from bench.plan.step import Step
from bench.runner.store import Store
from bench.steps import embed as marking
from bench.steps import embedding, training
from bench.steps import workspace as workspaces
from bench.steps.embedding import embedded
from bench.steps.host import left_out_rows, train_control, train_host, train_without
from bench.steps.keys import make_keys
from bench.steps.nulls import attacked_false_claims, false_claims, left_out_claims
from bench.steps.ownership import published_images
from bench.steps.scheme_workspace import SchemeWorkspace, host_for, stored_keys
from bench.steps.workspace import Place, Workspace, recipe_of
from schemes.membership import Membership
from tests.conftest import PLUGINS
from tests.fakes import on_digits, opened


def test_only_keys_that_took_a_training_are_kept_for_the_claims_after_an_attack() -> None:
    assert set(on_digits(schemes=("mia-pow-shadow",)).steps["attacked_nulls"].inputs) == {"host", "nulls"}
    assert set(on_digits(schemes=("mia-pow",)).steps["attacked_nulls"].inputs) == {"host"}


def test_kept_keys_claim_as_the_same_keys_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = opened(on_digits(schemes=("mia-pow-shadow",)).steps["attacked_nulls"], Store(tmp_path))
    made = []
    learn = Membership._shadow
    monkeypatch.setattr(Membership, "_shadow", lambda *words: made.append(1) or learn(*words))
    kept = attacked_false_claims(workspace).result
    assert not made
    again = attacked_false_claims(SchemeWorkspace(workspace.spec, {"host": workspace.inputs["host"]}, Place())).result
    assert len(made) == workspace.spec["keys"] >= 1
    assert kept == again


def test_left_out_owners_claim_a_network_that_never_saw_their_images(tmp_path: Path) -> None:
    """They are drawn as the owners are; schemes of one share have the network in common."""
    made = on_digits(schemes=("mia-std",)).steps["left_out_claims"]
    assert made.inputs["without"].key == on_digits(schemes=("mia-pow",)).steps["left_out_claims"].inputs["without"].key
    assert "left_out_claims" not in on_digits(schemes=("uchida-random",)).steps
    assert "left_out_claims" not in on_digits(schemes=("mia-std",), null_keys=0).steps
    workspace = opened(made, Store(tmp_path))
    rows, total = left_out_rows(workspace), len(workspace.data.owner)
    size = workspace.scheme.share.count(total)
    assert [len(part) for part in rows] == [size] * workspace.spec["users"]
    assert len(torch.cat(rows).unique()) == size * len(rows), "their images are disjoint"
    trained = recorded(workspace, made.inputs["without"])
    seen = {image.numpy().tobytes() for image in trained.images}
    assert len(trained) == total - size * len(rows)
    assert not any(image.numpy().tobytes() in seen for image in workspace.data.owner.images[torch.cat(rows)])
    p_values = left_out_claims(workspace).result["p_values"]
    assert len(p_values) == workspace.spec["claims"] == 2


def recorded(workspace: SchemeWorkspace, step: Step) -> ImageSet:
    """What a step trains on."""
    seen: list[ImageSet] = []

    class Watched(Workspace):
        def train(self, model: torch.nn.Module, images: ImageSet, *rest: Any, **extra: Any) -> Any:
            seen.append(images)
            return super().train(model, images, *rest, **extra)

    train_without(Watched(step.spec, {}, Place()))
    return seen[0]


def test_owners_who_would_leave_nobody_to_train_on_are_refused(tmp_path: Path) -> None:
    step = on_digits(schemes=("mia-std",)).steps["left_out_claims"].inputs["without"]
    with pytest.raises(ValueError, match="left-out owners of 150 images each to leave some of 300"):
        left_out_rows(Workspace({**step.spec, "share": 150}, {}, Place()))


# ---- steps whose training is recorded and not done -------------------------------------------------------------------
class Left:
    """What another step left."""

    def __init__(self, model: nn.Module | None = None, spec: Mapping[str, Any] | None = None, **result: Any) -> None:
        self.meta, self.result = {"identity": {"spec": spec or {}}}, result
        self.groups = {} if model is None else {"model": dict(model.state_dict())}

    def tensors(self, group: str) -> dict[str, Tensor]:
        return self.groups[group]


class Untrained(SchemeWorkspace):
    """Keeps what it is asked to train on; moves one weight, and says that it took five seconds."""

    def __init__(self, *words: Any) -> None:
        super().__init__(*words)
        self.asked: list[tuple[nn.Module, ImageSet, Recipe]] = []

    def train(self, model: nn.Module, images: ImageSet, recipe: Recipe, rng: Rng, **extra: Any) -> training.Trained:
        assert not extra
        assert isinstance(rng, Rng)
        self.asked.append((self.same(model), images, recipe))
        with torch.no_grad():
            next(model.parameters()).add_(0.1)
        return training.Trained(model.eval(), [training.Epoch(1, 0.5, None, 0.25, 2.0, 150.0)], 5.0)

    def same(self, model: nn.Module) -> nn.Module:
        copy = self.fresh()
        copy.load_state_dict(model.state_dict())
        return copy.eval()


def untrained(kind: str, changes: Mapping[str, Any] | None = None, **fields: Any) -> Untrained:
    """Such a step on a host of weights by chance."""
    steps = on_digits(**fields).steps
    spec = {**steps[kind].spec, **(changes or {})}
    host = Workspace(spec, {}, Place()).build(Rng("another host"))
    return Untrained(spec, {"host": Left(host, steps["host"].spec)}, Place())


def equal(one: nn.Module, other: nn.Module) -> bool:
    return all(map(torch.equal, one.state_dict().values(), other.state_dict().values()))


def holds(tensors: Mapping[str, Tensor], model: nn.Module) -> bool:
    return tensors.keys() == model.state_dict().keys() and all(
        torch.equal(tensor, tensors[name]) for name, tensor in model.state_dict().items()
    )


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


def test_left_out_owners_leave_at_least_two_images_and_have_at_least_one() -> None:
    assert [len(rows) for rows in left_out_rows(untrained("host", {"users": 2, "share": 149}))] == [149, 149]
    assert [len(rows) for rows in left_out_rows(untrained("host", {"users": 3, "share": 1}))] == [1, 1, 1]
    for share, users in ((299, 1), (1e-6, 1)):
        with pytest.raises(ValueError, match=f"Expected {users} left-out owners of {int(share)} images each"):
            left_out_rows(untrained("host", {"users": users, "share": share}))


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


# ---- false claims ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("trains", [False, True])
def test_false_claims_see_the_unmarked_data_set_and_keys_that_took_a_training_are_kept_beside_them(
    monkeypatch: pytest.MonkeyPatch, trains: bool
) -> None:
    monkeypatch.setenv("BENCH_PLUGINS", str(PLUGINS))
    workspace, seen = untrained("nulls", schemes=("test-stamp",), attacks=("images-flip",)), []
    kind = type(workspace.scheme)

    def verify(scheme: Any, suspect: Any, key: Any) -> Verdict:
        seen.append((suspect.images, key))
        return Verdict(statistic=0.0, p_value=len(seen) / 100)

    monkeypatch.setattr(kind, "card", replace(kind.card, keygen_trains=trains))
    monkeypatch.setattr(kind, "verify", verify)
    output = false_claims(workspace)
    assert all(torch.equal(images.images, workspace.data.owner.images) for images, _ in seen)
    assert output.result["p_values"] == [number / 100 for number in range(1, workspace.spec["keys"] + 1)]
    if not trains:
        assert (set(output.result), output.tensors) == ({"p_values"}, {})
        return
    made = Left(**output.result)
    made.groups = output.tensors
    kept = SchemeWorkspace(workspace.spec, {"nulls": made}, Place()).keys("nulls")
    assert [key.colour.tolist() for key in kept] == [key.colour.tolist() for _, key in seen]


def test_left_out_owners_are_numbered_and_have_streams_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = untrained("left_out_claims", schemes=("mia-std",))
    workspace.inputs["without"] = Left(workspace.build(Rng("a network without them")))
    kind, asked, seen = type(workspace.scheme), [], []
    keygen = kind.keygen

    def made(scheme: Any, host: Any, rng: Rng) -> Any:
        asked.append((host.number, host.share, rng.path))
        return keygen(scheme, host, rng)

    def verify(scheme: Any, suspect: Any, key: Any) -> Verdict:
        seen.append(suspect.log_probs(workspace.data.heldout.images))
        return Verdict(statistic=0.0, p_value=0.5)

    monkeypatch.setattr(kind, "keygen", made)
    monkeypatch.setattr(kind, "verify", verify)
    assert left_out_claims(workspace).result == {"p_values": [0.5] * workspace.spec["claims"]}
    assert [number for number, *_ in asked] == list(range(workspace.spec["claims"]))
    assert len({path for *_, path in asked}) == len(asked) > 1
    for (_, share, _), rows in zip(asked, left_out_rows(workspace), strict=False):
        assert torch.equal(share.images, workspace.data.owner.images[rows])
    expected = predict(workspace.model("without"), workspace.data.heldout.images).log_softmax(1)
    assert all(torch.allclose(answer, expected, atol=1e-5) for answer in seen)


# ---- what a step is lent ---------------------------------------------------------------------------------------------
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


def test_streams_differ_by_data_set_architecture_seed_and_name() -> None:
    spec = untrained("host").spec
    changes: list[dict[str, Any]] = [{}, {"dataset": "another"}, {"arch": "another"}, {"seed": 7}]
    assert len({Workspace({**spec, **change}, {}, Place()).rng("name").seed for change in changes}) == 4
    assert Workspace(spec, {}, Place()).rng("another").seed != Workspace(spec, {}, Place()).rng("name").seed
