"""Estimates: from the past, else from typical durations scaled to this machine."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from bench.runner.estimate import Durations, Names, Typical, names_of, probe_s
from tests.fakes import planned

STEPS = planned().steps
HOST, MARK, ATTACK = (names_of(STEPS[kind]) for kind in ("host", "mark", "attack"))
# One pace everywhere: training on 600 images takes 6 s an epoch.
TYPICAL = Typical(0.02, {"wrn": {HOST.width: 10.0}}, {HOST: 12.0, MARK: 9.0, ATTACK: 4.0})


def durations(tmp_path: Path, probed_s: float = 0.02) -> Durations:
    return Durations(tmp_path / "d", TYPICAL, lambda: probed_s)


def unasked() -> float:
    raise AssertionError("Expected no measurement of the machine, but there was one.")


def test_typical_durations_are_scaled_to_the_machine(tmp_path: Path) -> None:
    same, slow = durations(tmp_path), durations(tmp_path, 0.06)
    assert same.total_s([STEPS["host"], STEPS["attack"]]) == 16.0
    assert slow.total_s([STEPS["host"], STEPS["attack"]]) == pytest.approx(48.0)


def test_the_machine_is_measured_once_and_only_if_need_be(tmp_path: Path) -> None:
    asked: list[float] = []
    made = Durations(tmp_path / "d", TYPICAL, lambda: asked.append(0.02) or 0.02)
    assert not asked
    made.total_s(STEPS.values())
    assert len(asked) == 1
    for name, step in STEPS.items():
        made.add(step, 10.0 + len(name))
    known = Durations(tmp_path / "d", TYPICAL, unasked)
    assert known.total_s(STEPS.values()) == sum(10.0 + len(name) for name in STEPS)


def test_the_median_of_the_same_step_counts_and_survives_the_process(tmp_path: Path) -> None:
    for seconds in (1.0, 2.0, 30.0):
        durations(tmp_path).add(STEPS["attack"], seconds)
    assert durations(tmp_path).seconds(STEPS["attack"]) == 2.0


def test_what_a_run_has_taught_corrects_the_rest_of_it(tmp_path: Path) -> None:
    """A machine measured as fast as the typical one on which the host took ten times as long."""
    made = durations(tmp_path)
    made.add(STEPS["host"], 120.0)
    assert made.factor == pytest.approx((10 * 10 + 120) / (10 + 12))
    assert made.seconds(STEPS["mark"]) == pytest.approx(9.0 * made.factor)


def test_another_scheme_learns_from_its_neighbour(tmp_path: Path) -> None:
    made = durations(tmp_path)
    made.add(STEPS["attack"], 7.0)
    assert made.seconds(planned(schemes=("zhang-noise",)).steps["attack"]) == 7.0


def test_more_images_and_epochs_take_longer() -> None:
    typical = Typical(0.02, {"wrn": {0.125: 10.0, 1.0: 80.0}})
    host = Names("host", "wrn", 0.125, "digits-m", 600, 2)
    assert typical.work(host) == 12.0
    assert typical.work(host._replace(owner=1200, epochs=4)) == 48.0
    assert typical.work(host._replace(width=0.25)) == pytest.approx(12.0 * 2**1.5)
    assert typical.work(host._replace(arch="wrn-16-2", width=1.0)) == 96.0
    assert typical.work(host._replace(kind="attack")) == 6.0
    for kind in ("control", "mark", "without", "null_host", "null_control"):
        assert typical.work(host._replace(kind=kind)) == 12.0
    assert typical.work(host._replace(owner=0)) == pytest.approx(2 * 0.898 * 10)


def test_the_shipped_ones_cover_every_architecture(tmp_path: Path) -> None:
    made = Durations(tmp_path / "d", probe=lambda: Typical.load().probe_s)
    for arch in ("alexnet", "densenet", "resnet18", "resnet50", "vgg16", "wrn", "wrn-16-2"):
        for step in planned(archs=(arch,)).steps.values():
            assert 0 < made.seconds(step) < math.inf


@pytest.mark.parametrize("junk", ['{"names": ["att', "[]", "7", '{"names": [], "seconds": 1}', '{"names": 1}', "\x00ÿ"])
def test_workers_share_and_a_foreign_line_is_passed_over(tmp_path: Path, junk: str) -> None:
    durations(tmp_path).add(STEPS["attack"], 8.0)
    with (tmp_path / "d").open("a", encoding="latin-1") as file:
        file.write(junk)
    assert durations(tmp_path).total_s([STEPS["attack"], STEPS["attack"]], jobs=2) == 8.0


def test_the_probe_measures_a_few_milliseconds() -> None:
    assert 1e-4 < probe_s(budget_s=0.05) < 1.0
