"""Capacity: the payload that a mark carries without errors and almost for free."""

from __future__ import annotations

from bench.metrics.fidelity import fidelity_pp
from bench.metrics.robustness import within
from bench.records.record import CellRecord

__all__ = ["carried_bits"]

LOSS_PP = 1.0  # the fidelity that a payload may cost


def carried_bits(record: CellRecord) -> float | None:
    """Payload bits, if all owners' are read without error at no more than one point of fidelity lost, else 0.

    None where no payload is read (no bit error rate), or its size or the fidelity is not known.
    """
    bits, gain = record.measures.get("capacity_bits"), fidelity_pp(record)
    errors = [verdict.ber for verdict in record.marked.verdicts] if record.marked else []
    if bits is None or gain is None or not errors or None in errors:
        return None
    return bits if not any(errors) and within(-gain, LOSS_PP) else 0.0
