"""Keeps the steps that are to be computed, and the cells that wait for them."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable, Iterable

from bench.plan.matrix import Planned
from bench.plan.step import Step

__all__ = ["OpenCells", "Pending"]


class Pending:
    """Steps to compute, each ready once its inputs are done; no operation looks at all of them but `again`.

    Attributes:
        done: keys of the steps whose results are stored.
    """

    def __init__(self, steps: Iterable[Step], done: set[str]) -> None:
        """Steps in the order in which they shall start where they are ready."""
        self.done = done
        self._left: dict[str, Step] = {}
        self._rank: dict[str, int] = {}
        self._first = 0
        self._late: set[str] = set()
        for step in steps:
            self._rank[step.key] = len(self._left)
            self._left[step.key] = step
        self._arrange()

    def __len__(self) -> int:
        return len(self._left)

    def take(self, fits: Callable[[Step], bool] = lambda step: True) -> Step | None:
        """The first step that is ready and fits, which is pending no more; None if there is none.

        Args:
            fits: whether a step may start; one that may not is not asked about again.
        """
        while self._ready:
            _, key = heapq.heappop(self._ready)
            if key not in self._left or key in self._late:
                continue
            if fits(self._left[key]):
                return self._left.pop(key)
            self._late.add(key)
        return None

    def late(self) -> list[Step]:
        """The steps that did not fit."""
        return [self._left[key] for key in self._late if key in self._left]

    def back(self, step: Step) -> None:
        """Put back a step that was taken: it is the first to start again."""
        self._first -= 1
        self._rank[step.key] = self._first
        self._left[step.key] = step
        self._wait(step)

    def finish(self, step: Step) -> None:
        """Its result is stored."""
        self.done.add(step.key)
        for reader in self._readers.pop(step.key, ()):
            self._waits[reader] -= 1
            if not self._waits[reader] and reader in self._left:
                heapq.heappush(self._ready, (self._rank[reader], reader))

    def again(self, step: Step) -> None:
        """A stored result was damaged: the step is to be computed once more, before those that read it."""
        self.done.discard(step.key)
        self._first -= 1
        self._rank[step.key] = self._first
        self._left[step.key] = step
        self._arrange()

    def drop_readers(self, step: Step) -> list[Step]:
        """Forget, and return, all steps that read the result of this one, directly or not."""
        dropped: list[Step] = []
        keys = [step.key]
        while keys:
            for reader in self._readers.pop(keys.pop(), ()):
                if reader in self._left:
                    dropped.append(self._left.pop(reader))
                    keys.append(reader)
        return dropped

    def _arrange(self) -> None:
        self._readers: dict[str, list[str]] = defaultdict(list)
        self._waits: dict[str, int] = {}
        self._ready: list[tuple[int, str]] = []
        for step in self._left.values():
            self._wait(step)

    def _wait(self, step: Step) -> None:
        missing = {needed.key for needed in step.inputs.values()} - self.done
        self._waits[step.key] = len(missing)
        for key in missing:
            self._readers[key].append(step.key)
        if not missing:
            heapq.heappush(self._ready, (self._rank[step.key], step.key))


class OpenCells:
    """Cells without a record, each open until its steps are done or one of them failed."""

    def __init__(self, cells: Iterable[Planned], done: set[str]) -> None:
        """Cells in the order in which records are written."""
        self._cells = {cell.key: cell for cell in cells}
        self._of_step: dict[str, list[str]] = defaultdict(list)
        self._open: dict[str, set[str]] = {}
        for key, cell in self._cells.items():
            steps = {step.key for step in cell.steps.values()}
            self._open[key] = steps - done
            for step in steps:
                self._of_step[step].append(key)

    def ready(self) -> list[Planned]:
        """The cells that wait for nothing."""
        return [cell for key, cell in self._cells.items() if not self._open[key]]

    def finish(self, step: str) -> list[Planned]:
        """A step is done: the cells that wait for nothing any more."""
        found = [key for key in self._of_step[step] if key in self._cells]
        for key in found:
            self._open[key].discard(step)
        return [self._cells[key] for key in found if not self._open[key]]

    def failing(self, step: str) -> list[Planned]:
        """The cells that need this step."""
        return [self._cells[key] for key in self._of_step[step] if key in self._cells]

    def again(self, step: str) -> None:
        """A step is not done any more."""
        for key in self._of_step[step]:
            self._open[key].add(step)

    def close(self, cell: Planned) -> None:
        """Its record is written."""
        self._cells.pop(cell.key, None)
