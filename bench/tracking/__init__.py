"""Records as MLflow runs: a projection that can be made again at any time, into any tracking store.

One run per cell, found by the tag `bench.cell` (the cell's identity). A run is whole when it is FINISHED or FAILED
and its tag `bench.digest` is that of the record; anything else under the same identity is replaced, because MLflow
never lets a parameter change. A sync asks the store what it holds, unless nobody wrote there since the last one, so it
can be killed, repeated and run half-way through a benchmark. A SQLite store has one writer at a time; on a server two
syncs at once can write a run twice, which the next one removes. A run names its writer, and is left alone while that
process lives.

Cells that are not applicable have no run: MLflow would show them as green as the others. The page and `bench results`
give their reasons.

mlflow and matplotlib cost seconds to import, so they are imported where they are used.
"""

from __future__ import annotations

import json
import shlex
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from bench.identity import digest
from bench.lease import is_gone, myself
from bench.metrics import DEFAULT_FPR
from bench.metrics.beside import Beside
from bench.records.record import CellRecord
from bench.tracking import projection
from bench.tracking.figure import draw_curve, draw_histories, draw_searches
from bench.tracking.standing import leave, left
from bench.tracking.store import TrackingError, artifact_location, opened, sqlite_path

__all__ = ["Synced", "TrackingError", "default_uri", "sync", "ui_command", "ui_link"]

PROJECTION = 4  # raise it when runs shall be made anew from unchanged records
RUNS_PER_PAGE = 1_000
FEW = 40  # up to so many cells, asking for each is quicker than reading the whole experiment
WRITING_S = 600.0  # no run takes longer to write: after that, a writer of another machine counts as gone


class Synced(NamedTuple):
    """How many runs a sync made, replaced, and found as they should be, and the experiment that holds them."""

    created: int
    updated: int
    unchanged: int
    experiment_id: str


def default_uri(run_dir: Path) -> str:
    """The SQLite store of a run directory, as a tracking URI.

    Raises:
        ValueError: the path holds a character that no SQLite URI can say.
    """
    path = (run_dir.expanduser().resolve() / "mlflow.db").as_posix()
    if "?" in path or "%" in path:
        raise ValueError(f"Expected a run directory without '?' or '%', but got {path}: rename it for MLflow's sake.")
    return f"sqlite:///{path}"


def ui_command(tracking_uri: str, port: int = 5000) -> str | None:
    """The command line that serves the store to a browser; None for a tracking server, which does so itself."""
    if tracking_uri.startswith(("http://", "https://")):
        return None
    at = "" if port == 5000 else f" --port {port}"
    return f"mlflow ui --backend-store-uri {shlex.quote(tracking_uri)}{at}"


def ui_link(tracking_uri: str, experiment_id: str, port: int = 5000) -> str:
    """The address of the runs, with the columns that people compare; by itself MLflow 3 opens on a page for GenAI."""
    served = tracking_uri.startswith(("http://", "https://"))
    address = tracking_uri.rstrip("/") if served else f"http://127.0.0.1:{port}"
    opened_on = f"workflowType=machine_learning&viewStateShareKey={projection.VIEW}"
    return f"{address}/#/experiments/{experiment_id}/runs?{opened_on}"


def sync(
    records: Iterable[CellRecord],
    tracking_uri: str,
    *,
    fpr: float = DEFAULT_FPR,
    experiment: str = "watermark-bench",
    ranked: Iterable[CellRecord] | None = None,
    beside: Beside | None = None,
) -> Synced:
    """Make the tracking store show exactly these records: one run each, none left RUNNING by a process that ended.

    Runs of cells that are not among `records` stay as they are. Replaced runs are deleted as MLflow deletes
    (restorable until `mlflow gc`).

    Args:
        records: of one cell the last one counts.
        tracking_uri: for instance `default_uri(run_dir)` or the `http://` address of a tracking server.
        fpr: the false positive rate that p-values are held to; another one replaces the runs.
        experiment: the MLflow experiment's name.
        ranked: all records whose schemes are compared: their ranks become tags of the runs. By default the tags stay
            as they are, because a part of the records gives other ranks than the whole.
        beside: what was measured about the schemes beside the records: metrics of their runs.

    Raises:
        TrackingError: the URI is not a tracking store, or the store cannot be reached or refuses a run.
    """
    latest = {record.cell.identity: record for record in records}
    compared = None if ranked is None else list(ranked)
    beside, database = beside or Beside(), sqlite_path(tracking_uri)
    told = _told(tracking_uri, experiment, fpr, latest, compared, beside) if database else ""
    standing = left(database, told) if database else None
    if standing is not None:
        return Synced(0, 0, sum(record.status != "not applicable" for record in latest.values()), standing)
    with opened(tracking_uri) as client:
        experiment_id = _experiment_id(client, tracking_uri, experiment)
        ranks = None if compared is None else projection.rank_tags(compared, fpr)
        outcomes = _Projector(client, experiment_id, fpr, ranks, beside).settle(latest)
        if database:  # while nobody else may write
            with suppress(OSError):  # then the next sync looks again
                leave(database, told, experiment_id)
    return Synced(outcomes["created"], outcomes["updated"], outcomes["unchanged"], experiment_id)


def _experiment_id(client: Any, tracking_uri: str, name: str) -> str:
    """The experiment's id: created if it is missing, restored if somebody deleted it, with what its page needs."""
    found = client.get_experiment_by_name(name)
    if found is None:
        experiment_id = client.create_experiment(name, artifact_location=artifact_location(tracking_uri))
    else:
        experiment_id = found.experiment_id
        if found.lifecycle_stage == "deleted":
            client.restore_experiment(experiment_id)
    for tag, value in projection.experiment_tags().items():
        if found is None or found.tags.get(tag) != value:
            client.set_experiment_tag(experiment_id, tag, value)
    return str(experiment_id)


