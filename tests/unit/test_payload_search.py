"""The search for the largest payload: sizes that are tried, what trials say, and rounds over several searches."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.metrics.capacity import Trial, contradicted, trial
from bench.plan.matrix import Planned
from bench.plan.payload import bracket, next_size
from bench.records.files import save_record
from bench.records.record import CellRecord
from bench.registry import RegistryError
from bench.runner.coordinator import Summary
from bench.runner.payloads import Search, pursue, searches
from tests.fakes import cell, point, record, request, verdict
from tests.fakes.records import CHECKSUMS, provenance

always_the_same = settings(deadline=None, derandomize=True, max_examples=300)
SIZES = st.integers(1, 5000)


# ---- sizes -----------------------------------------------------------------------------------------------------------
def walked(
    works: Callable[[int], bool], start: int, most: int, known: dict[int, bool] | None = None
) -> dict[int, bool]:
    """All trials of a search, in order, by an oracle; no size is tried twice or lies out of bounds."""
    tried = dict(known or {})
    for _ in range(40):
        size = next_size(tried, start, most)
        if size is None:
            return tried
        assert 1 <= size <= most
        assert size not in tried
        tried[size] = works(size)
    raise AssertionError(f"no end: {tried}")


@pytest.mark.parametrize(
    ("threshold", "start", "most", "sizes"),
    [
        (100, 16, 4096, [16, 32, 64, 128, 96, 112, 104]),
        (127, 16, 4096, [16, 32, 64, 128, 96, 112, 120]),
        (9999, 16, 100, [16, 32, 64, 100]),
        (5, 16, 4096, [16, 8, 4, 6, 5]),
        (0, 16, 4096, [16, 8, 4, 2, 1]),
        (1300, 1024, 1500, [1024, 1500, 1152, 1280, 1408]),
        (9999, 64, 20, [20]),
    ],
)
def test_sizes_double_and_are_then_bisected_on_a_grid_of_eighths(
    threshold: int, start: int, most: int, sizes: list[int]
) -> None:
    assert list(walked(lambda size: size <= threshold, start, most)) == sizes


@always_the_same
@given(SIZES, SIZES, st.integers(0, 6000), st.dictionaries(SIZES, st.none(), max_size=4))
def test_the_bracket_holds_the_threshold_and_is_an_eighth_of_an_octave(
    start: int, most: int, threshold: int, before: dict[int, None]
) -> None:
    known = {size: size <= threshold for size in before if size <= most}
    tried = walked(lambda size: size <= threshold, start, most, known)
    low, high = bracket(tried)
    assert low <= threshold
    assert low == 0 or tried[low]
    if high is None:
        assert low == most
    else:
        assert tried[high] is False
        assert threshold < high
        assert high - low <= max(1, 2 ** max(0, low.bit_length() - 1) / 8)


@always_the_same
@given(SIZES, SIZES, st.integers(0, 2**32))
def test_whatever_trials_say_no_more_is_claimed_than_worked_and_nothing_below_it_failed(
    start: int, most: int, seed: int
) -> None:
    chance = Random(seed)
    tried = walked(lambda size: chance.random() < 0.6, start, most)
    low, high = bracket(tried)
    assert low == 0 or tried[low]
    assert all(works for size, works in tried.items() if size <= low)
    assert high is None or not tried[high]
    assert len(tried) <= 2 * most.bit_length() + 4


def test_where_trials_contradict_each_other_the_lower_bracket_counts() -> None:
    outcomes = {16: True, 32: False, 48: True, 64: False, 128: True}
    assert bracket(outcomes) == (16, 32)
    assert next_size(outcomes, 16, 128) == 24
    assert bracket({}) == (0, None)


def test_trials_above_the_largest_size_do_not_count() -> None:
    assert next_size({512: False, 64: True}, 16, 64) is None
    assert next_size({512: True}, 16, 64) == 16


# ---- trials ----------------------------------------------------------------------------------------------------------
def of(size: int, *seeds: tuple[float | None, float | None]) -> Trial:
    """A trial by each seed's bit error rate and fidelity."""
    return Trial(size, size, tuple(ber for ber, _ in seeds), tuple(gain for _, gain in seeds))


