"""Records as MLflow runs: a projection that can be made again at any time, into any tracking store.

One run per cell, found by the tag `bench.cell` (the cell's identity). A run is whole when it is FINISHED or FAILED
and its tag `bench.digest` is that of the record; anything else under the same identity is replaced, because MLflow
never lets a parameter change. So a sync can be killed, repeated and run half-way through a benchmark. There is
one writer per experiment at a time.

mlflow and matplotlib cost seconds to import, so they are imported where they are used.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shlex
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from bench.identity import digest
from bench.metrics import DEFAULT_FPR
from bench.records.record import CellRecord
from bench.tracking import projection
from bench.tracking.figure import draw_curve, draw_histories, draw_searches

__all__ = ["Synced", "TrackingError", "default_uri", "sync", "ui_command"]

PROJECTION = 3  # raise it when runs shall be made anew from unchanged records
RUNS_PER_PAGE = 1_000
FEW = 40  # up to so many cells, asking for each is quicker than reading the whole experiment
# Quiet, no usage statistics sent on a user's behalf, and an unreachable server is reported in seconds, not minutes.
ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
}


class TrackingError(RuntimeError):
    """The tracking store could not be reached or refused a run; the records are unharmed."""


class Synced(NamedTuple):
    """How many runs a sync made, replaced, and found as they should be."""

    created: int
    updated: int
    unchanged: int


def default_uri(run_dir: Path) -> str:
    """The SQLite store of a run directory, as a tracking URI.

    Raises:
        ValueError: the path holds a character that no SQLite URI can say.
    """
    path = (run_dir.expanduser().resolve() / "mlflow.db").as_posix()
    if "?" in path or "%" in path:
        raise ValueError(f"Expected a run directory without '?' or '%', but got {path}: rename it for MLflow's sake.")
    return f"sqlite:///{path}"


def ui_command(tracking_uri: str, port: int = 5000) -> str:
    """The command line that shows the store in a browser; a tracking server has its own page to open."""
    if tracking_uri.startswith(("http://", "https://")):
        return f"python -m webbrowser {shlex.quote(tracking_uri)}"
    at = "" if port == 5000 else f" --port {port}"
    return f"mlflow ui --backend-store-uri {shlex.quote(tracking_uri)}{at}"


def sync(
    records: Iterable[CellRecord],
    tracking_uri: str,
    *,
    fpr: float = DEFAULT_FPR,
    ledger: Path | None = None,
    experiment: str = "watermark-bench",
) -> Synced:
    """Make the tracking store show exactly these records: one run each, none left RUNNING.

    Runs of cells that are not among `records` stay as they are. Replaced runs are deleted as MLflow deletes
    (restorable until `mlflow gc`).

    Args:
        records: of one cell the last one counts.
        tracking_uri: for instance `default_uri(run_dir)` or the `http://` address of a tracking server.
        fpr: the false positive rate that p-values are held to; another one replaces the runs.
        ledger: remembers what is synced, so that a sync with nothing new need not open the store. A cache: it
            counts only while a SQLite store is untouched since, and losing it costs time alone.
        experiment: the MLflow experiment's name.

    Raises:
        TrackingError: the URI is not a tracking store, or the store cannot be reached or refuses a run.
    """
    latest = {record.cell.identity: record for record in records}
    digests = {identity: _record_digest(record, fpr) for identity, record in latest.items()}
    book = _Ledger(ledger, tracking_uri, experiment)
    known = book.read()
    pending = [identity for identity in latest if known.get(identity) != digests[identity]]
    if not pending:
        return Synced(0, 0, len(latest))
    with _mlflow(tracking_uri) as client:
        projector = _Projector(client, _experiment_id(client, tracking_uri, experiment), fpr)
        outcomes = projector.settle({identity: (latest[identity], digests[identity]) for identity in pending})
    book.write({**known, **digests})
    unchanged = len(latest) - len(pending) + outcomes["unchanged"]
    return Synced(outcomes["created"], outcomes["updated"], unchanged)


def _record_digest(record: CellRecord, fpr: float) -> str:
    return digest([PROJECTION, fpr, record.findings()])


# --- what is known to be synced ---------------------------------------------------------------------------------


class _Ledger:
    """Digest per cell, for one store and experiment. The URI, which may hold a password, is kept as a digest."""

    def __init__(self, path: Path | None, tracking_uri: str, experiment: str) -> None:
        self.path = path
        self.database = _sqlite_path(tracking_uri)
        self.entry = digest([tracking_uri, experiment])

    def read(self) -> dict[str, str]:
        """What was synced; empty if the store is not as the last sync left it."""
        entry = self._load().get(self.entry)
        if not isinstance(entry, dict) or entry.get("store") != self._stamp():
            return {}
        runs = entry.get("runs")
        return runs if isinstance(runs, dict) else {}

    def write(self, runs: Mapping[str, str]) -> None:
        if self.path is None:
            return
        text = json.dumps({**self._load(), self.entry: {"store": self._stamp(), "runs": runs}})
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_name(f"{self.path.name}.{os.getpid()}.tmp")
        temporary.write_text(text + "\n", encoding="utf-8")
        temporary.replace(self.path)

    def _load(self) -> dict[str, Any]:
        if self.path is None:
            return {}
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return {}
        return content if isinstance(content, dict) else {}

    def _stamp(self) -> list[int] | str:
        """Changes whenever anybody writes to the database (or it is gone); servers cannot be asked as cheaply."""
        if self.database is None:
            return "server"
        try:
            state = self.database.stat()
        except OSError:
            return "missing"
        return [state.st_ino, state.st_size, state.st_mtime_ns]


def _sqlite_path(tracking_uri: str) -> Path | None:
    found = re.match(r"sqlite(?:\+\w+)?:///([^?]+)", tracking_uri)
    return Path(found[1]).absolute() if found else None


# --- opening a store --------------------------------------------------------------------------------------------


@contextmanager
def _mlflow(tracking_uri: str) -> Iterator[Any]:
    """A quiet client; what MLflow raises leaves as one `TrackingError`."""
    if tracking_uri.startswith("file:") or ("://" not in tracking_uri and not tracking_uri.startswith("databricks")):
        raise TrackingError(
            f"Expected a tracking URI such as sqlite:////path/mlflow.db or http://host:5000, but got {tracking_uri!r}: "
            "MLflow no longer writes to plain folders."
        )
    database = _sqlite_path(tracking_uri)
    if database:
        database.parent.mkdir(parents=True, exist_ok=True)
    with _environment(ENVIRONMENT):
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        try:
            with _at_level(logging.WARNING, "mlflow", "alembic"):
                yield MlflowClient(tracking_uri=tracking_uri)
        except MlflowException as error:
            reason = str(error).strip().splitlines()[0][:500]
            raise TrackingError(
                f"Expected the tracking store to take the runs, but it answered: {reason} "
                "Records are unharmed: mend the store and run `bench sync` again."
            ) from error


@contextmanager
def _environment(defaults: Mapping[str, str]) -> Iterator[None]:
    added = {name: value for name, value in defaults.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


@contextmanager
def _at_level(level: int, *names: str) -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in names]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(level)
    try:
        yield
    finally:
        for logger, old in zip(loggers, before, strict=True):
            logger.setLevel(old)


def _experiment_id(client: Any, tracking_uri: str, name: str) -> str:
    """The experiment's id: created if it is missing, restored if somebody deleted it."""
    found = client.get_experiment_by_name(name)
    if found is None:
        database = _sqlite_path(tracking_uri)
        location = (database.parent / "mlartifacts").as_uri() if database else None
        return client.create_experiment(name, artifact_location=location)
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return found.experiment_id


