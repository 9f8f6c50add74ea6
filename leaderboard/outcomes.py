"""What every claim showed at every rung, as numbers that the page computes worst cases from under any choice."""

from __future__ import annotations

import math
import sys
from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bench.metrics.fidelity import lost_pp
from bench.metrics.robustness import ROUNDING
from bench.records.record import CellRecord
from leaderboard.summary import Row

__all__ = ["Stream", "outcomes", "steps", "together"]

UNKNOWN = 0xFFFF  # a code for what was not measured
ZERO = 0x8000  # the code of a loss of nothing
PER_POINT, PER_TRAINING = 300, 1000  # codes a percentage point, and one training
FINE, COARSE, DECADES = 1000, 50, 16  # codes a power of ten of a p-value: up to so many, and beyond
ACCESS = ("none", "labels", "scores", "white-box")  # from the weakest: each includes what stands before it


def outcomes(records: Iterable[CellRecord]) -> list[Row]:
    """The rungs of one attack, a dictionary per record; nothing of attacks on the evidence, which leave the mark alone.

    Each holds the `seed`, the `images` of the adversary's part (None where not known), and of the marked model and of
    every rung the `strength`, the accuracy lost (`loss_pp`, percentage points), the attacker's `time` so far over that
    of training the host, the `queries` to the victim (None where nobody counted), and the p-values, one an owner.
    """
    return [_outcome(record) for record in records if record.curve and record.stage != "evidence"]


def _outcome(record: CellRecord) -> Row:
    host_s, split = record.timings_s.get("host"), record.provenance.split
    # Who serves a stolen copy asks its owner nothing.
    asked = record.stage == "inference" or any("victim_queries" in point.measures for point in record.curve)
    return {
        "seed": record.cell.seed,
        "images": split.get("adversary"),
        "strength": [point.strength for point in record.points],
        "loss_pp": [lost_pp(record, point) for point in record.points],
        "time": [point.attack_time_s / host_s if host_s else None for point in record.points],
        "queries": [point.measures.get("victim_queries", 0.0) for point in record.points] if asked else None,
        "p_values": [[verdict.p_value for verdict in point.verdicts] for point in record.points],
    }


def steps(label: str) -> list[str]:
    """The names of a chain's attacks: `pruning=50+ftal (1a2b)` is `pruning`, `ftal`."""
    return [step.partition("=")[0].partition(" (")[0] for step in label.split("+")]


def together(needs: Sequence[Mapping[str, Any] | None]) -> Row | None:
    """What the adversary of a chain must have: the most access, and everything that any step needs.

    None where the needs of some step are not known.
    """
    known = [each for each in needs if each]
    if not known or len(known) < len(needs):
        return None
    return {
        "access": max((each["access"] for each in known), key=ACCESS.index),
        **{name: sorted({part for each in known for part in each[name]}) for name in ("images", "knows")},
        "copies": any(each["copies"] for each in known),
    }


class Stream:
    """Outcomes of all rows as 16-bit codes, one after another, in the order in which they were added.

    A seed's outcomes are, point by point from the marked model: the loss, the time (unless it is the same at every
    point), then one code for each owner. A loss and a time are rounded up, a p-value to 0.2 % (5 % below 1e-16), and a
    bit says whether the claim holds: so the page, which compares codes, comes to the same verdict as
    `bench.metrics.robustness`, at any limit of whole codes.
    """

    def __init__(self, fpr: float) -> None:
        self._codes, self._fpr = array("H"), fpr

    def add(self, found: Sequence[Row], needs: Mapping[str, Any] | None, unit: str) -> list[list[Any]]:
        """Append one attack's outcomes.

        Returns:
            Per record: seed, number of points, number of owners, the code of the time where it is the same at every
            point (None where the codes hold it), and per point the queries to the victim and the images of the
            adversary (None where not known; one number where it is the same at every point).
        """
        return [
            [
                each["seed"], len(each["loss_pp"]), len(each["p_values"][0]), self._append(each),
                _short(_asked(each, needs)), _short(_images(each, needs, unit)),
            ]
            for each in found
        ]  # fmt: skip

    def _append(self, found: Row) -> int | None:
        times = [_time(time) for time in found["time"]]
        constant = len(set(times)) == 1
        for loss, time, p_values in zip(found["loss_pp"], times, found["p_values"], strict=True):
            codes = (_loss(loss), *([] if constant else [time]), *(self._evidence(p) for p in p_values))
            self._codes.extend(codes)
        return times[0] if constant else None

    def __bytes__(self) -> bytes:
        """All codes, little end first."""
        codes = self._codes[:]
        if sys.byteorder == "big":
            codes.byteswap()
        return codes.tobytes()

    def _evidence(self, p_value: float) -> int:
        decades = -math.log10(p_value) if p_value > 0 else math.inf
        code = FINE * min(decades, DECADES) + COARSE * max(0.0, min(decades, 330.0) - DECADES)
        return 2 * min(round(code), ZERO - 1) + (p_value <= self._fpr)


def _loss(loss_pp: float | None) -> int:
    return UNKNOWN if loss_pp is None else min(UNKNOWN - 1, ZERO + math.ceil((loss_pp - ROUNDING) * PER_POINT))


def _time(ratio: float | None) -> int:
    return UNKNOWN if ratio is None else min(UNKNOWN - 1, math.ceil((ratio - ROUNDING) * PER_TRAINING))


def _short(values: list[float | None]) -> Any:
    return values[0] if len(set(values)) == 1 else values


def _asked(found: Row, needs: Mapping[str, Any] | None) -> list[float | None]:
    """Queries to the victim; who holds the weights, or nothing but images, asks none."""
    if found["queries"]:
        return list(found["queries"])
    none = needs is not None and needs["access"] in ("none", "white-box")
    return [0.0 if none or not strength else None for strength in found["strength"]]


def _images(found: Row, needs: Mapping[str, Any] | None, unit: str) -> list[float | None]:
    """Images that the adversary has to bring: its own, and those of another data set as far as the victim saw them."""
    if needs is None:
        return [None] * len(found["strength"])
    own = any(kind in needs["images"] for kind in ("own", "own unlabelled"))
    foreign = "out of domain" in needs["images"]
    made: list[float | None] = []
    for place, strength in enumerate(found["strength"]):
        parts: list[float | None] = [0.0]
        if own and strength:
            share = strength / 100 if unit == "% of own images" else 1.0
            parts.append(None if found["images"] is None else math.ceil(share * found["images"]))
        if foreign and strength:
            parts.append(found["queries"][place] if found["queries"] else None)
        made.append(None if None in parts else sum(part for part in parts if part is not None))
    return made
