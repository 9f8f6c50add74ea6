"""Copies records into a tracking store in the background, while others are still being computed."""

from __future__ import annotations

import threading
from contextlib import suppress
from queue import Empty, SimpleQueue
from types import TracebackType

from bench.records.record import CellRecord
from bench.tracking import sync

__all__ = ["Mirror"]

EVERY_S = 30.0
AT_ONCE = 10  # records per sync, so that the end of a run does not wait for long
PATIENCE_S = 10.0


class Mirror:
    """Takes records and syncs what is new every so often; one that fails stops, as a sync at the end says why.

    Args:
        tracking_uri: as for `sync`.
        fpr: the false positive rate that p-values are held to.
        every_s: seconds between two looks at what is new.
    """

    def __init__(self, tracking_uri: str, fpr: float, every_s: float = EVERY_S) -> None:
        self._uri, self._fpr, self._every_s = tracking_uri, fpr, every_s
        self._new: SimpleQueue[CellRecord] = SimpleQueue()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="mlflow", daemon=True)

    def __enter__(self) -> Mirror:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join(PATIENCE_S)

    def add(self, record: CellRecord) -> None:
        """Have `record` copied soon."""
        self._new.put(record)

    def _follow(self) -> None:
        with suppress(Exception):
            while not self._ended.wait(self._every_s):
                while (records := self._taken()) and not self._ended.is_set():
                    sync(records, self._uri, fpr=self._fpr)

    def _taken(self) -> list[CellRecord]:
        records: list[CellRecord] = []
        with suppress(Empty):
            while len(records) < AT_ONCE:
                records.append(self._new.get_nowait())
        return records
