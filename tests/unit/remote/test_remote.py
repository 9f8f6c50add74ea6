"""Results at a URL: in memory, in a folder and on S3; committed once, checked when read, leased while computed."""

from __future__ import annotations

import hashlib
import json
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.runner import worker
from bench.runner.objects import Objects
from bench.runner.remote import Remote, RemoteError, _Lock
from bench.runner.shared import SharedStore, store_at
from bench.runner.store import Store, StoreError, sealed
from bench.runner.worker import Task, compute
from bench.steps.workspace import Output, Place
from tests.fakes import on_digits
from tests.fakes.places import a_url, kept


def at(key: str, name: str = "meta.json") -> str:
    return f"steps/{key[:2]}/{key}/{name}"


def data_of(remote: Remote, key: str) -> list[str]:
    return [name for name in remote.objects.names(f"steps/{key[:2]}/{key}") if name.endswith(".data")]


def test_a_result_comes_back_as_it_was_sent_and_one_object_holds_it(url: str, tmp_path: Path) -> None:
    here, there, remote = Store(tmp_path / "a"), Store(tmp_path / "b"), Remote(url)
    key = kept(here)
    assert (remote.keys(), remote.has(key), remote.fetch(key, there)) == (set(), False, None)
    size = remote.send(key, here)
    assert (remote.keys(), remote.keys(key[:2]), remote.has(key)) == ({key}, {key}, True)
    assert remote.fetch(key, there) == size
    assert there.load(key) == Store(tmp_path / "b").load(key)
    assert there.load(key).meta == here.load(key).meta
    assert torch.equal(there.load(key).tensors("model")["w"], here.load(key).tensors("model")["w"])
    assert len(data_of(remote, key)) == 1


def test_the_second_sender_changes_nothing_and_leaves_nothing(url: str, tmp_path: Path) -> None:
    here, remote = Store(tmp_path), Remote(url)
    key = kept(here)
    assert remote.send(key, here) is not None
    before = data_of(remote, key)
    assert remote.send(key, here) is None
    assert data_of(remote, key) == before


