"""What the demonstration costs beyond its trainings. Run by `make bench` only: it takes as long as `make demo`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from bench import data
from bench.contract.networks import predict
from bench.records.files import load_records
from bench.runner import estimate
from bench.steps import training
from tests.benchmarks.figures import Clock

LIMIT = 1.5


@pytest.mark.timeout(1800)
def test_the_demonstration_costs_little_more_than_its_trainings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of `make demo` after installation, over its trainings and one pass of the held-out images per rung.

    Trainings are those of the one loop and, where a scheme trains its keys itself, of its key generation.
    """
    from bench.cli import main
    from bench.registry import schemes

    clock, first = Clock(), list[float]()
    monkeypatch.setattr(training, "train_epochs", clock.epochs(training.train_epochs))
    for name in ("deepstamp", "radioactive"):
        scheme = schemes()[name]
        monkeypatch.setattr(scheme, "keygen", clock(scheme.keygen))
    total_s = estimate.Durations.total_s

    def remembered(self: Any, *args: Any, **kwargs: Any) -> float:
        first.append(total_s(self, *args, **kwargs))
        return first[-1]

    monkeypatch.setattr(estimate.Durations, "total_s", remembered)
    start = time.perf_counter()
    words = ["run", "--scheme", "all", "--attack", "pruning,removal-matting", "--run-dir", str(tmp_path)]
    done = CliRunner().invoke(main, words)
    wall_s = time.perf_counter() - start
    assert done.exit_code == 0, done.output
    records = list(load_records(tmp_path / "records"))
    rungs = sum(len(record.points) for record in records)
    passes_s = rungs * _pass_s()
    found = wall_s / (clock.total_s + passes_s)
    detected = sum(
        record.marked is not None and record.marked.verdicts[0].p_value <= 0.01
        for record in {r.cell.scheme: r for r in records if r.status == "ok"}.values()
    )
    print(
        f"demo {wall_s:.0f} s, first estimate {first[0]:.0f} s, trainings {clock.total_s:.0f} s "
        f"({100 * clock.total_s / wall_s:.0f} %), {rungs} rungs {passes_s:.1f} s, ratio {found:.2f}, "
        f"{detected} schemes detected"
    )
    assert found <= LIMIT
    assert 1 / 1.5 <= first[0] / wall_s <= 1.5


def _pass_s() -> float:
    """Seconds of one pass of the held-out images through the host's network."""
    from bench import archs
    from bench.identity import Rng
    from bench.plan.profiles import PROFILES

    images = data.load("digits-m").heldout.images
    model = archs.build("wrn", 10, width=PROFILES["quick"].width("wrn"), rng=Rng("pass"))
    predict(model, images)
    start = time.perf_counter()
    predict(model, images)
    return time.perf_counter() - start
