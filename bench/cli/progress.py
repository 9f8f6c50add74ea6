"""Shows the progress of a run: a live bar on a terminal, a line per step in a log file."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from rich import progress as bars
from rich.console import Console
from rich.table import Column
from rich.text import Text

if TYPE_CHECKING:
    from bench.plan.step import Step
    from bench.records.record import CellRecord
    from bench.runner.estimate import Durations
    from bench.runner.worker import Outcome

__all__ = ["Progress", "live_columns"]

BAR = 12  # columns of the bar, where the terminal has at least ROOMY
ROOMY = 60


class Progress:
    """Watches a run (see `bench.runner.coordinator.Watch`) and tells a person.

    Args:
        steps: that are to be computed.
        durations: the object that the run teaches, so that the expected time follows what steps really take.
        jobs: workers that compute at the same time.
        console: where to print.
        epoch: how far the training in the step of this key is, as `3/16`; empty where nothing is known.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        durations: Durations,
        jobs: int,
        console: Console,
        epoch: Callable[[str], str] = lambda key: "",
    ) -> None:
        self._left = {step.key: step for step in steps}
        self._total, self._durations, self._jobs, self._console = len(steps), durations, jobs, console
        self._start, self._latest = time.perf_counter(), ""
        self._left_s = self._ask_again = 0.0
        self._bar = bars.Progress(
            *live_columns(
                console, "{task.fields[steps]}", bars.TimeElapsedColumn(table_column=Column(no_wrap=True)),
                _Epoch(lambda: epoch(self._latest)),
            ),
            console=console, transient=True, expand=True, disable=not console.is_terminal, refresh_per_second=4,
        )  # fmt: skip
        self._dot = "-" if console.options.ascii_only else "·"
        self._task = self._bar.add_task("", total=max(1, self._total), steps=f"0/{self._total}")

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def say(self, text: str) -> None:
        """A line that stays."""
        self._console.print(text, soft_wrap=True)

    def left_s(self) -> float:
        """Expected seconds until the end; asked again only after so long that asking takes a fiftieth of the time."""
        now = time.perf_counter()
        if now >= self._ask_again:
            self._left_s = self._durations.total_s(self._left.values(), self._jobs)
            self._ask_again = now + 50 * (time.perf_counter() - now)
        return self._left_s

    def started(self, step: Step) -> None:
        """`step` was handed to a worker."""
        self._latest = step.key
        self._bar.update(self._task, description=f"{self._about_left()} {self._dot} {step.label}")

    def finished(self, step: Step, outcome: Outcome) -> None:
        """`step` was computed, or failed."""
        self._left.pop(step.key, None)
        done = self._total - len(self._left)
        word = "FAILED " if outcome.error else "elsewhere: " if outcome.found else ""
        self._bar.update(self._task, completed=done, steps=f"{done}/{self._total}", description=self._about_left())
        clock = _clock(time.perf_counter() - self._start)
        words = f"[{done:>3}/{self._total}] {clock}  {word}{step.label}  {outcome.seconds:.1f} s, {self._about_left()}"
        self._console.print(words, soft_wrap=True)

    def settled(self, record: CellRecord) -> None:
        """A cell has its record: the table at the end says it."""

    def _about_left(self) -> str:
        from bench.cli.computing import duration

        return f"about {duration(self.left_s())} left" if self._left else "done"


class _Epoch(bars.ProgressColumn):
    """How far the training is in the step that began last."""

    def __init__(self, epoch: Callable[[], str]) -> None:
        super().__init__(Column(no_wrap=True))
        self._epoch = epoch

    def render(self, task: bars.Task) -> Text:
        """`epoch 3/16`, or nothing."""
        found = self._epoch()
        return Text(f"epoch {found}" if found else "")


def live_columns(console: Console, counted: str, *more: bars.ProgressColumn) -> tuple[bars.ProgressColumn, ...]:
    """The columns of a live line: what does not fit is cut from the words at its end, never from a number."""
    bar = (bars.BarColumn(BAR, table_column=Column(width=BAR)),) if console.width >= ROOMY else ()
    return (
        bars.SpinnerColumn("line" if console.options.ascii_only else "dots"),
        bars.TextColumn(counted, markup=False, table_column=Column(no_wrap=True)),
        *bar,
        *more,
        bars.TextColumn(
            "{task.description}", markup=False, table_column=Column(ratio=1, no_wrap=True, overflow="crop")
        ),
    )


def _clock(seconds: float) -> str:
    """Elapsed time as `0:07` or `1:02:03`."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"
