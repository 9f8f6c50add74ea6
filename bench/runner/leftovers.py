"""Finds what a run directory keeps and no record needs, so that a person may remove it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.records.files import load_records
from bench.runner.rundir import RunDir

__all__ = ["Leftover", "leftovers", "remove"]


@dataclass(frozen=True)
class Leftover:
    """A stored result, or a folder that a killed process left.

    Attributes:
        size: bytes on the disk.
    """

    path: Path
    label: str
    size: int


def leftovers(run_dir: RunDir) -> list[Leftover]:
    """What the store holds and no record names, the largest first; what is being computed now is not among it.

    Steps of an interrupted run count as left over: the same command would go on from them.

    Raises:
        RecordError: a record cannot be read, so that nobody can say what it needs.
    """
    needed = _needed(run_dir)
    found = [
        Leftover(run_dir.store.folder(key), str(meta["label"]), _size(run_dir.store.folder(key)))
        for key, meta in run_dir.store.metas()
        if key not in needed
    ]
    found += [Leftover(path, words, _size(path)) for path, words in _debris(run_dir)]
    return sorted(found, key=lambda each: -each.size)


def remove(found: Leftover) -> None:
    """Remove it; what another process removed meanwhile is gone as well."""
    shutil.rmtree(found.path, ignore_errors=True)


def _needed(run_dir: RunDir) -> set[str]:
    """Keys of the steps that records name, of those that are locked, and of all that they were computed from."""
    locks = (path.name for path in (run_dir.store.root / "locks").glob("*"))
    pending = [*locks, *(key for record in load_records(run_dir.records) for key in record.provenance.steps.values())]
    inputs = {key: dict(meta["identity"].get("inputs", {})) for key, meta in run_dir.store.metas()}
    needed: set[str] = set()
    while pending:
        key = pending.pop()
        if key not in needed:
            needed.add(key)
            pending += inputs.get(key, {}).values()
    return needed


def _debris(run_dir: RunDir) -> Iterator[tuple[Path, str]]:
    for pattern, words in ((".writing-*", "half written"), (".damaged-*", "damaged, set aside")):
        for path in run_dir.store.root.glob(pattern):
            yield path, words


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
