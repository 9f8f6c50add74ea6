"""What the cells of a row took to compute, as if nothing had been cached."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from bench.records.record import CellRecord
from leaderboard.summary import Row

__all__ = ["costs"]


def costs(done: Sequence[CellRecord]) -> Row | None:
    """Seconds that a cell took (`cell_s`, the median), hours of all cells (`hours`), and on which `devices`.

    Hosts, keys and embedding count once a seed in `hours`, as all attacks of a seed share them. None where no time was
    measured.
    """
    shared = {record.cell.seed: sum(record.timings_s.values()) for record in reversed(done)}
    attacks = [_attack_s(record) for record in done]
    if not any(shared.values()) and not any(attacks):
        return None
    cells = [sum(record.timings_s.values()) + attack for record, attack in zip(done, attacks, strict=True)]
    return {
        "cell_s": median(cells),
        "hours": (sum(shared.values()) + sum(attacks)) / 3600,
        "devices": sorted({record.provenance.device for record in done}),
    }


def _attack_s(record: CellRecord) -> float:
    """Seconds of the attack up to its last rung, and of all verifications."""
    return max(point.attack_time_s for point in record.points) + sum(point.verify_time_s for point in record.points)