# --- writing runs -----------------------------------------------------------------------------------------------


class _Projector:
    """Writes records as runs of one experiment."""

    def __init__(self, client: Any, experiment_id: str, fpr: float) -> None:
        self.client = client
        self.experiment_id = experiment_id
        self.fpr = fpr

    def settle(self, wanted: Mapping[str, tuple[CellRecord, str]]) -> Counter[str]:
        """Leave one whole run per cell; returns how many were created, updated and unchanged."""
        outcomes: Counter[str] = Counter()
        existing = self._runs_by_cell(list(wanted))
        for identity, (record, record_digest) in wanted.items():
            old = existing.get(identity, [])
            kept = next((run for run in old if _is_whole(run, record_digest)), None)
            if kept is None:
                self._create(record, record_digest)
            for run in old:
                if run is not kept:
                    self.client.delete_run(run.info.run_id)
            outcomes["unchanged" if kept else "updated" if old else "created"] += 1
        self._close_orphans()
        return outcomes

    def _runs_by_cell(self, identities: Sequence[str]) -> dict[str, list[Any]]:
        filters = [f"tags.`bench.cell` = '{i}'" for i in identities] if len(identities) <= FEW else [""]
        found: dict[str, list[Any]] = {}
        for filter_string in filters:
            for run in self._search(filter_string):
                found.setdefault(run.data.tags.get("bench.cell", ""), []).append(run)
        return found

    def _search(self, filter_string: str) -> Iterator[Any]:
        token = None
        while True:
            page = self.client.search_runs(
                [self.experiment_id], filter_string, max_results=RUNS_PER_PAGE, page_token=token
            )
            yield from page
            token = page.token
            if not token:
                return

    def _close_orphans(self) -> None:
        """End what a killed sync left of cells that are no longer among the records."""
        for run in list(self._search("attributes.status = 'RUNNING' and tags.`bench.cell` LIKE '%'")):
            self.client.set_terminated(run.info.run_id, status="KILLED")

    def _create(self, record: CellRecord, record_digest: str) -> None:
        start_ms, end_ms = _span_ms(record)
        run = self.client.create_run(
            self.experiment_id,
            start_time=start_ms,
            tags={**projection.tags(record, self.fpr), "bench.digest": record_digest},
            run_name=projection.run_name(record),
        )
        try:
            self._fill(run.info.run_id, record, end_ms)
        except BaseException:
            with suppress(Exception):  # the first error is the one to report; the next sync clears the rest
                self.client.delete_run(run.info.run_id)
            raise

    def _fill(self, run_id: str, record: CellRecord, end_ms: int) -> None:
        from mlflow.entities import Metric, Param

        params = [Param(name, value) for name, value in projection.params(record, self.fpr).items()]
        metrics = [Metric(name, value, end_ms, step) for name, value, step in projection.metrics(record, self.fpr)]
        self.client.log_batch(run_id, metrics=metrics, params=params)  # the client splits what is too much at once
        with tempfile.TemporaryDirectory() as name:
            _write_artifacts(record, Path(name), self.fpr)
            self.client.log_artifacts(run_id, name)
        self.client.set_terminated(
            run_id, status="FAILED" if record.status == "failed" else "FINISHED", end_time=end_ms
        )


def _is_whole(run: Any, record_digest: str) -> bool:
    return run.info.status in ("FINISHED", "FAILED") and run.data.tags.get("bench.digest") == record_digest


def _span_ms(record: CellRecord) -> tuple[int, int]:
    """Start and end in milliseconds since the epoch; the time in between is that of the record's phases."""
    try:
        finished = datetime.fromisoformat(record.provenance.finished)
    except ValueError:
        finished = datetime.now(UTC)
    if finished.tzinfo is None:
        finished = finished.replace(tzinfo=UTC)
    end = max(0.0, finished.timestamp())
    return int(1000 * max(0.0, end - sum(record.timings_s.values()))), int(1000 * end)


def _write_artifacts(record: CellRecord, folder: Path, fpr: float) -> None:
    (folder / "record.json").write_text(record.model_dump_json(indent=1) + "\n", encoding="utf-8")
    if record.points:
        draw_curve(record, folder / "curve.png", fpr)
    if any(verdict.search for point in record.points[:1] for verdict in [*point.verdicts, *record.heldout_verdicts]):
        draw_searches(record, folder / "signature_search.png")
    if any(record.histories.values()):
        draw_histories(record, folder / "histories.png")
