"""Steps that claim without grounds: fresh keys, keys kept from a training, and owners who were left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from bench.api import ImageSet, Rng, Verdict, predict, replace
from bench.plan.step import Step
from bench.runner.store import Store
from bench.steps.host import left_out_rows, train_without
from bench.steps.nulls import attacked_false_claims, false_claims, left_out_claims
from bench.steps.scheme_workspace import SchemeWorkspace
from bench.steps.workspace import Place, Workspace
from schemes.membership import Membership
from tests.conftest import PLUGINS
from tests.fakes import on_digits, opened
from tests.unit.untrained import Left, untrained


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


def test_left_out_owners_leave_at_least_two_images_and_have_at_least_one() -> None:
    assert [len(rows) for rows in left_out_rows(untrained("host", {"users": 2, "share": 149}))] == [149, 149]
    assert [len(rows) for rows in left_out_rows(untrained("host", {"users": 3, "share": 1}))] == [1, 1, 1]
    for share, users in ((299, 1), (1e-6, 1)):
        with pytest.raises(ValueError, match=f"Expected {users} left-out owners of {int(share)} images each"):
            left_out_rows(untrained("host", {"users": users, "share": share}))


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
