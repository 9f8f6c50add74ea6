"""Computes cells again in a confined process: `python -m bench.checks.replay TASK FOLDER`; prints nothing of use.

The task holds which cells, and none of the numbers that they are to give.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.checks.sandbox import Limits, confine

if TYPE_CHECKING:
    from bench.plan.matrix import Planned
    from bench.records.record import Cell
    from bench.runner.rundir import RunDir

__all__ = ["DONE", "OUTCOMES", "UnfitError", "main", "rebuilt"]

OUTCOMES, DONE = "outcomes.json", "run"
COMPUTED, BEYOND, UNAVAILABLE, UNKNOWN = "computed", "beyond the budget", "unavailable", "unknown"


class UnfitError(ValueError):
    """A cell is none that `bench run` makes."""


def main(task: Path, folder: Path) -> None:
    """Confine this process, then compute the cells of a task, and leave their records and what became of each."""
    asked = json.loads(task.read_text(encoding="utf-8"))
    confine(folder, Limits(asked["seconds"], asked["memory"]))
    outcomes: dict[str, list[str]] = {}
    for name, state, why in _outcomes(asked, folder):
        outcomes[name] = [state, why]
        (folder / OUTCOMES).write_text(json.dumps(outcomes), encoding="utf-8")


def rebuilt(cell: Cell, null_keys: int, data_root: Path | None = None) -> Planned:
    """The cell as the matrix makes it from a record's parameters.

    Raises:
        UnfitError: the matrix makes another cell.
        DataError: its data are not here.
        RegistryError: a name or a parameter does not exist.
    """
    from bench.plan.matrix import Request, expand
    from bench.plan.profiles import PROFILES
    from bench.plan.selection import checksums
    from bench.registry import RegistryError, attack_chain, schemes

    if cell.profile not in PROFILES or cell.scheme not in schemes():
        raise RegistryError(f"Expected a scheme and a profile that exist, but got {cell.scheme} and {cell.profile}.")
    attack_chain(cell.attack)
    overrides = {cell.scheme: cell.scheme_params, **{each.name: each.params for each in cell.attacks}}
    request = Request(
        (cell.scheme,), (cell.attack,), (cell.arch,), (cell.dataset,), (cell.situation,), PROFILES[cell.profile],
        (cell.seed,), cell.owners, null_keys, overrides,
    )  # fmt: skip
    found = expand(request, checksums(request, data_root))
    if len(found) != 1 or found[0].cell.identity != cell.identity:
        raise UnfitError("The matrix makes another cell of these parameters.")
    return found[0]


def _outcomes(asked: dict[str, Any], folder: Path) -> Iterator[tuple[str, str, str]]:
    """Name, state and reason of each cell, in the order of the task, until time is up."""
    from bench.records.record import Cell
    from bench.registry import attacks, schemes
    from bench.runner.rundir import RunDir

    home = attacks() if asked["kind"] == "attack" else schemes()
    if asked["name"] not in home:
        yield "", UNKNOWN, f"Expected the source to define {asked['name']}, but it does not."
        return
    until, run_dir = time.monotonic() + asked["budget"], RunDir(folder / DONE)
    computed = 0
    for each in asked["cells"]:
        if computed == asked["most"]:
            return
        cell = Cell.model_validate(each["cell"], strict=True)
        state, why = _computed(cell, each, asked, run_dir, until - time.monotonic())
        computed += state == COMPUTED
        yield each["record"], state, why


def _computed(cell: Cell, each: dict[str, Any], asked: dict[str, Any], run_dir: RunDir, left: float) -> tuple[str, str]:
    from bench.data import DataError
    from bench.registry import RegistryError
    from bench.runner.coordinator import execute
    from bench.runner.estimate import Durations
    from bench.runner.executors import Settings
    from bench.steps.workspace import Place

    root = Path(asked["data_root"]) if asked["data_root"] else None
    try:
        planned = rebuilt(cell, each["null_keys"], root)
    except DataError as error:
        return UNAVAILABLE, str(error)[:500]
    except (RegistryError, UnfitError, ValueError) as error:
        return UNKNOWN, str(error)[:500]
    durations, plan = Durations(run_dir.durations), run_dir.plan([planned])
    if durations.total_s(plan.missing) > left:
        return BEYOND, f"about {durations.total_s(plan.missing):.0f} s"
    (record,) = execute(
        plan, run_dir, Settings(Place("cpu", root), threads=each["threads"]), _Silent(), durations
    ).records
    return COMPUTED, (record.traceback or "")[-500:]


class _Silent:
    """Watches and says nothing."""

    def started(self, step: object) -> None: ...
    def finished(self, step: object, outcome: object) -> None: ...
    def settled(self, record: object) -> None: ...


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
