"""The plan of a command: what is settled, what is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.plan import plan as plans
from bench.plan.matrix import expand
from bench.plan.plan import Plan
from bench.records.files import save_record
from tests.fakes import CHECKSUMS, planned, record, request


def everything(key: str) -> bool:
    return True


def nothing(key: str) -> bool:
    return False


def test_a_fresh_plan_misses_every_step(tmp_path: Path) -> None:
    cells = expand(request(attacks=("pruning", "pruning-random")), CHECKSUMS)
    plan = Plan.make(cells, tmp_path, nothing)
    assert (plan.todo, plan.settled, plan.missing) == (tuple(cells), (), plan.steps)
    assert len(plan.steps) == 9
    assert plan.cached == 0


def test_stored_steps_are_not_missing_but_their_cell_is_to_do(tmp_path: Path) -> None:
    plan = Plan.make([planned()], tmp_path, everything)
    assert (len(plan.todo), plan.missing, plan.cached) == (1, (), 7)


@pytest.mark.parametrize("status", ["ok", "failed", "not applicable"])
def test_a_record_with_the_same_key_settles_its_cell_unless_it_failed(tmp_path: Path, status: str) -> None:
    cell = planned()
    save_record(record(status, cell=cell.cell, cell_key=cell.key), tmp_path)
    plan = Plan.make([cell], tmp_path, nothing)
    assert len(plan.settled) == (status != "failed")
    assert len(plan.missing) == (7 if status == "failed" else 0)


def test_a_record_with_another_key_or_an_unreadable_one_settles_nothing(tmp_path: Path) -> None:
    cell = planned()
    path = save_record(record(cell=cell.cell, cell_key="f" * 64), tmp_path)
    assert Plan.make([cell], tmp_path, nothing).todo
    path.write_text("{")
    assert Plan.make([cell], tmp_path, nothing).todo


def test_each_record_is_read_once_and_the_store_asked_once_a_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = expand(request(attacks=("pruning", "pruning-random")), CHECKSUMS)
    save_record(record(cell=cells[0].cell, cell_key=cells[0].key), tmp_path)
    read: list[Path] = []
    load = plans.load_record
    monkeypatch.setattr(plans, "load_record", lambda path: read.append(path) or load(path))
    asked: list[str] = []
    plan = Plan.make(cells, tmp_path, lambda key: bool(asked.append(key)))
    _ = plan.missing, plan.cached, plan.settled, plan.steps
    assert len(read) == 1
    assert len(asked) == len(set(asked)) == 7
