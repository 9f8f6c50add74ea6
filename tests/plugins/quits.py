"""Schemes that end the process they run in, one politely and one like the out-of-memory killer."""

from __future__ import annotations

import os
import signal
import sys

from bench.api import Host, ImageSet, Key, Paper, Rng, Scheme, SchemeCard, Suspect, Verdict, replace

CARD = SchemeCard(
    name="test-exits",
    title="Calls sys.exit(0)",
    paper=Paper("None", "Nobody", 2026, "https://example.org"),
    carrier="behaviour",
    access="labels",
    payload="zero-bit",
)


class Exits(Scheme):
    """Asks the interpreter to end, with success."""

    card = CARD

    def keygen(self, host: Host, rng: Rng) -> Key:
        return Key(values={"seed": rng.seed})

    def mark_data(self, images: ImageSet, key: Key) -> ImageSet:
        sys.exit(0)

    def verify(self, suspect: Suspect, key: Key) -> Verdict:
        return Verdict(statistic=0.0, p_value=1.0)


class Dies(Exits):
    """Is killed while marking."""

    card = replace(CARD, name="test-dies", title="Is killed with SIGKILL")

    def mark_data(self, images: ImageSet, key: Key) -> ImageSet:
        os.kill(os.getpid(), signal.SIGKILL)
        return images
