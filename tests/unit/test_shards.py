"""Shards: together every cell once, each the same in every job, even, and with little done twice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bench.plan.matrix import Planned, expand, steps_of
from bench.plan.plan import Plan
from bench.plan.profiles import PROFILES
from bench.registry import attacks, schemes
from bench.runner.estimate import Durations, Typical
from bench.runner.shards import divide, parse, shard_of
from tests.fakes import HASH, request


def matrix(**fields: object) -> list[Planned]:
    asked = {"schemes": tuple(schemes()), "profile": PROFILES["quick"], "archs": ("wrn-10-1",), **fields}
    return expand(request(**asked), {"digits-m": HASH, "photographs": HASH})


def seconds(cells: list[Planned]) -> float:
    typical = Typical.load()
    durations = Durations(Path("none"), typical, probe=lambda: typical.probe_s)
    return sum(map(durations.seconds, steps_of(cells)))


def plan(cells: list[Planned], tmp_path: Path, stored: frozenset[str] = frozenset()) -> Plan:
    return Plan.make(cells, tmp_path, stored.__contains__)


@pytest.mark.parametrize(
    "text", ["0/2", "3/2", "1/0", "1", "a/b", "-1/2", "1/2/3", "1.0/2", "1/1001", "", "1/ 2", "\u0661/\u0662"]
)
def test_what_is_no_shard_is_one_sentence(text: str) -> None:
    with pytest.raises(ValueError, match=r"^Expected a shard such as 2/8, .* but got '.*'\.$"):
        parse(text)


def test_shards_are_numbered_from_one() -> None:
    assert [parse("1/1"), parse("2/8"), parse("1000/1000")] == [(1, 1), (2, 8), (1000, 1000)]


@pytest.mark.parametrize("count", [1, 2, 3, 8, 50])
def test_every_cell_is_in_one_shard_whatever_the_order(count: int) -> None:
    cells = matrix(attacks=("pruning", "ftal"))
    shards = divide(cells, count)
    assert sorted(cell.key for shard in shards for cell in shard) == sorted(cell.key for cell in cells)
    again = divide(cells[::-1], count)
    assert [{cell.key for cell in shard} for shard in again] == [{cell.key for cell in shard} for shard in shards]


@pytest.mark.parametrize(
    ("fields", "count", "longest", "twice"),
    [
        ({}, 2, 1.15, 0.12), ({}, 4, 1.40, 0.35), ({}, 8, 1.90, 0.67),
        ({"attacks": tuple(attacks())}, 8, 1.15, 0.08),
        ({"seeds": (0, 1, 2, 3)}, 4, 1.07, 0.07),
    ],
)  # fmt: skip
def test_shards_are_even_and_little_is_done_twice(
    fields: dict[str, object], count: int, longest: float, twice: float
) -> None:
    cells = matrix(**{"attacks": ("pruning",), **fields})
    whole, parts = seconds(cells), [seconds(shard) for shard in divide(cells, count)]
    assert max(parts) * count / whole < longest
    assert sum(parts) / whole - 1 < twice


def test_one_marked_network_under_many_attacks_is_divided_too() -> None:
    cells = matrix(schemes=("uchida-random",), attacks=tuple(attacks()))
    parts = [seconds(shard) for shard in divide(cells, 4)]
    assert max(parts) < 0.7 * seconds(cells)
    assert all(parts)


def test_the_division_does_not_move_with_what_is_stored_and_steps_shared_are_divided_too(tmp_path: Path) -> None:
    cells = matrix(attacks=("pruning",))
    whole = plan(cells, tmp_path)
    shards = [shard_of(whole, index, 3) for index in (1, 2, 3)]
    assert {step.key for shard in shards for step in shard.steps} == {step.key for step in whole.steps}
    stored = frozenset(step.key for step in whole.steps[::2])
    for index, shard in enumerate(shards, 1):
        again = shard_of(plan(cells, tmp_path, stored), index, 3)
        assert [cell.key for cell in again.cells] == [cell.key for cell in shard.cells]
        assert {step.key for step in again.missing} == {step.key for step in shard.missing} - stored
    first = {shard.missing[0].key for shard in shards}
    assert len(first) == 3, "each begins with another step"


def test_a_shard_of_one_is_the_plan(tmp_path: Path) -> None:
    whole = plan(matrix(attacks=("pruning",)), tmp_path)
    assert shard_of(whole, 1, 1) == replace(whole)
