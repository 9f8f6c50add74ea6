"""`bench calibrate` as a person and a script use it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from bench.records.calibration import CALIBRATION, CalibrationRow
from bench.records.record import RecordError
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
    assert not list((tmp_path / "store").glob("*/*/mark.safetensors")), "no mark is needed"
    kept = CALIBRATION.load(tmp_path)
    assert [{name: getattr(row, name) for name in FIELDS} for row in kept] == rows
    fresh, clean = (next(row for row in kept if row.null == kind) for kind in ("fresh key", "independent clean model"))
    assert [(row.n, row.networks, row.keys, row.seeds) for row in (fresh, clean)] == [(6, 1, 6, 1), (12, 2, 6, 1)]
    assert all(0 <= row["interval_low"] <= row["false_positive_rate"] <= row["interval_high"] <= 1 for row in rows)
    again = bench_here(*words)
    assert "0 steps to compute" in again.stderr
    assert "independent clean model" in again.stdout
    assert "interval" in again.stdout


def test_as_many_trained_keys_and_left_out_owners_as_asked(tmp_path: Path, bench_here: BenchHere) -> None:
    words = ("calibrate", "--scheme", "radioactive", "--profile", "smoke", "--device", "cpu", "--null-hosts", 1,
             "--set", "radioactive.steps=2", "--keys", 5, "--trained-keys", 3, "--left-out", 4, "--seeds", 2,
             "--rates", "0.05", "--run-dir", tmp_path)  # fmt: skip
    bench_here(*words, "-q")
    counts = {row.null: (row.n, row.networks, row.keys) for row in CALIBRATION.load(tmp_path)}
    assert counts["fresh key"] == counts["independent clean model"] == (6, 2, 6)
    assert counts["constant answers"] == (6, 2, 6)
    assert counts["zeroed weights"] == (6, 0, 6), "no chance went into it"
    assert counts["left-out owner"] == (6, 2, 6), "no more owners claim than there are keys"


def test_a_row_that_cannot_be_is_refused(tmp_path: Path) -> None:
    row = {
        "scheme": "a", "scheme_params": {}, "arch": "wrn", "datasets": ["digits-m"], "profile": "smoke", "seeds": 1,
        "attack": "none", "null": "fresh key", "nominal": 0.01, "accepted": 2, "n": 10, "networks": 1, "keys": 10,
        "false_positive_rate": 0.2, "interval_low": 0.1, "interval_high": 0.4, "p_value": 0.1, "beyond": False,
    }  # fmt: skip
    CALIBRATION.merge([CalibrationRow.model_validate(row)], tmp_path)
    changed = CalibrationRow.model_validate({**row, "seeds": 2})
    CALIBRATION.merge([changed], tmp_path)
    assert CALIBRATION.load(tmp_path) == [changed], "a later row takes the earlier one's place"
    for wrong in ({"accepted": 3}, {"interval_low": 0.3}, {"n": 0}, {"nominal": float("nan")}, {"more": 1}):
        with pytest.raises(ValidationError):
            CalibrationRow.model_validate({**row, **wrong})
    (tmp_path / CALIBRATION.name).write_text(json.dumps([{**row, "accepted": 3}]))
    with pytest.raises(RecordError, match="bench calibrate"):
        CALIBRATION.load(tmp_path)