def _told(
    tracking_uri: str,
    experiment: str,
    fpr: float,
    latest: Mapping[str, CellRecord],
    compared: Sequence[CellRecord] | None,
    beside: Beside,
) -> str:
    """A hash of everything that a sync would write."""
    runs = [
        [identity, record.status, _record_digest(record, fpr), projection.measured_beside(record.cell, beside)]
        for identity, record in sorted(latest.items())
    ]
    known = None if compared is None else sorted(_record_digest(record, fpr) for record in compared)
    return digest([tracking_uri, experiment, projection.experiment_tags(), runs, known])


def _record_digest(record: CellRecord, fpr: float) -> str:
    return digest([PROJECTION, fpr, record.findings()])


class _Projector:
    """Writes records as runs of one experiment."""

    def __init__(
        self,
        client: Any,
        experiment_id: str,
        fpr: float,
        ranks: Mapping[str, Mapping[str, str]] | None,
        beside: Beside,
    ) -> None:
        self.client = client
        self.experiment_id = experiment_id
        self.fpr = fpr
        self.ranks = ranks
        self.beside = beside

    def settle(self, latest: Mapping[str, CellRecord]) -> Counter[str]:
        """Leave one whole run per cell that has a meaning; returns how many were created, updated and unchanged."""
        outcomes: Counter[str] = Counter()
        existing = self._runs_by_cell(list(latest))
        for identity, record in latest.items():
            old = existing.get(identity, [])
            if record.status == "not applicable":
                self._delete(old)
                continue
            record_digest = _record_digest(record, self.fpr)
            kept = next((run for run in old if _is_whole(run, record_digest)), None)
            if kept is None:
                self._create(record, record_digest)
            else:
                self._tag_rank(kept, identity)
                self._log_beside(kept.info.run_id, record, kept.data.metrics)
            self._delete(run for run in old if run is not kept)
            outcomes["unchanged" if kept else "updated" if old else "created"] += 1
        self._close_orphans()
        return outcomes

    def _tag_rank(self, run: Any, identity: str) -> None:
        """Ranks depend on other records: they change without the run's own record."""
        if self.ranks is None:
            return
        tags = self.ranks.get(identity, {})
        for name in ("rank", "rank_of"):
            if name in tags and run.data.tags.get(name) != tags[name]:
                self.client.set_tag(run.info.run_id, name, tags[name])
            elif name not in tags and name in run.data.tags:
                self.client.delete_tag(run.info.run_id, name)

    def _log_beside(self, run_id: str, record: CellRecord, logged: Mapping[str, float]) -> None:
        """What stands beside the records changes without them; the last value of a metric counts."""
        from mlflow.entities import Metric

        found = projection.measured_beside(record.cell, self.beside)
        now_ms = int(1000 * time.time())
        fresh = [Metric(name, value, now_ms, 0) for name, value in found.items() if logged.get(name) != value]
        if fresh:
            self.client.log_batch(run_id, metrics=fresh)

    def _delete(self, runs: Iterable[Any]) -> None:
        for run in runs:
            if not _is_being_written(run):
                self.client.delete_run(run.info.run_id)

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
            if _is_being_written(run):
                continue
            self.client.set_terminated(run.info.run_id, status="KILLED")

    def _create(self, record: CellRecord, record_digest: str) -> None:
        start_ms, end_ms = _span_ms(record)
        run = self.client.create_run(
            self.experiment_id,
            start_time=start_ms,
            tags={
                **projection.tags(record, self.fpr),
                **(self.ranks or {}).get(record.cell.identity, {}),
                "bench.digest": record_digest,
                "bench.writer": json.dumps({**myself(), "since": time.time()}),
            },
            run_name=projection.run_name(record),
        )
        try:
            self._fill(run.info.run_id, record, end_ms)
        except BaseException:
            with suppress(Exception):  # the first error is the one to report; the next sync clears the rest
                self.client.delete_run(run.info.run_id)
            raise

    def _fill(self, run_id: str, record: CellRecord, end_ms: int) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param

        params = [Param(name, value) for name, value in projection.params(record, self.fpr).items()]
        metrics = [Metric(name, value, end_ms, step) for name, value, step in projection.metrics(record, self.fpr)]
        self.client.log_batch(run_id, metrics=metrics, params=params)  # the client splits what is too much at once
        self._log_beside(run_id, record, {})
        data = Dataset(**projection.dataset(record))
        self.client.log_inputs(run_id, [DatasetInput(data, [InputTag("mlflow.data.context", "training")])])
        with tempfile.TemporaryDirectory() as name:
            _write_artifacts(record, Path(name), self.fpr)
            self.client.log_artifacts(run_id, name)
        self.client.set_terminated(
            run_id, status="FAILED" if record.status == "failed" else "FINISHED", end_time=end_ms
        )


def _is_whole(run: Any, record_digest: str) -> bool:
    return run.info.status in ("FINISHED", "FAILED") and run.data.tags.get("bench.digest") == record_digest


def _is_being_written(run: Any) -> bool:
    """Whether the process that began the run may still be at it."""
    try:
        writer = json.loads(run.data.tags.get("bench.writer", "null"))
        recent = time.time() - writer["since"] < WRITING_S
    except (ValueError, TypeError, KeyError):
        return False
    return run.info.status == "RUNNING" and recent and not is_gone(writer)


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
