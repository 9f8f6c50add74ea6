"""Counts the processor cores that this process may use: its affinity, and the quota of its container."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["cores", "quota"]

CGROUPS = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")


def cores() -> int:
    """Whole cores that this process may keep busy, at least 1."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = quota()
    return allowed if limit is None else max(1, min(allowed, int(limit)))


def quota(own: Path = OWN, root: Path = CGROUPS) -> float | None:
    """The smallest CPU quota, in cores, of the process's control groups and of those above them; None without one.

    Args:
        own: which groups the process is in, as the kernel lists them.
        root: where the groups are mounted: version 2, or the controllers of version 1.
    """
    limits = [limit for folder in _groups(own, root) for limit in (_version_2(folder), _version_1(folder)) if limit]
    return min(limits, default=None)


def _groups(own: Path, root: Path) -> Iterator[Path]:
    """The folders of the groups, and of all that contain them; inside a container the path may not be visible."""
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        for base in [root / controllers, root / "cpu"] if controllers else [root]:
            group = Path(path.lstrip("/"))
            yield from (base / part for part in (group, *group.parents))


def _version_2(folder: Path) -> float | None:
    words = _words(folder / "cpu.max")
    return _ratio(*words) if len(words) == 2 else None


def _version_1(folder: Path) -> float | None:
    words = [*_words(folder / "cpu.cfs_quota_us"), *_words(folder / "cpu.cfs_period_us")]
    return _ratio(*words) if len(words) == 2 else None


def _words(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").split()
    except OSError:
        return []


def _ratio(quota_us: str, period_us: str) -> float | None:
    """Cores; None for no limit, which is `max` in version 2 and -1 in version 1."""
    try:
        quota, period = float(quota_us), float(period_us)
    except ValueError:
        return None
    return quota / period if quota > 0 and period > 0 else None
