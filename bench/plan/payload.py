"""Chooses the payload sizes that a search for the capacity tries: by doubling, then by bisection.

Nothing is computed here. The search assumes that a size which does not work rules out all larger ones; it is a function
of what was tried so far, so that trials of earlier runs count like its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

__all__ = ["Bracket", "bracket", "next_size"]

PARTS = 8  # of an octave: how close the ends of the bracket come


class Bracket(NamedTuple):
    """Where the threshold lies.

    Attributes:
        works: the largest size that worked below the least that did not; 0 where none did.
        fails: the least size that did not work; None where all did.
    """

    works: int
    fails: int | None


def bracket(outcomes: Mapping[int, bool]) -> Bracket:
    """The bracket that trials leave; where they contradict each other, the lower one.

    Args:
        outcomes: payload bits tried -> whether they worked.
    """
    fails = min((size for size, works in outcomes.items() if not works), default=None)
    worked = [size for size, works in outcomes.items() if works and (fails is None or size < fails)]
    return Bracket(max(worked, default=0), fails)


def next_size(outcomes: Mapping[int, bool], start: int, most: int) -> int | None:
    """The payload bits to try next; None once the bracket is within an eighth of the power of two below.

    The first is `start`. While all sizes work, they double up to `most`; while none does, they halve down to 1. Between
    the two, the sizes of an octave lie on a grid of eighths.

    Args:
        outcomes: payload bits tried -> whether they worked.
        start: 1 or more.
        most: no size above is tried, and none counts; 1 or more.
    """
    low, high = bracket({size: works for size, works in outcomes.items() if size <= most})
    if high is None:
        return min(start, most) if low == 0 else None if low >= most else min(2 * low, most)
    if low == 0:
        return None if high == 1 else min(start, high // 2)
    if 2 * low < high:
        return 2 * low
    step = max(1, 2 ** (low.bit_length() - 1) // PARTS)
    gap = high - low
    return None if gap <= step else low + max(1, gap // step // 2) * step
