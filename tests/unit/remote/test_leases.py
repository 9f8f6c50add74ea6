"""Who computes a step holds its lease at the URL: renewed, void once its holder is gone, stolen after expiry."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from bench.lease import myself
from bench.runner.remote import Remote, _Lock
from tests.fakes.places import a_url


def lock(remote: Remote, expiry_s: float = 60.0) -> _Lock:
    return _Lock(remote.objects, "k", expiry_s)


def test_one_machine_at_a_time_holds_a_lease(url: str) -> None:
    remote = Remote(url)
    first, second = lock(remote), lock(remote)
    assert (first.create(), second.create(), second.void(60)) == (True, False, False)
    second.release()
    assert not second.create(), "only the holder gives it back"
    first.release()
    assert second.create()


def said(remote: Remote, **fields: Any) -> None:
    holder = {**myself(), "host": "far", "token": "x", "expires": time.time() + 60, **fields}
    remote.objects.put("locks/k", json.dumps(holder).encode())


@pytest.mark.parametrize(
    ("fields", "void"),
    [
        ({}, False),
        ({"expires": 0}, True),
        ({"expires": None}, True),
        ({"host": socket.gethostname()}, False),
        ({"host": socket.gethostname(), "pid": 2**22 + 1}, True),
        ({"host": socket.gethostname(), "boot": "another"}, True),
    ],
)
def test_a_lease_is_void_once_it_expired_or_its_holder_is_known_to_be_gone(
    place: Remote, fields: dict[str, Any], void: bool
) -> None:
    said(place, **fields)
    assert lock(place).void(60) is void


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"expires": "soon"}'])
def test_a_damaged_lease_is_void(place: Remote, content: bytes) -> None:
    place.objects.put("locks/k", content)
    assert lock(place).void(60)


def test_a_held_lease_is_renewed_and_a_stolen_one_is_not(place: Remote) -> None:
    with place.lease("k", 0.4):
        until = json.loads(place.objects.read("locks/k", 1000))["expires"]
        time.sleep(0.6)
        assert json.loads(place.objects.read("locks/k", 1000))["expires"] > until
        said(place)
        time.sleep(0.2)
        assert json.loads(place.objects.read("locks/k", 1000))["token"] == "x"
    assert place.objects.names("locks") == ["locks/k"], "that of the thief stays"


def test_who_waits_reads_no_half_of_a_lease_that_is_renewed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remote = Remote(a_url("file", tmp_path))
    held, waits, seen = lock(remote), lock(remote), []
    assert held.create()
    fsync = os.fsync

    def look(number: int) -> None:
        seen.append(waits.void(60))
        fsync(number)

    monkeypatch.setattr(os, "fsync", look)
    held.touch()
    assert seen == [False]
    assert not waits.create()


def test_an_expired_lease_is_stolen_and_given_back(place: Remote) -> None:
    said(place, expires=time.time() - 1)
    with place.lease("k"):
        assert json.loads(place.objects.read("locks/k", 1000))["pid"] == os.getpid()
    assert place.objects.names("locks") == []
