"""How does it reach MLflow? A projection of records that can be made again at any time, into any tracking store.

One run per cell, found by the tag `bench.cell` (the cell's identity). A run is whole when it is FINISHED or FAILED
and its tag `bench.digest` is that of the record; anything else under the same identity is replaced, because MLflow
never lets a parameter change. So a sync can be killed, repeated and run half-way through a benchmark. There is
one writer per experiment at a time.

mlflow and matplotlib cost seconds to import, so they are imported where they are used.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import shlex
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from bench.identity import digest
from bench.records import Point, Record

__all__ = ["Synced", "TrackingError", "default_uri", "sync", "ui_command"]

PROJECTION = 1  # raise it when runs shall be made anew from unchanged records
MAX_PARAM, MAX_TAG, MAX_NAME = 6_000, 5_000, 250  # characters; MLflow cuts or refuses what is longer
RUNS_PER_PAGE = 1_000
FEW = 40  # up to so many cells, asking for each is quicker than reading the whole experiment
LOG10_P_FLOOR = -300.0
TABLE_ROWS = 40
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
    records: Iterable[Record], tracking_uri: str, *, ledger: Path | None = None, experiment: str = "watermark-bench"
) -> Synced:
    """Make the tracking store show exactly these records: one run each, none left RUNNING.

    Runs of cells that are not among `records` stay as they are. Replaced runs are deleted as MLflow deletes
    (restorable until `mlflow gc`).

    Args:
        records: of one cell the last one counts.
        tracking_uri: for instance `default_uri(run_dir)` or the `http://` address of a tracking server.
        ledger: remembers what is synced, so that a sync with nothing new need not open the store. A cache: it
            counts only while a SQLite store is untouched since, and losing it costs time alone.
        experiment: the MLflow experiment's name.

    Raises:
        TrackingError: the URI is not a tracking store, or the store cannot be reached or refuses a run.
    """
    latest = {record.cell.identity: record for record in records}
    digests = {identity: _record_digest(record) for identity, record in latest.items()}
    book = _Ledger(ledger, tracking_uri, experiment)
    known = book.read()
    pending = [identity for identity in latest if known.get(identity) != digests[identity]]
    if not pending:
        return Synced(0, 0, len(latest))
    with _mlflow(tracking_uri) as client:
        projector = _Projector(client, _experiment_id(client, tracking_uri, experiment))
        outcomes = projector.settle({identity: (latest[identity], digests[identity]) for identity in pending})
    book.write({**known, **digests})
    unchanged = len(latest) - len(pending) + outcomes["unchanged"]
    return Synced(outcomes["created"], outcomes["updated"], unchanged)


def _record_digest(record: Record) -> str:
    return digest([PROJECTION, record.findings()])


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

    def __init__(self, client: Any, experiment_id: str) -> None:
        self.client = client
        self.experiment_id = experiment_id

    def settle(self, wanted: Mapping[str, tuple[Record, str]]) -> Counter[str]:
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

    def _create(self, record: Record, record_digest: str) -> None:
        start_ms, end_ms = _span_ms(record)
        run = self.client.create_run(
            self.experiment_id,
            start_time=start_ms,
            tags={**_tags(record), "bench.digest": record_digest},
            run_name=_run_name(record),
        )
        try:
            self._fill(run.info.run_id, record, end_ms)
        except BaseException:
            with suppress(Exception):  # the first error is the one to report; the next sync clears the rest
                self.client.delete_run(run.info.run_id)
            raise

    def _fill(self, run_id: str, record: Record, end_ms: int) -> None:
        from mlflow.entities import Metric, Param

        params = [Param(name, value) for name, value in _params(record).items()]
        metrics = [Metric(name, value, end_ms, step) for name, value, step in _metrics(record)]
        self.client.log_batch(run_id, metrics=metrics, params=params)  # the client splits what is too much at once
        with tempfile.TemporaryDirectory() as name:
            _write_artifacts(record, Path(name))
            self.client.log_artifacts(run_id, name)
        self.client.set_terminated(
            run_id, status="FAILED" if record.status == "failed" else "FINISHED", end_time=end_ms
        )


def _is_whole(run: Any, record_digest: str) -> bool:
    return run.info.status in ("FINISHED", "FAILED") and run.data.tags.get("bench.digest") == record_digest


def _span_ms(record: Record) -> tuple[int, int]:
    """Start and end in milliseconds since the epoch; the time in between is that of the record's phases."""
    try:
        finished = datetime.fromisoformat(record.provenance.finished)
    except ValueError:
        finished = datetime.now(UTC)
    if finished.tzinfo is None:
        finished = finished.replace(tzinfo=UTC)
    end = max(0.0, finished.timestamp())
    return int(1000 * max(0.0, end - sum(record.timings_s.values()))), int(1000 * end)


