"""`bench calibrate` as a person and a script use it."""

from __future__ import annotations

import json
from pathlib import Path

from tests.conftest import BenchHere

FIELDS = [
    "scheme", "arch", "attack", "null", "nominal", "false_positive_rate", "interval_low", "interval_high", "n",
]  # fmt: skip
WORDS = ("calibrate", "--scheme", "uchida-random,uchida-diff", "--arch", "alexnet", "--profile", "smoke",
         "--attack", "none,pruning", "--set", "pruning.ladder=40", "--null-hosts", 2, "--device", "cpu")  # fmt: skip


def test_json_is_all_that_is_printed_and_the_same_command_computes_nothing(
    tmp_path: Path, bench_here: BenchHere
) -> None:
    words = (*WORDS, "--keys", 6, "--rates", "0.01,0.1", "--run-dir", tmp_path)
    first = bench_here(*words, "--format", "json")
    rows = json.loads(first.stdout)
    assert {tuple(row) for row in rows} == {tuple(FIELDS)}
    counts = {(row["scheme"], row["attack"], row["null"]): row["n"] for row in rows}
    assert {row["nominal"] for row in rows} == {0.01, 0.1}
    for scheme in ("uchida-random", "uchida-diff"):
        assert counts[scheme, "none", "fresh key"] == counts[scheme, "none", "NaN answers"] == 6
        assert counts[scheme, "none", "independent clean model"] == counts[scheme, "none", "constant answers"] == 12
        assert counts[scheme, "pruning", "fresh key after attack"] == 6
    assert all(0 <= row["interval_low"] <= row["false_positive_rate"] <= row["interval_high"] <= 1 for row in rows)
    again = bench_here(*words)
    assert "0 steps to compute" in again.stderr
    assert "independent clean model" in again.stdout
    assert "interval" in again.stdout
