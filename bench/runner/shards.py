"""Splits a plan into shards that array jobs and Kubernetes jobs compute without a coordinator.

The cells of one marked network stay together as far as they can, for it is the dearest step that cells share. Every
shard makes the same division, because it follows from the plan's content keys and the shipped durations alone.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from bench.plan.matrix import Planned, steps_of
from bench.plan.plan import Plan
from bench.plan.step import Step
from bench.runner.estimate import Durations, Typical

__all__ = ["divide", "parse", "shard_of"]

MOST = 1_000
PIECES = 2  # least pieces per shard that the work can be cut into: more are more even, and repeat more


def parse(text: str) -> tuple[int, int]:
    """`2/8` as (2, 8): the second of eight shards.

    Raises:
        ValueError: it is no such pair, or the first number is not between 1 and the second.
    """
    found = re.fullmatch(r"([0-9]{1,4})/([0-9]{1,4})", text)
    index, count = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= index <= count <= MOST:
        raise ValueError(
            f"Expected a shard such as 2/8, its number from 1 to the number of shards (at most 1,000), "
            f"but got {text!r}."
        )
    return index, count


def shard_of(plan: Plan, index: int, count: int) -> Plan:
    """What of a plan is the shard `index`'s, of `count`.

    A step that several shards need is in the plan of each. Each shard begins with those of them that fall to it by
    their content key, so that shards with one run directory divide them and find the others' results.

    Args:
        plan: the same in every shard, but for what is stored.
        index: from 1.
        count: number of shards.
    """
    shards = divide(plan.cells, count)
    mine = {cell.key for cell in shards[index - 1]}
    needed = [{step.key for step in steps_of(cells)} for cells in shards]
    todo = tuple(cell for cell in plan.todo if cell.key in mine)
    keys = {step.key for step in steps_of(todo)}

    def falls_to_another(step: Step) -> bool:
        sharers = [number for number, steps in enumerate(needed, 1) if step.key in steps]
        return sharers[int(step.key, 16) % len(sharers)] != index

    return replace(
        plan,
        cells=tuple(cell for cell in plan.cells if cell.key in mine),
        settled=tuple(record for record in plan.settled if record.cell_key in mine),
        todo=todo,
        steps=tuple(step for step in plan.steps if step.key in needed[index - 1]),
        missing=tuple(sorted((step for step in plan.missing if step.key in keys), key=falls_to_another)),
    )


def divide(cells: Iterable[Planned], count: int) -> list[list[Planned]]:
    """The cells of each shard: the dearest piece first, each to the shard that ends earliest with it.

    A piece is the cells of one marked network, or some of them where they are too much for one shard. A step that a
    shard has already costs it nothing. Cells that are not applicable are in the first shard.
    """
    cells = list(cells)
    seconds = _seconds(cells)
    pieces = list(_pieces([cell for cell in cells if cell.steps], seconds, sum(seconds.values()) / (PIECES * count)))
    needs = [[step.key for step in steps_of(piece)] for piece in pieces]
    shards, ends = [[cell for cell in cells if not cell.steps], *([] for _ in range(count - 1))], [0.0] * count
    held: list[set[str]] = [set() for _ in range(count)]
    for number in sorted(range(len(pieces)), key=lambda n: (-sum(seconds[key] for key in needs[n]), pieces[n][0].key)):
        then = [ends[n] + sum(seconds[key] for key in needs[number] if key not in held[n]) for n in range(count)]
        first = min(range(count), key=then.__getitem__)
        shards[first] += pieces[number]
        held[first].update(needs[number])
        ends[first] = then[first]
    return shards


def _seconds(cells: list[Planned]) -> dict[str, float]:
    """Step's key -> its shipped duration: what a machine has learned since would divide otherwise on each."""
    typical = Typical.load()
    durations = Durations(Path(os.devnull), typical, probe=lambda: typical.probe_s)
    return {step.key: durations.seconds(step) for step in steps_of(cells)}


def _pieces(cells: list[Planned], seconds: Mapping[str, float], most_s: float) -> Iterator[list[Planned]]:
    """The cells of one marked network after the other, cut where more than `most_s` of their own work is together."""
    groups: dict[str, list[Planned]] = {}
    for cell in sorted(cells, key=lambda cell: cell.key):
        groups.setdefault(cell.steps["mark"].key, []).append(cell)
    for group in groups.values():
        times = Counter(step.key for cell in group for step in cell.steps.values())
        piece: list[Planned] = []
        taken_s = 0.0
        for cell in group:
            own_s = sum(seconds[step.key] for step in cell.steps.values() if times[step.key] < len(group))
            if piece and taken_s + own_s > most_s:
                yield piece
                piece, taken_s = [], 0.0
            piece.append(cell)
            taken_s += own_s
        yield piece
