"""A scheme whose embedding hook raises: its cells must fail, and no others."""

from __future__ import annotations

from dataclasses import dataclass

from bench.api import Host, ImageSet, Key, Paper, Rng, Scheme, SchemeCard, Suspect, Verdict


@dataclass(frozen=True)
class Number(Key):
    """A number."""

    seed: int


class Raises(Scheme[Number]):
    """Raises while marking the data."""

    card = SchemeCard(
        name="test-raises",
        title="Raises in one hook",
        paper=Paper("None", "Nobody", 2026, "https://example.org"),
        carrier="behaviour",
        access="labels",
        payload="zero-bit",
    )

    key_type = Number

    def keygen(self, host: Host, rng: Rng) -> Number:
        return Number(rng.seed)

    def mark_data(self, images: ImageSet, key: Number) -> ImageSet:
        raise RuntimeError("this hook is broken on purpose")

    def verify(self, suspect: Suspect, key: Number) -> Verdict:
        return Verdict(statistic=0.0, p_value=1.0)
