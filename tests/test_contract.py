"""The contract suite over everything registered: nobody edits a list to be tested."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import contract
from bench.registry import attacks, schemes
from tests.conftest import PLUGINS


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("contract")


@pytest.mark.parametrize("name", [*schemes(), *attacks()])
def test_keeps_the_contract(name: str, folder: Path) -> None:
    broken = {title: error for title, error in contract.suite(name, folder) if error}
    assert broken == {}


@pytest.mark.parametrize("name", ["test-raises", "test-greedy"])
def test_the_suite_notices_what_is_broken(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_PLUGINS", str(PLUGINS))
    assert any(error for _, error in contract.suite(name, folder))
