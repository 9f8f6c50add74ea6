"""Many numbers said as one: means and counts with their intervals, and medians of bounds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from statistics import fmean
from typing import NamedTuple, Protocol, TypeVar

from bench.metrics.inference import cluster_interval
from bench.records.record import Cell
from bench.stats import student_interval, wilson_interval

__all__ = ["Bound", "Mean", "Proportion", "average", "clustered", "lower_median", "mean", "one_a_seed", "proportion"]


class _OfCell(Protocol):
    @property
    def cell(self) -> Cell: ...


_wilson = cache(wilson_interval)
Found = TypeVar("Found", bound=_OfCell)


class Mean(NamedTuple):
    """A mean with its 95 % Student-t interval (None below two values) and the values themselves."""

    mean: float
    low: float | None
    high: float | None
    values: list[float]


class Proportion(NamedTuple):
    """Hits of trials with a 95 % interval of their rate, Wilson's unless its maker says otherwise; None for none."""

    hits: int
    trials: int
    low: float | None
    high: float | None

    @property
    def share(self) -> float:
        """Hits over trials, 0..1."""
        return self.hits / self.trials


class Bound(NamedTuple):
    """A median of values of which some are lower bounds only.

    Attributes:
        pp: the median, in percentage points.
        more: whether it is a lower bound itself.
        values: every value, and whether it is a bound, increasing.
    """

    pp: float
    more: bool
    values: list[tuple[float, bool]]


def mean(values: Sequence[float]) -> Mean | None:
    """The mean over replications (seeds); None without values."""
    if not values:
        return None
    interval = student_interval(values)
    low, high = interval or (None, None)
    return Mean(fmean(values), low, high, list(values))


def average(values: Iterable[float | None]) -> float | None:
    """The mean of what is known, without an interval; None if nothing is."""
    known = [float(value) for value in values if value is not None]
    return fmean(known) if known else None


def proportion(hits: int, trials: int) -> Proportion | None:
    """Hits of independent trials; None without trials."""
    if not trials:
        return None
    return Proportion(hits, trials, *(_wilson(hits, trials) or (None, None)))


def clustered(clusters: Iterable[tuple[int, int]]) -> Proportion | None:
    """Hits of trials of which some share a network, a key or a host; None without trials.

    Args:
        clusters: hits and trials of each host, which are independent of the other hosts'. Where no host has two trials,
            the interval is Wilson's, else `bench.metrics.inference.cluster_interval`.
    """
    asked = [(hits, trials) for hits, trials in clusters if trials]
    found = proportion(sum(hits for hits, _ in asked), sum(trials for _, trials in asked))
    if found is None or all(trials == 1 for _, trials in asked):
        return found
    low, high = cluster_interval([hits for hits, _ in asked], [trials for _, trials in asked]) or (None, None)
    return found._replace(low=low, high=high)


def lower_median(exact: Iterable[float], bounds: Iterable[float]) -> Bound | None:
    """The lower median of exact values and lower bounds; None without either.

    It bounds the median from below, and is the median itself unless a bound lies at or below it.
    """
    values = sorted([*((value, False) for value in exact), *((value, True) for value in bounds)])
    if not values:
        return None
    middle = (len(values) - 1) // 2
    return Bound(values[middle][0], any(more for _, more in values[: middle + 1]), values)


def one_a_seed(records: Sequence[Found], field: str) -> list[Found]:
    """Of each seed the first record that has the field, because every attack of a seed meets the same marked model."""
    found = {record.cell.seed: record for record in reversed(records) if getattr(record, field)}
    return [found[seed] for seed in sorted(found)]
