"""Documents that cannot rot: the generated reference, and every command that the README shows."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path

import click
import pytest

ROOT = Path(__file__).parents[2]


def test_the_reference_is_fresh() -> None:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "tools" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    written = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert written == module.reference(), "run `make docs`"


def commands() -> list[str]:
    found = []
    for name in ("README.md", "CONTRIBUTING.md"):
        for block in re.findall(r"^```\n(.*?)^```", (ROOT / name).read_text(encoding="utf-8"), re.M | re.S):
            found += [line.split("#")[0].strip() for line in block.splitlines() if line.startswith("bench ")]
    return found


@pytest.mark.parametrize("line", commands())
def test_every_command_shown_can_be_typed(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parsed as click does, so that an option that no longer exists fails here."""
    from bench.cli import main

    for folder in ("photos", "suspect", "photos-marked.key", "schemes"):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path)
    _, name, *words = shlex.split(line)
    command = main.commands[name]
    with command.make_context(name, words) as context:
        assert isinstance(context, click.Context)


def test_the_make_targets_of_the_readme_exist() -> None:
    targets = set(re.findall(r"make (\w+)", (ROOT / "README.md").read_text(encoding="utf-8"))) - {"are"}
    rules = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    assert {"demo", "test"} <= targets <= rules


def test_every_picture_exists() -> None:
    for path in re.findall(r"!\[.*?\]\((.*?)\)", (ROOT / "README.md").read_text(encoding="utf-8")):
        assert (ROOT / path).exists(), path


def test_ci_runs_the_readmes_test_command() -> None:
    assert "make test" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_every_fault_names_a_test_that_exists() -> None:
    known = {
        f"{path.name}::{name}"
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.M)
    }
    rows = [line for line in (ROOT / "docs" / "faults.md").read_text(encoding="utf-8").splitlines() if "|" in line][2:]
    named = [re.findall(r"`(test_\w+\.py::test_\w+)`", row) for row in rows]
    assert {name for row in named for name in row} <= known
    assert all(found or "the same |" in row for found, row in zip(named, rows, strict=True))


def test_schemes_and_attacks_name_their_deviations() -> None:
    for path in [*(ROOT / "schemes").glob("[!_]*.py"), *(ROOT / "attacks").glob("[!_]*.py")]:
        head = path.read_text(encoding="utf-8").split('"""')[1]
        assert "http" in head, f"{path.name} opens without a link to the paper"
        assert re.search(r"differ|deviat", head, re.I), f"{path.name} does not say where it differs from the paper"


def test_the_chain_of_attacks_is_one_epoch_each() -> None:
    """`docs/chain.yaml`: a host, a mark, four attacks of eight rungs in all; five trainings of one epoch each."""
    from bench.cli import main
    from bench.cli.common import selected
    from bench.plan.matrix import expand, steps_of
    from bench.plan.selection import DEFAULTS, request

    with main.commands["plan"].make_context("plan", [str(ROOT / "docs" / "chain.yaml")]) as context:
        wish = request(selected({name: value for name, value in context.params.items() if name in DEFAULTS}))
    steps = steps_of(expand(wish, {"cifar10": "any"}))
    assert sorted(step.kind for step in steps) == ["attack"] * 4 + ["host", "keys", "mark", "nulls"]
    assert {(s.spec["arch"], s.spec["width"], s.spec["owner"], s.spec["adversary"]) for s in steps} == {
        ("wrn-16-6", 1.0, 5_000, 5_000)
    }
    attacks = {name: params for step in steps for name, params in step.spec.get("attacks", ())}
    assert sum(len(params["ladder"]) for params in attacks.values()) == 8
    epochs = [step.spec["recipe"]["epochs"] for step in steps if step.kind in ("host", "mark")]
    epochs += [*attacks["ftal"]["ladder"], attacks["quantisation-trained"]["epochs"], attacks["distillation"]["epochs"]]
    assert epochs == [1, 1, 1, 1, 1]
    assert {s.spec.get("all_unseen") for s in steps} == {False}, "which would take longer than a training"
