"""Packs the records of a scheme or attack into a submission."""

from __future__ import annotations

import hashlib
import inspect
import shlex
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from bench.checks.plausible import implausible
from bench.checks.replay import UnfitError, rebuilt
from bench.checks.source import forbidden, harness_digest, own_files, project_file
from bench.data import DataError
from bench.plan.fingerprint import digest_of
from bench.records.files import load_records
from bench.records.record import FRESH_KEY, CellRecord
from bench.records.submission import (
    ENVELOPE,
    RECORDS,
    SOURCE,
    Envelope,
    Source,
    Submission,
    SubmissionError,
    load_submission,
)  # fmt: skip
from bench.registry import RegistryError, attacks, schemes, unknown

__all__ = ["pack", "records_of"]


def pack(name: str, records: Iterable[CellRecord], who: str, into: Path, data_root: Path | None = None) -> Submission:
    """Write the submission of a scheme or attack into the folder `into/NAME`; an earlier one there is replaced.

    Args:
        name: of the scheme or attack.
        records: of its cells, computed by the source as it is now.
        who: as the submitter wants to be named.
        into: the folder of all submissions.
        data_root: where real data sets are.

    Raises:
        RegistryError: there is no such scheme or attack.
        SubmissionError: there is no record, one was computed by other source, or one would not be accepted.
    """
    known: Mapping[str, Any] = {**schemes(), **attacks()}
    if name not in known:
        raise RegistryError(unknown(name, known, "a scheme or attack"))
    found = sorted(records, key=lambda record: record.filename)
    if not found:
        raise SubmissionError(f"Expected records of {name}, but there are none: `bench run` computes some.")
    for record in found:
        _of_this_source(record, data_root)
    kind: Literal["scheme", "attack"] = "scheme" if name in schemes() else "attack"
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / name
        source = _source(known[name], folder)
        _write(folder, Envelope(
            kind=kind, name=name, who=who, when=datetime.now(UTC).date().isoformat(), command=_commands(found),
            source=source, records=_written(found, folder / RECORDS),
        ))  # fmt: skip
        _accepted(load_submission(folder))
        target = into / name
        shutil.rmtree(target, ignore_errors=True)
        into.mkdir(parents=True, exist_ok=True)
        shutil.copytree(folder, target)
    return load_submission(target)


def records_of(name: str, folder: Path) -> list[CellRecord]:
    """The settled records of a scheme or attack below a folder; failed ones are left out."""
    return [
        record for record in load_records(folder)
        if record.status != "failed" and name in {record.cell.scheme, *(each.name for each in record.cell.attacks)}
    ]  # fmt: skip


def _of_this_source(record: CellRecord, data_root: Path | None) -> None:
    """A record is submitted with the source that computed it, and no other."""
    nulls = sum(len(null.p_values) for null in record.nulls if null.kind == FRESH_KEY)
    try:
        planned = rebuilt(record.cell, nulls, data_root)
    except (RegistryError, DataError, UnfitError) as error:
        raise SubmissionError(f"Expected to plan {record.filename} anew, but: {error}") from error
    steps = {name: step.key for name, step in planned.steps.items()}
    changed = [
        name for name in ("host", "keys", "mark", "attack") if steps.get(name) != record.provenance.steps.get(name)
    ]
    if changed:
        raise SubmissionError(
            f"Expected {record.filename} to be computed by the source as it is now, but its step {changed[0]!r} was "
            "not: give the `bench run` command again."
        )


def _source(cls: type[Any], folder: Path) -> Source:
    """The digests of a method's files; those outside of the project are copied into the submission."""
    file = Path(inspect.getfile(cls)).resolve()
    own = project_file(file)
    if own is not None:
        return Source(files=own_files(own), harness=harness_digest())
    (folder / SOURCE).mkdir(parents=True)
    name = file.name.lower().lstrip("_")
    shutil.copyfile(file, folder / SOURCE / name)
    digest = digest_of(file.read_text(encoding="utf-8"))
    return Source(files={f"{SOURCE}/{name}": digest}, harness=harness_digest())


def _written(records: Iterable[CellRecord], folder: Path) -> dict[str, str]:
    """File name -> SHA-256 of each record, written."""
    folder.mkdir(parents=True)
    digests = {}
    for record in records:
        content = (record.model_dump_json(indent=1) + "\n").encode()
        (folder / record.filename).write_bytes(content)
        digests[record.filename] = hashlib.sha256(content).hexdigest()
    return digests


def _write(folder: Path, envelope: Envelope) -> None:
    (folder / ENVELOPE).write_text(envelope.model_dump_json(indent=1) + "\n", encoding="utf-8")


def _accepted(submission: Submission) -> None:
    """What `bench verify-submission` would refuse without computing anything is refused here."""
    wrong = forbidden(submission.folder, submission.envelope) or implausible(submission)
    if wrong:
        raise SubmissionError(f"Expected a submission that can be verified, but: {wrong}")


def _commands(records: Iterable[CellRecord]) -> list[str]:
    """One command for all cells that differ in attack and seed alone."""
    groups: dict[tuple[Any, ...], list[CellRecord]] = {}
    for record in records:
        cell = record.cell
        groups.setdefault((cell.scheme, cell.arch, cell.dataset, cell.situation, cell.profile, cell.owners), []).append(
            record
        )
    found = []
    for (scheme, arch, dataset, situation, profile, owners), members in sorted(groups.items()):
        words = ["bench", "run", "--scheme", scheme, "--attack", ",".join(sorted({m.cell.attack for m in members}))]
        words += ["--arch", arch, "--dataset", dataset, "--profile", profile]
        words += ["--situation", situation] if situation != "post-hoc" else []
        words += ["--owners", str(owners)] if owners > 1 else []
        words += ["--seeds", str(max(m.cell.seed for m in members) + 1)]
        found.append(shlex.join(words)[:2000])
    return found[:200]
