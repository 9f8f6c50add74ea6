"""The tutorial as a stranger follows it, and what becomes of the submission when its numbers are doctored."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.checks.sandbox import NAMESPACES, isolation
from tests.fakes import submissions as fakes

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")


def blocks() -> Iterator[tuple[str, str]]:
    """(language, content) of the code blocks, in order; shell has no language."""
    return ((found[1], found[2]) for found in re.finditer(r"^```(\w*)\n(.*?)^```", TEXT, re.M | re.S))


class Clone:
    """A copy of the project in which the tutorial is followed."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("bench", "schemes", "attacks", "leaderboard"):
            shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))

    def __call__(self, line: str, check: int = 0) -> str:
        _, *words = shlex.split(line)
        command = [sys.executable, "-m", "bench.cli", *words]
        env = {**os.environ, "PYTHONPATH": str(self.root), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
        done = subprocess.run(command, capture_output=True, text=True, cwd=self.root, env=env, timeout=200)
        assert done.returncode == check, f"{line}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Clone, dict[str, str]]:
    """The clone after the last command, and what each command printed."""
    clone, said = Clone(tmp_path_factory.mktemp("clone")), {}
    for language, content in blocks():
        if language == "python":
            (clone.root / "schemes" / "adi.py").write_text(content, encoding="utf-8")
            continue
        for line in content.splitlines():
            assert line.startswith("bench "), line
            said[line] = clone(line)
    return clone, said


@pytest.fixture
def submission(followed: tuple[Clone, dict[str, str]]) -> Iterator[Path]:
    """The submission, for a test to doctor."""
    folder = followed[0].root / "leaderboard" / "submissions" / "adi"
    kept = folder.with_name("kept")
    shutil.copytree(folder, kept)
    yield folder
    shutil.rmtree(folder)
    kept.rename(folder)


def test_every_step_of_the_tutorial_works(followed: tuple[Clone, dict[str, str]]) -> None:
    clone, said = followed
    assert len(said) == 6
    printed = "\n".join(said.values())
    assert "adi keeps the contract." in printed
    assert "Wrote 2 records of adi into leaderboard/submissions/adi." in printed
    assert "verified: 2 of 2 records computed again." in printed
    assert (clone.root / "leaderboard" / "submissions" / "adi" / "verification.json").exists()


def test_the_method_ran_apart_where_the_kernel_lends_namespaces(followed: tuple[Clone, dict[str, str]]) -> None:
    folder = followed[0].root / "leaderboard" / "submissions" / "adi"
    isolated = json.loads((folder / "verification.json").read_text())["isolated"]
    assert set(isolated) >= set(NAMESPACES if isolation() else ())


def verify(followed: tuple[Clone, dict[str, str]], check: int) -> str:
    return followed[0]("bench verify-submission leaderboard/submissions/adi", check).strip().splitlines()[-1]


def test_accuracies_raised_by_two_points_are_computed_again(
    followed: tuple[Clone, dict[str, str]], submission: Path
) -> None:
    fakes.doctored(submission, fakes.raised(2))
    found = verify(followed, 1)
    assert found.startswith("failed: canary: adi__pruning__")
    assert "test_accuracy" in found


@pytest.mark.parametrize(
    ("change", "check"),
    [(fakes.halved, "possible p values"), (fakes.raised(0.3), "accuracy of whole images")],
)
def test_numbers_that_cannot_be_are_found_at_once(
    followed: tuple[Clone, dict[str, str]], submission: Path, change: Any, check: str
) -> None:
    fakes.doctored(submission, change)
    assert verify(followed, 1).startswith(f"failed: {check}: adi__pruning__")


def test_source_that_changed_is_found_at_once(followed: tuple[Clone, dict[str, str]], submission: Path) -> None:
    path = followed[0].root / "schemes" / "adi.py"
    before = path.read_text(encoding="utf-8")
    path.write_text(before.replace("matches / trials, p_value=p_value", "matches / trials, p_value=p_value / 2"))
    assert path.read_text(encoding="utf-8") != before
    try:
        assert verify(followed, 1).startswith("failed: source: schemes/adi.py is not what computed the records")
    finally:
        path.write_text(before, encoding="utf-8")


def test_the_tutorials_scheme_opens_as_all_schemes_do() -> None:
    (code,) = (content for language, content in blocks() if language == "python")
    assert len(code.splitlines()) < 120
    assert re.search(r"differ", code.split('"""')[1], re.I)
