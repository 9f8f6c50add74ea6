"""Channel counts of networks of any width."""

from __future__ import annotations

__all__ = ["scaled"]


def scaled(channels: int, width: float) -> int:
    """`channels` times `width`, rounded to a multiple of 4 and at least 4.

    Raises:
        ValueError: `width` is not positive.
    """
    if not width > 0:
        raise ValueError(f"Expected a width multiplier above 0, but got {width}.")
    return max(4, 4 * round(channels * width / 4))
