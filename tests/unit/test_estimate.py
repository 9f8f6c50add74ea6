"""Estimates learned from the past."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.plan.matrix import Planned, expand
from bench.runner.estimate import GUESS_S, Durations
from tests.unit.test_matrix import DATA, request


def planned(**fields: object) -> Planned:
    (one,) = expand(request(**fields), DATA)
    return one


def test_without_a_past_it_guesses(tmp_path: Path) -> None:
    steps = planned().steps
    assert Durations(tmp_path / "d").total_s([steps["host"], steps["keys"]]) == GUESS_S["host"] + GUESS_S["keys"]


def test_the_median_of_the_same_step_counts_and_survives_the_process(tmp_path: Path) -> None:
    step = planned().steps["attack"]
    for seconds in (1.0, 2.0, 30.0):
        Durations(tmp_path / "d").add(step, seconds)
    assert Durations(tmp_path / "d").seconds(step) == 2.0


def test_another_scheme_learns_from_its_neighbour(tmp_path: Path) -> None:
    durations = Durations(tmp_path / "d")
    durations.add(planned().steps["attack"], 7.0)
    assert durations.seconds(planned(schemes=("zhang-noise",)).steps["attack"]) == 7.0
    assert durations.seconds(planned(archs=("vgg16",)).steps["attack"]) == GUESS_S["attack"]


def test_a_hosts_pace_tells_an_embeddings(tmp_path: Path) -> None:
    durations = Durations(tmp_path / "d")
    steps = planned().steps
    durations.add(steps["host"], 20.0)
    epochs = {kind: steps[kind].spec["recipe"]["epochs"] for kind in ("host", "mark")}
    assert durations.seconds(steps["mark"]) == pytest.approx(20.0 / epochs["host"] * epochs["mark"])


def test_workers_share_and_a_cut_line_is_passed_over(tmp_path: Path) -> None:
    durations = Durations(tmp_path / "d")
    step = planned().steps["attack"]
    durations.add(step, 8.0)
    (tmp_path / "d").write_text((tmp_path / "d").read_text() + '{"names": ["att')
    assert Durations(tmp_path / "d").total_s([step, step], jobs=2) == 8.0
