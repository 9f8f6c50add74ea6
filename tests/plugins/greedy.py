"""A scheme that asks for more than its card declares."""

from __future__ import annotations

from bench.api import Host, Key, Paper, Rng, Scheme, SchemeCard, Suspect, Verdict


class Greedy(Scheme):
    """Claims to need labels, and reads the weights."""

    card = SchemeCard(
        name="test-greedy",
        title="Reads weights it may not read",
        paper=Paper("None", "Nobody", 2026, "https://example.org"),
        carrier="behaviour",
        access="labels",
        payload="zero-bit",
    )

    def keygen(self, host: Host, rng: Rng) -> Key:
        return Key(values={"seed": rng.seed})

    def verify(self, suspect: Suspect, key: Key) -> Verdict:
        return Verdict(statistic=float(next(suspect.model.parameters()).sum()), p_value=1.0)
