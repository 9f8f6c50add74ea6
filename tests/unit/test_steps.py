"""Steps compute what is asked of them, and nothing twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from bench.api import ImageSet
from bench.plan.matrix import Step
from bench.runner.store import Store
from bench.steps.host import left_out_rows, train_without
from bench.steps.nulls import attacked_false_claims, left_out_claims
from bench.steps.scheme_workspace import SchemeWorkspace
from bench.steps.workspace import Place, Workspace
from schemes.membership import Membership
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
