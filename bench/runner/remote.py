"""Results of steps at a URL, where several machines share them.

`URL/steps/ab/KEY/` holds one object a result, the bytes of its files one after another, and `meta.json`, which names
that object and every file with its size and checksum. It is created last, and only once: a result without it does not
exist. `URL/records/` holds records, `URL/locks/` leases.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from typing import Any
from uuid import uuid4

from bench.lease import EXPIRY_S, is_gone, lease, myself
from bench.records.strictjson import MAX_BYTES, parse_strict
from bench.runner.objects import Objects, RemoteError
from bench.runner.store import Store, StoreError, key_of, sealed, write_through

__all__ = ["Remote", "RemoteError", "remote_at"]

KEY = re.compile(r"[0-9a-f]{64}")
MARK = re.compile(r"steps/[0-9a-f]{2}/([0-9a-f]{64})/meta\.json")
FILE = re.compile(r"[A-Za-z0-9_][\w.+=-]{0,199}\.(json|safetensors)", re.ASCII)
DATA = re.compile(r"[0-9a-f]{32}\.data")
CHUNK = 4 << 20
MAX_DATA = 64 << 30  # bytes of one result
POLL_S = 1.0


class _DamageError(ValueError):
    """What a place holds is not what was sent to it."""


class Remote:
    """Results at a URL; see the module for the layout."""

    def __init__(self, url: str) -> None:
        """Open the URL.

        Raises:
            RemoteError: it cannot be opened.
        """
        self.objects = Objects(url)

    @property
    def shown(self) -> str:
        """The URL, without a password."""
        return self.objects.shown

    def probe(self) -> None:
        """Write, read and remove an object.

        Raises:
            RemoteError: one of them was refused, or it reads otherwise than it was written.
        """
        name = f"probe/{uuid4().hex}"
        self.objects.create(name, name.encode())
        try:
            if self.objects.read(name, 100) != name.encode():
                raise RemoteError(
                    f"Expected {self.shown} to give back what was written to it, but it gave other bytes."
                )
        finally:
            self.objects.remove(name)

    def keys(self, prefix: str = "") -> set[str]:
        """Keys of the results that are there; of all, or of those that begin with these two digits."""
        found = (MARK.fullmatch(name) for name in self.objects.names(f"steps/{prefix}".rstrip("/")))
        return {mark[1] for mark in found if mark}

    def has(self, key: str) -> bool:
        """Whether the result of `key` is there."""
        return self.objects.exists(f"{_at(key)}/meta.json")

    def fetch(self, key: str, store: Store) -> int | None:
        """Copy a result into a local store, with every checksum compared.

        Returns:
            Its bytes; None where there is none.

        Raises:
            StoreError: it is damaged, and was set aside if that is allowed.
            RemoteError: the place cannot be read.
            OSError: the local store cannot be written.
        """
        try:
            raw = self.objects.read(f"{_at(key)}/meta.json", MAX_BYTES)
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise self._set_aside(key, b"", str(error)) from error
        try:
            meta, name = _checked(raw, key)
            with self._data(f"{_at(key)}/{name}") as take, store.writing(key, meta) as folder:
                for file, size in meta["sizes"].items():
                    write_through(folder / file, _whole(take, file, size, meta["files"][file]))
        except _DamageError as error:
            raise self._set_aside(key, raw, str(error)) from error
        return sum(meta["sizes"].values())

    def send(self, key: str, store: Store) -> int | None:
        """Copy a result from a local store, with every checksum compared.

        Returns:
            Its bytes; None where another process was first.

        Raises:
            StoreError: there is none in the store, or it is damaged and was set aside there.
            RemoteError: the place cannot be written.
        """
        meta, name = store.load(key).meta, f"{uuid4().hex}.data"
        self.objects.write(f"{_at(key)}/{name}", _content(store, key, meta))
        try:
            self.objects.create(f"{_at(key)}/meta.json", json.dumps(sealed({**meta, "data": name})).encode())
        except FileExistsError:
            self.objects.remove(f"{_at(key)}/{name}")
            return None
        return sum(meta["sizes"].values())

    @contextmanager
    def lease(self, key: str, expiry_s: float = EXPIRY_S) -> Iterator[None]:
        """Let one machine compute `key` at a time; where the place refuses, none waits: that costs time alone."""
        with ExitStack() as held:
            with suppress(RemoteError):
                held.enter_context(lease(_Lock(self.objects, key, expiry_s), expiry_s=expiry_s))
            yield

    @contextmanager
    def _data(self, name: str) -> Iterator[Callable[[int], bytes]]:
        """What reads an object that a mark names; damage where it is gone."""
        with ExitStack() as opened:
            try:
                take = opened.enter_context(self.objects.reading(name))
            except FileNotFoundError as error:
                raise _DamageError("its data are gone") from error
            yield take

    def _set_aside(self, key: str, raw: bytes, why: str) -> StoreError:
        """Take the commit mark of a damaged result away, so that it can be sent again; returns the error to raise."""
        with suppress(RemoteError):
            self.objects.put(f"{_at(key)}/meta.damaged", raw)
            self.objects.remove(f"{_at(key)}/meta.json")
        return StoreError(f"{self.shown}/{_at(key)} was damaged ({why}) and is set aside.", key)


@cache
def remote_at(url: str) -> Remote:
    """The results at a URL, opened once a process.

    Raises:
        RemoteError: it cannot be opened.
    """
    return Remote(url)


class _Lock:
    """A lease that is an object: it names its holder, and when it is void unless it was renewed."""

    poll_s = POLL_S

    def __init__(self, objects: Objects, key: str, expiry_s: float) -> None:
        self.objects, self.name, self.token, self.expiry_s = objects, f"locks/{key}", uuid4().hex, expiry_s

    def create(self) -> bool:
        try:
            self.objects.create(self.name, self._said())
        except FileExistsError:
            return False
        return True

    def void(self, expiry_s: float) -> bool:
        holder = self._holder()
        if holder is None:
            return False  # just released
        expires = holder.get("expires")
        return not isinstance(expires, int | float) or time.time() > expires or is_gone(holder)

    def clear(self) -> None:
        self.objects.remove(self.name)

    def touch(self) -> None:
        with suppress(RemoteError):
            if self._mine():
                self.objects.put(self.name, self._said())

    def release(self) -> None:
        with suppress(RemoteError):
            if self._mine():
                self.clear()

    def _said(self) -> bytes:
        return json.dumps({**myself(), "token": self.token, "expires": time.time() + self.expiry_s}).encode()

    def _mine(self) -> bool:
        return (self._holder() or {}).get("token") == self.token

    def _holder(self) -> dict[str, Any] | None:
        """What the lease says; None where there is none, nothing where it is damaged."""
        try:
            found = parse_strict(self.objects.read(self.name, 10_000).decode("utf-8"))
        except FileNotFoundError:
            return None
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}


def _at(key: str) -> str:
    if not KEY.fullmatch(key):
        raise ValueError(f"Expected a key of 64 hexadecimal digits, but got {key[:80]!r}.")
    return f"steps/{key[:2]}/{key}"


def _checked(raw: bytes, key: str) -> tuple[dict[str, Any], str]:
    """`meta.json` as a local store keeps it, and the name of the object with the files.

    Raises:
        _DamageError: it is not as it was sent, does not belong to this key, or names what no result has.
    """
    try:
        meta = parse_strict(raw.decode("utf-8"))
        whole = sealed(meta) == meta and key_of(meta["identity"]) == key and isinstance(meta["label"], str)
        name, files, sizes = meta.pop("data"), meta["files"], meta["sizes"]
        named = (
            set(files) == set(sizes) >= {"result.json"} and all(map(FILE.fullmatch, files)) and "meta.json" not in files
        )
        bounded = all(type(size) is int and size >= 0 for size in sizes.values()) and sum(sizes.values()) <= MAX_DATA
        if not (whole and named and bounded and DATA.fullmatch(name)):
            raise ValueError("its checksum, its key, or what it names is wrong")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _DamageError(f"meta.json: {error}") from error
    return meta, name


def _whole(take: Callable[[int], bytes], name: str, size: int, checksum: str) -> Iterator[bytes]:
    """The next `size` bytes, a chunk at a time.

    Raises:
        _DamageError: there are fewer, or others than were sent.
    """
    found, left = hashlib.sha256(), size
    while left:
        chunk = take(min(left, CHUNK))
        if not chunk:
            raise _DamageError(f"{name}: it ends {left} bytes early")
        found.update(chunk)
        left -= len(chunk)
        yield chunk
    if found.hexdigest() != checksum:
        raise _DamageError(f"{name}: its checksum differs")


def _content(store: Store, key: str, meta: dict[str, Any]) -> Iterator[bytes]:
    """The bytes of all files of a local result, one after another.

    Raises:
        StoreError: they are not what was saved; the result is set aside.
    """
    for name, size in meta["sizes"].items():
        try:
            with (store.folder(key) / name).open("rb") as file:
                yield from _whole(file.read, name, size, meta["files"][name])
        except (_DamageError, FileNotFoundError) as error:
            raise store.set_aside(key, name) from error
