"""Capacity: the payload that a mark carries without errors and almost for free."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bench.metrics.aggregate import average
from bench.metrics.fidelity import fidelity_pp
from bench.metrics.robustness import within
from bench.records.record import CellRecord

__all__ = ["LOSS_PP", "Trial", "carried_bits", "contradicted", "trial"]

LOSS_PP = 1.0  # the fidelity that a payload may cost


@dataclass(frozen=True)
class Trial:
    """What one payload size gave, in all seeds.

    Attributes:
        size: payload bits that were embedded.
        bits: bits of the message that they stand for; fewer where an error-correcting code is used.
        bers: bit error rate of the message in each seed, of several owners the highest; None where none is read.
        fidelities_pp: fidelity in each seed, in percentage points; None where it is not known.
    """

    size: int
    bits: float
    bers: tuple[float | None, ...]
    fidelities_pp: tuple[float | None, ...]

    @property
    def ber(self) -> float | None:
        """The highest of all seeds; None where one is not known."""
        known = [ber for ber in self.bers if ber is not None]
        return max(known) if known and len(known) == len(self.bers) else None

    @property
    def fidelity_pp(self) -> float | None:
        """The mean over seeds, in percentage points; None where one is not known."""
        return None if None in self.fidelities_pp else average(self.fidelities_pp)

    def costs(self, tolerance_pp: float = LOSS_PP) -> str:
        """Why the payload is too large: `errors`, `fidelity`, both, or nothing.

        Too large: a bit is wrong in some seed, or more than `tolerance_pp` points are lost on average over seeds.
        """
        errors, gain = self.ber is None or self.ber > 0, self.fidelity_pp
        lost = gain is None or not within(-gain, tolerance_pp)
        return " and ".join(["errors"] * errors + ["fidelity"] * lost)


def trial(size: int, records: Iterable[CellRecord]) -> Trial:
    """What the records of one payload size say, one a seed.

    Args:
        size: payload bits.
        records: with status `ok`; cells without an attack.
    """
    ordered = sorted(records, key=lambda record: record.cell.seed)
    bits = [record.measures.get("capacity_bits", float(size)) for record in ordered]
    return Trial(size, min(bits), tuple(map(_worst_ber, ordered)), tuple(map(fidelity_pp, ordered)))


def contradicted(trials: Sequence[Trial], tolerance_pp: float = LOSS_PP) -> bool:
    """Whether trials contradict that a payload which is too large rules out all larger ones.

    They do where a larger payload works, or where a seed without errors at a larger one has errors at a smaller.
    """
    ordered = sorted(trials, key=lambda each: each.size)
    pairs = [(small, large) for i, small in enumerate(ordered) for large in ordered[i + 1 :]]
    whole = any(small.costs(tolerance_pp) and not large.costs(tolerance_pp) for small, large in pairs)
    return whole or any(
        bool(before) and after == 0
        for small, large in pairs
        for before, after in zip(small.bers, large.bers, strict=True)
    )


def carried_bits(record: CellRecord) -> float | None:
    """Payload bits, if all owners' are read without error at no more than one point of fidelity lost, else 0.

    None where no payload is read (no bit error rate), or its size or the fidelity is not known.
    """
    bits, gain, ber = record.measures.get("capacity_bits"), fidelity_pp(record), _worst_ber(record)
    if bits is None or gain is None or ber is None:
        return None
    return bits if not ber and within(-gain, LOSS_PP) else 0.0


def _worst_ber(record: CellRecord) -> float | None:
    """The highest of all owners on the marked model; None where no payload of one is read."""
    errors = [verdict.ber for verdict in record.marked.verdicts] if record.marked else []
    known = [ber for ber in errors if ber is not None]
    return max(known) if known and len(known) == len(errors) else None