# --- what a run says --------------------------------------------------------------------------------------------


def _run_name(record: Record) -> str:
    cell = record.cell
    return f"{cell.scheme} / {cell.attack} / {cell.arch} / s{cell.seed}"


def _tags(record: Record) -> dict[str, str]:
    cell, origin = record.cell, record.provenance
    tags = {
        "bench.cell": cell.identity,
        "bench.cell_key": record.cell_key,
        **{name: str(getattr(cell, name)) for name in _CELL_FIELDS},
        "status": record.status,
        "carrier": record.carrier,
        "access": record.access,
        "stage": record.stage,
        "reason": record.reason,
        "error": (record.traceback or "").strip().rpartition("\n")[2],
        "git_revision": origin.git_revision,
        "git_dirty": None if origin.git_dirty is None else str(origin.git_dirty).lower(),
        "device": origin.device,
        "mlflow.source.name": "bench",
        "mlflow.source.git.commit": origin.git_revision,
        "mlflow.note.content": _note(record),
    }
    return {name: _cut(value, MAX_TAG) for name, value in tags.items() if value}


_CELL_FIELDS = ("scheme", "attack", "arch", "dataset", "situation", "profile", "seed")


def _note(record: Record) -> str:
    """The run's description, in Markdown: the curve as a table, or why there is none."""
    if record.status == "failed":
        return f"Failed:\n\n```\n{(record.traceback or '')[-MAX_TAG + 100 :]}\n```"
    if record.status == "not applicable":
        return f"Not applicable: {record.reason}"
    lines = [f"| {record.unit or 'strength'} | accuracy | p-value | detected |", "|---|---|---|---|"]
    for point in record.points[:TABLE_ROWS]:
        p_value, detected = _verdict_mean(point, "p_value"), _verdict_mean(point, "detected")
        holds = {1.0: "yes", 0.0: "no"}.get(_or_nan(detected), _percent(detected))
        cells = (f"{point.strength:g}", _percent(point.test_accuracy), f"{_or_nan(p_value):.2g}", holds)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _percent(fraction: float | None) -> str:
    return "n/a" if fraction is None else f"{100 * fraction:.1f} %"


def _params(record: Record) -> dict[str, str]:
    cell = record.cell
    params: dict[str, str] = {}
    for name in (*_CELL_FIELDS, "owners"):
        _put(params, name, str(getattr(cell, name)))
    _put(params, "fpr", f"{record.fpr:g}")
    for prefix, group in (("scheme", cell.scheme_params), ("attack", cell.attack_params)):
        for name, value in group.items():
            _put(params, f"{prefix}.{name}", _cut(_text(value), MAX_PARAM))
    return params


def _text(value: Any) -> str:
    if isinstance(value, list):  # not as JSON, which MLflow's comparison spreads over a line per item
        return ", ".join(map(_text, value))
    return value if isinstance(value, str) else json.dumps(value)


def _metrics(record: Record) -> list[tuple[str, float, int]]:
    """Name, value and step of every metric.

    First come the numbers of the whole cell, because MLflow's comparison opens on the first metric; then the
    curve along the strength.
    """
    points = record.points
    rungs = [_point_metrics(point, record.clean_accuracy) for point in points]
    rows = [
        (name, value, step) for step, rung in zip(_steps(points), rungs, strict=True) for name, value in rung.items()
    ]
    values: dict[str, float] = dict.fromkeys((name for name, _, _ in rows), math.nan)  # names that are taken
    taken = len(values)
    for name, value in _headline(record):
        _put(values, name, value)
    return [(name, value, 0) for name, value in list(values.items())[taken:]] + rows


def _steps(points: Sequence[Point]) -> list[int]:
    """MLflow's steps are integers: the strengths if they are increasing integers, else the rungs' numbers."""
    strengths = [point.strength for point in points]
    whole = all(s.is_integer() and 0 <= s < 2**31 for s in strengths)
    if whole and all(a < b for a, b in pairwise(strengths)):
        return [int(s) for s in strengths]
    return list(range(len(points)))


