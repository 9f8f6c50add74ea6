"""Checks that a scheme or an attack must pass before it is submitted, beyond the contract."""

from __future__ import annotations

from collections.abc import Iterator

from bench.api import AttackCard, SchemeCard

__all__ = ["PLACEHOLDER", "outcomes"]

PLACEHOLDER = "TITLE OF THE PAPER"  # on the cards that `bench new` writes


def outcomes(card: SchemeCard | AttackCard) -> Iterator[tuple[str, str | None]]:
    """Yield (what was checked, None or what is wrong) for one card."""
    left = card.paper.title == PLACEHOLDER
    error = f'Expected the paper\'s title on the card, but got "{PLACEHOLDER}": fill in the card.' if left else None
    yield "The card is no longer the template's", error
