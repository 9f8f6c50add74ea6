"""Efficiency: what embedding costs, over a training without it."""

from __future__ import annotations

from bench.records.record import CellRecord

__all__ = ["embed_ratio"]


def embed_ratio(record: CellRecord) -> float | None:
    """Time to embed over the time to train the clean host; None where one of them is not known."""
    embed_s, host_s = record.timings_s.get("embed"), record.timings_s.get("host")
    return embed_s / host_s if embed_s is not None and host_s else None
