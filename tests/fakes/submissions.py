"""Submissions made by hand, honest and doctored."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.contract.verdict import Verdict
from bench.records.record import CellRecord
from bench.records.submission import ENVELOPE, RECORDS, Envelope, Source, Stamp, load_submission
from tests.fakes.records import cell, nulls, point, provenance, record

SOURCE = Source(files={"schemes/uchida.py": "a" * 64}, harness="b" * 64)
HELDOUT = 200


def matched(matches: int = 30, trials: int = 30, chance: float = 0.1, p_value: float | None = None) -> Verdict:
    """A verdict on drawn labels, with the details that its p-value follows from."""
    from scipy.stats import binom

    found = float(binom.sf(matches - 1, trials, chance)) if p_value is None else p_value
    details = {"matches": matches, "trials": trials, "chance": chance}
    return Verdict(statistic=matches / trials, p_value=found, details=details)


def honest(seed: int = 0, attack: str = "pruning", **fields: Any) -> CellRecord:
    """A record that a run could have left: whole images, times, steps."""
    accuracy, verdict = (120 + seed) / HELDOUT, matched(30 - seed)
    base: dict[str, Any] = {
        "cell": cell(seed=seed, attack=attack, profile="smoke"),
        "marked": point(0.0, accuracy, verdicts=[verdict]),
        "curve": [
            point(s, a / HELDOUT, verdicts=[verdict], attack_time_s=s) for s, a in ((40.0, 100), (80.0, 30 + seed))
        ],
        "clean_accuracy": 0.65,
        "control_accuracy": 0.64,
        "nulls": [nulls(0, 20)],
        "timings_s": {"host": 4.0, "keygen": 0.1, "embed": 1.0},
        "provenance": provenance(
            split={"owner": 600, "adversary": 200, "heldout": HELDOUT},
            steps=dict.fromkeys(("host", "control", "mark"), f"{seed:064x}"),
            finished="2026-11-20T10:00:00+00:00",
        ),
    }
    return record(**{**base, **fields})


def envelope(records: dict[str, bytes], **fields: Any) -> dict[str, Any]:
    """An envelope as JSON, around the bytes of records by name."""
    base = Envelope(
        kind="scheme", name="uchida-random", who="A. Author", when="2026-11-20", command=["bench run"], source=SOURCE,
        records={name: hashlib.sha256(content).hexdigest() for name, content in records.items()},
    )  # fmt: skip
    return {**base.model_dump(), **fields}


def written(folder: Path, records: Sequence[CellRecord] = (), **fields: Any) -> Path:
    """A submission of these records, or of two honest ones."""
    made = {r.filename: (r.model_dump_json() + "\n").encode() for r in records or [honest(0), honest(1)]}
    (folder / RECORDS).mkdir(parents=True)
    for name, content in made.items():
        (folder / RECORDS / name).write_bytes(content)
    (folder / ENVELOPE).write_text(json.dumps(envelope(made, **fields)))
    return folder


def doctored(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change every record of a submission, and the digests in its envelope with them."""
    told = json.loads((folder / ENVELOPE).read_text())
    for name in told["records"]:
        path = folder / RECORDS / name
        data = json.loads(path.read_text())
        change(data)
        path.write_text(json.dumps(data))
        told["records"][name] = hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / ENVELOPE).write_text(json.dumps(told))


def raised(points: float) -> Callable[[dict[str, Any]], None]:
    """Raises every accuracy of the marked model by so many percentage points."""

    def change(data: dict[str, Any]) -> None:
        for each in [data["marked"], *data["curve"]]:
            each["test_accuracy"] = min(1.0, each["test_accuracy"] + points / 100)

    return change


def halved(data: dict[str, Any]) -> None:
    """Halves every p-value of a marked model."""
    for each in [data["marked"], *data["curve"]]:
        for verdict in each["verdicts"]:
            verdict["p_value"] /= 2


def stamped(folder: Path, **fields: Any) -> Stamp:
    """A stamp that holds for the submission in `folder`, written beside its envelope."""
    from bench.records.submission import STAMP, Rerun

    found = load_submission(folder)
    rerun = [Rerun(record=name, profile=r.cell.profile, exact=True) for name, r in found.records.items()]
    base: dict[str, Any] = {
        "state": "verified", "content": found.content, "source": found.envelope.source, "when": "2026-11-21",
        "rerun": rerun,
    }  # fmt: skip
    stamp = Stamp(**{**base, **fields})
    (folder / STAMP).write_text(stamp.model_dump_json())
    return stamp
