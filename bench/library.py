"""The functions that `import bench` gives: plan, run and results."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from bench.metrics import DEFAULT_FPR
from bench.metrics.flat import as_frame, rows
from bench.plan.plan import Plan
from bench.plan.selection import Selectors, cells_of
from bench.records.files import load_records
from bench.records.record import CellRecord
from bench.registry import RegistryError
from bench.runner.coordinator import Terminated, Watch, execute
from bench.runner.estimate import Durations
from bench.runner.executors import Settings, pick_device
from bench.runner.rundir import RunDir
from bench.runner.why import remember
from bench.steps.workspace import Place

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["plan", "results", "run"]

RUN_DIR = Path("runs")


class Silent:
    """Watches a run and says nothing."""

    def started(self, step: object) -> None:
        """A step was handed to a worker."""

    def finished(self, step: object, outcome: object) -> None:
        """A step was computed, or failed."""

    def settled(self, record: object) -> None:
        """A cell has its record."""


def plan(run_dir: Path | str = RUN_DIR, *, store: str | None = None, **selectors: Unpack[Selectors]) -> Plan:
    """What of the selected cells is settled in this run directory, and which steps are missing; computes nothing.

    Args:
        run_dir: where earlier runs left what they computed.
        store: URL of the place where other machines left what they computed; None for none.
        **selectors: which cells, as `bench run` takes them; see `bench.plan.selection.Selectors`.

    Raises:
        RegistryError: a selector, a name or a parameter does not exist, or a number is out of bounds.
        DataError: a data set does not exist, is broken or is too small.
        RemoteError: the store cannot be read.
    """
    place = RunDir(Path(run_dir), store)
    place.lend_home()
    made = place.plan(cells_of(selectors))
    remember(made.missing, place)
    return made


def run(
    run_dir: Path | str = RUN_DIR,
    *,
    device: str = "auto",
    jobs: int = 1,
    threads: int = 0,
    executor: str = "local",
    max_time_s: float | None = None,
    precision: str = "auto",
    store: str | None = None,
    watch: Watch | None = None,
    **selectors: Unpack[Selectors],
) -> list[CellRecord]:
    """Compute what is missing and return the record of every selected cell that is settled, failed ones too.

    With `jobs` above 1, worker processes import the calling script: keep the call below `if __name__ == "__main__":`.

    Args:
        run_dir: where records and results of steps are kept; the same call again resumes.
        device: `cpu`, `cuda`, `cuda:1` ...; `auto` takes a GPU where there is one.
        jobs: worker processes.
        threads: of one worker; 0 shares the cores.
        executor: `local` or `ray`.
        max_time_s: start no step after so many seconds.
        precision: of training: `float32`, `half`, or `auto`, which is half on a GPU.
        store: URL of the place that shares results of steps with other machines; None for none.
        watch: told of the progress.
        **selectors: which cells, as `bench run` takes them; see `bench.plan.selection.Selectors`.

    Raises:
        RegistryError: as `plan`.
        DataError: as `plan`.
        ValueError: the device does not exist here, or the precision nowhere.
        OSError: the run directory cannot be written.
        RemoteError: the store cannot be read or written.
        KeyboardInterrupt: the run was interrupted; what is settled is kept.
    """
    place = RunDir(Path(run_dir), store)
    where = selectors.get("data_root")
    root = None if where is None else Path(where)
    at = Place(pick_device(device), root, selectors.get("download", False), precision=precision)
    settings = Settings(at, jobs, executor, max_time_s, threads)
    made = plan(run_dir, store=store, **selectors)
    summary = execute(made, place, settings, watch or Silent(), Durations(place.durations))
    if summary.signal:
        raise Terminated
    return summary.records


def results(run_dir: Path | str = RUN_DIR, *, fpr: float = DEFAULT_FPR) -> pd.DataFrame:
    """One row per rung of an attack's ladder and owner, in the columns of `bench results`; strength 0 is no attack.

    Args:
        run_dir: of earlier runs.
        fpr: false positive rate that p-values are held to.

    Raises:
        RegistryError: there is no such folder, or `fpr` is no rate.
        RecordError: a file in it is no record.
    """
    if not Path(run_dir).is_dir():
        raise RegistryError(f"Expected a run directory, but there is no {run_dir}: run something into it first.")
    if not 0 < fpr < 1:
        raise RegistryError(f"Expected a false positive rate between 0 and 1, but got {fpr}.")
    return as_frame(rows(load_records(RunDir(Path(run_dir)).records), fpr))
