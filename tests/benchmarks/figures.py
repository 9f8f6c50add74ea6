"""Named figures of one session of benchmarks, with their targets, as a table and as `benchmarks.json`."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch

from bench.runner import machine
from bench.runner.cores import cores

__all__ = ["Clock", "Figures", "alternating", "flops_per_s", "machine_figures", "seconds_of"]

SIDE, PRODUCTS = 1024, 8
PRODUCT_FLOPS = 2 * SIDE**3 * PRODUCTS


@dataclass
class Figures:
    """What a session measured.

    Attributes:
        machine: what it was measured on; filled in by `machine_figures`.
        found: name -> architecture (or another case; empty where there is one) -> figure.
    """

    machine: dict[str, Any] = field(default_factory=dict)
    found: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)

    def add(
        self, name: str, value: float, *, case: str = "", at_least: float | None = None, at_most: float | None = None,
        **details: Any,
    ) -> bool:  # fmt: skip
        """Keep a figure; whether it meets its target, of which it may have none.

        Args:
            name: of the figure.
            value: that was measured.
            case: an architecture, or whatever else the figure differs by.
            at_least, at_most: the target.
            details: what the figure was made of, and how.
        """
        met = (at_least is None or value >= at_least) and (at_most is None or value <= at_most)
        target = f">= {at_least:g}" if at_least is not None else f"<= {at_most:g}" if at_most is not None else None
        entry = {"value": round(value, 4), "target": target, "passed": met if target else None, **details}
        self.found.setdefault(name, {})[case] = entry
        return met

    def write(self, path: Path) -> None:
        """One JSON object: `machine`, and `figures` by name and case."""
        content = {"machine": self.machine, "figures": self.found}
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    def lines(self) -> Iterator[str]:
        """The table, a line a figure."""
        named = self.machine
        if named:
            yield (
                f"{named['cpu_model']}, {named['cores']} cores, {named['threads']} threads, "
                f"{named['matmul_gflops']:.0f} GFLOP/s (float32 matrix product), torch {named['torch']}"
            )
        yield f"{'figure':22} {'case':10} {'value':>10}  {'target':10} result"
        for name, cases in self.found.items():
            for case, entry in cases.items():
                result = {True: "pass", False: "FAIL", None: ""}[entry["passed"]]
                yield f"{name:22} {case:10} {entry['value']:10.3f}  {entry['target'] or '':10} {result}"


class Clock:
    """Seconds spent inside what it wraps; what is wrapped inside counts once."""

    def __init__(self) -> None:
        self.total_s, self._depth = 0.0, 0

    def __call__(self, work: Any) -> Any:
        """A function that is timed."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            self._depth += 1
            start = time.perf_counter()
            try:
                return work(*args, **kwargs)
            finally:
                self._depth -= 1
                self.total_s += time.perf_counter() - start if not self._depth else 0.0

        return timed

    def epochs(self, train: Any) -> Any:
        """A generator's own time, epoch by epoch."""

        def timed(*args: Any, **kwargs: Any) -> Iterator[Any]:
            made = train(*args, **kwargs)
            step = self(lambda: next(made, None))
            while (epoch := step()) is not None:
                yield epoch

        return timed


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Scope in which one operation uses so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def seconds_of(work: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def alternating(works: Sequence[Callable[[], object]], rounds: int) -> list[list[float]]:
    """Seconds of each of several works, one after the other in every round, so that a drift of the machine hits all.

    Returns:
        the rounds' seconds, a list for each work; the medians' ratio is `ratio`.
    """
    return [list(column) for column in zip(*([seconds_of(w) for w in works] for _ in range(rounds)), strict=True)]


def ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """The median of the rounds' ratios."""
    return median(a / b for a, b in zip(above, below, strict=True))


def product() -> Callable[[], object]:
    """Plain matrix products, float32, of `PRODUCT_FLOPS` in all: as many as a training step takes time for."""
    one, other = torch.rand(SIDE, SIDE), torch.rand(SIDE, SIDE)
    return lambda: [one @ other for _ in range(PRODUCTS)]


def flops_per_s(budget_s: float = 1.0) -> float:
    """FLOP/s of a plain matrix product, median of as many as fit in the time."""
    work, taken = product(), list[float]()
    work()
    while sum(taken) < budget_s:
        taken.append(seconds_of(work))
    return PRODUCT_FLOPS / median(taken)


def machine_figures(used: int) -> dict[str, Any]:
    """The machine: processor, cores, threads used, speed of the matrix product, versions."""
    return {
        "cpu_model": machine.model(),
        "cores": cores(),
        "threads": used,
        "matmul_gflops": round(flops_per_s() / 1e9, 1),
        "torch": torch.__version__,
        "math_library": machine.libraries(),
    }
