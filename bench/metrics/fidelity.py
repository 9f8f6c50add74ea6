"""Fidelity: what the mark, or an attack, costs in test accuracy."""

from __future__ import annotations

from bench.contract.verdict import Point
from bench.records.record import CellRecord

__all__ = ["best_accuracy", "difference_pp", "fidelity_pp", "lost_pp"]

Both = tuple[float | None, float | None]


def difference_pp(accuracy: float | None, reference: float | None) -> float | None:
    """A difference of accuracies in percentage points; None where one of them was not measured."""
    return None if accuracy is None or reference is None else 100 * (accuracy - reference)


def best_accuracy(point: Point) -> float | None:
    """Accuracy on as many images as it was measured on: all unseen ones, else the held-out ones."""
    return point.test_accuracy if point.unseen_accuracy is None else point.unseen_accuracy


def fidelity_pp(record: CellRecord, point: Point | None = None) -> float | None:
    """Test accuracy at `point` (by default the marked model) minus that of its control, in percentage points.

    The control has the same seed and went through the same situation without a mark: after fine-tuning that is not
    the clean host, which was trained less. Records without a control of their own are compared with the clean host.
    """
    point = point or record.marked
    own = record.control_accuracy is not None
    test = record.control_accuracy if own else record.clean_accuracy
    unseen = record.control_unseen_accuracy if own else record.clean_unseen_accuracy
    return None if point is None else _change_pp(_of(point), (test, unseen))


def lost_pp(record: CellRecord, point: Point) -> float | None:
    """Accuracy, in percentage points, that the attacker gave up to get from the marked model to `point`."""
    return None if record.marked is None else _change_pp(_of(record.marked), _of(point))


def _of(point: Point) -> Both:
    return point.test_accuracy, point.unseen_accuracy


def _change_pp(accuracies: Both, references: Both) -> float | None:
    """On all unseen images where both were measured on them, else on the held-out ones."""
    (test, unseen), (test_before, unseen_before) = accuracies, references
    every = difference_pp(unseen, unseen_before)
    return difference_pp(test, test_before) if every is None else every