def _point_metrics(point: Point, clean_accuracy: float | None) -> dict[str, float]:
    """One rung; several owners are averaged, so `detected` is the share of them whose claim holds."""
    values: dict[str, float | None] = {
        "strength": point.strength,
        "test_accuracy": point.test_accuracy,
        "fidelity_pp": _gain_pp(point.test_accuracy, clean_accuracy),
        **{name: _verdict_mean(point, name) for name in ("statistic", "p_value", "detected", "ber", "matched")},
        "log10_p": _mean(_log10(verdict.p_value) for verdict in point.verdicts),
        "queries": _verdict_mean(point, "queries"),
        "attack_time_s": point.attack_time_s,
        "verify_time_s": point.verify_time_s,
    }
    known = {name: float(value) for name, value in values.items() if value is not None}
    for name, value in point.measures.items():
        _put(known, name, value)
    return known


def _headline(record: Record) -> Iterator[tuple[str, float]]:
    marked, security = record.marked, record.security
    values: dict[str, float | None] = {
        "survived_share": _mean(_verdict_mean(point, "detected") for point in record.curve),
        "removal_cost_pp": _removal_cost_pp(record),
        "clean_accuracy": record.clean_accuracy,
    }
    if marked is not None:
        values["marked_accuracy"] = marked.test_accuracy
        values["marked_fidelity_pp"] = _gain_pp(marked.test_accuracy, record.clean_accuracy)
        values["marked_detected"] = _verdict_mean(marked, "detected")
    if security is not None:
        values["false_positive_rate"] = _rate([security.clean])
        values["attacked_false_positive_rate"] = _rate(security.attacked)
    yield from ((name, value) for name, value in values.items() if value is not None)
    yield from ((f"{phase}_time_s", seconds) for phase, seconds in record.timings_s.items())
    yield from record.measures.items()


def _removal_cost_pp(record: Record) -> float | None:
    """The least accuracy, in points, given up at a rung where most owners' claims fail; None if never broken."""
    costs = []
    for point in record.curve:
        detected = _verdict_mean(point, "detected")
        gain = _gain_pp(point.test_accuracy, record.marked.test_accuracy if record.marked else None)
        if detected is not None and detected < 0.5 and gain is not None:
            costs.append(max(0.0, -gain))
    return min(costs, default=None)


def _gain_pp(accuracy: float | None, reference: float | None) -> float | None:
    return None if accuracy is None or reference is None else 100 * (accuracy - reference)


def _verdict_mean(point: Point, name: str) -> float | None:
    return _mean(getattr(verdict, name) for verdict in point.verdicts)


def _mean(values: Iterable[float | None]) -> float | None:
    known = [float(value) for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _rate(counts: Sequence[Any]) -> float | None:
    trials = sum(count.trials for count in counts)
    return sum(count.hits for count in counts) / trials if trials else None


def _log10(p_value: float) -> float:
    return max(LOG10_P_FLOOR, math.log10(p_value)) if p_value > 0 else LOG10_P_FLOOR


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def _put(values: dict[str, Any], name: str, value: Any) -> None:
    """Add under a name that MLflow takes and nothing else bears: letters, digits, `_ . / -` and spaces."""
    parts = re.sub(r"[^A-Za-z0-9_./ -]+", "_", name).split("/")
    key = "/".join(part for part in parts if part.strip(". "))[: MAX_NAME - 10].rstrip("/") or "unnamed"
    while key in values:
        key += "_"
    values[key] = value


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 3] + "..."


# --- artifacts --------------------------------------------------------------------------------------------------


def _write_artifacts(record: Record, folder: Path) -> None:
    (folder / "record.json").write_text(record.model_dump_json(indent=1) + "\n", encoding="utf-8")
    if record.points:
        _draw_curve(record, folder / "curve.png")


BLUE, GREEN, RED, GREY = "#1f5fa8", "#2e8b57", "#c0392b", "#777777"


