"""The contract suite over every registered scheme, and over toys that break it: nobody edits a list to be tested."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.checks.suite import suite
from bench.registry import schemes
from tests.conftest import PLUGINS


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("contract")


@pytest.mark.parametrize("name", list(schemes()))
def test_keeps_the_contract(name: str, folder: Path) -> None:
    broken = {title: error for title, error in suite(name, folder) if error}
    assert broken == {}


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("test-raises", "Its tiny cell ends with status ok"),
        ("test-greedy", "Its tiny cell ends with status ok"),
        ("test-idle", "The carrier on the card is what carries the mark"),
        ("test-eager", "Fresh keys claim the clean host at 10 %"),
        ("test-gullible", "Suspects that are no network any more"),
        ("test-brittle", "Suspects that are no network any more"),
        ("test-wordy", "The parameters that the card names exist, and its payload has as many bits as they say"),
        ("test-forgetful", "The same stream gives the same key"),
        ("test-vandal", "The attack changes copies"),
        ("test-nosy", "The attack asks for no more than its card's adversary has"),
    ],
)
def test_the_suite_notices_what_is_broken(name: str, title: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_PLUGINS", str(PLUGINS))
    broken = [found for found, error in suite(name, folder) if error]
    assert any(found.startswith(title) for found in broken), broken


def test_an_undeclared_field_of_the_key_fails_with_one_sentence(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_PLUGINS", str(PLUGINS))
    (failure,) = [error for _, error in suite("test-nosy", folder) if error]
    assert failure == (
        "Expected an adversary who knows the key's 'layer', but the attack's card declares nothing and the scheme "
        "makes layer public: declare it in `knows`, or ask for less."
    )


@pytest.mark.parametrize("name", ["test-tint", "test-member", "test-blur", "test-smooth", "test-fog"])
def test_the_suite_accepts_every_shape(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_PLUGINS", str(PLUGINS))
    broken = {title: error for title, error in suite(name, folder) if error}
    assert not {title: error for title, error in broken.items() if "parameter" not in title}
