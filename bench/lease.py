"""A lock between processes that works on every file system: a lease file that only one process can create.

The file names its holder and is touched while it is held. A lease is void when its holder, a process of this machine,
is gone, or when it was not touched for a minute. Two processes may, once in a great while, both find a lease void and
both hold it: use it where that costs time, but breaks nothing. A `Ticket` is the same somewhere else than in a file.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, Protocol

__all__ = ["EXPIRY_S", "Ticket", "is_gone", "lease", "myself"]

EXPIRY_S = 60.0
POLL_S = 0.1


class Ticket(Protocol):
    """What says that a lease is held.

    Attributes:
        poll_s: seconds between two looks at a lease that another process holds.
    """

    poll_s: float

    def create(self) -> bool:
        """Take the lease; false where somebody has it."""

    def void(self, expiry_s: float) -> bool:
        """Whether the holder is gone, or has not touched its lease for so long."""

    def clear(self) -> None:
        """Remove a void lease."""

    def touch(self) -> None:
        """Say that the holder is alive."""

    def release(self) -> None:
        """Give back the lease that this process holds."""


class _File:
    """A lease file."""

    poll_s = POLL_S

    def __init__(self, path: Path) -> None:
        self.path = path

    def create(self) -> bool:
        return _created(self.path)

    def void(self, expiry_s: float) -> bool:
        return _void(self.path, expiry_s)

    def clear(self) -> None:
        self.path.unlink(missing_ok=True)

    def touch(self) -> None:
        with suppress(OSError):
            os.utime(self.path)

    def release(self) -> None:
        self.clear()


@contextmanager
def lease(place: Path | Ticket, *, expiry_s: float = EXPIRY_S) -> Iterator[None]:
    """Hold the lease at `place`; wait for whoever holds it.

    Args:
        place: the lease file, whose folder exists, or what stands for it elsewhere.
        expiry_s: seconds after which a lease that nobody touched is void.

    Raises:
        OSError: the file cannot be created, because the folder is read-only, full or missing.
    """
    ticket = _File(place) if isinstance(place, Path) else place
    while not ticket.create():
        if ticket.void(expiry_s):
            ticket.clear()
        else:
            time.sleep(ticket.poll_s)
    released = threading.Event()
    threading.Thread(target=_touch, args=(ticket, expiry_s / 4, released), daemon=True).start()
    try:
        yield
    finally:
        released.set()
        ticket.release()


def myself() -> dict[str, Any]:
    """This process, as other processes can look it up: `host`, `boot` and `pid`."""
    return {**_machine(), "pid": os.getpid()}


def is_gone(process: Mapping[str, Any]) -> bool:
    """Whether a process described by `myself` is known to have ended; of another machine's nothing is known."""
    here = _machine()
    if process.get("host") != here["host"]:
        return False
    return process.get("boot") != here["boot"] or not _alive(process.get("pid"))


def _created(path: Path) -> bool:
    try:
        with path.open("x", encoding="utf-8") as file:
            json.dump(myself(), file)
    except FileExistsError:
        return False
    return True


def _void(path: Path, expiry_s: float) -> bool:
    """Whether the holder is gone, or has not touched its lease for too long."""
    try:
        age_s = time.time() - path.stat().st_mtime
        holder: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return False  # just released
    except ValueError:
        return age_s > 1.0  # being written, or left empty by a kill
    return age_s > expiry_s or not isinstance(holder, dict) or is_gone(holder)


def _alive(pid: object) -> bool:
    if not isinstance(pid, int):
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # somebody else's process
    return True


def _touch(ticket: Ticket, every_s: float, released: threading.Event) -> None:
    while not released.wait(every_s):
        ticket.touch()


@cache
def _machine() -> dict[str, str]:
    """The machine since it was started: after a restart no process of before is alive."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    except OSError:
        boot = ""
    return {"host": socket.gethostname(), "boot": boot}
