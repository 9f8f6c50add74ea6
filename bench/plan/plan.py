"""A plan: the cells that a command is about, what of them is settled, and which steps are missing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from bench.plan.matrix import Planned, steps_of
from bench.plan.step import Step, with_inputs
from bench.records.files import load_record
from bench.records.record import CellRecord, RecordError

__all__ = ["Plan"]


@dataclass(frozen=True)
class Plan:
    """Made once per command and handed on: to the estimate, the progress, the run and `bench why`.

    Attributes:
        cells: every cell that was asked for.
        settled: the valid records of the cells for which nothing is left to do.
        todo: the other cells.
        steps: every step that `cells` need, once, inputs before those that read them.
        missing: the steps of `todo` that have no stored result, in the same order.
    """

    cells: tuple[Planned, ...]
    settled: tuple[CellRecord, ...]
    todo: tuple[Planned, ...]
    steps: tuple[Step, ...]
    missing: tuple[Step, ...]

    @classmethod
    def make(cls, cells: Iterable[Planned], records: Path, stored: Callable[[str], bool]) -> Plan:
        """Ask once what earlier runs have left.

        Args:
            cells: what `expand` made of a request.
            records: the folder with the records of earlier runs.
            stored: whether a step of this key has a stored result.
        """
        cells = tuple(cells)
        found = [(cell, _settled(cell, records)) for cell in cells]
        todo = tuple(cell for cell, record in found if record is None)
        missing = tuple(step for step in steps_of(todo) if not stored(step.key))
        settled = tuple(record for _, record in found if record is not None)
        return cls(cells, settled, todo, tuple(steps_of(cells)), missing)

    @classmethod
    def of_steps(cls, steps: Iterable[Step], stored: Callable[[str], bool]) -> Plan:
        """A plan of steps, and of all that they read, that settles no cell.

        Args:
            steps: in any order.
            stored: whether a step of this key has a stored result.
        """
        needed = tuple(with_inputs(steps))
        return cls((), (), (), needed, tuple(step for step in needed if not stored(step.key)))

    @property
    def cached(self) -> int:
        """How many steps need no computation."""
        return len(self.steps) - len(self.missing)


def _settled(cell: Planned, records: Path) -> CellRecord | None:
    """The record that an earlier run left for this very cell, if it is readable; a failed one settles nothing."""
    path = records / cell.cell.filename
    if not path.exists():
        return None
    try:
        record = load_record(path)
    except RecordError:
        return None
    return record if record.cell_key == cell.key and record.status != "failed" else None
