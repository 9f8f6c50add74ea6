"""The content-addressed store, and the lease that lets one process compute a result."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
import torch

from bench.lease import _machine, _void, lease
from bench.runner.store import Store, StoreError

KEY = "ab" * 32


def filled(root: Path) -> Store:
    store = Store(root)
    weights = torch.arange(6.0).view(2, 3)
    store.save(KEY, {"label": "x"}, {"n": 1}, {"model": {"w": weights.t(), "same": weights}})
    return store


def test_round_trip_of_views_and_shared_memory(tmp_path: Path) -> None:
    stored = filled(tmp_path).load(KEY)
    assert stored.result == {"n": 1}
    tensors = stored.tensors("model")
    assert torch.equal(tensors["w"], tensors["same"].t())


def test_how_far_a_step_is_can_be_read_until_it_ends(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.lock(KEY):
        assert store.epoch(KEY) == ""
        store.note_epoch(KEY, 3, 16)
        assert Store(tmp_path).epoch(KEY) == "3/16"
    assert store.epoch(KEY) == ""
    assert not list((tmp_path / "locks").iterdir())


def test_a_shortened_file_counts_as_missing(tmp_path: Path) -> None:
    store = filled(tmp_path)
    path = store.folder(KEY) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    assert not store.has(KEY)
    assert not store.folder(KEY).exists()


def test_changed_bytes_are_noticed(tmp_path: Path) -> None:
    store = filled(tmp_path)
    path = store.folder(KEY) / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(StoreError, match="damaged"):
        store.load(KEY).tensors("model")
    assert not store.has(KEY), "the next run computes it again"
    assert list(tmp_path.glob(".damaged-*")), "but nothing is thrown away at once"
    store = filled(tmp_path)
    (store.folder(KEY) / "result.json").write_text('{"n": 2}')
    with pytest.raises(StoreError, match="damaged"):
        store.load(KEY)
    store.sweep(older_than_s=-1)
    assert not list(tmp_path.glob(".damaged-*"))


def test_trouble_in_reading_is_no_reason_to_delete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = filled(tmp_path)
    read = Path.read_text

    def broken(path: Path, *args: object, **kwargs: object) -> str:
        if path.name == "meta.json":
            raise PermissionError(path)
        return read(path)

    monkeypatch.setattr(Path, "read_text", broken)
    with pytest.raises(PermissionError):
        store.has(KEY)
    monkeypatch.undo()
    assert store.has(KEY)


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="Expected a stored result"):
        Store(tmp_path).load(KEY)
    with pytest.raises(StoreError, match="Expected tensors"):
        filled(tmp_path).load(KEY).tensors("other")


def test_the_second_writer_changes_nothing(tmp_path: Path) -> None:
    store = filled(tmp_path)
    store.save(KEY, {}, {"n": 2}, {})
    assert store.load(KEY).result == {"n": 1}
    assert not list(tmp_path.glob(".writing-*"))


def _hold(root: Path) -> None:
    with Store(root).lock(KEY):
        (root / "held").touch()
        time.sleep(60)


def test_a_killed_process_leaves_no_lock(tmp_path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(target=_hold, args=(tmp_path,))
    process.start()
    while not (tmp_path / "held").exists():
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    with Store(tmp_path).lock(KEY):
        assert True


@pytest.mark.parametrize(
    "content", ["", "[]", "null", "7", '{"sizes": 3}', '{"sizes": {"result.json": "x"}}', '{"sizes": []}']
)
def test_a_malformed_meta_file_counts_as_absent(tmp_path: Path, content: str) -> None:
    store = filled(tmp_path)
    (store.folder(KEY) / "meta.json").write_text(content)
    assert list(store.metas()) == []
    with pytest.raises(StoreError) as caught:
        store.load(KEY)
    assert caught.value.key == KEY
    assert not store.has(KEY)


def test_a_failed_rename_is_raised_unless_another_process_was_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, target: Path) -> None:
        raise PermissionError(f"no {target}")

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(PermissionError):
        filled(tmp_path)
    assert not list(tmp_path.glob(".writing-*"))
    monkeypatch.undo()
    filled(tmp_path)
    monkeypatch.setattr(Path, "rename", refuse)
    filled(tmp_path)


def _add(path: Path, times: int) -> None:
    for _ in range(times):
        with lease(path.with_suffix(".lease")):
            path.write_text(str(int(path.read_text()) + 1))


def test_one_process_at_a_time_holds_a_lease(tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    counter.write_text("0")
    processes = [multiprocessing.get_context("spawn").Process(target=_add, args=(counter, 25)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert counter.read_text() == "75"
    assert not list(tmp_path.glob("*.lease"))


def held(path: Path, **fields: object) -> Path:
    path.write_text(json.dumps({**_machine(), "pid": os.getpid(), **fields}))
    return path


@pytest.mark.parametrize("fields", [{"boot": "another"}, {"pid": 2**22 + 1}, {"pid": "x"}])
def test_a_lease_whose_holder_is_gone_is_void(tmp_path: Path, fields: dict[str, object]) -> None:
    with lease(held(tmp_path / "l", **fields)):
        assert json.loads((tmp_path / "l").read_text())["pid"] == os.getpid()
    assert not (tmp_path / "l").exists()


@pytest.mark.parametrize(
    ("fields", "age_s", "void"), [({}, 0, False), ({"host": "far"}, 10, False), ({"host": "far"}, 90, True)]
)
def test_a_lease_of_another_machine_lasts_as_long_as_it_is_touched(
    tmp_path: Path, fields: dict[str, object], age_s: float, void: bool
) -> None:
    path = held(tmp_path / "l", **fields)
    os.utime(path, (time.time() - age_s, time.time() - age_s))
    assert _void(path, 60.0) is void


def test_a_held_lease_is_touched(tmp_path: Path) -> None:
    with lease(tmp_path / "l", expiry_s=0.2):
        os.utime(tmp_path / "l", (0, 0))
        time.sleep(0.3)
        assert (tmp_path / "l").stat().st_mtime > 0
