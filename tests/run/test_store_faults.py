"""Faults of processes, disks and bytes: nothing finished is lost, nothing half-written or changed is read.

`docs/faults.md` lists what happens, and the test of each line.
"""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.plan.plan import Plan
from bench.records.files import as_text, load_any, load_records, save_record
from bench.records.record import RecordError
from bench.runner import objects, store
from bench.runner.estimate import Durations, Typical, logged
from bench.runner.remote import Remote
from bench.runner.rundir import RunDir
from bench.runner.store import Store, StoreError
from bench.runner.why import _planned, remember
from tests.conftest import SETTING, BenchHere
from tests.fakes import planned, record
from tests.fakes.places import kept

RUN = (
    "run", "--profile", "smoke", "--arch", "alexnet", "--scheme", "uchida-posthoc", "--null-keys", "0", "--no-mlflow",
    "--threads", "1",
)  # fmt: skip


# ---- killed ----------------------------------------------------------------------------------------------------------
def kill(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def killed_in(work: Callable[[], object]) -> None:
    """Run `work` in a process of its own, which kills itself."""
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL


def half(path: Path, chunks: Any) -> None:
    content = b"".join(chunks)
    path.write_bytes(content[: len(content) // 2])
    kill()


def on_mark(path: Path, chunks: Any) -> None:
    if path.name != "meta.json":
        path.write_bytes(b"".join(chunks))
        return
    half(path, chunks)


POINTS: dict[str, tuple[Any, str, Any]] = {
    "before": (store.tempfile, "mkdtemp", kill),
    "half of a file": (store, "write_through", half),
    "half of meta.json": (store, "write_through", on_mark),
    "before the rename": (Path, "rename", kill),
    "after": (store.shutil, "rmtree", kill),
}


@pytest.mark.parametrize("point", POINTS)
def test_a_writer_that_is_killed_leaves_a_whole_result_or_none(
    point: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = Store(tmp_path)
    finished, key = kept(here, "finished"), kept(Store(tmp_path / "elsewhere"))

    def work() -> None:
        monkeypatch.setattr(*POINTS[point])
        kept(here)

    killed_in(work)
    assert here.holds(key) is (point == "after")
    assert {found for found, _ in here.metas()} == {finished} | ({key} if point == "after" else set())
    assert here.load(finished).tensors("model")["w"].shape == (3, 2)
    kept(here)
    assert here.load(key).result == {"name": "step"}
    here.sweep(older_than_s=-1)
    assert not list(tmp_path.glob(".writing-*"))


def send_half(take: Any, name: str, size: int, checksum: str) -> Iterator[bytes]:
    yield take(size)[: size // 2]
    kill()


REMOTE_POINTS: dict[str, tuple[Any, str, Any]] = {
    "before": (objects.Objects, "write", kill),
    "half of the data": (sys.modules["bench.runner.remote"], "_whole", send_half),
    "before the mark": (objects.Objects, "create", kill),
    "half of the mark": (objects, "write_through", half),
    "before the mark has its name": (os, "link", kill),
    "after": (Path, "unlink", kill),
}


@pytest.mark.parametrize("point", REMOTE_POINTS)
def test_a_sender_that_is_killed_leaves_a_whole_result_or_none_at_the_url(
    point: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there, remote = Store(tmp_path / "a"), Store(tmp_path / "b"), Remote(f"file://{tmp_path}/place")
    key = kept(here)

    def work() -> None:
        monkeypatch.setattr(*REMOTE_POINTS[point])
        remote.send(key, here)

    killed_in(work)
    whole = point == "after"
    assert (remote.keys(), remote.fetch(key, there) is not None) == ({key} if whole else set(), whole)
    assert (remote.send(key, here) is None) is whole
    assert remote.fetch(key, there)


@pytest.mark.parametrize("point", ["half of it", "before its name"])
def test_a_coordinator_that_is_killed_at_a_record_leaves_none_or_the_one_before(
    point: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, after = record(), record("failed")
    save_record(before, tmp_path)
    written: dict[str, tuple[Any, str, Any]] = {
        "half of it": (os, "fsync", kill), "before its name": (Path, "replace", kill),
    }  # fmt: skip

    def work() -> None:
        monkeypatch.setattr(*written[point])
        save_record(after, tmp_path)

    killed_in(work)
    assert list(load_records(tmp_path)) == [before]
    save_record(after, tmp_path)
    assert list(load_records(tmp_path)) == [after]


# ---- changed bytes ---------------------------------------------------------------------------------------------------
def flips(content: bytes, most: int = 200) -> Iterator[bytes]:
    """The content with one bit changed, and cut short, at so many places spread over it."""
    for i in range(0, len(content), max(1, len(content) // most)):
        yield content[:i] + bytes([content[i] ^ (1 << i % 8)]) + content[i + 1 :]
        yield content[:i]


@pytest.mark.parametrize("name", ["meta.json", "result.json", "model.safetensors"])
def test_a_changed_result_is_refused_with_the_key_of_what_to_compute_again(name: str, tmp_path: Path) -> None:
    here = Store(tmp_path)
    key = kept(here)
    meta, folder = here.load(key).meta, here.folder(key)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    accepted, keys, set_aside = 0, set[str | None](), True
    for broken in flips(files[name]):
        folder.mkdir(exist_ok=True)
        for each, content in files.items():
            (folder / each).write_bytes(broken if each == name else content)
        try:
            stored = here.load(key)
            weights = stored.tensors("model")["w"]
        except StoreError as refused:
            keys.add(refused.key)
            set_aside &= not folder.exists()
            continue
        accepted += 1
        rest = {what: value for what, value in stored.meta.items() if what in meta and what != "digest"}
        assert rest == {what: value for what, value in meta.items() if what != "digest"}, "spaces, or the digest's name"
        assert torch.equal(weights, torch.arange(6.0).view(2, 3).t())
        assert stored.result == {"name": "step"}
    assert (keys, set_aside) == ({key}, True)
    assert accepted <= (30 if name == "meta.json" else 0)


def test_a_changed_record_is_refused_and_its_cell_is_computed_again(tmp_path: Path) -> None:
    cell = planned()
    saved = record(cell=cell.cell, cell_key=cell.key)
    path = save_record(saved, tmp_path)
    assert len(Plan.make([cell], tmp_path, lambda key: True).settled) == 1
    content, refused = path.read_bytes(), list[str]()
    for broken in flips(content):
        path.write_bytes(broken)
        try:
            assert load_any(path) == saved
        except RecordError as error:
            refused.append(str(error))
            settled = Plan.make([cell], tmp_path, lambda key: True).settled
            assert not settled
    assert len(refused) > 300
    assert all(str(path) in words for words in refused)
    path.write_text(as_text(saved).replace("0.88", "0.89"))
    with pytest.raises(RecordError, match="not as it was written"):
        load_any(path)


def test_a_changed_log_of_durations_costs_its_line_alone(tmp_path: Path) -> None:
    cell, path = planned(), tmp_path / "durations.jsonl"
    steps = list(cell.steps.values())
    log = Durations(path, Typical(1.0), lambda: 1.0)
    for step in steps[:3]:
        log.add(step, 5.0)
    content, whole = path.read_bytes(), list(logged(path))
    lines = content.count(b"\n")
    for broken in flips(content):
        path.write_bytes(broken)
        read = list(logged(path))
        lost = len([entry for entry in whole if entry not in read])
        assert lost <= 2 or broken == content[: len(broken)], "a changed line end costs both lines"
        assert len(read) <= lines
        assert Durations(path, Typical(1.0), lambda: 1.0).total_s(steps) >= 0


def test_a_changed_memory_of_plans_is_forgotten(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)
    remember(planned().steps.values(), run_dir)
    path = tmp_path / "planned.json"
    content, whole = path.read_bytes(), _planned(run_dir)
    assert len(whole) == len(planned().steps)
    for broken in flips(content, 60):
        path.write_bytes(broken)
        for key, (_, identity) in _planned(run_dir).items():
            assert identity == whole[key][1]


# ---- disks -----------------------------------------------------------------------------------------------------------
def bench_in(mounted: str, *commands: str) -> subprocess.CompletedProcess[str]:
    """Run shell commands where a file system is mounted that no other process sees; skip where that is forbidden."""
    namespace = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    try:
        tried = subprocess.run([*namespace, mounted], capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("unshare is not installed; a file that may not grow is tested in tests/run/test_cli.py")
    if tried.returncode:
        pytest.skip(f"mounting is not allowed here: {tried.stderr.strip()}")
    script = "\n".join([mounted, *commands])
    return subprocess.run([*namespace, script], capture_output=True, text=True, env={**os.environ, **SETTING})


TWICE = """
import subprocess, sys
from pathlib import Path
from click.testing import CliRunner
from bench.cli import main

where, *words = sys.argv[1:]
first = CliRunner().invoke(main, words)
print(first.exit_code, "No space left on device" in first.output, "Traceback" in first.output)
print(type(first.exception).__name__, [path.name for path in Path(where, "store").glob(".writing-*")])
subprocess.run(["mount", "-o", "remount,size=64m", where], check=True)
print(CliRunner().invoke(main, words).exit_code)
"""


def test_a_full_disk_is_one_sentence_and_the_same_command_goes_on_with_more_room(tmp_path: Path) -> None:
    """A disk of its own, with room for some results and not for all."""
    run = shlex.join([sys.executable, "-c", TWICE, str(tmp_path), *RUN, "--run-dir", str(tmp_path)])
    done = bench_in(f"mount -t tmpfs -o size=64k tmpfs {shlex.quote(str(tmp_path))}", run)
    first, ended, second = done.stdout.splitlines()
    assert first in ("1 True False", "2 True False"), done.stdout + done.stderr
    assert ended == "SystemExit []", "nothing half-written stays in the way"
    assert second == "0"


def test_a_read_only_folder_is_one_sentence(tmp_path: Path) -> None:
    where = shlex.quote(str(tmp_path))
    run = shlex.join([sys.executable, "-m", "bench.cli", *RUN, "--run-dir", str(tmp_path)])
    done = bench_in(f"mount --bind {where} {where} && mount -o remount,ro,bind {where}", f"{run}; echo status: $?")
    assert "Read-only file system" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert "status: 0" not in done.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("which", range(3))
def test_a_disk_that_fills_up_at_any_file_of_a_result_leaves_none(
    which: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, calls = Store(tmp_path), []

    def full(number: int) -> None:
        calls.append(number)
        if len(calls) == which + 1:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        kept(here)
    assert list(here.metas()) == []
    assert not list(tmp_path.glob(".writing-*")), "what was half-written takes no room"
    assert here.holds(kept(here))


def test_a_disk_that_fills_up_while_fetching_leaves_none_and_blames_no_sender(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there, remote = Store(tmp_path / "a"), Store(tmp_path / "b"), Remote("memory://full")
    key = kept(here)
    remote.send(key, here)

    def full(number: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        remote.fetch(key, there)
    monkeypatch.undo()
    assert not there.holds(key)
    assert remote.has(key), "it is whole there"
    assert remote.fetch(key, there)


def test_file_systems_without_flock_and_hard_links_are_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bench_here: BenchHere
) -> None:
    import fcntl

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    for module, name in ((fcntl, "flock"), (fcntl, "lockf"), (os, "link")):
        monkeypatch.setattr(module, name, refuse)
    printed = bench_here(*RUN, "--run-dir", tmp_path / "run", "--store", tmp_path / "place").stdout
    assert "not sent" not in printed
    assert len(Remote(str(tmp_path / "place")).keys()) == len(list((tmp_path / "run/store").glob("??/*/meta.json")))


# ---- two at once -----------------------------------------------------------------------------------------------------
def test_two_coordinators_on_one_run_directory_share_the_work(tmp_path: Path, bench_here: BenchHere) -> None:
    """On a fresh one each step is computed once, by either; on an old one nothing is computed."""
    command = [sys.executable, "-m", "bench.cli", *RUN, "--run-dir", str(tmp_path)]
    both = [
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **SETTING}
        )
        for _ in range(2)
    ]
    ended = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], ended
    computed = [int(out.split(" steps computed")[0].rsplit("\n")[-1]) for out, _ in ended]
    lines = [json.loads(line) for line in (tmp_path / "durations.jsonl").read_text().splitlines()]
    steps = len(list((tmp_path / "store").glob("??/*/meta.json")))
    assert (sum(computed), len(lines)) == (steps, steps)
    (one,) = load_records(tmp_path / "records")
    assert one.status == "ok"
    assert "\n0 steps computed" in bench_here(*command[3:]).stdout
    assert not list((tmp_path / "store" / "locks").iterdir())