@pytest.mark.parametrize(
    ("seeds", "costs"),
    [
        ([(0.0, -1.0)], ""),
        ([(0.0, -1.01)], "fidelity"),
        ([(0.01, 0.0)], "errors"),
        ([(0.01, -3.0)], "errors and fidelity"),
        ([(0.0, -1.8), (0.0, 0.0)], ""),
        ([(0.0, 0.0), (0.01, 0.0)], "errors"),
        ([(0.0, None), (0.0, 5.0)], "fidelity"),
        ([(None, 0.0), (0.0, 0.0)], "errors"),
    ],
)
def test_a_payload_is_too_large_for_an_error_in_any_seed_or_a_point_on_average(
    seeds: list[tuple[float | None, float | None]], costs: str
) -> None:
    assert of(8, *seeds).costs() == costs


def test_the_tolerance_is_in_points_and_belongs_to_what_is_allowed() -> None:
    assert of(8, (0.0, -2.5)).costs(2.5) == ""
    assert of(8, (0.0, -0.1)).costs(0.0) == "fidelity"
    assert of(8, (0.0, 0.0)).costs(0.0) == ""


def test_a_trial_is_read_off_records_seed_by_seed() -> None:
    made = [
        record(
            cell=cell(attack="none", seed=seed), curve=[], measures={"capacity_bits": 30.0},
            marked=point(0.0, 0.9, verdicts=[verdict(ber=ber), verdict()]), control_accuracy=0.91 + seed / 100,
        )
        for seed, ber in ((1, 0.25), (0, 0.0))
    ]  # fmt: skip
    found = trial(64, made)
    assert (found.size, found.bits, found.bers) == (64, 30, (0.0, 0.25))
    assert found.fidelities_pp == pytest.approx((-1.0, -2.0))
    assert found.ber == 0.25
    assert found.fidelity_pp == pytest.approx(-1.5)


def test_contradictions_are_those_of_the_whole_and_of_single_seeds() -> None:
    fine, wrong = (0.0, 0.0), (0.1, 0.0)
    assert not contradicted([of(8, fine), of(16, fine), of(32, wrong), of(64, wrong)])
    assert contradicted([of(32, fine), of(16, wrong)])
    assert contradicted([of(16, (0.0, -3.0)), of(32, fine)])
    assert not contradicted([of(16, (0.0, -3.0)), of(32, (0.0, -2.0))])
    assert contradicted([of(16, wrong, fine), of(32, fine, wrong)]), "seed 0 had errors at 16 bits and none at 32"
    assert not contradicted([])


# ---- searches --------------------------------------------------------------------------------------------------------
def found_by(**fields: Any) -> list[Search]:
    options = {"layers": (), "start": 16, "most": 4096, "tolerance_pp": 1.0, **fields.pop("options", {})}
    return searches(request(**{"attacks": ("none",), **fields}), CHECKSUMS, *options.values())


def settled(planned: Planned, works: bool, **fields: Any) -> CellRecord:
    """The record of a trial, without errors or with one."""
    base = {
        "cell": planned.cell, "cell_key": planned.key, "stage": "none", "curve": [], "clean_accuracy": 0.9,
        "marked": point(0.0, 0.9, verdicts=[verdict(ber=0.0 if works else 0.5)]),
        "measures": {"capacity_bits": float(planned.cell.scheme_params["bits"])},
        "provenance": provenance(steps={name: step.key for name, step in planned.steps.items()}),
    }  # fmt: skip
    return record(**{**base, **fields})


