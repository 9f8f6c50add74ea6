"""What an attack is lent: images, data sets, trainings, networks, copies and embeddings, as its card declares."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from bench.api import AccessError, Adversary, ImageSet, Recipe, pixels, predict, replace
from bench.registry import attacks, make, schemes
from bench.runner.store import Store
from bench.steps import chain as chains
from bench.steps import training
from bench.steps.chain import AttackContext
from bench.steps.embedding import Embedded
from bench.steps.judge import State
from bench.steps.scheme_workspace import SchemeWorkspace
from tests.fakes import noise_images, on_digits, opened
from tests.unit.chained import equal, judge_of, triggered, weights


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(Path(tmp_path_factory.mktemp("chain")))


@pytest.fixture(scope="module")
def marked(store: Store) -> SchemeWorkspace:
    return triggered(store)


def lent(workspace: SchemeWorkspace, access: str = "none", **adversary: Any) -> AttackContext:
    attack = make(attacks()["pruning"], {})
    attack.card = replace(attack.card, adversary=Adversary(access, **adversary))
    state = State(workspace.data.owner, workspace.recipe, lambda: workspace.model("mark"))
    return AttackContext(workspace, attack, state)


def test_images_are_lent_as_declared(marked: SchemeWorkspace) -> None:
    own = marked.data.adversary
    assert torch.equal(lent(marked, images=("own",)).data.labels, own.labels)
    unlabelled = lent(marked, images=("own unlabelled",)).data
    assert torch.equal(unlabelled.images, own.images)
    assert unlabelled.labels.tolist() == [-1] * len(own)
    with pytest.raises(AccessError, match="with images of its own, but its card declares the owner's"):
        _ = lent(marked, images=("the owner's",)).data


def test_another_data_set_is_lent_by_its_declared_name_alone(marked: SchemeWorkspace) -> None:
    workspace = SchemeWorkspace({**marked.spec, "auxiliary": {"digits-m": None}}, marked.inputs, marked.place)
    images = lent(workspace, images=("out of domain",)).auxiliary("digits-m")
    assert images.images.shape[1:] == marked.data.owner.images.shape[1:]
    with pytest.raises(AccessError, match="out-of-domain images of cifar10, but its card grants digits-m"):
        lent(workspace, images=("out of domain",)).auxiliary("cifar10")
    with pytest.raises(AccessError, match="out-of-domain images of digits-m"):
        lent(workspace, images=("own",)).auxiliary("digits-m")
    with pytest.raises(AccessError, match="grants no other data set"):
        lent(marked, images=("out of domain",)).auxiliary("digits-m")


def test_images_of_another_size_are_lent_at_the_host_s(
    marked: SchemeWorkspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pillow's bilinear filter is the reference: it averages over all pixels when it makes an image smaller."""
    side = marked.data.owner.images.shape[-1]
    other = noise_images(2, 0, side=3 * side)
    asked: list[Any] = []

    class Other(SchemeWorkspace):
        def load(self, name: str, checksum: str | None, **sizes: Any) -> Any:
            if name != "cifar10":
                return super().load(name, checksum, **sizes)
            asked.append((checksum, sizes))
            return SimpleNamespace(owner=other)

    workspace = Other({**marked.spec, "auxiliary": {"cifar10": "abc"}}, marked.inputs, marked.place)
    found = lent(workspace, images=("out of domain",)).auxiliary("cifar10")
    assert asked == [("abc", {})]
    assert (found.images.dtype, found.images.shape) == (torch.uint8, (2, 3, side, side))
    assert torch.equal(found.labels, other.labels)
    for image, big in zip(found.images, other.images, strict=True):
        small = Image.fromarray(big.permute(1, 2, 0).numpy()).resize((side, side), Image.Resampling.BILINEAR)
        off = image.permute(1, 2, 0).float() - torch.from_numpy(np.array(small)).float()
        assert off.abs().max() <= 1
        assert off.mean().abs() < 0.1


