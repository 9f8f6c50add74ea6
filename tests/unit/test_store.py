"""The content-addressed store and the hash of sources."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
import torch

from bench.plan import fingerprint as sources
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


def test_sources_ignore_comments_and_see_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sources, "PACKAGES", ("housed",))
    (tmp_path / "housed").mkdir()
    deep, top = tmp_path / "housed" / "deep.py", tmp_path / "housed" / "top.py"
    (tmp_path / "housed" / "__init__.py").touch()

    def hashes(deep_text: str) -> dict[str, str]:
        deep.write_text(deep_text)
        top.write_text("def f():\n    from housed.deep import x\n    return x\n")
        sources._read.cache_clear()
        return sources.closure(["housed.top"])

    first = hashes("x = 1\n")
    assert set(first) == {"housed.deep", "housed.top"}
    assert hashes('"""Words."""\n\n# more words\nx = 1\n') == first
    top.write_text("from .deep import x\n")
    sources._read.cache_clear()
    assert set(sources.closure(["housed.top"])) == {"housed.top", "housed.deep"}, "relative imports count too"
    changed = hashes("x = 2\n")
    assert changed["housed.deep"] != first["housed.deep"]
    assert changed["housed.top"] == first["housed.top"]


def test_the_closure_of_a_step_leaves_the_command_line_out() -> None:
    found = sources.closure(["bench.steps.kinds", "schemes.uchida"])
    assert {"bench.api", "bench.steps.training", "schemes.uchida"} <= set(found)
    assert not {name for name in found if name.startswith(("bench.cli", "leaderboard", "bench.runner"))}
    assert json.dumps(found)
