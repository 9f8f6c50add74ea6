"""The whole path on real images: resume, failures, workers, the same command giving the same record."""

from __future__ import annotations

import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench import library
from bench.metrics.robustness import detected
from bench.records import files
from bench.records.files import load_records
from bench.records.record import AFTER_ATTACK, FRESH_KEY, CellRecord
from bench.steps import training
from tests.conftest import PLUGINS, Bench, BenchHere

ANY = ("run", "--profile", "smoke", "--no-mlflow", "--device", "cpu")
QUICKLY = ("--set", "zhang-content.probe=4", "--set", "zhang-content.decoys=99")  # triggers and decoys take the time
RUN = (*ANY, "--scheme", "uchida-random,zhang-content", "--attack", "pruning", "--set", "pruning.ladder=40,80",
       *QUICKLY)  # fmt: skip
# The network that trains fastest, where a test is not about numbers.
FAST = (*ANY, "--arch", "alexnet", "--attack", "pruning", "--set", "pruning.ladder=40")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, bench_here: BenchHere) -> tuple[Path, str]:
    run_dir = tmp_path_factory.mktemp("finished")
    return run_dir, bench_here(*RUN, "--run-dir", run_dir).stdout


def records(run_dir: Path) -> dict[str, CellRecord]:
    return {record.cell.scheme: record for record in load_records(run_dir / "records")}


def test_a_run_ends_with_table_page_and_records(finished: tuple[Path, str]) -> None:
    run_dir, printed = finished
    found = records(run_dir)
    assert {record.status for record in found.values()} == {"ok"}
    assert len(found["uchida-random"].curve) == 2
    assert "uchida-random" in printed
    page = run_dir / "site" / "index.html"
    assert str(page.resolve()) in printed
    assert "zhang-content" in page.read_text()


def test_a_record_says_where_it_comes_from(finished: tuple[Path, str]) -> None:
    provenance = records(finished[0])["uchida-random"].provenance
    assert set(provenance.steps) == {"host", "keys", "mark", "control", "attack", "nulls", "attacked_nulls"}
    assert provenance.split["owner"] > 0
    assert provenance.packages["torch"]
    assert provenance.device == "cpu"


def test_false_claims_are_counted_on_clean_and_attacked_hosts(finished: tuple[Path, str]) -> None:
    for record in records(finished[0]).values():
        assert [null.kind for null in record.nulls] == [FRESH_KEY] + [AFTER_ATTACK] * len(record.curve)
        assert all(null.p_values for null in record.nulls)
        assert sum(p <= 0.01 for p in record.nulls[0].p_values) <= 3


def test_the_same_command_again_computes_nothing(finished: tuple[Path, str], bench_here: BenchHere) -> None:
    run_dir, _ = finished
    before = {path: path.stat().st_mtime_ns for path in (run_dir / "store").rglob("*.safetensors")}
    again = bench_here(*RUN, "--run-dir", run_dir)
    assert "\n0 steps computed" in again.stdout
    assert {path: path.stat().st_mtime_ns for path in (run_dir / "store").rglob("*.safetensors")} == before


