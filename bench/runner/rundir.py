"""The folder in which a run keeps things."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from bench.plan.matrix import Planned
from bench.plan.plan import Plan
from bench.runner.shared import store_at

__all__ = ["RunDir"]


class RunDir:
    """Where a run keeps things: `records/`, `store/`, `mlflow.db`, `site/`."""

    def __init__(self, path: Path, url: str | None = None) -> None:
        """Name the places; nothing is created.

        Args:
            path: the run directory.
            url: where results of steps are shared with other machines; None for nowhere.

        Raises:
            RemoteError: the URL cannot be opened.
        """
        path = path.resolve()
        self.path = path
        self.records = path / "records"
        self.store = store_at(path / "store", url)
        self.durations = path / "durations.jsonl"
        self.site = path / "site"

    def plan(self, cells: Iterable[Planned]) -> Plan:
        """What of `cells` is settled here, and what is missing."""
        return Plan.make(cells, self.records, self.store.has)

    def lend_home(self) -> None:
        """Be the home directory of a user who has none, as in containers: caches go there, and workers inherit it."""
        try:
            Path.home()
        except RuntimeError:
            os.environ["HOME"] = str(self.path)
