"""What stands for a list of values on the page: shortened texts, thinned curves, the first that is known."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from bench.identity import canonical

__all__ = ["Item", "Row", "as_dict", "brief", "first_known", "if_any", "short", "tag", "thin"]

MAX_RUNGS = 40
MAX_TEXT = 500
Row = dict[str, Any]
Item = TypeVar("Item")


def tag(text: str, length: int) -> str:
    """The first digits of its SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def first_known(values: Iterable[str | None]) -> str | None:
    """The first that is known, or None."""
    return next((value for value in values if value is not None), None)


def short(value: Any) -> str:
    """Its text, JSON unless it is one; cut where a stranger's record goes on and on."""
    text = value if isinstance(value, str) else canonical(value)
    return text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + "..."


def as_dict(number: Any) -> Row | None:
    """The fields of one of the named tuples that `bench.metrics` returns; None of None."""
    return None if number is None else dict(number._asdict())


def if_any(summary: Any, values: Sequence[float]) -> float | None:
    """A summary of the values; None of nothing."""
    return summary(values) if values else None


def thin(points: Sequence[Item], wanted: int = MAX_RUNGS) -> list[Item]:
    """At most `wanted` of them, evenly, with the first and the last."""
    if len(points) <= wanted:
        return list(points)
    step = (len(points) - 1) / (wanted - 1)
    return [points[round(i * step)] for i in range(wanted)]


def brief(values: Sequence[float]) -> list[float]:
    """To four digits: a drawing shows no more, and the page has to carry them."""
    return [float(f"{value:.4g}") for value in values]
