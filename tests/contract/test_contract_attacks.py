"""The contract suite over every registered attack; a file of its own, so that another worker takes it."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.checks.suite import suite
from bench.registry import attacks


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("contract")


@pytest.mark.parametrize("name", list(attacks()))
def test_keeps_the_contract(name: str, folder: Path) -> None:
    broken = {title: error for title, error in suite(name, folder) if error}
    assert broken == {}
