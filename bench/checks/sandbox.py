"""Runs a stranger's method in a process of its own that is kept from the network, other files and other processes.

Where Linux lends namespaces to everybody (`unshare`), the kernel keeps it in. Elsewhere only limits of resources and a
hook inside of Python are left, which is said in the outcome; `docs/security.md` says what neither defends.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

__all__ = ["NAMESPACES", "Ended", "Limits", "NotIsolatedError", "confine", "isolation", "run_confined"]

MEMORY, FILE, FILES, SHOWN = 6 << 30, 1 << 30, 512, 4_000
NAMESPACES = ("no network", "a read-only file system but for its folder", "no other processes")
HOOK = "Python refuses sockets, processes and writing elsewhere"
UNSHARE = ("--user", "--map-root-user", "--net", "--mount", "--pid", "--ipc", "--fork", "--kill-child", "--mount-proc")
# $1 is the folder that may be written; then come as many hidden folders as $2 says, then the command, which runs
# without privileges.
SCRIPT = """
set -e
mount --make-rprivate /
mount -t tmpfs -o size=256m none /dev/shm
mount --bind "$1" "$1"; cd "$1"
while read -r _ at _; do
    case "$at" in
        "$1" | /proc* | /sys* | /dev*) ;;
        *) mount -o remount,bind,ro "$at" 2>/dev/null || [ "$at" != / ] ;;
    esac
done < /proc/mounts
count=$2; shift 2
while [ "$count" -gt 0 ]; do mount -t tmpfs -o ro none "$1"; shift; count=$((count - 1)); done
: > started
exec setpriv --no-new-privs --bounding-set=-all --inh-caps=-all -- "$@"
"""
REFUSED = (
    "socket.bind", "socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr",
    "socket.sendto", "socket.sendmsg", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn",
    "os.fork", "os.forkpty", "os.kill", "ftplib.connect", "urllib.Request", "webbrowser.open",
)  # fmt: skip
CHANGES = (
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.mkdir",
    "os.link",
    "os.symlink",
    "os.truncate",
    "os.chmod",
    "os.chown",
)
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class NotIsolatedError(RuntimeError):
    """The kernel does not keep a process in as it was asked to."""


@dataclass(frozen=True)
class Limits:
    """What a confined process may use.

    Attributes:
        seconds: of wall-clock time, and as many of processor time for each of two cores.
        memory: bytes of data.
    """

    seconds: float
    memory: int = MEMORY


@dataclass(frozen=True)
class Ended:
    """How a confined process ended.

    Attributes:
        status: of exit; negative for a signal; None where its time was up.
        said: the end of what it printed.
        isolated: what it was kept from.
    """

    status: int | None
    said: str
    isolated: tuple[str, ...]


@cache
def isolation() -> tuple[str, ...]:
    """What the kernel keeps a process from here: `NAMESPACES`, or nothing."""
    if sys.platform != "linux" or not all(map(shutil.which, ("unshare", "setpriv", "mount", "sh"))):
        return ()
    try:
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run(_boxed(["true"], Path(folder), ()), capture_output=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return ()
    return NAMESPACES if done.returncode == 0 else ()


def run_confined(
    module: str, words: Sequence[str], folder: Path, limits: Limits, *,
    root: Path, hidden: Sequence[Path] = (), settings: Mapping[str, str] | None = None,
) -> Ended:  # fmt: skip
    """Run `python -m module words`, which calls `confine` first, and wait for its end, or end it.

    Args:
        module: what to run.
        words: its arguments.
        folder: the only one that it may write into; HOME and temporary files lie there.
        limits: of time and memory.
        root: where `bench` is imported from.
        hidden: folders whose content it is not to see, where the kernel lends namespaces.
        settings: further variables of its otherwise empty environment.

    Raises:
        NotIsolatedError: the kernel lends namespaces, but something could not be hidden.
    """
    for name in ("home", "tmp"):
        (folder / name).mkdir(exist_ok=True)
    environment = {
        "PATH": os.defpath, "LANG": "C.UTF-8", "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": str(folder / "home"), "TMPDIR": str(folder / "tmp"), "PYTHONHASHSEED": "0", **(settings or {}),
    }  # fmt: skip
    command = [sys.executable, "-P", "-s", "-m", module, *words]
    if isolation():
        command = _boxed(command, folder, _outermost(hidden))
    status, said = _waited(command, folder, environment, limits.seconds)
    if isolation() and not (folder / "started").exists():
        raise NotIsolatedError(
            f"Expected the kernel to keep a process in, but the mounts failed: {said.strip()[-500:]}"
        )
    return Ended(status, said, (*isolation(), HOOK))


def _outermost(folders: Sequence[Path]) -> list[Path]:
    """Those that exist and lie in no other: below a hidden one there is nothing to hide."""
    found = {path.resolve() for path in folders if path.is_dir()}
    return sorted(path for path in found if not found & set(path.parents))


def _boxed(command: Sequence[str], folder: Path, hidden: Sequence[Path]) -> list[str]:
    places = [str(folder.resolve()), str(len(hidden)), *map(str, hidden)]
    return ["unshare", *UNSHARE, "--", "sh", "-c", SCRIPT, "sh", *places, *command]


def _waited(
    command: Sequence[str], folder: Path, environment: dict[str, str], seconds: float
) -> tuple[int | None, str]:
    """Exit status and the end of what was printed; when time is up the whole session is killed."""
    log = folder / "said.txt"
    with log.open("wb") as said:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT, env=environment, cwd=folder,
            start_new_session=True,
        )  # fmt: skip
        status: int | None
        try:
            status = process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            with suppress(ProcessLookupError, PermissionError):  # what it left behind, too
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - SHOWN))
        return status, file.read(SHOWN).decode("utf-8", "replace")


def confine(folder: Path, limits: Limits) -> None:
    """Limit this process for good: memory, time, files; refuse sockets, processes, and writing outside of `folder`.

    Called before the stranger's code is imported. Python's hooks for auditing cannot be taken away again.
    """
    with suppress(ImportError):
        import resource

        seconds = int(2 * limits.seconds) + 10
        for name, limit in (
            ("RLIMIT_CPU", seconds), ("RLIMIT_DATA", limits.memory), ("RLIMIT_FSIZE", FILE),
            ("RLIMIT_NOFILE", FILES), ("RLIMIT_CORE", 0),
        ):  # fmt: skip
            with suppress(AttributeError, ValueError, OSError):
                resource.setrlimit(getattr(resource, name), (limit, limit))
    sys.addaudithook(_hook(str(folder.resolve()) + os.sep))


def _hook(within: str) -> Callable[[str, tuple[Any, ...]], None]:
    def outside(path: object) -> bool:
        if not isinstance(path, str | bytes | os.PathLike):
            return False  # a descriptor, which was opened somewhere
        return not f"{os.path.abspath(os.fsdecode(path))}{os.sep}".startswith(within)  # noqa: PTH100  # asks no file

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event in REFUSED:
            _refuse(event)
        elif event == "open" and len(args) > 2 and isinstance(args[2], int) and args[2] & WRITING:
            if outside(args[0]) and os.fspath(args[0]) != os.devnull:
                _refuse(f"writing {args[0]!r}")
        elif event in CHANGES and outside(args[0]):
            _refuse(f"{event} of {args[0]!r}")

    return hook


def _refuse(what: str) -> NoReturn:
    raise PermissionError(f"Refused while a submission is verified: {what}.")
