"""Records as files: written atomically, read strictly."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from pydantic import ValidationError

from bench.records.record import Record, RecordError

__all__ = ["load_record", "load_records", "save_record"]


def save_record(record: Record, folder: Path) -> Path:
    """Write `record` below `folder` (failed ones below `folder/failed`), atomically; returns the path.

    A cell has one record: the new one replaces what an earlier run left, whatever its status.
    """
    kept, other = folder, folder / "failed"
    if record.status == "failed":
        kept, other = other, kept
    kept.mkdir(parents=True, exist_ok=True)
    path = kept / record.filename
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(record.model_dump_json(indent=1) + "\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    (other / record.filename).unlink(missing_ok=True)
    return path


def load_record(path: Path) -> Record:
    """Read and validate one record.

    Raises:
        RecordError: the file is missing, is not JSON, or does not follow the schema.
    """
    try:
        return Record.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the record"
        raise RecordError(f"{path}: {where}: {first['msg']} ({error.error_count()} problems).") from error
    except (OSError, ValueError, RecursionError) as error:
        raise RecordError(f"Expected a record in {path}, but could not read it: {error}") from error


def load_records(folder: Path, unreadable: Callable[[RecordError], None] | None = None) -> Iterator[Record]:
    """All records below `folder`, failed ones too, in the order of their names.

    Args:
        folder: where `save_record` put them.
        unreadable: told of each file that is no record, which is then passed over; None raises instead.

    Raises:
        RecordError: one of the files is not a record, and nobody is told.
    """
    for path in sorted([*folder.glob("*.json"), *folder.glob("failed/*.json")]):
        try:
            yield load_record(path)
        except RecordError as error:
            if unreadable is None:
                raise
            unreadable(error)
