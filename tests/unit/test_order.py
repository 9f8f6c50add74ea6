"""Which step starts first: known graphs, and what the order costs on a simulated schedule."""

from __future__ import annotations

import random

import pytest

from bench.runner.order import ordered, priorities, tails
from tests.unit.test_pending import diamond, step
from tools.scaling import schedule


def longest(start: int, durations: list[float], inputs: list[list[int]]) -> float:
    """The longest chain from a step, by trying all."""
    readers = [reader for reader, needed in enumerate(inputs) if start in needed]
    return durations[start] + max((longest(reader, durations, inputs) for reader in readers), default=0.0)


@pytest.mark.parametrize("seed", range(5))
def test_tails_are_the_longest_chains(seed: int) -> None:
    draw = random.Random(seed)
    inputs = [draw.sample(range(number), min(number, draw.randrange(3))) for number in range(20)]
    durations = [draw.uniform(0.1, 5) for _ in inputs]
    assert tails(durations, inputs) == pytest.approx([longest(number, durations, inputs) for number in range(20)])


def test_one_worker_keeps_the_order_of_the_plan_and_several_begin_with_the_longest_chain() -> None:
    steps = [step("short"), *diamond().values()]
    seconds = {"short": 1.0, "host": 3.0, "keys": 1.0, "mark": 1.0, "attack": 1.0}
    assert ordered(steps, lambda each: seconds[each.key], 1) == steps
    names = [each.key for each in ordered(steps, lambda each: seconds[each.key], 2)]
    assert names == ["host", "keys", "mark", "short", "attack"]


def test_what_is_stored_counts_for_nothing() -> None:
    steps = list(diamond().values())[2:]
    assert [each.key for each in ordered(steps, lambda each: 1.0, 4)] == ["mark", "attack"]


@pytest.mark.parametrize("workers", [2, 4, 8, 64])
def test_a_wide_plan_with_a_long_chain_at_its_end_is_within_a_tenth_of_the_ideal(workers: int) -> None:
    """Hosts, each with readers; the last has a chain behind it that no other matches."""
    durations, inputs = list[float](), list[list[int]]()
    for host in range(40):
        at = len(durations)
        durations += [2.0] + [1.0] * 10
        inputs += [[], *([at] for _ in range(10))]
        if host == 39:
            durations += [5.0, 9.0]
            inputs += [[at], [len(durations) - 2]]
    first = priorities(durations, inputs, workers)
    found = schedule(durations, inputs, workers, first)
    assert found.makespan <= 1.1 * found.ideal
    assert (first == sorted(first)) == (workers < 8), "few workers lose less than a tenth by the order of the plan"
