"""Opens a tracking store: one writer at a time for a SQLite file, made aside, and mended after a move."""

from __future__ import annotations

import logging
import os
import re
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from bench.lease import lease

__all__ = ["TrackingError", "artifact_location", "opened", "sqlite_path"]

ARTIFACTS = "mlartifacts"  # the folder beside a SQLite file that holds the pictures
# Quiet, no usage statistics sent on a user's behalf, an unreachable server reported in seconds instead of minutes, and
# no connection kept open to a file that somebody may remove.
ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_SQLALCHEMYSTORE_POOLCLASS": "NullPool",
}


class TrackingError(RuntimeError):
    """The tracking store could not be reached or refused a run; the records are unharmed."""


@contextmanager
def opened(tracking_uri: str) -> Iterator[Any]:
    """A quiet client. While it is open, no other `opened` writes to the same SQLite file.

    Raises:
        TrackingError: the URI is not a tracking store, or whatever MLflow, the database or the disk raises meanwhile.
    """
    if tracking_uri.startswith("file:") or ("://" not in tracking_uri and not tracking_uri.startswith("databricks")):
        raise TrackingError(
            f"Expected a tracking URI such as sqlite:////path/mlflow.db or http://host:5000, but got {tracking_uri!r}: "
            "MLflow no longer writes to plain folders."
        )
    database = sqlite_path(tracking_uri)
    with _environment(ENVIRONMENT):
        from mlflow import MlflowClient

        with _at_level(logging.WARNING, "mlflow", "alembic"), _one_sentence(database), _alone(database):
            if database:
                _create_if_missing(database)
                _follow_move(database)
            yield MlflowClient(tracking_uri=tracking_uri)


def artifact_location(tracking_uri: str) -> str | None:
    """Where a new experiment keeps its pictures: beside a SQLite file, else where the server decides."""
    database = sqlite_path(tracking_uri)
    return (database.parent / ARTIFACTS).as_uri() if database else None


def sqlite_path(tracking_uri: str) -> Path | None:
    """The file of a SQLite store; None for any other."""
    found = re.match(r"sqlite(?:\+\w+)?:///([^?]+)", tracking_uri)
    return Path(found[1]).absolute() if found else None


@contextmanager
def _alone(database: Path | None) -> Iterator[None]:
    if database:
        database.parent.mkdir(parents=True, exist_ok=True)
    with lease(database.with_name(f"{database.name}.lease")) if database else nullcontext():
        yield


def _create_if_missing(database: Path) -> None:
    """Make the tables in a file aside and rename it, so that a kill or a full disk leaves no half-made database."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    for leftover in database.parent.glob(f"{database.name}.*.new*"):
        leftover.unlink(missing_ok=True)
    if database.exists() and database.stat().st_size:
        return
    aside = database.with_name(f"{database.name}.{os.getpid()}.new")
    try:
        SqlAlchemyStore(f"sqlite:///{aside.as_posix()}", (database.parent / ARTIFACTS).as_uri())._dispose_engine()
        aside.replace(database)
    finally:
        for leftover in database.parent.glob(f"{aside.name}*"):
            leftover.unlink(missing_ok=True)


def _follow_move(database: Path) -> None:
    """Point runs at the pictures beside the database: MLflow keeps absolute paths, which a moved folder outdates."""
    folder = database.parent / ARTIFACTS
    if not folder.is_dir():
        return
    with closing(sqlite3.connect(database, timeout=20)) as connection, connection:
        locations = connection.execute(
            "SELECT experiment_id, artifact_location FROM experiments WHERE artifact_location LIKE ?",
            (f"file://%/{ARTIFACTS}",),
        ).fetchall()
        for experiment, old in locations:
            if old == folder.as_uri():
                continue
            connection.execute(
                "UPDATE runs SET artifact_uri = ? || substr(artifact_uri, ?) "
                "WHERE experiment_id = ? AND substr(artifact_uri, 1, ?) = ?",
                (folder.as_uri(), len(old) + 1, experiment, len(old) + 1, f"{old}/"),
            )
            connection.execute(
                "UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?", (folder.as_uri(), experiment)
            )


# --- errors -----------------------------------------------------------------------------------------------------


@contextmanager
def _one_sentence(database: Path | None) -> Iterator[None]:
    """Let what MLflow, the database or the disk raises leave as one `TrackingError`."""
    from alembic.util.exc import CommandError
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, CommandError, sqlite3.Error, OSError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:500].rstrip(".")
        raise TrackingError(
            f"Expected {database or 'the tracking server'} to take the runs, but it answered: {reason}. "
            f"Records are unharmed: {_advice(reason, database)} and run `bench sync` again."
        ) from error


def _advice(reason: str, database: Path | None) -> str:
    if "Invalid Host header" in reason:
        return "start the server with `--allowed-hosts` and the host name that you use (MLflow 3.5 and newer)"
    if database is None:
        return "see whether the server is up"
    if "locked" in reason:
        return "end the program that holds the database"
    if re.search(r"disk|full|space|readonly|read-only|permission|unable to open|quota", reason, re.IGNORECASE):
        return f"make {database.parent} writable, with room on its disk,"
    return f"remove {database}, which is made anew from the records,"


# --- surroundings -----------------------------------------------------------------------------------------------


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
