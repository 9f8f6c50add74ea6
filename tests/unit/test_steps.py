"""Steps compute what is asked of them, and nothing twice."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from bench.data import checksum
from bench.plan.matrix import Planned, Step, expand
from bench.runner.store import Store
from bench.runner.worker import Task, compute
from bench.steps import attacked_false_claims
from bench.steps.workspace import Job, Place
from schemes.membership import MiaPowShadow
from tests.unit.test_matrix import request


def computed(step: Step, store: Store) -> Job:
    """The job of a step whose inputs are computed."""
    for needed in step.inputs.values():
        computed(needed, store)
        outcome = compute(Task(needed.kind, needed.key, needed.identity, needed.label), store.root, Place())
        assert outcome.error is None, outcome.error
    return Job(step.spec, {name: store.load(needed.key) for name, needed in step.inputs.items()}, Place())


def planned(scheme: str, overrides: Mapping[str, Mapping[str, Any]] | None = None) -> Planned:
    (cell,) = expand(request(schemes=(scheme,), overrides=overrides or {}), {"digits-m": checksum("digits-m")})
    return cell


def test_only_keys_that_took_a_training_are_kept_for_the_claims_after_an_attack() -> None:
    assert set(planned("mia-pow-shadow").steps["attacked_nulls"].inputs) == {"host", "nulls"}
    assert set(planned("mia-pow").steps["attacked_nulls"].inputs) == {"host"}


def test_kept_keys_claim_as_the_same_keys_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = computed(planned("mia-pow-shadow").steps["attacked_nulls"], Store(tmp_path))
    made = []
    learn = MiaPowShadow.learn
    monkeypatch.setattr(MiaPowShadow, "learn", lambda *words: made.append(1) or learn(*words))
    kept = attacked_false_claims(job).result
    assert not made
    again = attacked_false_claims(Job(job.spec, {"host": job.inputs["host"]}, Place())).result
    assert len(made) == job.spec["keys"] >= 1
    assert kept == again
