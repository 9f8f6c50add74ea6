"""Verifies a submission: its envelope, its source, numbers that cannot be, and a canary that is computed again."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from bench.checks.canary import BUDGET_S, Finding, replayed
from bench.checks.plausible import implausible
from bench.checks.sandbox import NotIsolatedError, isolation
from bench.checks.source import forbidden, today
from bench.records.submission import (
    STAMP,
    Rerun,
    Source,
    Stamp,
    Submission,
    load_submission,
)  # fmt: skip

__all__ = ["Outcome", "verify"]


@dataclass(frozen=True)
class Outcome:
    """What verifying found.

    Attributes:
        failure: which check failed, in one sentence; None where none did.
        nothing: why no cell could be computed again, so that the submission stays self-reported.
        rerun: what was computed again.
        remaining: profiles of which no cell was computed again: their rows stay self-reported.
        isolated: what the method's process was kept from.
    """

    submission: Submission
    failure: str | None = None
    nothing: str | None = None
    rerun: tuple[Rerun, ...] = ()
    remaining: tuple[str, ...] = ()
    isolated: tuple[str, ...] = ()


def verify(
    folder: Path, *, budget_s: float = BUDGET_S, data_root: Path | None = None, isolated: bool = False,
    stamp: bool = True,
    salt: str = "",
) -> Outcome:  # fmt: skip
    """Verify a submission, and leave a stamp beside its envelope.

    Args:
        folder: of the submission.
        budget_s: no cell is begun that is expected to end after so many seconds.
        data_root: where real data sets are.
        isolated: refuse where the kernel cannot keep the method's process in.
        stamp: whether to write `verification.json`.
        salt: mixed into the choice of cells.

    Raises:
        SubmissionError: it is none that can be read.
        NotIsolatedError: `isolated`, and the platform cannot.
    """
    if isolated and not isolation():
        raise NotIsolatedError(
            "Expected a platform where `unshare` lends namespaces, but this one refuses: verify elsewhere, or "
            "leave out --isolated."
        )
    submission = load_submission(folder)
    source = today(folder, submission.envelope)
    failure = _source(submission, source) or implausible(submission)
    found = Finding() if failure else _canary(submission, budget_s, data_root, salt)
    failure = failure or (f"canary: {found.failure}" if found.failure else None)
    profiles = {record.cell.profile for record in submission.records.values()} - {r.profile for r in found.rerun}
    outcome = Outcome(submission, failure, found.nothing, found.rerun, tuple(sorted(profiles)), found.isolated)
    if stamp and source is not None:
        _write(outcome, source, salt)
    return outcome


def _source(submission: Submission, now: Source | None) -> str | None:
    """Whether the source is the one that the envelope names, and uses nothing that no method needs."""
    said = submission.envelope.source
    if now is None:
        return "source: Expected the files that the envelope names, but one is gone or is not Python."
    for name in sorted({*now.files, *said.files}):
        if now.files.get(name) != said.files.get(name):
            return f"source: {name} is not what computed the records: its digest differs from the envelope's."
    used = forbidden(submission.folder, submission.envelope)
    return f"source: {used}" if used else None


def _canary(submission: Submission, budget_s: float, data_root: Path | None, salt: str) -> Finding:
    with tempfile.TemporaryDirectory(prefix="bench-verify-") as folder:
        return replayed(submission, Path(folder).resolve(), budget_s=budget_s, data_root=data_root, salt=salt)


def _write(outcome: Outcome, source: Source, salt: str) -> None:
    """The stamp, atomically; an old one goes where nothing was found out."""
    path = outcome.submission.folder / STAMP
    if not outcome.failure and not outcome.rerun:
        path.unlink(missing_ok=True)
        return
    made = Stamp(
        state="failed" if outcome.failure else "verified", content=outcome.submission.content, source=source,
        when=datetime.now(UTC).date().isoformat(), reason=outcome.failure and outcome.failure[:2000],
        rerun=list(outcome.rerun),
        salt=salt, isolated=list(outcome.isolated),
    )  # fmt: skip
    temporary = path.with_name(f".{STAMP}.{os.getpid()}.tmp")
    temporary.write_text(made.model_dump_json(indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)
