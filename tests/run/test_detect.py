"""`bench detect` as a person and a script use it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.cli.detect import _verdicts
from bench.records.detectability import DETECTABILITY, DetectabilityRow
from tests.conftest import PLUGINS, Bench, BenchHere

FIELDS = [
    "scheme", "scheme_params", "arch", "dataset", "situation", "profile", "owners", "test", "seeds", "clean",
    "networks", "reason", "auc", "interval_low", "interval_high", "p_value", "least_p_value", "part", "effect",
    "clean_effect",
]  # fmt: skip
WORDS = ("detect", "--scheme", "uchida-direct,mia-std", "--arch", "alexnet", "--profile", "smoke", "--seeds", 2,
         "--null-hosts", 2, "--device", "cpu")  # fmt: skip


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, bench_here: BenchHere) -> tuple[Path, str]:
    """A run directory, and what the command printed that filled it."""
    run_dir = tmp_path_factory.mktemp("detect")
    return run_dir, bench_here(*WORDS, "--run-dir", run_dir, "--format", "json").stdout


def test_json_is_all_that_is_printed_and_the_same_command_computes_nothing(
    first: tuple[Path, str], bench_here: BenchHere
) -> None:
    run_dir, printed = first
    rows = json.loads(printed)
    assert {tuple(row) for row in rows} == {tuple(FIELDS)}
    assert rows == [row.model_dump(mode="json") for row in DETECTABILITY.load(run_dir)]
    assert [(row["scheme"], row["test"]) for row in rows] == [
        ("uchida-direct", test) for test in ("ks", "variance", "classifier")
    ]
    assert [(row["seeds"], row["clean"]) for row in rows] == [(2, 4)] * 3
    assert rows[1]["least_p_value"] == pytest.approx(1 / 9)
    assert not list(run_dir.glob("records/*.json")), "no record of a run is replaced"
    again = bench_here(*WORDS, "--run-dir", run_dir)
    assert "0 steps to compute" in again.stderr
    assert "cannot tell: too few networks" in again.stdout
    assert "cannot tell: it takes 4 seeds" in again.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--scheme", "visible-static"), "mark a model"),
        (("--scheme", "uchida-randm"), "uchida-random"),
        (("--scheme", "uchida-random", "--null-hosts", 1), "range"),
        (("--scheme", "uchida-random", "--seeds", 0), "range"),
        (("--scheme", "uchida-random", "--attack", "pruning"), "No such option"),
    ],
)
def test_a_mistake_is_one_sentence(tmp_path: Path, bench_here: BenchHere, words: tuple[str, ...], said: str) -> None:
    ended = bench_here("detect", *words, "--profile", "smoke", "--run-dir", tmp_path, check=2)
    assert said in " ".join(ended.stderr.replace("│", " ").split())
    assert "Traceback" not in ended.stderr
    assert not list(tmp_path.iterdir())


def test_a_scheme_that_fails_has_a_reason_and_the_others_their_rows(first: tuple[Path, str], bench: Bench) -> None:
    words = [*map(str, WORDS), "--run-dir", first[0], "--format", "json", "--quiet"]
    words[2] = "test-raises,uchida-direct"
    ended = bench("--plugin", PLUGINS / "raises.py", *words, check=1)
    assert "failed: mark test-raises" in ended.stderr
    assert "broken on purpose" in ended.stderr
    failed, sound = (json.loads(ended.stdout)[at : at + 3] for at in (0, 3))
    assert [row["reason"] for row in failed] == ["no seed has all its networks"] * 3
    assert sound == json.loads(first[1])


def row(test: str, p_value: float | None, least: float | None = 1e-4, **fields: Any) -> DetectabilityRow:
    base: dict[str, Any] = {
        "scheme": "uchida-random", "scheme_params": {}, "arch": "wrn", "dataset": "digits-m", "situation": "fine-tune",
        "profile": "smoke", "owners": 1, "seeds": 5, "clean": 25, "networks": "0" * 64,
    }  # fmt: skip
    return DetectabilityRow(**{**base, "test": test, "p_value": p_value, "least_p_value": least, **fields})


def test_verdicts_are_adjusted_over_the_tests_of_one_scheme_and_no_further() -> None:
    own = [row("ks", 0.003), row("variance", 0.004), row("classifier", 0.9)]
    other = [row("ks", 0.004, scheme="zhang-content")]
    assert _verdicts([*own, *other], 0.01) == ["visible", "visible", "not seen", "visible"]
    assert _verdicts([row("ks", 0.004), row("variance", 0.5), row("classifier", 0.9)], 0.01)[0] == "not seen"
    assert _verdicts([row("ks", 0.004), row("classifier", None, None, reason="why")], 0.01) == [
        "visible", "cannot tell: why"
    ]  # fmt: skip
    assert _verdicts([row("ks", 0.04, 0.04)], 0.01) == ["cannot tell: too few networks"]


def test_a_spoilt_file_is_named_before_anything_is_trained(tmp_path: Path, bench_here: BenchHere) -> None:
    (tmp_path / DETECTABILITY.name).write_text("[")
    ended = bench_here(*WORDS, "--run-dir", tmp_path, check=2)
    assert DETECTABILITY.name in ended.stderr
    assert not (tmp_path / "store").exists()
