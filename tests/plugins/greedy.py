"""A scheme that asks for more than its card declares."""

from __future__ import annotations

from dataclasses import dataclass

from bench.api import Host, Key, Paper, Rng, Scheme, SchemeCard, Suspect, Verdict


@dataclass(frozen=True)
class GreedyKey(Key):
    """A number."""

    seed: int


class Greedy(Scheme[GreedyKey]):
    """Claims to need labels, and reads the weights."""

    card = SchemeCard(
        name="test-greedy",
        title="Reads weights it may not read",
        paper=Paper("None", "Nobody", 2026, "https://example.org"),
        carrier="behaviour",
        access="labels",
        payload="zero-bit",
    )
    key_type = GreedyKey

    def keygen(self, host: Host, rng: Rng) -> GreedyKey:
        return GreedyKey(rng.seed)

    def verify(self, suspect: Suspect, key: GreedyKey) -> Verdict:
        return Verdict(statistic=float(next(suspect.model.parameters()).sum()), p_value=1.0)
