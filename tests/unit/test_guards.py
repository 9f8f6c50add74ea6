"""A result is never stored under the key of other data or other code."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.data import DataError
from bench.runner.worker import Task, compute
from bench.steps.workspace import Place, Workspace
from tests.fakes import planned


def test_data_that_changed_since_the_plan_are_refused() -> None:
    step = planned().steps["host"]
    assert Workspace(step.spec, {}, Place()).data.checksum
    with pytest.raises(DataError, match="changed since the run was planned"):
        _ = Workspace(step.spec, {}, Place(), "0" * 64).data


def test_code_that_changed_since_the_plan_computes_nothing(tmp_path: Path) -> None:
    step = planned().steps["host"]
    identity = {**step.identity, "sources": {**step.sources, "bench.steps.training": "0" * 64}}
    outcome = compute(Task("host", "ab" * 32, identity, "host"), tmp_path, Place())
    assert outcome.error is not None
    assert "bench.steps.training changed meanwhile" in outcome.error
    assert not list(tmp_path.glob("??/*"))
