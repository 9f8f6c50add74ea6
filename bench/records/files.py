"""Records as files: written atomically with a checksum, read strictly."""

from __future__ import annotations

import json
import lzma
import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bench.identity import digest
from bench.records.calibration import CALIBRATION
from bench.records.detectability import DETECTABILITY
from bench.records.pictures import PICTURES
from bench.records.record import RECORDS, SCHEMA_VERSION, CalibrationRecord, CellRecord, ClaimRecord, RecordError
from bench.records.strictjson import MAX_BYTES, StrictJSONError, parse_strict, read_strict

__all__ = [
    "AnyRecord",
    "as_text",
    "load_all",
    "load_any",
    "load_record",
    "load_records",
    "pack_records",
    "parsed",
    "save_record",
]

AnyRecord = CellRecord | CalibrationRecord | ClaimRecord
Reader = Callable[[], AnyRecord]
PACKED = "*.jsonl.xz"
MAX_UNPACKED = 256 << 20
BESIDE = (CALIBRATION.name, DETECTABILITY.name, PICTURES.name)  # files of rows that may lie among records


def save_record(record: AnyRecord, folder: Path) -> Path:
    """Write `record` below `folder` (failed ones below `folder/failed`), atomically; returns the path.

    A cell has one record: the new one replaces what an earlier run left, whatever its status.
    """
    path, other = _places(record, folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(as_text(record))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    other.unlink(missing_ok=True)
    return path


def _places(record: AnyRecord, folder: Path) -> tuple[Path, Path]:
    """Where a record belongs, and where one of the same cell lies that ended otherwise."""
    well, badly = folder / record.filename, folder / "failed" / record.filename
    return (badly, well) if isinstance(record, CellRecord) and record.status == "failed" else (well, badly)


def as_text(record: AnyRecord) -> str:
    """A record as it stands in a file: indented JSON, with the SHA-256 of its canonical JSON as `checksum`."""
    data = json.loads(record.model_dump_json())
    return json.dumps({**data, "checksum": digest(data)}, indent=1, ensure_ascii=False) + "\n"


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
    folder: Path,
    unreadable: Callable[[RecordError], None] | None = None,
    *,
    named: bool = True,
    known: Iterable[CellRecord] = (),
) -> Iterator[CellRecord]:
    """The records of all cells below `folder`, failed ones too, in the order of their names; then packed ones.

    Args:
        folder: where `save_record` put them.
        unreadable: told of each file that is no record, which is then passed over; None raises instead.
        named: refuse a file that is not named as `save_record` would name it.
        known: records that were read from this folder just now: their files are not read again.

    Raises:
        RecordError: one of the files is not a record, and nobody is told.
    """
    everything = load_all(folder, unreadable, named=named, known=known)
    return (each for each in everything if isinstance(each, CellRecord))


def load_all(
    folder: Path,
    unreadable: Callable[[RecordError], None] | None = None,
    *,
    named: bool = True,
    known: Iterable[CellRecord] = (),
) -> Iterator[AnyRecord]:
    """The records of every type below `folder`, as `load_records` reads those of cells."""
    found = [*folder.glob("*.json"), *folder.glob("failed/*.json")]
    paths = sorted(path for path in found if path.name not in BESIDE)
    at = {_places(record, folder)[0]: record for record in known}
    load = _load_named if named else load_any
    alone: Iterator[Reader] = (partial(at.__getitem__ if path in at else load, path) for path in paths)
    packed = (read for path in sorted(folder.glob(PACKED)) for read in _unpacked(path))
    for read in chain(alone, packed):
        try:
            yield read()
        except RecordError as error:
            if unreadable is None:
                raise
            unreadable(error)


def pack_records(records: Iterable[CellRecord], path: Path) -> None:
    """Write records into one file that `load_records` reads: a line of JSON each, compressed, ordered by name."""
    lines = (record.model_dump_json() + "\n" for record in sorted(records, key=lambda record: record.filename))
    with lzma.open(path, "wt", encoding="utf-8", preset=9) as file:
        file.writelines(lines)


def _unpacked(path: Path) -> Iterator[Reader]:
    """For each line of a packed file, what reads and validates it; never more than `MAX_UNPACKED` bytes."""
    left = MAX_UNPACKED
    try:
        if not path.is_file():
            raise StrictJSONError("it is not a regular file")
        with lzma.open(path, "rb") as file:
            while line := file.readline(min(left, MAX_BYTES) + 1):
                left -= len(line)
                if left < 0 or len(line) > MAX_BYTES:
                    raise StrictJSONError(f"it holds more than {MAX_UNPACKED} bytes, or a line of {MAX_BYTES}")
                yield partial(parsed, path, line)
    except (OSError, EOFError, lzma.LZMAError, StrictJSONError) as error:
        yield partial(_refuse, path, str(error))


def _refuse(path: Path, why: str) -> AnyRecord:
    raise RecordError(f"Expected packed records in {path}, but could not read them: {why}.")


def parsed(path: Path, content: bytes) -> AnyRecord:
    """Validate one record of any type that was read from somewhere.

    Args:
        path: to name it by, in errors.
        content: JSON.

    Raises:
        RecordError: it is not JSON within the bounds, or does not follow the schema.
    """
    try:
        return _validated(path, parse_strict(content.decode("utf-8")))
    except (UnicodeDecodeError, StrictJSONError) as error:
        raise RecordError(f"Expected a record in {path}, but could not read it: {error}.") from error


def _load_named(path: Path) -> AnyRecord:
    record = load_any(path)
    if path.name != record.filename:
        raise RecordError(f"Expected {path} to be named {record.filename}, after what it holds: rename it.")
    return record


def load_any(path: Path) -> AnyRecord:
    """Read and validate one record of any type.

    Raises:
        RecordError: the file is missing, is not JSON within the bounds, or does not follow the schema.
    """
    try:
        return _validated(path, read_strict(path))
    except StrictJSONError as error:
        raise RecordError(f"Expected a record in {path}, but could not read it: {error}.") from error


def _validated(path: Path, data: Any) -> AnyRecord:
    _check_version(path, data)
    told = data.pop("checksum", None) if isinstance(data, dict) else None
    try:
        record = RECORDS.validate_python(data, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))[:200] or "the record"
        raise RecordError(f"{path}: {where}: {first['msg'][:500]} ({error.error_count()} problems).") from error
    if told is not None and told != digest(data):
        raise RecordError(f"{path} is not as it was written (its checksum differs): run the command again.")
    return record


def _check_version(path: Path, data: Any) -> None:
    version = data.get("schema_version") if isinstance(data, dict) else SCHEMA_VERSION
    if type(version) is int and version != SCHEMA_VERSION:
        age = "an earlier" if version < SCHEMA_VERSION else "a later"
        raise RecordError(
            f"{path} was written by {age} version (schema {version}): remove it, or run the command again in a fresh "
            "--run-dir."
        )