class Computes:
    """Settles cells by an oracle of scheme and size, and remembers what was asked of it."""

    def __init__(self, works: Callable[[str, int], bool], **fields: Any) -> None:
        self.works, self.fields, self.rounds = works, fields, list[list[tuple[str, int]]]()

    def __call__(self, cells: list[Planned]) -> Summary:
        asked = [(each.cell.scheme, int(each.cell.scheme_params["bits"])) for each in cells]
        self.rounds.append(asked)
        made = [settled(c, self.works(*one), **self.fields) for c, one in zip(cells, asked, strict=True)]
        return Summary(records=made, computed=len(made))


def test_all_searches_go_on_together_and_end_each_by_itself(tmp_path: Path) -> None:
    both = found_by(schemes=("uchida-diff", "uchida-random"), options={"most": 64})
    computes = Computes(lambda scheme, bits: bits <= {"uchida-diff": 16, "uchida-random": 99}[scheme])
    total = pursue(both, CHECKSUMS, tmp_path, computes)
    assert computes.rounds == [
        [("uchida-diff", 16), ("uchida-random", 16)],
        [("uchida-diff", 32), ("uchida-random", 32)],
        [("uchida-diff", 24), ("uchida-random", 64)],
        [("uchida-diff", 20)],
        [("uchida-diff", 18)],
    ]
    diff, random = both
    assert (diff.capacity, diff.bracket, diff.reached_most) == (16, (16, 18), False)
    assert (random.capacity, random.bracket, random.reached_most) == (64, (64, None), True)
    assert total.computed == 8
    assert not diff.contradicted


def test_trials_are_cells_without_attack_and_false_claims_in_every_seed() -> None:
    (one,) = found_by(seeds=(0, 1), null_keys=0, overrides={"uchida-random": {"strength": "0.5"}})
    cells = one.cells(24, CHECKSUMS)
    assert [(each.cell.seed, each.cell.attack) for each in cells] == [(0, "none"), (1, "none")]
    assert {each.cell.scheme_params["bits"] for each in cells} == {24}
    assert {each.cell.scheme_params["strength"] for each in cells} == {0.5}
    assert not {name for each in cells for name in each.steps if "null" in name}


def test_records_of_earlier_runs_count_where_they_hold_enough(tmp_path: Path) -> None:
    """One with false claims holds more than a trial needs; one of other steps is of another time."""
    (one,) = found_by(null_keys=0, options={"most": 32})
    (with_nulls,) = found_by(null_keys=3)
    (more,) = with_nulls.cells(16, CHECKSUMS)
    assert "nulls" in more.steps
    save_record(settled(more, True), tmp_path)
    (stale,) = one.cells(32, CHECKSUMS)
    save_record(settled(stale, False, provenance=provenance(steps={"host": "1" * 64})), tmp_path)
    computes = Computes(lambda scheme, bits: True)
    pursue([one], CHECKSUMS, tmp_path, computes)
    assert computes.rounds == [[("uchida-random", 32)]]
    assert one.capacity == 32


def test_trials_of_other_sizes_count_if_all_seeds_and_parameters_are_theirs(tmp_path: Path) -> None:
    (one,) = found_by(seeds=(0, 1), options={"most": 64})
    (other,) = found_by(seeds=(0, 1), overrides={"uchida-random": {"strength": "0.5"}})
    first, second = one.cells(24, CHECKSUMS)
    kept = [*one.cells(40, CHECKSUMS), first, *other.cells(20, CHECKSUMS), *one.cells(99, CHECKSUMS)]
    for made in kept:
        save_record(settled(made, made.cell.scheme_params["bits"] == 40), tmp_path)
    computes = Computes(lambda scheme, bits: bits != 48)
    pursue([one], CHECKSUMS, tmp_path, computes)
    assert [{bits for _, bits in asked} for asked in computes.rounds] == [{64}]
    assert one.bracket == (64, None)
    save_record(settled(second, False), tmp_path)
    (again,) = found_by(seeds=(0, 1), options={"most": 64})
    pursue([again], CHECKSUMS, tmp_path, computes)
    assert again.contradicted, "40 bits worked, 24 did not"
    assert again.bracket.fails == 24


