"""What a confined process cannot do, tried by one."""

from __future__ import annotations

import os
import socket
import sys
import time
from pathlib import Path

import pytest

from bench.checks import sandbox
from bench.checks.sandbox import NAMESPACES, Ended, Limits, isolation, run_confined

CONFINED = "import os, sys\nfrom bench.checks.sandbox import Limits, confine\nfrom pathlib import Path\n"
NATIVE = "needs namespaces, which this platform does not lend"
ROOT = Path(__file__).parents[2]
lent = pytest.mark.skipif(not isolation(), reason=NATIVE)


@pytest.fixture(params=["namespaces", "alone"])
def how(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With the kernel's help, and without."""
    if request.param == "alone":
        monkeypatch.setattr(sandbox, "isolation", lambda: ())
    elif not isolation():
        pytest.skip(NATIVE)
    return str(request.param)


def tried(folder: Path, code: str, *, hook: bool = True, seconds: float = 20, memory: int = 1 << 30,
          hidden: tuple[Path, ...] = ()) -> Ended:  # fmt: skip
    """A module of this code, run confined."""
    place = folder / "box"
    place.mkdir()
    call = f"confine(Path({str(place)!r}), Limits({seconds}, {memory}))\n" if hook else ""
    (place / "stranger.py").write_text(CONFINED + call + code)
    root = os.pathsep.join([str(place), str(ROOT)])
    return run_confined("stranger", [], place, Limits(seconds, memory), root=Path(root), hidden=hidden)


def test_it_runs_in_its_own_folder_with_an_empty_environment(
    tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_TOKEN", "secret")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy")
    ended = tried(tmp_path, "open('here', 'w').write('x'); print(os.getcwd(), os.environ['HOME'], sorted(os.environ))")
    assert ended.status == 0, ended.said
    assert (tmp_path / "box" / "here").exists()
    assert ended.said.startswith(f"{tmp_path}/box {tmp_path}/box/home")
    assert "TOKEN" not in ended.said
    assert "PROXY" not in ended.said
    assert set(ended.isolated) >= set(NAMESPACES if how == "namespaces" else ())


@pytest.mark.parametrize(
    "code",
    [
        "import socket; socket.create_connection(('127.0.0.1', {port}), 2)",
        "import urllib.request; urllib.request.urlopen('http://127.0.0.1:{port}', timeout=2)",
        "import socket; socket.socket().bind(('127.0.0.1', 0))",
        "import subprocess; subprocess.run(['true'])",
        "os.system('true')",
        "os.execv('/bin/true', ['true'])",
        "os.kill({pid}, 0)",
        "open('{elsewhere}/x', 'w')",
        "os.open('{elsewhere}/x', os.O_CREAT | os.O_WRONLY)",
        "os.mkdir('{elsewhere}/x')",
        "os.symlink('/etc', '{elsewhere}/x')",
        "os.remove('{elsewhere}/kept')",
        "os.rename('{elsewhere}/kept', 'taken')",
        "Path('{elsewhere}/kept').write_text('x')",
    ],
)
def test_python_refuses(tmp_path: Path, how: str, code: str) -> None:
    (tmp_path / "kept").write_text("kept")
    with socket.create_server(("127.0.0.1", 0)) as server:
        words = {"port": server.getsockname()[1], "pid": os.getpid(), "elsewhere": tmp_path}
        ended = tried(tmp_path, code.format(**words))
    assert ended.status == 1, ended.said
    assert "Refused while a submission is verified" in ended.said or "unreachable" in ended.said, ended.said
    assert (tmp_path / "kept").read_text() == "kept"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["box", "kept"]


@lent
def test_a_folder_in_a_hidden_one_is_hidden_with_it(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    hidden = (tmp_path / "a", tmp_path / "a" / "b", tmp_path / "nowhere")
    ended = tried(tmp_path, f"print(os.listdir({str(tmp_path / 'a')!r}))", hidden=hidden)
    assert (ended.status, ended.said) == (0, "[]\n")


@lent
def test_a_mount_that_fails_is_no_fault_of_the_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "_outermost", lambda _: [tmp_path / "nowhere"])
    with pytest.raises(sandbox.NotIsolatedError, match="nowhere"):
        tried(tmp_path, "print('ran')")


@lent
@pytest.mark.parametrize(
    "code",
    [
        "import socket; socket.create_connection(('127.0.0.1', {port}), 2)",
        "os.kill({pid}, 0)",
        "open('{elsewhere}/kept', 'w')",
        "os.chmod('{elsewhere}/kept', 0)",
        "open('/proc/{pid}/environ').read()",
        "open('{elsewhere}/hidden/numbers').read()",
        "import subprocess; subprocess.run(['mount', '-o', 'remount,rw', '/'], check=True)",
        "import subprocess; subprocess.run(['umount', '{elsewhere}/hidden'], check=True)",
    ],
)
def test_the_kernel_refuses_what_a_hook_would_miss(tmp_path: Path, code: str) -> None:
    """Without the hook, which native code goes around."""
    (tmp_path / "kept").write_text("kept")
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "numbers").write_text("0.9")
    with socket.create_server(("127.0.0.1", 0)) as server:
        words = {"port": server.getsockname()[1], "pid": os.getpid(), "elsewhere": tmp_path}
        ended = tried(tmp_path, code.format(**words), hook=False, hidden=(tmp_path / "hidden",))
    assert ended.status == 1, ended.said
    assert (tmp_path / "kept").read_text() == "kept"


def test_time_ends_it_and_what_it_started(tmp_path: Path, how: str) -> None:
    start = time.monotonic()
    ended = tried(tmp_path, "import time; print('slow', flush=True); time.sleep(60)", seconds=2)
    assert ended.status is None
    assert "slow" in ended.said
    assert time.monotonic() - start < 15


def test_children_are_ended_too(tmp_path: Path, how: str) -> None:
    code = "import subprocess, time\nsubprocess.Popen(['sh', '-c', 'sleep 3; touch late']); time.sleep(60)"
    assert tried(tmp_path, code, hook=False, seconds=1.5).status is None
    time.sleep(2.5)
    assert not (tmp_path / "box" / "late").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="limits of data are Linux's")
@pytest.mark.parametrize(
    ("code", "said"),
    [("bytearray(2 << 30)", "MemoryError"), ("open('big', 'wb').truncate(2 << 30)", "too large")],
)
def test_memory_and_files_are_bounded(tmp_path: Path, how: str, code: str, said: str) -> None:
    ended = tried(tmp_path, code)
    assert ended.status != 0
    assert said in ended.said or ended.status < 0


def test_much_that_is_printed_is_cut(tmp_path: Path, how: str) -> None:
    ended = tried(tmp_path, "print('x' * 10_000_000 + 'end')")
    assert ended.status == 0
    assert len(ended.said) <= sandbox.SHOWN
    assert ended.said.endswith("end\n")


def test_reading_and_importing_still_work(tmp_path: Path, how: str) -> None:
    ended = tried(
        tmp_path, "import json, hashlib, tempfile; tempfile.mkdtemp(); print(len(open(json.__file__).read()))"
    )
    assert ended.status == 0, ended.said
