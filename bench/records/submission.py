"""A submission: an envelope around records that arrive by pull request, and the stamp that a re-run left.

A submission is a folder: `submission.json` (the envelope), `records/*.json`, `source/*.py` where the method is not part
of the project, and `verification.json` (the stamp) once somebody has re-run some of its cells.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, ValidationError, model_validator

from bench.contract.fields import Hex, Strict
from bench.identity import digest
from bench.records.files import load_any
from bench.records.record import CellRecord, RecordError
from bench.records.strictjson import StrictJSONError, read_strict

__all__ = [
    "ENVELOPE", "FAILED", "FORMAT", "RECORDS", "REPORTED", "SOURCE", "STALE", "STAMP", "VERIFIED", "Envelope", "Rerun",
    "Source", "Stamp", "Submission", "SubmissionError", "envelope_digest", "load_stamp", "load_submission",
    "load_submissions",
]  # fmt: skip

FORMAT: Literal[1] = 1
ENVELOPE, STAMP, RECORDS, SOURCE = "submission.json", "verification.json", "records", "source"
VERIFIED, REPORTED, FAILED, STALE = "verified", "self-reported", "failed", "stale"
MAX_FILES, MAX_ENVELOPE, MAX_RECORD, MAX_SOURCE = 5_000, 2 << 20, 8 << 20, 512 << 10
MAX_TOTAL = 256 << 20  # bytes of all records together

Method = Annotated[str, Field(pattern=r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$", max_length=40)]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+=@-]*\.json$", max_length=230)]
SourceName = Annotated[str, Field(pattern=r"^(schemes|attacks|source)/[a-z_][a-z0-9_]*\.py$", max_length=120)]
Date = Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$")]
Line = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]*$", max_length=2000)]
Shape = TypeVar("Shape", bound=Strict)


class SubmissionError(RecordError):
    """A folder is not a valid submission; the message says which file and what is wrong."""


class Source(Strict):
    """The source that computed records.

    Attributes:
        files: the method's own files, and those of `schemes/` and `attacks/` that they import -> digest of the tokens.
        harness: digest of the modules of `bench` that compute steps.
    """

    files: Annotated[dict[SourceName, Hex], Field(min_length=1, max_length=50)]
    harness: Hex


class Envelope(Strict):
    """Who submits which records of which method.

    Attributes:
        name: of the scheme or attack.
        who: as the submitter wants to be named.
        when: the day, as `2026-11-26`.
        command: what gives these records.
        records: file name -> SHA-256 of its bytes.
        state: what a submitter can say of his own records.
    """

    format: Literal[1] = FORMAT
    kind: Literal["scheme", "attack"]
    name: Method
    who: Annotated[Line, Field(min_length=1, max_length=200)]
    when: Date
    command: Annotated[list[Line], Field(max_length=200)]
    source: Source
    records: Annotated[dict[FileName, Hex], Field(min_length=1, max_length=MAX_FILES)]
    state: Literal["self-reported"] = "self-reported"


class Rerun(Strict):
    """One record that was computed again.

    Attributes:
        exact: whether the environment was the record's, so that every number had to agree.
        drift_pp: accuracy of the marked model, as reported less as computed again, in percentage points.
    """

    record: FileName
    profile: Annotated[str, Field(max_length=200)]
    exact: bool
    drift_pp: Annotated[float, Field(ge=-100, le=100)] | None = None


class Stamp(Strict):
    """What a re-run found.

    Attributes:
        content: digest of the envelope that it holds for, and so of all records.
        source: that was run.
        reason: which check failed, in one sentence.
        salt: what was mixed into the choice of cells besides the content.
        isolated: what the process of the method was kept from.
    """

    format: Literal[1] = FORMAT
    state: Literal["verified", "failed"]
    content: Hex
    source: Source
    when: Date
    reason: Annotated[str, Field(max_length=2000)] | None = None
    rerun: Annotated[list[Rerun], Field(max_length=1000)] = []
    salt: Annotated[Line, Field(max_length=200)] = ""
    isolated: Annotated[list[Line], Field(max_length=20)] = []

    @model_validator(mode="after")
    def _evidence(self) -> Stamp:
        if (self.state == FAILED) != bool(self.reason):
            raise ValueError("Expected a reason where the check failed, and nowhere else.")
        if self.state == VERIFIED and not self.rerun:
            raise ValueError("Expected what was computed again, but got nothing.")
        return self


@dataclass(frozen=True)
class Submission:
    """A submission whose files are all there, within bounds, and as its envelope says.

    Attributes:
        folder: where it lies.
        records: file name -> record.
        stamp: only one that holds for exactly this envelope; another is ignored.
    """

    folder: Path
    envelope: Envelope
    records: dict[str, CellRecord]
    stamp: Stamp | None

    @cached_property
    def content(self) -> str:
        """Digest of the envelope, which holds those of all records and sources."""
        return envelope_digest(self.envelope)

    def origin(self, record: CellRecord, today: Source | None) -> str:
        """`verified`, `self-reported`, `failed` or `stale`.

        A stamp speaks for the profiles of the cells that were computed again; the rest stays self-reported.

        Args:
            record: one of this submission's.
            today: the method's source as it is now; None where it is gone.
        """
        if self.stamp is None:
            return REPORTED
        if self.stamp.source != today:
            return STALE
        if self.stamp.state == FAILED:
            return FAILED
        return VERIFIED if record.cell.profile in {each.profile for each in self.stamp.rerun} else REPORTED


def envelope_digest(envelope: Envelope) -> str:
    """What a stamp holds for."""
    return digest(envelope.model_dump())


def load_submission(folder: Path) -> Submission:
    """Read and validate a submission, whoever made it; follows no link and opens regular files only.

    Raises:
        SubmissionError: a file is missing, unexpected, a link, too large, or does not follow the schema; a record
            differs from its digest.
    """
    try:
        if folder.is_symlink() or not stat.S_ISDIR(folder.lstat().st_mode):
            raise SubmissionError(f"Expected a folder, but {folder} is none.")
        files = dict(_files(folder))
    except OSError as error:
        raise SubmissionError(f"Expected to read {folder}, but: {error}.") from error
    if ENVELOPE not in files:
        raise SubmissionError(f"Expected {ENVELOPE} in {folder}, but there is none: `bench submit` writes it.")
    envelope = _model(files[ENVELOPE], Envelope)
    _expect(folder, files, envelope)
    return Submission(folder, envelope, dict(_records(files, envelope)), _stamp_of(files.get(STAMP), envelope))


def load_stamp(path: Path) -> Stamp:
    """Read a stamp.

    Raises:
        SubmissionError: it is none.
    """
    return _model(path, Stamp)


def load_submissions(
    folder: Path,
    today: Callable[[Path, Envelope], Source | None],
    unreadable: Callable[[RecordError], None],
) -> Iterator[tuple[str, CellRecord]]:
    """(origin, record) of everything that was submitted into `folder`, in the order of names.

    Records that lie there without an envelope are self-reported.

    Args:
        folder: one folder a submission.
        today: gives the source of a submission's method as it is now, and None where it is gone.
        unreadable: told of each submission and record that cannot be read, which is then passed over.
    """
    for path in sorted(folder.iterdir() if folder.is_dir() else ()):
        try:
            if path.is_dir():
                found = load_submission(path)
                now = today(path, found.envelope)
                yield from ((found.origin(record, now), record) for record in found.records.values())
            elif path.suffix == ".json":
                record = load_any(path)
                yield from ((REPORTED, record),) if isinstance(record, CellRecord) else ()
        except RecordError as error:
            unreadable(error)


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Relative name and path of each regular file; anything else is refused.

    Raises:
        SubmissionError: there is a link, a FIFO, a folder that does not belong there, or too much of anything.
    """
    seen, total = 0, 0
    for place in ("", RECORDS, SOURCE):
        inside = folder / place
        if place and not inside.exists():
            continue
        for entry in os.scandir(inside):
            seen += 1
            if seen > MAX_FILES + 60:
                raise SubmissionError(f"Expected at most {MAX_FILES} records in {folder}, but there are more files.")
            if not place and entry.name in (RECORDS, SOURCE) and entry.is_dir(follow_symlinks=False):
                continue
            state = entry.stat(follow_symlinks=False)
            if not stat.S_ISREG(state.st_mode):
                raise SubmissionError(f"Expected regular files in {folder}, but {_shown(entry.name)} is none.")
            total += state.st_size
            if state.st_size > _limit(place) or total > MAX_TOTAL:
                raise SubmissionError(f"{_shown(entry.name)} is larger than a submission's files may be.")
            yield f"{place}/{entry.name}" if place else entry.name, Path(entry.path)


