"""Records as files: written atomically, read strictly."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bench.records.record import RECORDS, SCHEMA_VERSION, CalibrationRecord, CellRecord, ClaimRecord, RecordError
from bench.records.strictjson import StrictJSONError, read_strict

__all__ = ["load_any", "load_record", "load_records", "save_record"]

AnyRecord = CellRecord | CalibrationRecord | ClaimRecord


def save_record(record: AnyRecord, folder: Path) -> Path:
    """Write `record` below `folder` (failed ones below `folder/failed`), atomically; returns the path.

    A cell has one record: the new one replaces what an earlier run left, whatever its status.
    """
    kept, other = folder, folder / "failed"
    if isinstance(record, CellRecord) and record.status == "failed":
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


def load_record(path: Path) -> CellRecord:
    """Read and validate the record of a cell.

    Raises:
        RecordError: the file is missing, is not JSON within the bounds, or does not follow the schema.
    """
    record = load_any(path)
    if not isinstance(record, CellRecord):
        raise RecordError(f"Expected the record of a cell in {path}, but got a {record.type}.")
    return record


def load_records(
    folder: Path, unreadable: Callable[[RecordError], None] | None = None, *, named: bool = True
) -> Iterator[CellRecord]:
    """The records of all cells below `folder`, failed ones too, in the order of their names.

    Args:
        folder: where `save_record` put them.
        unreadable: told of each file that is no record, which is then passed over; None raises instead.
        named: refuse a file that is not named as `save_record` would name it.

    Raises:
        RecordError: one of the files is not a record, and nobody is told.
    """
    for path in sorted([*folder.glob("*.json"), *folder.glob("failed/*.json")]):
        try:
            record = load_any(path)
            if named and path.name != record.filename:
                raise RecordError(f"Expected {path} to be named {record.filename}, after what it holds: rename it.")
        except RecordError as error:
            if unreadable is None:
                raise
            unreadable(error)
            continue
        if isinstance(record, CellRecord):
            yield record


def load_any(path: Path) -> AnyRecord:
    """Read and validate one record of any type.

    Raises:
        RecordError: the file is missing, is not JSON within the bounds, or does not follow the schema.
    """
    try:
        data = read_strict(path)
        _check_version(path, data)
        return RECORDS.validate_python(data, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))[:200] or "the record"
        raise RecordError(f"{path}: {where}: {first['msg'][:500]} ({error.error_count()} problems).") from error
    except StrictJSONError as error:
        raise RecordError(f"Expected a record in {path}, but could not read it: {error}.") from error


def _check_version(path: Path, data: Any) -> None:
    version = data.get("schema_version") if isinstance(data, dict) else SCHEMA_VERSION
    if type(version) is int and version != SCHEMA_VERSION:
        age = "an earlier" if version < SCHEMA_VERSION else "a later"
        raise RecordError(
            f"{path} was written by {age} version (schema {version}): remove it, or run the command again in a fresh "
            "--run-dir."
        )