def test_a_settled_run_reads_each_record_once(
    finished: tuple[Path, str], tmp_path: Path, bench_here: BenchHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For the plan, the table, the page and MLflow."""
    run_dir = shutil.copytree(finished[0], tmp_path / "run")
    words = [word for word in RUN if word != "--no-mlflow"]
    bench_here(*words, "--run-dir", run_dir)
    read: Counter[str] = Counter()

    def counted(path: Path) -> object:
        read[path.name] += 1
        return load(path)

    load = files.load_any
    monkeypatch.setattr(files, "load_any", counted)
    bench_here(*words, "--run-dir", run_dir)
    assert read
    assert set(read) == {path.name for path in (run_dir / "records").glob("*.json")}
    assert set(read.values()) == {1}


def test_cycles_are_looked_for_as_usual_while_networks_train(
    tmp_path: Path, bench_here: BenchHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seldom while cells and records are all there is; afterwards as before."""
    before, seen = gc.get_threshold(), dict[str, int]()

    def watched(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            seen[name] = gc.get_threshold()[0]
            return function(*args, **kwargs)

        return wrapped

    monkeypatch.setattr(training, "train", watched("training", training.train))
    monkeypatch.setattr(library, "plan", watched("planning", library.plan))
    bench_here(*FAST, "--scheme", "uchida-posthoc", "--null-keys", "0", "--run-dir", tmp_path)
    assert seen == {"planning": 1_000_000, "training": 700}
    assert gc.get_threshold() == before


def test_the_same_command_elsewhere_gives_the_same_records(
    finished: tuple[Path, str], bench: Bench, tmp_path: Path
) -> None:
    bench(*RUN, "--run-dir", tmp_path)  # another process, which finds nothing computed
    ours, theirs = records(finished[0]), records(tmp_path)
    for scheme, record in ours.items():
        assert record.findings() == theirs[scheme].findings()


def survivors(process: subprocess.Popen) -> list[str]:
    """Processes that outlive the first one of their session: they notice within a second, and may finish a file."""
    left: list[str] = []
    for _ in range(100):
        left = subprocess.run(["pgrep", "-s", str(process.pid)], capture_output=True, text=True).stdout.split()
        if not left:
            break
        time.sleep(0.1)
    return left


def test_killed_in_the_middle_it_resumes_without_repeating(tmp_path: Path, bench_here: BenchHere) -> None:
    words = [*FAST, "--scheme", "uchida-random", "--run-dir", str(tmp_path)]
    command = [sys.executable, "-m", "bench.cli", *words, "--jobs", "2"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 120
    while len(list((tmp_path / "store").glob("??/*/meta.json"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not survivors(process)
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "store").glob("??/*/meta.json")}
    assert len(kept) >= 2
    done = bench_here(*words)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert f", {len(kept)} cached" in done.stderr
    assert f"{7 - len(kept)} steps computed, {len(kept)} cached" in done.stdout
    assert len(kept) < 7, "it was killed before it ended"
    assert {record.status for record in records(tmp_path).values()} == {"ok"}


@pytest.mark.parametrize("jobs", [1, 2])
def test_sigterm_ends_with_what_is_settled_and_leaves_no_child(tmp_path: Path, jobs: int) -> None:
    words = [*FAST, "--scheme", "uchida-random,zhang-content", "--run-dir", str(tmp_path), "--jobs", str(jobs)]
    command = [sys.executable, "-m", "bench.cli", *words]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 120
    while len(list((tmp_path / "store").glob("??/*/meta.json"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    printed, errors = process.communicate(timeout=60)
    assert process.returncode == 143, errors
    assert "Stopped by SIGTERM: the same command goes on." in printed
    assert "Traceback" not in printed + errors
    assert (tmp_path / "site" / "index.html").exists()
    assert not survivors(process)


def test_a_worker_that_is_killed_from_outside_costs_nothing_but_time(tmp_path: Path) -> None:
    words = [*FAST, "--scheme", "uchida-random", "--run-dir", str(tmp_path), "--jobs", "2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.cli", *words], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    training = list[Path]()
    while not training and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
        training = list((tmp_path / "store" / "locks").glob("*.epoch"))
    holder = json.loads(training[0].with_suffix("").read_text())
    assert holder["pid"] != process.pid
    os.kill(holder["pid"], signal.SIGKILL)
    printed, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert "7 steps computed, 0 cached" in printed
    assert {record.status for record in records(tmp_path).values()} == {"ok"}


def test_a_damaged_result_is_computed_again_in_the_same_run_and_said_once(
    finished: tuple[Path, str], bench_here: BenchHere, tmp_path: Path
) -> None:
    run_dir = tmp_path / "copy"
    shutil.copytree(finished[0], run_dir)
    before = records(run_dir)["uchida-random"]
    shutil.rmtree(run_dir / "records")
    shutil.rmtree(run_dir / "store" / before.provenance.steps["attack"][:2] / before.provenance.steps["attack"])
    for kind, name in (("mark", "model.safetensors"), ("keys", "result.json")):
        key = before.provenance.steps[kind]
        path = run_dir / "store" / key[:2] / key / name
        content = bytearray(path.read_bytes())
        content[-3] ^= 1
        path.write_bytes(bytes(content))
    printed = bench_here(*RUN, "--run-dir", run_dir).stdout
    assert printed.count("was damaged: it was set aside, and computed again.") == 2
    after = records(run_dir)["uchida-random"]
    assert after.status == "ok"
    assert after.findings() == before.findings()


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_scheme_that_raises_fails_its_own_cells_only(
    tmp_path: Path, bench: Bench, bench_here: BenchHere, jobs: int
) -> None:
    environment = {"BENCH_PLUGINS": str(PLUGINS)}
    schemes = "uchida-random,test-raises,test-greedy"
    words = [*FAST, "--scheme", schemes, "--null-keys", "0", "--run-dir", tmp_path, "--jobs", jobs]
    done = (bench_here if jobs == 1 else bench)(*words, check=1, env=environment)
    found = records(tmp_path)
    assert {name: record.status for name, record in found.items()} == {
        "uchida-random": "ok", "test-raises": "failed", "test-greedy": "failed",
    }  # fmt: skip
    assert "this hook is broken on purpose" in (found["test-raises"].traceback or "")
    assert str(Path(__file__).parents[2]) not in (found["test-raises"].traceback or ""), "records are published"
    assert "AccessError" in (found["test-greedy"].traceback or "")
    assert "this hook is broken on purpose" in done.stdout
    again = bench_here(*words[:-2], check=1, env=environment)
    assert "already settled" in again.stderr, "failed cells are tried again, the others are not"
    assert "(1 already settled)" in again.stderr


def test_a_worker_that_dies_takes_no_innocent_step_with_it(tmp_path: Path, bench: Bench) -> None:
    schemes = "uchida-random,test-dies,test-exits,zhang-content"
    words = [*FAST, *QUICKLY, "--scheme", schemes, "--null-keys", "0", "--run-dir", tmp_path, "--jobs", "2"]
    bench(*words, check=1, env={"BENCH_PLUGINS": str(PLUGINS)})
    found = records(tmp_path)
    assert {name: record.status for name, record in found.items()} == {
        "uchida-random": "ok", "zhang-content": "ok", "test-dies": "failed", "test-exits": "failed",
    }  # fmt: skip
    assert "worker process died" in (found["test-dies"].traceback or "")
    assert "SystemExit" in (found["test-exits"].traceback or "")


def test_provenance_is_of_the_process_that_computed(
    finished: tuple[Path, str], bench_here: BenchHere, tmp_path: Path
) -> None:
    run_dir = tmp_path / "copy"
    shutil.copytree(finished[0], run_dir)
    shutil.rmtree(run_dir / "records")
    bench_here(*RUN, "--run-dir", run_dir, env={"BENCH_THREADS": "2"})
    for record in records(run_dir).values():
        assert record.provenance.threads == 1, "assembled anew from what one thread computed"


def test_several_owners_share_one_host(finished: tuple[Path, str], tmp_path: Path, bench_here: BenchHere) -> None:
    shutil.copytree(finished[0] / "store", tmp_path / "store")  # the clean host is the same
    words = list(RUN)
    words[words.index("uchida-random,zhang-content")] = "zhang-content"
    bench_here(*words, "--owners", "2", "--null-keys", "2", "--run-dir", tmp_path)
    (record,) = records(tmp_path).values()
    first, second = record.points[0].verdicts
    assert first.details != second.details, "each owner has a key of its own"
    asked = [verdict.details["decoys_asked"] for verdict in (first, second)]
    assert all(verdict.queries > count for verdict, count in zip((first, second), asked, strict=True)), asked


def test_results_in_every_format(finished: tuple[Path, str], bench_here: BenchHere, tmp_path: Path) -> None:
    import pandas as pd

    from bench.metrics.flat import COLUMNS

    run_dir, _ = finished
    csv = bench_here("results", "--run-dir", run_dir, "--format", "csv").stdout
    assert csv.splitlines()[0] == ",".join(COLUMNS)
    assert len(csv.splitlines()) == 1 + 2 * 3
    assert len(json.loads(bench_here("results", "--run-dir", run_dir, "--format", "json").stdout)) == 6
    bench_here("results", "--run-dir", run_dir, "--format", "parquet", "--out", tmp_path / "r.parquet")
    assert list(pd.read_parquet(tmp_path / "r.parquet").columns) == list(COLUMNS)
    assert "uchida-random" in bench_here("results", "--run-dir", run_dir).stdout


def test_a_rate_is_applied_when_results_are_read_and_computes_nothing(
    finished: tuple[Path, str], bench_here: BenchHere
) -> None:
    run_dir, _ = finished
    before = sorted(path.stat().st_mtime_ns for path in (run_dir / "records").glob("*.json"))
    counts = []
    for fpr in ("0.5", "1e-60"):
        lines = json.loads(bench_here("results", "--run-dir", run_dir, "--fpr", fpr, "--format", "json").stdout)
        assert all(line["detected"] == (line["p_value"] <= float(fpr)) for line in lines)
        counts.append(sum(line["detected"] for line in lines))
    assert counts[0] > counts[1]
    assert "\n0 steps computed" in bench_here(*RUN, "--run-dir", run_dir, "--fpr", "0.001").stdout
    assert sorted(path.stat().st_mtime_ns for path in (run_dir / "records").glob("*.json")) == before


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory, bench_here: BenchHere) -> dict[tuple[str, str], CellRecord]:
    """Every shape of scheme against every shape of attack."""
    run_dir = tmp_path_factory.mktemp("shapes")
    words = [*FAST, "--scheme", "test-tint,test-stamp,test-member,uchida-random", "--run-dir", run_dir]
    words[words.index("pruning")] = "pruning,test-blur,test-smooth,test-fog,test-forge"
    bench_here(*words, "--situation", "train", env={"BENCH_PLUGINS": str(PLUGINS)})
    return {(r.cell.scheme, r.cell.attack): r for r in load_records(run_dir / "records")}


def test_every_shape_of_scheme_meets_every_shape_of_attack(shapes: dict[tuple[str, str], CellRecord]) -> None:
    meaningless = {pair for pair, record in shapes.items() if record.status == "not applicable"}
    assert {record.status for record in shapes.values()} == {"ok", "not applicable"}
    assert meaningless == {
        ("test-stamp", "pruning"), ("test-stamp", "test-smooth"), ("test-stamp", "test-fog"),
        ("uchida-random", "test-blur"), ("uchida-random", "test-smooth"), ("uchida-random", "test-fog"),
    }  # fmt: skip


def test_data_marks_touch_the_owners_share_only(shapes: dict[tuple[str, str], CellRecord]) -> None:
    tint = shapes["test-tint", "pruning"]
    assert tint.marked is not None
    assert tint.marked.verdicts[0].details["images"] == 30, "a twentieth of 600 images"
    assert 5 < tint.measures["psnr_db"] < 40
    assert "psnr_db" not in shapes["test-member", "pruning"].measures


def test_a_data_set_is_a_suspect_too(shapes: dict[tuple[str, str], CellRecord]) -> None:
    stamp = shapes["test-stamp", "test-blur"]
    found = [detected(point.verdicts[0]) for point in stamp.points]
    assert found == [True, False], "found before the blur, gone after it"
    assert not detected(stamp.clean_verdicts[0])
    assert stamp.curve[0].test_accuracy is not None, "a model trained on the cleaned images has a worth"


def test_a_forged_key_is_judged_in_place_of_the_owners(shapes: dict[tuple[str, str], CellRecord]) -> None:
    forge = shapes["uchida-random", "test-forge"]
    assert forge.curve[0].test_accuracy == forge.points[0].test_accuracy
    assert len(forge.curve[0].verdicts) == 1