def _draw_curve(record: Record, path: Path) -> None:
    """Test accuracy, evidence and (for payloads) bit error rate along the attack's strength, one panel each."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with_ber = any(_verdict_mean(point, "ber") is not None for point in record.points)
    draw = [_draw_accuracy, _draw_evidence, *([_draw_ber] if with_ber else [])]
    inches = 1.4 + 1.8 * len(draw)
    figure = Figure(figsize=(7.0, inches), dpi=100)
    # Margins by hand: a layout engine draws everything twice, and the figure is most of what a run costs.
    grid = {"left": 0.115, "right": 0.975, "top": 1 - 0.85 / inches, "bottom": 0.5 / inches, "hspace": 0.12}
    axes = figure.subplots(len(draw), 1, sharex=True, squeeze=False, gridspec_kw=grid)[:, 0]
    for axis, panel in zip(axes, draw, strict=True):
        panel(axis, record)
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
        axis.yaxis.set_label_coords(-0.085, 0.5)
    _set_strength_axis(axes[-1], record)
    cell = record.cell
    title = f"{_run_name(record)}\n{cell.dataset}, {cell.situation}, profile {cell.profile}"
    figure.text(0.5, 1 - 0.08 / inches, title, fontsize=11, ha="center", va="top")
    FigureCanvasAgg(figure).print_png(path)


def _draw_accuracy(axis: Any, record: Record) -> None:
    """Filled markers where the claim holds, crosses where it fails."""
    points = record.points
    x, y = [point.strength for point in points], [100 * _or_nan(point.test_accuracy) for point in points]
    axis.plot(x, y, color=BLUE, linewidth=1.6, zorder=2)
    shares = [_verdict_mean(point, "detected") for point in points]
    for label, marker, color, rows in (
        ("claim holds", "o", GREEN, [i for i, share in enumerate(shares) if share is not None and share >= 0.5]),
        ("claim fails", "X", RED, [i for i, share in enumerate(shares) if share is not None and share < 0.5]),
    ):
        if rows:
            axis.scatter(
                [x[i] for i in rows], [y[i] for i in rows], s=55, c=color, marker=marker, label=label, zorder=3
            )
    if record.clean_accuracy is not None:
        axis.axhline(100 * record.clean_accuracy, color=GREY, linestyle="--", linewidth=1.1, label="clean host")
    axis.set_ylabel("test accuracy (%)")
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize=8, frameon=False, ncols=3, loc="lower left", bbox_to_anchor=(0, 1.0), borderpad=0)


def _draw_evidence(axis: Any, record: Record) -> None:
    """The mean of log10 p over owners, against the nominal false positive rate."""
    points = record.points
    evidence = [_or_nan(_mean(_log10(verdict.p_value) for verdict in point.verdicts)) for point in points]
    axis.plot([point.strength for point in points], evidence, "o-", color=BLUE, linewidth=1.6, markersize=5)
    threshold = _log10(record.fpr)
    axis.axhline(threshold, color=RED, linestyle=":", linewidth=1.3)
    _name_line(axis, threshold, f"detected below p = {record.fpr:g}", RED)
    axis.margins(y=0.15)
    axis.set_ylabel("log10 of p-value")


def _draw_ber(axis: Any, record: Record) -> None:
    points = record.points
    errors = [100 * _or_nan(_verdict_mean(point, "ber")) for point in points]
    axis.plot([point.strength for point in points], errors, "o-", color=BLUE, linewidth=1.6, markersize=5)
    axis.axhline(50, color=GREY, linestyle="--", linewidth=1.1)
    _name_line(axis, 50, "guessing", GREY)
    axis.set_ylim(-3, max(55.0, *(e + 5 for e in errors if e == e)))
    axis.set_ylabel("bit errors (%)")


def _name_line(axis: Any, y: float, text: str, color: str) -> None:
    """Write `text` below the left end of a horizontal line."""
    style = {"textcoords": "offset points", "va": "top", "fontsize": 8, "color": color}
    axis.annotate(text, (0.005, y), xycoords=("axes fraction", "data"), xytext=(0, -3), **style)


def _set_strength_axis(axis: Any, record: Record) -> None:
    """Ticks at the rungs; a ladder that spans more than a factor of 30 gets a logarithmic axis from its first rung."""
    rungs = [point.strength for point in record.curve if point.strength > 0]
    if rungs and max(rungs) > 30 * min(rungs):
        axis.set_xscale("symlog", linthresh=min(rungs), linscale=0.5)
    strengths = sorted({point.strength for point in record.points})
    if len(strengths) <= 12:
        axis.set_xticks(strengths, [f"{strength:g}" for strength in strengths], minor=False)
        axis.minorticks_off()
    axis.set_xlabel(f"{record.cell.attack}: {record.unit or 'strength'} (0: before the attack)", parse_math=False)
