"""Shards that know nothing of each other: put together they are the run that was not divided."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from bench.records.files import load_records
from tests.conftest import BenchHere

RUN = ("run", "--profile", "smoke", "--no-mlflow", "--device", "cpu", "--arch", "alexnet", "--null-keys", "0",
       "--scheme", "uchida-random,uchida-direct", "--attack", "pruning,quantisation", "--set", "pruning.ladder=40",
       "--set", "quantisation.ladder=8")  # fmt: skip


def findings(run_dir: Path) -> dict[str, object]:
    return {record.cell_key: record.findings() for record in load_records(run_dir / "records")}


def test_two_shards_put_together_are_the_whole(tmp_path: Path, bench_here: BenchHere) -> None:
    shards = [tmp_path / "one", tmp_path / "two"]
    for number, run_dir in enumerate(shards, 1):
        printed = bench_here(*RUN, "--run-dir", run_dir, "--shard", f"{number}/2").stdout
        assert re.search(rf"^Shard {number} of 2: \d of 4 cells are left to the other shard\.$", printed, re.MULTILINE)
    apart = [findings(run_dir) for run_dir in shards]
    assert all(apart)
    assert not apart[0].keys() & apart[1].keys()
    together = tmp_path / "together"
    for run_dir in shards:
        shutil.copytree(run_dir / "store", together / "store", dirs_exist_ok=True)
    assert "\n0 steps computed" in bench_here(*RUN, "--run-dir", together).stdout
    bench_here(*RUN, "--run-dir", tmp_path / "whole")
    assert findings(together) == findings(tmp_path / "whole") == apart[0] | apart[1]


def test_shards_in_one_run_directory_leave_nothing_to_do_and_compute_nothing_twice(
    tmp_path: Path, bench_here: BenchHere
) -> None:
    counted = list[int]()
    for number in (2, 1, 3):
        printed = bench_here(*RUN, "--run-dir", tmp_path, "--shard", f"{number}/3").stdout
        counted += map(int, re.findall(r"^(\d+) steps computed", printed, re.MULTILINE))
    assert "Shard 3 of 3: 0 of 4 cells are left to the other 2 shards." in printed
    printed = bench_here(*RUN, "--run-dir", tmp_path).stdout
    assert "\n0 steps computed" in printed
    assert len(counted) == 3
    assert sum(counted) == len(list((tmp_path / "store").glob("??/*/meta.json")))


@pytest.mark.parametrize("text", ["0/2", "3/2", "half"])
def test_what_is_no_shard_is_refused_in_a_sentence(text: str, tmp_path: Path, bench_here: BenchHere) -> None:
    printed = bench_here(*RUN, "--run-dir", tmp_path, "--shard", text, check=2).stderr
    assert "Expected a shard such as 2/8" in " ".join(printed.replace("│", " ").split())
    assert not (tmp_path / "records").exists()


def test_a_run_that_has_no_time_says_what_it_would_have_taken(tmp_path: Path, bench_here: BenchHere) -> None:
    printed = bench_here(*RUN, "--run-dir", tmp_path, "--max-time", "0.0001", check=1).stdout
    assert re.search(
        r"^0 steps computed, 0 cached, in \d s\. Stopped by --max-time: \d+ steps are left \(the shortest takes about "
        r"\d+ s, and 0 s remained\): the same command goes on\.$",
        printed,
        re.MULTILINE,
    ), printed
