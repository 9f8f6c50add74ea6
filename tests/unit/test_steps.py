"""Steps compute what is asked of them, and nothing twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.runner.store import Store
from bench.steps.nulls import attacked_false_claims
from bench.steps.scheme_workspace import SchemeWorkspace
from bench.steps.workspace import Place
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