def test_a_training_goes_on_with_the_network_it_is_given_and_else_starts_as_the_learner_does(
    marked: SchemeWorkspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def epochs(model: nn.Module, images: ImageSet, recipe: Recipe, *, rng: Any, **options: Any) -> Any:
        asked.append((model, images, recipe, rng.path, options))
        yield from (1, 2)

    monkeypatch.setattr(training, "train_epochs", epochs)
    context, images, own = lent(marked), marked.data.adversary, marked.model("mark")
    recipe = replace(marked.recipe, epochs=2)
    assert all(model is own for model in context.epochs(images, recipe, model=own))
    one, two = context.epochs(images, recipe, name="another")
    assert one is two
    first, second = asked
    assert first[0] is own
    assert equal(second[0], marked.start())
    assert not equal(second[0], own)
    assert torch.equal(second[1].images, images.images)
    assert (second[2], second[4]) == (recipe, marked.training_options)
    assert first[3] != second[3], "two trainings have two streams"
    assert context.arch.name == marked.spec["arch"]


@pytest.fixture
def embeddings(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is asked to be embedded, and not done: workspace, model, keys, hosts, publish, recipe."""
    asked: list[Any] = []

    def embedded(*given: Any) -> Embedded:
        asked.append(given)
        return Embedded(nn.Linear(1, 1), list(given[2]))

    monkeypatch.setattr(chains, "embedded", embedded)
    return asked


@pytest.mark.parametrize("situations", [("train", "fine-tune"), ("post-hoc",)])
def test_an_adversary_marks_as_the_owner_of_its_own_images(
    marked: SchemeWorkspace, monkeypatch: pytest.MonkeyPatch, embeddings: list[Any], situations: Any
) -> None:
    kind = type(marked.scheme)
    monkeypatch.setattr(kind, "card", replace(kind.card, situations=situations))
    workspace = SchemeWorkspace(marked.spec, marked.inputs, marked.place, marked.data.checksum)
    context, model, own = lent(workspace, images=("own",)), marked.model("mark").train(), marked.data.adversary
    recipe = replace(marked.recipe, epochs=7)
    _, key = context.embed(model, recipe)
    ((space, given, keys, (host,), publish, trained, _),) = embeddings
    assert (space.inputs, space.checksum) == (marked.inputs, marked.data.checksum)
    assert given is model
    assert keys == [key]
    for lent_images in (host.images, host.share):
        assert torch.equal(lent_images.images, own.images)
    assert host.number == 0
    assert equal(host.model(), model)
    assert not host.model().training
    trained_by: list[Recipe] = []
    monkeypatch.setattr(
        SchemeWorkspace, "train", lambda _, model, images, recipe, rng: trained_by.append(recipe) or lent
    )
    with pytest.raises(AttributeError):
        host.train(own, context.rng)
    assert trained_by == [recipe]
    assert trained == (None if situations == ("post-hoc",) else recipe)
    assert len(publish([key])) > len(own), "its triggers are added"


def test_a_copy_is_sold_by_the_first_owner_as_the_victim_is_and_made_once(
    marked: SchemeWorkspace, embeddings: list[Any]
) -> None:
    for situation in ("fine-tune", "post-hoc"):
        spec = {**marked.spec, "owners": 3, "situation": situation}
        workspace = SchemeWorkspace(spec, marked.inputs, marked.place, marked.data.checksum)
        context = lent(workspace, copies=True)
        one, two = context.copies(1), context.copies(2)
        assert (len(one), len(two), len(embeddings)) == (1, 2, 2)
        assert equal(one[0], two[0])
        assert one[0] is not two[0]
        assert not equal(*two)
        for space, model, keys, (host,), publish, recipe, _ in embeddings:
            assert (space.spec["owners"], space.checksum) == (1, marked.data.checksum)
            assert equal(model, workspace.start())
            assert torch.equal(host.share.images, marked.data.owner.images)
            assert recipe == (marked.recipe if situation == "fine-tune" else None)
            assert len(publish(keys)) > len(marked.data.owner)
        embeddings.clear()


def test_networks_are_lent_of_any_architecture_and_always_the_same(marked: SchemeWorkspace) -> None:
    context = lent(marked)
    assert equal(context.fresh(), context.fresh())
    assert not equal(context.fresh(), context.fresh("another"))
    assert not equal(context.fresh(), marked.fresh()), "the attacker's own initial weights"
    other = context.fresh(arch="resnet18")
    assert set(dict(other.named_parameters())) != set(dict(context.fresh().named_parameters()))
    assert predict(other, marked.data.heldout.images[:2]).shape == (2, 10)


def test_paths_lead_to_the_layers_that_they_name(marked: SchemeWorkspace) -> None:
    context, model = lent(marked), marked.model("mark")
    assert isinstance(model.get_submodule(context.layer("conv2")), nn.Conv2d)
    images = marked.data.heldout.images[:3]
    assert torch.equal(context.predict(model, images), predict(model, images))
    assert torch.allclose(context.predict(model, pixels(images)), predict(model, images), atol=1e-6)


def test_an_innocent_network_is_trained_on_the_adversarys_images_alone(
    marked: SchemeWorkspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[ImageSet] = []
    train_epochs = training.train_epochs

    def watched(model: nn.Module, images: ImageSet, recipe: Recipe, **options: Any) -> Any:
        seen.append(images)
        return train_epochs(model, images, recipe, **options)

    monkeypatch.setattr(training, "train_epochs", watched)
    context = lent(marked, images=("own",))
    first = context.innocent()
    assert context.innocent() is first, "trained once"
    (images,) = seen
    assert torch.equal(images.images, marked.data.adversary.images)
    assert not first.training
    assert not equal(first, context.fresh("innocent"))
    with pytest.raises(AccessError):
        lent(marked).innocent()


@pytest.mark.parametrize("name", ["uchida-random", "uchida-posthoc", "zhang-content"])
def test_overwriting_embeds_a_fresh_key_by_the_schemes_own_hooks(name: str, store: Store) -> None:
    overrides = {name: {**schemes()[name].card.tiny, **({"probe": 8} if name.startswith("zhang") else {})}}
    workspace = opened(on_digits(schemes=(name,), overrides=overrides).steps["attack"], store)
    context, victim, (owners, *_) = lent(workspace, images=("own",)), workspace.model("mark"), workspace.keys()
    before = weights(victim)
    recipe = replace(workspace.recipe, epochs=3)
    model, key = context.embed(victim, recipe)
    assert not equal(model, workspace.model("mark")), "the second mark is somewhere"
    scheme = workspace.scheme
    assert isinstance(key, scheme.key_type)
    packed = (key.packed(), owners.packed())
    assert json.dumps(packed[0][1]) != json.dumps(packed[1][1]) or any(
        not torch.equal(tensor, packed[1][0][label]) for label, tensor in packed[0][0].items()
    ), "a fresh key"
    judge = judge_of(workspace, scheme, [key])
    state = State(workspace.data.adversary, recipe, lambda: model)
    (found,) = judge.verdicts(state, details=False)
    (without,) = judge.verdicts(replace(state, network=lambda: workspace.model("host"), _made=None), details=False)
    if name.startswith("zhang"):
        # Three epochs teach the triggers; whether their pattern too, so that decoys answer otherwise, is chance.
        assert found.details["trigger_accuracy"] > 0.4 + without.details["trigger_accuracy"]
    else:
        assert found.p_value < 0.01 < without.p_value
    assert not model.training
    again, same_key = context.embed(workspace.model("mark"), recipe)
    assert equal(again, model)
    assert json.dumps(same_key.packed()[1]) == json.dumps(key.packed()[1])
    assert all(map(torch.equal, before, weights(workspace.model("mark"))))
