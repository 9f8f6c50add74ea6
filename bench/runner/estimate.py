"""How long will it take? The median of what steps of the same kind took before, from a log beside the store."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any

from bench.plan.matrix import Step

__all__ = ["Durations"]

TRAINS = ("host", "mark")
GUESS_S = {"host": 120.0, "keys": 1.0, "mark": 45.0, "attack": 30.0, "nulls": 5.0, "attacked_nulls": 30.0}


class Durations:
    """Past durations of steps, most specific match first."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seconds: dict[tuple[object, ...], list[float]] = defaultdict(list)
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                self._learn(line)

    def add(self, step: Step, seconds: float) -> None:
        """Remember what `step` took."""
        names = _names(step)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps({"names": names, "seconds": round(seconds, 3)})
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        self._learn(line)

    def seconds(self, step: Step) -> float:
        """The expected duration of `step`."""
        names = _names(step)
        for known in _prefixes(names):
            if known in self._seconds:
                return median(self._seconds[known][-9:])
        pace = self._seconds.get(_training(names))
        if pace and step.kind in TRAINS:
            return median(pace[-9:]) * int(step.spec["recipe"]["epochs"])
        return GUESS_S.get(step.kind, 30.0)

    def total_s(self, steps: Iterable[Step], jobs: int = 1) -> float:
        """Expected wall-clock seconds of `steps` on `jobs` workers that keep busy."""
        return sum(map(self.seconds, steps)) / max(1, jobs)

    def _learn(self, line: str) -> None:
        try:
            entry = json.loads(line)
            names: list[Any] = list(entry["names"])
            seconds = float(entry["seconds"])
        except (ValueError, KeyError, TypeError):  # a line cut short by a kill
            return
        for known in _prefixes(names):
            self._seconds[known].append(seconds)
        if names[0] in TRAINS and names[5]:
            self._seconds[_training(names)].append(seconds / names[5])


def _names(step: Step) -> list[object]:
    spec = step.spec
    epochs = spec["recipe"]["epochs"] if "recipe" in spec else 0
    size = [spec["arch"], spec["width"], spec["dataset"], spec["owner"] or 0, epochs]
    return [step.kind, *size, spec.get("situation", ""), spec.get("attack", ""), spec.get("scheme", "")]


def _training(names: list[Any]) -> tuple[object, ...]:
    """What an epoch costs depends on the network and the data alone, so a host's pace tells an embedding's."""
    return ("an epoch", *names[1:5])


def _prefixes(names: list[object]) -> list[tuple[object, ...]]:
    """From all names down to kind, architecture and size."""
    return [tuple(names[:length]) for length in range(len(names), 5, -1)]
