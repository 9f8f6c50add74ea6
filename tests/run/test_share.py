"""Results and records that several machines share: `--store`, `bench push`, `bench pull`, `bench merge`."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from bench.records.calibration import CALIBRATION
from bench.records.detectability import DETECTABILITY
from bench.records.files import load_record, load_records, save_record
from bench.records.record import CellRecord
from bench.runner.merging import merge
from bench.runner.remote import Remote, RemoteError, remote_at
from bench.runner.rundir import RunDir
from tests.conftest import Bench, BenchHere
from tests.fakes import cell, measured_rate, measured_test, provenance, record
from tests.fakes.places import a_url, kept, moto

RUN = (
    "run", "--profile", "smoke", "--arch", "alexnet", "--scheme", "uchida-posthoc", "--null-keys", "0", "--no-mlflow",
    "--threads", "1",
)  # fmt: skip


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with moto() as url:
        yield url
    remote_at.cache_clear()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, bench_here: BenchHere) -> tuple[str, Path, str]:
    """A URL, and the run directory and the words of the first who ran into it."""
    url, run_dir = a_url("file", tmp_path_factory.mktemp("place")), tmp_path_factory.mktemp("first")
    return url, run_dir, bench_here(*RUN, "--store", url, "--run-dir", run_dir).stdout


def the_record(run_dir: Path) -> CellRecord:
    (found,) = load_records(run_dir / "records")
    return found


def one_line(text: str) -> str:
    return " ".join(text.replace("│", " ").split())


def test_a_second_machine_computes_nothing_and_finds_the_same(
    shared: tuple[str, Path, str], bench_here: BenchHere, tmp_path: Path
) -> None:
    url, first, _ = shared
    plan = bench_here("plan", *RUN[1:-3], "--store", url, "--run-dir", tmp_path, "--format", "json").stdout
    assert '"steps": 0' in plan
    printed = bench_here(*RUN, "--run-dir", tmp_path, env={"BENCH_STORE": url}).stdout
    assert "\n0 steps computed" in printed
    assert the_record(tmp_path) == the_record(first).model_copy(update={"provenance": the_record(tmp_path).provenance})
    assert the_record(tmp_path).findings() == the_record(first).findings()


def test_workers_read_and_write_through(shared: tuple[str, Path, str], bench: Bench, tmp_path: Path) -> None:
    url, first, _ = shared
    key = the_record(first).provenance.steps["attack"]
    other = f"file://{tmp_path / 'place'}"
    shutil.copytree(url.removeprefix("file://"), tmp_path / "place")
    shutil.rmtree(tmp_path / "place" / "steps" / key[:2] / key)
    printed = bench(*RUN, "--store", other, "--jobs", "2", "--run-dir", tmp_path / "run").stdout
    assert "\n1 steps computed" in printed
    assert Remote(other).has(key)
    assert the_record(tmp_path / "run").findings() == the_record(first).findings()


def test_damage_far_away_is_said_and_computed_again(
    shared: tuple[str, Path, str], bench_here: BenchHere, tmp_path: Path
) -> None:
    url, first, _ = shared
    shutil.copytree(url.removeprefix("file://"), tmp_path / "place")
    steps = the_record(first).provenance.steps
    for kind, pattern in (("attack", "*.data"), ("host", "meta.json")):
        (path,) = (tmp_path / "place" / "steps" / steps[kind][:2] / steps[kind]).glob(pattern)
        path.write_bytes(path.read_bytes()[:-9] + b"?" + path.read_bytes()[-8:])
    printed = bench_here(*RUN, "--store", tmp_path / "place", "--run-dir", tmp_path / "run").stdout
    assert printed.count("was damaged: it was set aside, and computed again.") == 2
    assert the_record(tmp_path / "run").findings() == the_record(first).findings()
    remote = Remote(str(tmp_path / "place"))
    assert all(remote.fetch(key, RunDir(tmp_path / "other").store) for key in steps.values()), "sent again"


def test_a_place_that_fails_in_the_middle_is_said_once_and_push_sends_the_rest(
    bench_here: BenchHere, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> None:
        raise RemoteError("the network is gone.")

    monkeypatch.setattr(Remote, "send", refuse)
    url = a_url("file", tmp_path)
    printed = bench_here(*RUN, "--store", url, "--run-dir", tmp_path / "run").stdout
    monkeypatch.undo()
    assert printed.count("were not sent: the network is gone. `bench push` sends them.") == 1
    assert Remote(url).keys() == set()
    bench_here("push", url, "--run-dir", tmp_path / "run")
    assert Remote(url).keys() == {path.parent.name for path in (tmp_path / "run" / "store").glob("??/*/meta.json")}


# ---- push and pull ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["file", "s3"])
def test_push_and_pull_copy_what_is_lacking_and_then_nothing(
    kind: str, shared: tuple[str, Path, str], bench_here: BenchHere, tmp_path: Path, bucket: str
) -> None:
    url, (_, first, _) = a_url(kind, tmp_path, bucket), shared
    count = len(list((first / "store").glob("??/*/meta.json")))
    sent = bench_here("push", url, "--run-dir", first).stdout
    assert f"Sent {count} results and 1 records" in sent
    assert "; 0 were there already." in sent
    assert (
        f"Sent 0 results and 0 records, 0 B; {count + 1} were there"
        in bench_here("push", url, "--run-dir", first).stdout
    )
    fetched = bench_here("pull", url, "--run-dir", tmp_path / "b").stdout
    assert f"Fetched {count} results and 1 records" in fetched
    assert the_record(tmp_path / "b") == the_record(first)
    again = bench_here("pull", url, "--quiet", "--run-dir", tmp_path / "b")
    assert (f"Fetched 0 results and 0 records, 0 B; {count + 1} were" in again.stdout, again.stderr) == (True, "")
    settled = bench_here(*RUN, "--run-dir", tmp_path / "b")
    assert "1 already settled" in settled.stderr


def test_an_interrupted_push_goes_on(tmp_path: Path, bench_here: BenchHere, monkeypatch: pytest.MonkeyPatch) -> None:
    run_dir, url = RunDir(tmp_path / "run"), a_url("file", tmp_path)
    for i in range(3):
        kept(run_dir.store, str(i))
    send = Remote.send

    def interrupted(remote: Remote, key: str, store: Any) -> int | None:
        if len(remote.keys()) == 2:
            raise KeyboardInterrupt
        return send(remote, key, store)

    monkeypatch.setattr(Remote, "send", interrupted)
    with pytest.raises((KeyboardInterrupt, AssertionError)):
        bench_here("push", url, "--run-dir", run_dir.path)
    monkeypatch.undo()
    assert len(Remote(url).keys()) == 2
    assert "Sent 1 results and 0 records" in bench_here("push", url, "--run-dir", run_dir.path).stdout


def test_damage_is_named_left_out_and_no_record_of_another_name_is_taken(tmp_path: Path, bench_here: BenchHere) -> None:
    run_dir, url = RunDir(tmp_path / "run"), a_url("file", tmp_path)
    broken, whole = kept(run_dir.store, "broken"), kept(run_dir.store, "whole")
    saved = save_record(record(), run_dir.records)
    (run_dir.store.folder(broken) / "model.safetensors").write_bytes(b"")
    pushed = bench_here("push", url, "--run-dir", run_dir.path, check=1)
    assert "left out:" in pushed.stderr
    assert "model.safetensors was damaged" in one_line(pushed.stderr)
    remote = Remote(url)
    assert remote.keys() == {whole}
    content = remote.objects.read(f"records/{saved.name}", 1 << 20)
    for name in ("other.json", "..json", "x__y.json"):
        remote.objects.put(f"records/{name}", content)
    remote.objects.put(f"records/{saved.name}", content.replace(b'"uchida-random"', b'"uchida-ranDom"'))
    pulled = bench_here("pull", url, "--run-dir", tmp_path / "b", check=1)
    assert "Fetched 1 results and 0 records" in pulled.stdout
    assert "to be named" in pulled.stderr
    assert not list((tmp_path / "b" / "records").glob("*"))


def test_a_record_that_did_not_fail_replaces_one_that_failed_and_nothing_else_is_overwritten(
    tmp_path: Path, bench_here: BenchHere
) -> None:
    url = a_url("file", tmp_path)
    for name, status in (("a", "failed"), ("b", "ok")):
        save_record(record(status), tmp_path / name / "records")
    bench_here("push", url, "--run-dir", tmp_path / "a")
    bench_here("pull", url, "--run-dir", tmp_path / "c")
    assert the_record(tmp_path / "c").status == "failed"
    bench_here("push", url, "--run-dir", tmp_path / "b")
    assert "0 records" in bench_here("push", url, "--run-dir", tmp_path / "a").stdout
    for name in ("c", "a"):
        bench_here("pull", url, "--run-dir", tmp_path / name)
        assert the_record(tmp_path / name).status == "ok"
    bench_here("pull", url, "--run-dir", tmp_path / "b")
    assert the_record(tmp_path / "b").status == "ok"


@pytest.mark.parametrize("words", [("push",), ("pull",), (*RUN, "--store")])
def test_a_place_that_cannot_be_used_is_one_sentence_and_status_2(
    words: tuple[str, ...], tmp_path: Path, bench_here: BenchHere, bucket: str
) -> None:
    (tmp_path / "run").mkdir()
    for url, sentence in (("foo://x", "Protocol not known"), ("s3://nobucket/x", "Create the bucket")):
        done = bench_here(*words, url, "--run-dir", tmp_path / "run", check=2)
        assert sentence in one_line(done.stderr)
        assert "Traceback" not in done.stderr


# ---- merge -----------------------------------------------------------------------------------------------------------
def test_shards_are_merged_and_the_page_is_of_all(
    shared: tuple[str, Path, str], bench_here: BenchHere, tmp_path: Path
) -> None:
    first = shared[1]
    other = tmp_path / "other"
    shutil.copytree(first, other)
    shutil.rmtree(other / "records")
    bench_here(*RUN, "--attack", "quantisation", "--run-dir", other)
    out = tmp_path / "out"
    printed = bench_here("merge", first, other, "--run-dir", out).stdout
    steps = {path.parent.name for folder in (first, other) for path in (folder / "store").glob("??/*/meta.json")}
    assert f"Merged {len(steps)} results, 2 records" in printed
    for folder in (first, other):
        theirs = the_record(folder)
        assert load_record(out / "records" / theirs.filename) == theirs
    again = bench_here("merge", other, first, out, "--run-dir", out).stdout
    assert "Merged 0 results, 0 records, 0 rows and 0 durations" in again
    assert bench_here("results", "--run-dir", out, "--format", "csv").stdout.count("uchida-posthoc") > 2
    bench_here("leaderboard", "--run-dir", out)
    settled = bench_here(*RUN, "--attack", "pruning,quantisation", "--run-dir", out)
    assert "2 already settled" in settled.stderr


def at(hours: int, **fields: Any) -> Any:
    finished = (datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=hours)).isoformat()
    return provenance(finished=finished, **fields)


KEY = "a" * 64
LATER, EARLIER = record(provenance=at(2)), record(provenance=at(1))
FAILED, MISSING = record("failed", provenance=at(0)), record(provenance=at(0, steps={"host": KEY}))


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize(
    ("loses", "wins", "reason"),
    [
        (FAILED, LATER, "it failed, the other did not"),
        (LATER, EARLIER, "the other was finished earlier"),
        (MISSING, LATER, "results of its steps are missing"),
        (FAILED, MISSING, "it failed, the other did not"),
    ],
)
def test_of_two_records_of_a_cell_the_better_is_kept_and_the_other_is_named(
    loses: CellRecord, wins: CellRecord, reason: str, there: bool, tmp_path: Path
) -> None:
    """In either order."""
    folders = [RunDir(tmp_path / name) for name in ("first", "second")]
    for folder, one in zip(folders, (loses, wins) if there else (wins, loses), strict=True):
        save_record(one, folder.records)
    done = merge(folders, RunDir(tmp_path / "out"))
    assert done.records == 1, "one cell, one record"
    assert the_record(tmp_path / "out") == wins
    (line,) = done.dropped
    assert line.endswith(f"was dropped: {reason}.")
    assert done.left_out == []


def test_rows_beside_the_records_are_added_and_those_that_are_there_stay(tmp_path: Path) -> None:
    first, second, out = (RunDir(tmp_path / name) for name in ("first", "second", "out"))
    for folder, accepted, scheme in ((first, 1, "uchida-random"), (second, 2, "uchida-random"), (second, 3, "anw-hue")):
        folder.path.mkdir(exist_ok=True)
        CALIBRATION.merge([measured_rate(accepted, scheme=scheme)], folder.path)
    DETECTABILITY.merge([measured_test("ks", 0.5)], second.path)
    assert merge([first, second], out).rows == 3
    assert {(row.scheme, row.accepted) for row in CALIBRATION.load(out.path)} == {("uchida-random", 1), ("anw-hue", 3)}
    assert DETECTABILITY.load(out.path) == DETECTABILITY.load(second.path)
    assert merge([second, first], out).rows == 0
    (second.path / CALIBRATION.name).write_text("[{]")
    assert ["Expected rows of `bench calibrate`" in line for line in merge([second], out).left_out] == [True]


def test_merging_leaves_damage_out_and_names_it(tmp_path: Path, bench_here: BenchHere) -> None:
    run_dir = RunDir(tmp_path / "a")
    broken, whole = kept(run_dir.store, "broken"), kept(run_dir.store, "whole")
    (run_dir.store.folder(broken) / "model.safetensors").write_bytes(b"x")
    path = save_record(record(), run_dir.records)
    path.write_text(path.read_text().replace("0.88", "0.99"))
    save_record(record(cell=cell(seed=1)), run_dir.records)
    run_dir.durations.write_text("{broken\n")
    done = bench_here("merge", run_dir.path, "--run-dir", tmp_path / "out", check=1)
    out = RunDir(tmp_path / "out")
    assert [out.store.holds(key) for key in (broken, whole)] == [False, True]
    assert the_record(out.path).cell.seed == 1
    assert done.stderr.count("left out:") == 2
    assert "its checksum differs" in done.stderr


def test_a_folder_that_is_no_run_directory_is_one_sentence(tmp_path: Path, bench_here: BenchHere) -> None:
    done = bench_here("merge", tmp_path / "nowhere", "--run-dir", tmp_path / "out", check=2)
    assert "Expected a run directory" in one_line(done.stderr)
