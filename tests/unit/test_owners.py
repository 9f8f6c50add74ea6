"""Whose images a user has: never the learner's, and as many as were asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bench.api import Share, pixels
from bench.runner.store import Store
from bench.steps import ownership
from bench.steps.embed import embed
from bench.steps.ownership import fresh_keys, heldout_users, owner_shares, published_images
from bench.steps.scheme_workspace import SchemeWorkspace
from bench.steps.training import soft_targets
from schemes.anw import AnwHue
from tests.fakes import on_digits, opened


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(Path(tmp_path_factory.mktemp("owners")))


@pytest.fixture(scope="module")
def workspace(store: Store) -> SchemeWorkspace:
    return opened(on_digits(schemes=("anw-hue",)).steps["nulls"], store)


def rows_of(images: torch.Tensor) -> set[bytes]:
    return {row.numpy().tobytes() for row in pixels(images)}


def test_fresh_users_own_images_that_nobody_is_trained_on(workspace):
    own = AnwHue(share=20)
    learned = rows_of(workspace.data.owner.images) | rows_of(workspace.data.adversary.images)
    keys = list(fresh_keys(workspace, own, 22))
    found = [rows_of(key.images) for key in keys]
    assert all(len(key.images) == 20 and not rows & learned for key, rows in zip(keys, found, strict=True))
    assert len(set.union(*found)) == 22 * 20, "users are disjoint, and of more than accuracy is measured on"
    everybody = [rows_of(key.images) for key in fresh_keys(workspace, AnwHue(share=200), 3)]
    assert not everybody[0] & everybody[1], "450 images are enough for two users of 200"
    assert everybody[0] & everybody[2], "and not for three: all are dealt out anew"
    assert everybody[0] != everybody[2]


def test_keys_differ_between_streams_schemes_and_numbers(workspace, monkeypatch):
    scheme = AnwHue(share=20)
    seen: list[int] = []
    made = ownership.host_for
    monkeypatch.setattr(
        ownership, "host_for", lambda space, own, number: seen.append(number) or made(space, own, number)
    )
    other = SchemeWorkspace({**workspace.spec, "scheme": "another"}, workspace.inputs, workspace.place)
    keys = [
        *fresh_keys(workspace, scheme, 3),
        *heldout_users(workspace, scheme, 3),
        *fresh_keys(other, scheme, 3),
    ]
    assert len({key.decoys for key in keys}) == 9, "each is drawn from a stream of its own"
    assert len({frozenset(rows_of(key.images)) for key in keys}) == 9, "and so are the images"
    assert seen == [0, 1, 2] * 3


def test_heldout_users_may_own_more_images_than_the_marked_user(workspace):
    assert [len(key.images) for key in heldout_users(workspace, AnwHue(share=20, heldout=70), 2)] == [70, 70]
    assert [len(key.images) for key in heldout_users(workspace, AnwHue(share=20), 1)] == [20]
    assert [len(key.images) for key in fresh_keys(workspace, AnwHue(share=20, heldout=70), 1)] == [20]


def test_heldout_users_are_examined_on_the_marked_model(store):
    params = {"share": 20, "heldout": 70, "starts": 0, "signature": 60.0}
    found = embed(opened(on_digits(schemes=("anw-hue",), overrides={"anw-hue": params}).steps["mark"], store)).result
    told, strangers = found["point"]["verdicts"], found["heldout_verdicts"]
    assert (len(told), len(strangers)) == (1, 2)
    slots = len(AnwHue().candidates)
    assert strangers[1]["queries"] - told[0]["queries"] == (70 - 20) * slots, "each asks about images of their own"
    assert strangers[0]["search"]["losses"] != strangers[1]["search"]["losses"]


def test_more_than_there_are_is_refused(workspace):
    most = len(workspace.data.unseen)
    with pytest.raises(ValueError, match=rf"anw-hue.heldout = {most + 1} needs .* per user, but {most} exist"):
        heldout_users(workspace, AnwHue(share=20, heldout=most + 1), 1)  # at once, before anybody trains
    with pytest.raises(ValueError, match=rf"anw-hue.share = {most + 1} needs"):
        fresh_keys(workspace, AnwHue(share=most + 1), 1)
    fresh_keys(workspace, AnwHue(share=most), 1)
    with pytest.raises(ValueError, match="1 owners with shares of 301 to fit into 300 training images"):
        owner_shares(workspace, AnwHue(share=301))


def test_a_share_of_one_is_an_image_and_not_everything(workspace):
    assert not AnwHue(share=1).share.whole
    (key,) = fresh_keys(workspace, AnwHue(share=1), 1)
    assert len(key.images) == 1
    assert not rows_of(key.images) & rows_of(workspace.data.owner.images)
    assert on_digits(schemes=("anw-hue",), overrides={"anw-hue": {"share": 1}}).steps["mark"].spec["heldout_users"] > 0
    assert AnwHue(share=1).heldout_share == Share(1)


def with_owners(workspace, **changes):
    return SchemeWorkspace({**workspace.spec, **changes}, workspace.inputs, workspace.place)


def test_shares_are_drawn_from_the_seed_disjoint_and_may_use_up_the_training_set(workspace):
    def dealt(share, **changes):
        return [rows_of(part.images) for part in owner_shares(with_owners(workspace, **changes), AnwHue(share=share))]

    first = dealt(100, owners=3)
    assert len(set.union(*first)) == 300, "disjoint, and all there are"
    assert first == dealt(100, owners=3)
    assert first != dealt(100, owners=3, seed=1)
    assert [len(part) for part in dealt(1, owners=2)] == [1, 1]


def test_a_network_that_is_distilled_learns_the_clean_host_s_answers_and_others_learn_labels(workspace):
    owner, scheme = workspace.data.owner, AnwHue(share=20)
    for situation in ("train", "fine-tune"):
        assert published_images(with_owners(workspace, situation=situation), scheme, []).images.targets is None
    taught = published_images(with_owners(workspace, situation="distill"), scheme, []).images
    assert torch.equal(taught.targets, soft_targets(workspace.model("host"), owner))
    assert torch.equal(taught.images, owner.images)
