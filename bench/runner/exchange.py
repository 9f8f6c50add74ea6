"""Copies results of steps and records between a run directory and a URL: what the other side lacks, no more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from bench.records.files import AnyRecord, as_text, load_all, parsed, save_record
from bench.records.record import CellRecord, RecordError
from bench.records.strictjson import MAX_BYTES
from bench.runner.remote import Remote, RemoteError
from bench.runner.rundir import RunDir
from bench.runner.store import Store, StoreError

__all__ = ["Traffic", "pull", "push"]


@dataclass
class Traffic:
    """What was copied.

    Attributes:
        results, records: that were copied.
        there: results and records that the other side had.
        size: bytes that were copied.
        left_out: a sentence for each that was damaged.
    """

    results: int = 0
    records: int = 0
    there: int = 0
    size: int = 0
    left_out: list[str] = field(default_factory=list)


def push(run_dir: RunDir, remote: Remote, told: Callable[[str], None] = lambda label: None) -> Traffic:
    """Send what the URL lacks; the same call again goes on where the first was interrupted.

    Args:
        run_dir: the run directory.
        remote: the URL.
        told: the label of every result before it is sent.

    Raises:
        RemoteError: the URL cannot be read or written.
    """
    done, known = Traffic(), remote.keys()
    for key, meta in sorted(run_dir.store.metas()):
        if key in known:
            done.there += 1
            continue
        told(str(meta["label"]))
        _copy(remote.send, key, run_dir, done)
    names = set(remote.objects.names("records"))
    for record in load_all(run_dir.records, lambda error: done.left_out.append(str(error))):
        name, content = _name(record), as_text(record).encode()
        try:
            if name in names or f"records/{record.filename}" in names:
                raise FileExistsError(name)
            remote.objects.create(name, content)
        except FileExistsError:
            done.there += 1
            continue
        done.records, done.size = done.records + 1, done.size + len(content)
    return done


def pull(run_dir: RunDir, remote: Remote, told: Callable[[str], None] = lambda label: None) -> Traffic:
    """Fetch what the run directory lacks; the same call again goes on where the first was interrupted.

    Args:
        run_dir: the run directory.
        remote: the URL.
        told: the key of every result before it is fetched.

    Raises:
        RemoteError: the URL cannot be read.
        OSError: the run directory cannot be written.
    """
    done = Traffic()
    for key in sorted(remote.keys()):
        if run_dir.store.holds(key):
            done.there += 1
            continue
        told(key)
        _copy(remote.fetch, key, run_dir, done)
    names = remote.objects.names("records")
    for name in sorted(names, key=lambda name: ("/failed/" in name, name)):  # what replaces failed ones comes first
        _pull_record(run_dir, remote, name, done)
    return done


def _pull_record(run_dir: RunDir, remote: Remote, name: str, done: Traffic) -> None:
    place = Path(name)
    kept, failed = run_dir.records / place.name, run_dir.records / "failed" / place.name
    if place.suffix != ".json" or place.name.startswith("."):
        return
    if kept.exists() or (place.parent.name == "failed" and failed.exists()):
        done.there += 1
        return
    try:
        content = remote.objects.read(name, MAX_BYTES)
        record = parsed(Path(f"{remote.shown}/{name}"), content)
        if _name(record) != name:
            raise RecordError(f"Expected {remote.shown}/{name} to be named {_name(record)}, after what it holds.")
    except (FileNotFoundError, ValueError) as error:
        done.left_out.append(str(error))
        return
    save_record(record, run_dir.records)
    done.records, done.size = done.records + 1, done.size + len(content)


def _name(record: AnyRecord) -> str:
    failed = isinstance(record, CellRecord) and record.status == "failed"
    return f"records/{'failed/' if failed else ''}{record.filename}"


def _copy(copy: Callable[[str, Store], int | None], key: str, run_dir: RunDir, done: Traffic) -> None:
    """Copy a result in one direction; a damaged one is left out."""
    try:
        size = copy(key, run_dir.store)
    except RemoteError:
        raise
    except StoreError as error:
        done.left_out.append(str(error))
        return
    if size is None:  # another process was first
        done.there += 1
    else:
        done.results, done.size = done.results + 1, done.size + size
