"""Tells when a run must have ended: after `--max-time`, or when a scheduler ends the job."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Deadline", "deadline"]

MAX_TIME = "--max-time"
SLURM = "SLURM_JOB_END_TIME"
# Left before the scheduler's end for what follows the last step: records, the page, MLflow.
GRACE_S = 30.0


@dataclass(frozen=True)
class Deadline:
    """When a run must have ended.

    Attributes:
        at: seconds since 1970.
        cause: who says so, in the words of the end message.
    """

    at: float
    cause: str

    def left_s(self) -> float:
        """Seconds from now; none if it is past."""
        return max(0.0, self.at - time.time())


def deadline(max_time_s: float | None, environment: Mapping[str, str] = os.environ) -> Deadline | None:
    """The earlier of both; None without either. A variable that is no time is passed over.

    Args:
        max_time_s: seconds from now, as a person asked; None for no limit.
        environment: holds `SLURM_JOB_END_TIME`, seconds since 1970, in jobs of Slurm 22.05 and later.
    """
    found = [] if max_time_s is None else [Deadline(time.time() + max_time_s, MAX_TIME)]
    told = environment.get(SLURM, "")
    if told.isdecimal() and int(told):
        found.append(Deadline(int(told) - GRACE_S, SLURM))
    return min(found, key=lambda each: each.at, default=None)
