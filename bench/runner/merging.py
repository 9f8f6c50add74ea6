"""Merges run directories that were computed apart, such as those of shards, into one."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.records.calibration import CALIBRATION
from bench.records.detectability import DETECTABILITY
from bench.records.files import AnyRecord, load_all, load_any, save_record
from bench.records.pictures import PICTURES
from bench.records.record import CellRecord, RecordError
from bench.records.rowfile import RowFile
from bench.runner.rundir import RunDir
from bench.runner.store import Store, StoreError

__all__ = ["Merged", "merge"]

BESIDE: tuple[RowFile[Any], ...] = (CALIBRATION, DETECTABILITY, PICTURES)


@dataclass
class Merged:
    """What was merged.

    Attributes:
        results, records, durations: that were taken over; a record in the place of another counts as dropped alone.
        rows: that were taken over of what was measured, and drawn, beside the records.
        there: results and records that were there already, the same.
        dropped: a sentence for each record that lost against another of its cell.
        left_out: a sentence for each result and record that was damaged.
    """

    results: int = 0
    records: int = 0
    rows: int = 0
    durations: int = 0
    there: int = 0
    dropped: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def merge(sources: Iterable[RunDir], target: RunDir) -> Merged:
    """Copy what the sources hold into the target, results before the records that name them.

    Of two records of one cell, one that did not fail wins over one that failed, then one whose steps are all at hand
    over one that misses some, then the one that was finished earlier. Of two rows about the same the target's stays.

    Args:
        sources: run directories; they are not changed, but for damaged results, which are set aside.
        target: it may exist and hold results of its own.

    Raises:
        OSError: the target cannot be written.
    """
    done = Merged()
    apart = [source for source in sources if source.path != target.path]
    for source in apart:
        _merge_results(source.store, target.store, done)
        _merge_durations(source.durations, target.durations, done)
        for file in BESIDE:
            _merge_rows(file, source.path, target.path, done)
    for source in apart:
        for record in load_all(source.records, lambda error: done.left_out.append(str(error))):
            _merge_record(record, source, target, done)
    return done


def _merge_results(source: Store, target: Store, done: Merged) -> None:
    for key, _ in sorted(source.metas(), key=lambda entry: entry[0]):
        if target.holds(key):
            done.there += 1
            continue
        try:
            stored = source.load(key)
            stored.check()
        except StoreError as error:
            done.left_out.append(str(error))
            continue
        with target.writing(key, stored.meta) as folder:
            for name in stored.meta["files"]:
                shutil.copyfile(stored.folder / name, folder / name)
        done.results += 1


def _merge_durations(source: Path, target: Path, done: Merged) -> None:
    """Append the lines that the target lacks, each as often as it stands in the source."""
    lacking = Counter(_lines(source)) - Counter(_lines(target))
    if lacking:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("a", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in lacking.elements())
    done.durations += lacking.total()


def _merge_rows(file: RowFile[Any], source: Path, target: Path, done: Merged) -> None:
    """Add the rows about what the target's say nothing of."""
    try:
        known = {file.about(row) for row in file.load(target)}
        lacking = [row for row in file.load(source) if file.about(row) not in known]
    except RecordError as error:
        done.left_out.append(str(error))
        return
    if lacking:
        target.mkdir(parents=True, exist_ok=True)
        file.merge(lacking, target)
    done.rows += len(lacking)


def _lines(path: Path) -> list[str]:
    try:
        return [line for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    except FileNotFoundError:
        return []


def _merge_record(record: AnyRecord, source: RunDir, target: RunDir, done: Merged) -> None:
    rival = _rival(record, target, done)
    if rival == record:
        done.there += 1
        return
    if rival is None:
        done.records += 1
    else:
        loser, reason = _loser(record, rival, target.store)
        where = f"of {source.path}" if loser is record else "that was there"
        done.dropped.append(f"{record.filename} {where} was dropped: {reason}.")
        if loser is record:
            return
    save_record(record, target.records)


def _rival(record: AnyRecord, target: RunDir, done: Merged) -> AnyRecord | None:
    """The record of the same cell in the target."""
    for path in (target.records / record.filename, target.records / "failed" / record.filename):
        if path.exists():
            try:
                return load_any(path)
            except RecordError as error:
                done.left_out.append(str(error))
    return None


def _loser(new: AnyRecord, old: AnyRecord, store: Store) -> tuple[AnyRecord, str]:
    """The one of two different records of one cell that is dropped, and why."""
    for lacks, reason in (
        (lambda one: isinstance(one, CellRecord) and one.status == "failed", "it failed, the other did not"),
        (lambda one: not all(map(store.holds, one.provenance.steps.values())), "results of its steps are missing"),
    ):
        if lacks(new) != lacks(old):
            return (new if lacks(new) else old), reason
    finished = [one.provenance.finished or "" for one in (old, new)]
    return (new if finished[0] <= finished[1] else old), "the other was finished earlier"
