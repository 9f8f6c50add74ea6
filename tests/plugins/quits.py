"""Schemes that end the process they run in, one politely and one like the out-of-memory killer."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import dataclass

from bench.api import Host, ImageSet, Key, Paper, Rng, Scheme, SchemeCard, Suspect, Verdict, replace

CARD = SchemeCard(
    name="test-exits",
    title="Calls sys.exit(0)",
    paper=Paper("None", "Nobody", 2026, "https://example.org"),
    carrier="behaviour",
    access="labels",
    payload="zero-bit",
)


@dataclass(frozen=True)
class Number(Key):
    """A number."""

    seed: int


class Exits(Scheme[Number]):
    """Asks the interpreter to end, with success."""

    card = CARD
    key_type = Number

    def keygen(self, host: Host, rng: Rng) -> Number:
        return Number(rng.seed)

    def mark_data(self, images: ImageSet, key: Number) -> ImageSet:
        sys.exit(0)

    def verify(self, suspect: Suspect, key: Number) -> Verdict:
        return Verdict(statistic=0.0, p_value=1.0)


class Dies(Exits):
    """Is killed while marking."""

    card = replace(CARD, name="test-dies", title="Is killed with SIGKILL")

    def mark_data(self, images: ImageSet, key: Number) -> ImageSet:
        os.kill(os.getpid(), signal.SIGKILL)
        return images
