"""`bench capacity` as a person and a script use it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.records.files import load_records
from tests.conftest import BenchHere

FIELDS = [
    "scheme", "arch", "dataset", "situation", "profile", "layer", "seeds", "tolerance_pp", "capacity_bits", "works",
    "fails", "limited_by", "reached_most", "limit", "contradicted", "status", "reason", "trials",
]  # fmt: skip
WORDS = ("capacity", "--scheme", "uchida-posthoc", "--arch", "alexnet", "--profile", "smoke", "--device", "cpu",
         "--start", 8, "--tolerance", 100)  # fmt: skip


def test_trials_are_ordinary_cells_and_the_same_command_computes_nothing(tmp_path: Path, bench_here: BenchHere) -> None:
    words = (*WORDS, "--most", 16, "--run-dir", tmp_path)
    first = bench_here(*words, "--format", "json")
    (row,) = json.loads(first.stdout)
    assert list(row) == FIELDS
    assert (row["scheme"], row["situation"], row["layer"]) == ("uchida-posthoc", "post-hoc", "conv2")
    assert (row["capacity_bits"], row["works"], row["fails"], row["reached_most"]) == (16, 16, None, True)
    assert [(t["payload_bits"], t["ber"], t["too_large"]) for t in row["trials"]] == [(8, 0, None), (16, 0, None)]
    assert row["limit"] > 100
    results = json.loads(bench_here("results", "--run-dir", tmp_path, "--format", "json").stdout)
    assert [(one["scheme"], one["attack"], one["ber"]) for one in results] == [("uchida-posthoc", "none", 0)] * 2
    made = list(load_records(tmp_path / "records"))
    assert [one.nulls for one in made] == [[], []], "false claims are another question"
    again = bench_here(*words)
    assert "to compute" not in again.stderr
    assert "stopped at the most" in again.stdout
    more = json.loads(bench_here(*words, "--set", "uchida-posthoc.code=bch", "--format", "json").stdout)
    assert [(t["payload_bits"], t["message_bits"]) for t in more[0]["trials"]] == [(8, 4), (16, 11)]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--scheme", "zhang-content"), "Expected a scheme with a payload size"),
        (("--set", "uchida-posthoc.bits=64"), "uchida-posthoc.bits is what is searched"),
        (("--layers", "conv9"), 'got "conv9"'),
        (("--tolerance", "nan"), "Expected a finite number"),
        (("--most", "0"), "0 is not in the range"),
        (("--arch", "wren"), "wren"),
    ],
)
def test_what_cannot_be_searched_is_one_sentence(
    words: tuple[str, ...], said: str, tmp_path: Path, bench_here: BenchHere
) -> None:
    done = bench_here(*WORDS, *words, "--run-dir", tmp_path, check=2)
    assert said in " ".join(done.stderr.replace("│", " ").split())
