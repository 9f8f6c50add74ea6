"""Where a run keeps things."""

from __future__ import annotations

from pathlib import Path

from bench.runner.store import Store

__all__ = ["RunDir"]


class RunDir:
    """Where a run keeps things: `records/`, `store/`, `mlflow.db`, `site/`."""

    def __init__(self, path: Path) -> None:
        path = path.resolve()
        self.path = path
        self.records = path / "records"
        self.store = Store(path / "store")
        self.durations = path / "durations.jsonl"
        self.ledger = path / "mlflow-ledger.json"
        self.site = path / "site"