def test_of_many_senders_at_once_one_commits(url: str, tmp_path: Path) -> None:
    here, remote, sent = Store(tmp_path), Remote(url), []
    key = kept(here)
    threads = [threading.Thread(target=lambda: sent.append(remote.send(key, here))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len([size for size in sent if size is not None]) == 1
    assert remote.fetch(key, Store(tmp_path / "b")), "what was committed is whole"
    assert len(data_of(remote, key)) == 1


def test_an_object_is_created_once_and_listed_by_its_name(url: str) -> None:
    objects = Objects(url)
    objects.create("a/b", b"1")
    with pytest.raises(FileExistsError):
        objects.create("a/b", b"2")
    assert objects.read("a/b", 1) == b"1"
    with pytest.raises(ValueError, match="larger than 0 bytes"):
        objects.read("a/b", 0)
    with pytest.raises(FileNotFoundError):
        objects.read("a/c", 1)
    assert (objects.names("a"), objects.names("none")) == (["a/b"], [])
    objects.remove("a/b")
    objects.remove("a/b")
    assert objects.names("a") == []


def test_a_place_that_works_is_left_as_it_was(url: str) -> None:
    remote = Remote(url)
    remote.probe()
    assert remote.objects.names("") == []


def test_data_without_its_mark_does_not_exist_and_a_second_attempt_succeeds(
    place: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = Store(tmp_path / "a")
    key = kept(here)

    def killed(name: str, content: bytes) -> None:
        assert data_of(place, key), "data come first"
        raise RemoteError("gone")

    monkeypatch.setattr(place.objects, "create", killed)
    with pytest.raises(RemoteError):
        place.send(key, here)
    monkeypatch.undo()
    assert (place.keys(), place.fetch(key, Store(tmp_path / "b"))) == (set(), None)
    assert place.send(key, here)
    assert place.fetch(key, Store(tmp_path / "b"))


def test_what_is_damaged_here_is_not_sent_but_set_aside(place: Remote, tmp_path: Path) -> None:
    here = Store(tmp_path)
    key = kept(here)
    path = here.folder(key) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    with pytest.raises(StoreError, match=r"model\.safetensors was damaged"):
        place.send(key, here)
    assert place.objects.names("") == []
    assert not here.holds(key)


# ---- damaged, hostile ------------------------------------------------------------------------------------------------
def flips(content: bytes, most: int) -> Iterator[bytes]:
    """The content with one byte changed, and cut short, at so many places spread over it."""
    for i in range(0, len(content), max(1, len(content) // most)):
        yield content[:i] + bytes([content[i] ^ (1 << i % 8)]) + content[i + 1 :]
        yield content[:i]


def refused(remote: Remote, key: str, store: Store, why: str = "") -> None:
    with pytest.raises(StoreError, match=rf"was damaged \({why}") as caught:
        remote.fetch(key, store)
    assert caught.value.key == key, "so that it is computed again"
    assert not store.folder(key).exists()
    assert not list(store.root.glob(".writing-*"))
    assert not remote.has(key), "set aside, so that it can be sent again"


def test_a_changed_or_missing_byte_is_never_accepted(place: Remote, tmp_path: Path) -> None:
    here, there = Store(tmp_path / "a"), Store(tmp_path / "b")
    key = kept(here)
    place.send(key, here)
    (data,) = data_of(place, key)
    files = {name: place.objects.read(name, 1 << 20) for name in (data, at(key))}
    for name, content in files.items():
        for broken in flips(content, 150):
            for each, whole in files.items():
                place.objects.put(each, broken if each == name else whole)
            refused(place, key, there)
    for name, content in files.items():
        place.objects.put(name, content)
    assert place.fetch(key, there)


def test_a_mark_whose_data_are_gone_is_set_aside(url: str, tmp_path: Path) -> None:
    here, remote = Store(tmp_path / "a"), Remote(url)
    key = kept(here)
    remote.send(key, here)
    remote.objects.remove(data_of(remote, key)[0])
    refused(remote, key, Store(tmp_path / "b"), "its data are gone")
    assert remote.send(key, here)
    assert remote.fetch(key, Store(tmp_path / "b"))


def holding(*names: str) -> dict[str, Any]:
    """What `meta.json` says of files of these names, `{}` each."""
    return {"files": dict.fromkeys(names, hashlib.sha256(b"{}").hexdigest()), "sizes": dict.fromkeys(names, 2)}


def test_a_hand_made_result_is_accepted_if_it_is_as_senders_write_it(place: Remote, tmp_path: Path) -> None:
    """So that the next test is about what it changes."""
    here = Store(tmp_path / "a")
    key = kept(here)
    place.send(key, here)
    meta = json.loads(place.objects.read(at(key), 1 << 20))
    place.objects.put(at(key), json.dumps(sealed({**meta, **holding("result.json", "x.json")})).encode())
    place.objects.put(data_of(place, key)[0], b"{}{}")
    assert place.fetch(key, Store(tmp_path / "b")) == 4


@pytest.mark.parametrize(
    "change",
    [
        holding("result.json", "../../x.json"),
        holding("result.json", "/tmp/x.json"),
        holding("result.json", "meta.json"),
        holding("result.json", "x.pkl"),
        holding("x.json"),
        holding(),
        {"sizes": {"result.json": 2}},
        holding("result.json") | {"sizes": {"result.json": 1 << 40}},
        holding("result.json") | {"sizes": {"result.json": -1}},
        holding("result.json") | {"sizes": {"result.json": "2"}},
        {"data": "../../../x.data"},
        {"data": "x" * 5},
        {"data": None},
        {"label": 3},
        {"identity": {"sources": {}}},
        {"identity": "x"},
    ],
)
def test_what_no_sender_writes_is_refused_even_with_a_true_checksum(
    place: Remote, tmp_path: Path, change: dict[str, Any]
) -> None:
    here = Store(tmp_path / "a")
    key = kept(here)
    place.send(key, here)
    meta = json.loads(place.objects.read(at(key), 1 << 20))
    place.objects.put(at(key), json.dumps(sealed({**meta, **change})).encode())
    place.objects.put(data_of(place, key)[0], b"{}" * len(change.get("files", ())))
    refused(place, key, Store(tmp_path / "b"), "meta.json: ")
    assert {path.name for path in tmp_path.iterdir()} <= {"a", "b"}, "nothing was written elsewhere"


def test_another_steps_result_under_this_key_is_refused(place: Remote, tmp_path: Path) -> None:
    here = Store(tmp_path / "a")
    key, other = kept(here), kept(here, "other")
    place.send(other, here)
    (data,) = data_of(place, other)
    for name in (data, at(other)):
        place.objects.put(
            name.replace(other, key).replace(f"/{other[:2]}/", f"/{key[:2]}/"), place.objects.read(name, 1 << 20)
        )
    refused(place, key, Store(tmp_path / "b"))


def test_names_that_are_no_keys_are_passed_over(place: Remote) -> None:
    for name in ("steps/ab/../../x/meta.json", "steps/ab/abcd/meta.json", "steps/zz/" + "g" * 64 + "/meta.json"):
        place.objects.put(name, b"{}")
    assert place.keys() == set()
    with pytest.raises(ValueError, match="Expected a key"):
        place.has("../../x")


# ---- a local store in front of it ------------------------------------------------------------------------------------
def test_a_store_reads_and_writes_through(url: str, tmp_path: Path) -> None:
    first, second = store_at(tmp_path / "a", url), store_at(tmp_path / "b", url)
    key = kept(first)
    assert second.has(key)
    assert not second.holds(key), "it was asked, not fetched"
    assert second.load(key).result == {"name": "step"}
    assert second.holds(key)
    assert (first.note, second.note) == (None, None)
    with second.lock(kept(first, "other")):
        assert not second.obtain("0" * 64)


def test_what_is_damaged_here_is_fetched_again_and_what_is_damaged_there_is_said(tmp_path: Path) -> None:
    url = a_url("memory", tmp_path)
    store = SharedStore(tmp_path / "a", url)
    key = kept(store)
    (store.folder(key) / "result.json").write_text("{}")
    assert store.load(key).result == {"name": "step"}
    other = SharedStore(tmp_path / "b", url)
    other.remote.objects.put(data_of(other.remote, key)[0], b"")
    assert not other.obtain(key)
    assert "was damaged" in str(other.note)
    with pytest.raises(StoreError) as caught:
        other.load(key)
    assert caught.value.key == key
    kept(other)
    assert Remote(url).fetch(key, Store(tmp_path / "c"))


def test_a_lease_far_away_is_waited_for_and_then_what_it_left_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_Lock, "poll_s", 0.02)
    url = a_url("memory", tmp_path)
    first, second = SharedStore(tmp_path / "a", url), SharedStore(tmp_path / "b", url)
    key, seen = kept(Store(tmp_path / "c")), []

    def wait() -> None:
        with second.lock(key):
            seen.append(second.obtain(key))

    with first.lock(key):
        thread = threading.Thread(target=wait)
        thread.start()
        time.sleep(0.1)
        assert not seen
        kept(first)
    thread.join(10)
    assert seen == [True]


def test_of_two_machines_that_want_a_step_one_computes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_Lock, "poll_s", 0.02)
    url, step, computed = a_url("memory", tmp_path), on_digits().steps["host"], []

    def slowly(workspace: object) -> Output:
        computed.append(1)
        time.sleep(0.3)
        return Output({"time_s": 1.0})

    monkeypatch.setitem(worker.COMPUTE, "host", slowly)
    task = Task(step.kind, step.key, step.identity, step.label)
    with ThreadPoolExecutor(2) as machines:
        outcomes = list(machines.map(lambda name: compute(task, tmp_path / name, Place(), url), "ab"))
    assert [outcome.error for outcome in outcomes] == [None, None]
    assert sorted(outcome.found for outcome in outcomes) == [False, True]
    assert len(computed) == 1
    assert all(Store(tmp_path / name).holds(step.key) for name in "ab")


def test_a_place_that_fails_in_the_middle_costs_nothing_that_is_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SharedStore(tmp_path, a_url("memory", tmp_path))

    def refuse(*args: object, **kwargs: object) -> None:
        raise ConnectionError("the network is gone")

    for name in ("open", "find", "exists", "pipe_file", "rm_file"):
        monkeypatch.setattr(store.remote.objects._fs, name, refuse)
    with store.lock("ab" * 32):
        key = kept(store)
    assert store.holds(key)
    assert "the network is gone" in str(store.note)
    assert "bench push" in str(store.note)
    with pytest.raises(RemoteError, match="the network is gone"):
        store.prepare()


# ---- sentences -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("typed", "sentence"),
    [("foo://x", "Protocol not known: foo"), ("s3://", "Expected a URL with a bucket"), ("file:///", "with a bucket")],
)
def test_a_url_that_cannot_be_is_one_sentence(typed: str, sentence: str) -> None:
    with pytest.raises(RemoteError, match=sentence):
        Remote(typed)


def test_what_opens_the_url_is_named_where_it_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3", raising=False)
    with pytest.raises(RemoteError, match=r"watermark-bench\[s3\]"):
        Remote("s3://bucket/x")


def test_a_bucket_that_does_not_exist_is_one_sentence(bucket: str) -> None:
    with pytest.raises(RemoteError, match=r"Expected to write in s3://nobucket/x, but: .* Create the bucket"):
        Remote("s3://nobucket/x").probe()
    with pytest.raises(RemoteError, match="Create the bucket"):
        Remote("s3://nobucket/x").keys()


def test_no_rights_are_one_sentence(place: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError("Access Denied")

    monkeypatch.setattr(place.objects._fs, "pipe_file", refuse)
    with pytest.raises(RemoteError, match=r"Access Denied\. Check your rights"):
        place.probe()


def test_a_password_in_a_url_is_not_shown() -> None:
    assert Objects("memory://me:secret@x").shown == "memory://...@x"