def _limit(place: str) -> int:
    return {"": MAX_ENVELOPE, RECORDS: MAX_RECORD, SOURCE: MAX_SOURCE}[place]


def _shown(name: str) -> str:
    """A file name that may hold anything, as it can be printed."""
    return repr(name)[:120]


def _expect(folder: Path, files: dict[str, Path], envelope: Envelope) -> None:
    """The files are those that the envelope names, and no others."""
    wanted = {ENVELOPE, *(f"{RECORDS}/{name}" for name in envelope.records)}
    wanted |= {name for name in envelope.source.files if name.startswith(f"{SOURCE}/")}
    missing, strange = sorted(wanted - set(files)), sorted(set(files) - wanted - {STAMP})
    if missing:
        raise SubmissionError(f"Expected {_shown(missing[0])} in {folder}, as its envelope says, but there is none.")
    if strange:
        raise SubmissionError(f"Expected in {folder} what its envelope names, but there is {_shown(strange[0])}.")


def _records(files: dict[str, Path], envelope: Envelope) -> Iterator[tuple[str, CellRecord]]:
    for name, expected in sorted(envelope.records.items()):
        path = files[f"{RECORDS}/{name}"]
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found != expected:
            raise SubmissionError(f"Expected {name} to have the digest of the envelope, but its bytes differ.")
        record = load_any(path)
        if not isinstance(record, CellRecord):
            raise SubmissionError(f"Expected the record of a cell in {name}, but got a {record.type}.")
        if record.filename != name:
            raise SubmissionError(f"Expected {name} to be named {record.filename}, after what it holds.")
        named = [record.cell.scheme] if envelope.kind == "scheme" else [a.name for a in record.cell.attacks]
        if envelope.name not in named:
            raise SubmissionError(f"Expected records of {envelope.name}, but {name} is of {' and '.join(named)}.")
        yield name, record


def _stamp_of(path: Path | None, envelope: Envelope) -> Stamp | None:
    """The stamp, where it is one and holds for this very envelope."""
    if path is None:
        return None
    try:
        stamp = load_stamp(path)
    except SubmissionError:
        return None
    return stamp if stamp.content == envelope_digest(envelope) else None


def _model(path: Path, shape: type[Shape]) -> Shape:
    try:
        data: Any = read_strict(path, MAX_ENVELOPE)
        version = data.get("format") if isinstance(data, dict) else None
        if type(version) is not int or version != FORMAT:
            raise SubmissionError(f"Expected format {FORMAT} in {path}, but got {repr(version)[:40]}.")
        return shape.model_validate(data, strict=True)
    except StrictJSONError as error:
        raise SubmissionError(f"Expected JSON in {path}, but {error}.") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = re.sub(r"[^\w./-]", "?", ".".join(map(str, first["loc"])))[:200]
        raise SubmissionError(f"{path}: {where}: {first['msg'][:300]} ({error.error_count()} problems).") from error