def test_a_trial_that_failed_ends_its_search_and_no_other(tmp_path: Path) -> None:
    both = found_by(schemes=("uchida-diff", "uchida-random"), options={"most": 64})

    def compute(cells: list[Planned]) -> Summary:
        broken = [each.cell.scheme == "uchida-diff" and each.cell.scheme_params["bits"] == 32 for each in cells]
        failed = {"status": "failed", "traceback": "Traceback\nValueError: no room", "stage": "none"}
        return Summary(records=[
            record(cell=each.cell, cell_key=each.key, **failed) if bad else settled(each, True)
            for each, bad in zip(cells, broken, strict=True)
        ])  # fmt: skip

    pursue(both, CHECKSUMS, tmp_path, compute)
    diff, random = both
    assert (diff.status, diff.reason, diff.capacity) == ("failed", "32 bits: ValueError: no room", 16)
    assert (random.status, random.reason, random.capacity) == ("ok", None, 64)


@pytest.mark.parametrize("works", [True, False])
def test_what_a_stop_left_out_is_no_result(works: bool, tmp_path: Path) -> None:
    both = found_by(schemes=("uchida-diff", "uchida-random"))

    def compute(cells: list[Planned]) -> Summary:
        return Summary(records=[settled(cells[0], works)], stopped=True, signal=15)

    total = pursue(both, CHECKSUMS, tmp_path, compute)
    one, other = both
    following = 32 if works else 8
    assert (one.status, one.reason) == ("incomplete", f"stopped before {following} bits")
    assert one.capacity == (16 if works else None)
    assert (other.status, other.reason, other.capacity) == ("incomplete", "16 bits: not computed", None)
    assert total.signal == 15


def test_what_no_key_can_exceed_is_the_most_and_is_worth_a_trial(tmp_path: Path) -> None:
    (one,) = found_by()
    computes = Computes(lambda scheme, bits: True, measures={"capacity_bits": 1.0, "capacity_most": 40.0})
    pursue([one], CHECKSUMS, tmp_path, computes)
    assert computes.rounds == [[("uchida-random", 16)], [("uchida-random", 32)], [("uchida-random", 40)]]
    assert one.reached_most
    assert one.capacity == 1, "the message's bits, not the payload's"


def test_there_is_a_search_for_each_layer_and_none_where_the_architecture_has_none() -> None:
    options = {"layers": ("conv2", "conv3")}
    found = found_by(archs=("wrn", "alexnet"), schemes=("uchida-posthoc", "uchida-random"), options=options)
    axes = [(s.scheme, s.layer, s.request.archs[0], s.request.situations[0]) for s in found]
    assert sorted(axes) == sorted(
        (scheme, layer, arch, situation)
        for scheme, situation in (("uchida-posthoc", "post-hoc"), ("uchida-random", "fine-tune"))
        for layer in ("conv2", "conv3")
        for arch in ("wrn", "alexnet")
    )
    assert {s.cells(16, CHECKSUMS)[0].cell.scheme_params["layer"] for s in found} == {"conv2", "conv3"}
    (none, some) = found_by(options={"layers": ("conv9", "conv2")})
    assert (none.status, none.next, some.next) == ("not applicable", None, 16)
    assert 'got "conv9"' in (none.reason or "")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"options": {"layers": ("conv9",)}}, 'got "conv9"'),
        ({"options": {"most": 100_001}}, r"uchida-random\.bits: .* got 100001"),
        ({"overrides": {"uchida-random": {"bits": "64"}}}, r"uchida-random\.bits is what is searched"),
        ({"schemes": ("zhang-content",)}, "zhang-content names none"),
    ],
)
def test_what_cannot_be_searched_is_refused_in_a_sentence(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(RegistryError, match=said):
        found_by(**fields)
