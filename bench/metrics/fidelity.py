"""Fidelity: what the mark, or an attack, costs in test accuracy."""

from __future__ import annotations

from bench.contract.verdict import Point
from bench.records.record import CellRecord

__all__ = ["difference_pp", "fidelity_pp"]


def difference_pp(accuracy: float | None, reference: float | None) -> float | None:
    """A difference of accuracies in percentage points; None where one of them was not measured."""
    return None if accuracy is None or reference is None else 100 * (accuracy - reference)


def fidelity_pp(record: CellRecord, point: Point | None = None) -> float | None:
    """Test accuracy at `point` (by default the marked model) minus that of its control, in percentage points.

    The control has the same seed and went through the same situation without a mark: after fine-tuning that is not
    the clean host, which was trained less. Records without a control of their own are compared with the clean host.
    """
    point = point or record.marked
    reference = record.clean_accuracy if record.control_accuracy is None else record.control_accuracy
    return None if point is None else difference_pp(point.test_accuracy, reference)
