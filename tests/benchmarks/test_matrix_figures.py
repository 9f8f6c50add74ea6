"""What the matrix costs beyond its trainings, what a second worker gains, and what a run with nothing to do takes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from statistics import median

import pytest
import torch
from click.testing import CliRunner

from bench import archs, data
from bench.contract.networks import predict
from bench.identity import Rng
from bench.plan.profiles import PROFILES
from bench.plan.selection import cells_of
from bench.records.files import load_records, save_record
from bench.records.record import CellRecord
from bench.registry import schemes
from bench.steps import training
from tests.benchmarks.figures import Clock, Figures, alternating, ratio, seconds_of
from tests.fakes import of_scheme, rung, said

CELLS = ("--profile", "smoke", "--scheme", "all", "--attack", "pruning,pruning-global", "--seeds", "25")
UNUSUAL = ("OMP_NUM_THREADS", "PYTHONDONTWRITEBYTECODE")
NARROW = ("--profile", "smoke", "--scheme", "uchida-*", "--attack", "pruning", "--seeds", "4", "--null-keys", "0")


def bench(*words: str | Path) -> None:
    """The command line as a person gives it, in a process of its own, with all cores and compiled modules kept."""
    environment = {name: value for name, value in os.environ.items() if name not in UNUSUAL}
    command = [sys.executable, "-m", "bench.cli", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("name", "more"), [("matrix_ratio", ()), ("marks_ratio", ("--null-keys", "0"))])
def test_the_matrix_costs_little_more_than_its_trainings(
    name: str,
    more: tuple[str, ...],
    request: pytest.FixtureRequest,
    tmp_path: Path,
    figures: Figures,
    all_threads: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All schemes against pruning, over its trainings and one pass of the held-out images per judged rung.

    Trainings are those of the one loop and, where a scheme trains its keys itself, of its key generation. `marks_ratio`
    leaves out false claims, which train nothing and ask as much as true ones.
    """
    from bench.cli import main

    profile, chosen = (request.config.getoption(f"--matrix-{name}") for name in ("profile", "schemes"))
    clock = Clock()
    monkeypatch.setattr(training, "train_epochs", clock.epochs(training.train_epochs))
    for trains in ("deepstamp", "radioactive"):
        monkeypatch.setattr(schemes()[trains], "keygen", clock(schemes()[trains].keygen))
    words = ["run", "--profile", profile, "--scheme", chosen, "--attack", "pruning", "--run-dir", str(tmp_path), *more]
    before = torch.get_num_threads()
    done = None

    def whole() -> None:
        nonlocal done
        done = CliRunner().invoke(main, [*words, "--threads", str(all_threads)])

    wall_s = seconds_of(whole)
    torch.set_num_threads(before)
    assert done is not None
    assert done.exit_code == 0, done.output
    rungs = sum(len(record.points) for record in load_records(tmp_path / "records"))
    passes_s = rungs * pass_s(profile)
    details = {
        "profile": profile, "schemes": chosen, "wall_s": round(wall_s, 1), "trainings_s": round(clock.total_s, 1),
        "rungs": rungs, "passes_s": round(passes_s, 2),
    }  # fmt: skip
    assert figures.add(name, wall_s / (clock.total_s + passes_s), at_most=1.25, **details), details


def pass_s(profile: str) -> float:
    """Seconds of one pass of the held-out images through the host's network."""
    chosen = PROFILES[profile]
    images = data.load(chosen.dataset, heldout=chosen.heldout, owner=chosen.owner).heldout.images
    model = archs.build("wrn", 10, width=chosen.width("wrn"), rng=Rng("pass"))
    predict(model, images)
    return median(seconds_of(lambda: predict(model, images)) for _ in range(5))


@pytest.mark.timeout(1800)
def test_a_second_worker_is_worth_its_start(tmp_path: Path, figures: Figures) -> None:
    """Narrow networks: one worker with all cores against two that share them, in turns."""
    made = iter(range(1000))

    def run(jobs: int) -> None:
        bench("run", *NARROW, "--no-mlflow", "--jobs", str(jobs), "--run-dir", tmp_path / str(next(made)))

    one, two = alternating([lambda: run(1), lambda: run(2)], 3)
    seconds = {"one_s": round(median(one), 1), "two_s": round(median(two), 1)}
    assert figures.add("jobs2_speedup", ratio(one, two), at_least=1.1, **seconds), seconds


@pytest.mark.timeout(1800)
def test_a_thousand_settled_cells_are_found_in_five_seconds(tmp_path: Path, figures: Figures) -> None:
    """The records are made by hand for the plan's own cells: nothing was ever computed."""
    count = settled(tmp_path)
    assert count >= 1000
    bench("run", *CELLS, "--no-mlflow", "--run-dir", tmp_path)  # what is not applicable is written, once
    alone = [seconds_of(lambda: bench("run", *CELLS, "--no-mlflow", "--run-dir", tmp_path)) for _ in range(3)]
    figures.add("warm_rerun_no_mlflow_s", median(alone), cells=count)
    bench("run", *CELLS, "--run-dir", tmp_path)  # fills MLflow
    whole = [seconds_of(lambda: bench("run", *CELLS, "--run-dir", tmp_path)) for _ in range(3)]
    assert figures.add("warm_rerun_s", median(whole), at_most=5, cells=count), whole


def settled(run_dir: Path) -> int:
    """A record for every cell that has a meaning; their number."""
    options = {"profile": "smoke", "scheme": "all", "attack": "pruning,pruning-global", "seeds": 25}
    cells = [planned for planned in cells_of(options) if planned.reason is None]
    for planned in cells:
        made = of_scheme(curve=[rung(50, 0.8, said(1e-6))]).model_dump()
        kept = {**made, "cell": planned.cell.model_dump(), "cell_key": planned.key, "access": planned.scheme.access}
        kept |= {"carrier": planned.scheme.carrier}
        save_record(CellRecord.model_validate(kept), run_dir / "records")
    return len(cells)


def test_help_answers_at_once(figures: Figures) -> None:
    bench("--help")
    taken = [seconds_of(lambda: bench("--help")) for _ in range(7)]
    assert figures.add("help_s", median(taken), at_most=0.3), taken
