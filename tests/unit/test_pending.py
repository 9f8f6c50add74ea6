"""Which step is next: inputs before readers, damaged ones again, and no look at all of them for each."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping

from bench.plan.step import Step
from bench.runner.pending import OpenCells, Pending
from tests.fakes import planned


def step(name: str, inputs: Mapping[str, Step] | None = None) -> Step:
    made = Step("host", {"name": name}, inputs or {}, ("bench.identity",), "0", name)
    vars(made)["key"] = name  # a cached property: keys that people can read
    return made


def diamond() -> dict[str, Step]:
    host = step("host")
    keys = step("keys", {"host": host})
    mark = step("mark", {"host": host, "keys": keys})
    return {"host": host, "keys": keys, "mark": mark, "attack": step("attack", {"mark": mark, "keys": keys})}


def drained(pending: Pending) -> list[str]:
    order = []
    while (taken := pending.take()) is not None:
        order.append(taken.key)
        pending.finish(taken)
    return order


def test_inputs_come_before_their_readers_in_whatever_order_steps_are_given() -> None:
    steps = diamond()
    assert drained(Pending(list(steps.values())[::-1], set())) == ["host", "keys", "mark", "attack"]
    assert drained(Pending([steps["attack"], steps["mark"]], {"host", "keys"})) == ["mark", "attack"]


def test_a_step_in_flight_holds_back_its_readers_and_no_other() -> None:
    steps = diamond()
    pending = Pending([*steps.values(), step("other")], set())
    first, second = pending.take(), pending.take()
    assert (first and first.key, second and second.key, pending.take()) == ("host", "other", None)
    assert len(pending) == 3


def test_a_step_that_was_taken_back_is_the_first_again() -> None:
    one, two, three = (step(name) for name in ("one", "two", "three"))
    pending = Pending([one, two, three], set())
    assert pending.take() is one
    pending.back(one)
    assert drained(pending) == ["one", "two", "three"]


def test_a_damaged_result_is_computed_before_what_reads_it() -> None:
    steps = diamond()
    pending = Pending([steps["mark"], steps["attack"]], {"host", "keys"})
    assert pending.take() is steps["mark"]
    pending.again(steps["keys"])
    pending.back(steps["mark"])
    assert drained(pending) == ["keys", "mark", "attack"]


def test_what_reads_a_failed_result_is_dropped_and_nothing_else() -> None:
    steps = diamond()
    pending = Pending([*steps.values(), step("other")], set())
    host = pending.take()
    assert host is not None
    assert {dropped.key for dropped in pending.drop_readers(host)} == {"keys", "mark", "attack"}
    assert drained(pending) == ["other"]


def test_a_step_that_does_not_fit_makes_room_for_shorter_ones() -> None:
    pending = Pending([step("long"), step("short")], set())
    taken = pending.take(lambda each: each.key != "long")
    assert taken is not None
    assert taken.key == "short"
    assert pending.take() is None
    assert [late.key for late in pending.late()] == ["long"]
    assert len(pending) == 1


def test_every_order_of_a_random_graph_is_one_that_its_inputs_allow() -> None:
    draw = random.Random(0)
    steps: list[Step] = []
    for number in range(200):
        read = draw.sample(steps, min(len(steps), draw.randrange(4)))
        steps.append(step(f"s{number}", {each.key: each for each in read}))
    given = draw.sample(steps, len(steps))
    pending, running, finished = Pending(given, set()), list[Step](), set[str]()
    while pending or running:
        taken = pending.take()
        if taken is not None:
            assert {each.key for each in taken.inputs.values()} <= finished
            running.append(taken)
        if taken is None or draw.random() < 0.5:
            ended = running.pop(draw.randrange(len(running)))
            finished.add(ended.key)
            pending.finish(ended)
    assert len(finished) == 200


def test_ten_thousand_steps_are_handed_out_in_no_time() -> None:
    host = step("host")
    steps = [host, *(step(f"s{number}", {"host": host}) for number in range(10_000))]
    start = time.perf_counter()
    assert len(drained(Pending(steps, set()))) == 10_001
    assert time.perf_counter() - start < 1.0


def test_a_cell_is_open_until_its_last_step_is_done() -> None:
    cell = planned()
    keys = [each.key for each in cell.steps.values()]
    cells = OpenCells([cell], set(keys[:-2]))
    assert cells.ready() == []
    assert cells.finish(keys[-1]) == []
    assert cells.finish(keys[-2]) == [cell]
    cells.again(keys[0])
    assert cells.ready() == []
    assert cells.failing(keys[0]) == [cell]
    assert cells.finish(keys[0]) == [cell]
    cells.close(cell)
    assert cells.failing(keys[0]) == cells.ready() == []
