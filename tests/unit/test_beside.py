"""What was measured beside the records: which rows are about a cell, the worst of them, Holm's adjustment."""

from pathlib import Path

import pytest

from bench.metrics.beside import Beside, most_visible, verdict, worst
from bench.records.calibration import CALIBRATION
from bench.records.detectability import DETECTABILITY
from bench.records.files import load_records, save_record
from tests.fakes import measured_rate, measured_test, of_scheme

CELL = of_scheme().cell


def test_of_each_kind_of_null_the_row_at_the_nearest_rate_counts():
    made = [measured_rate(null=kind, nominal=at) for kind in ("b", "a") for at in (0.1, 0.01, 0.05)]
    after = measured_rate(attack="pruning", null="a", nominal=0.05)
    others = [
        measured_rate(scheme="zhang-content"), measured_rate(arch="vgg"), measured_rate(profile="small"),
        measured_rate(scheme_params={"bits": 9}), measured_rate(datasets=["cifar10"]),
    ]  # fmt: skip
    found = Beside([*others, after, *made]).rates(CELL)
    assert [(row.attack, row.null, row.nominal) for row in found] == [
        ("none", "a", 0.01), ("none", "b", 0.01), ("pruning", "a", 0.05)
    ]  # fmt: skip
    assert {row.nominal for row in Beside(made, fpr=0.06).rates(CELL)} == {0.05}
    both = measured_rate(datasets=["cifar10", CELL.dataset], null="c")
    assert Beside([both]).rates(CELL) == [both]
    assert Beside().rates(CELL) == []


def test_the_worst_is_beyond_chance_first_and_then_the_highest_rate():
    high = measured_rate(accepted=5, n=100)
    beyond = measured_rate(accepted=4, n=100, beyond=True)
    low = measured_rate(accepted=1, n=100)
    assert worst([low, high]) == high
    assert worst([high, beyond, low]) == beyond
    assert worst([]) is None


def test_visibility_is_adjusted_over_the_tests_of_the_same_marks():
    tests = [
        measured_test("ks", 0.02), measured_test("variance", 0.003), measured_test("classifier", None, reason="why"),
        measured_test("ks", 1e-9, owners=2), measured_test("ks", 1e-9, situation="distill"),
    ]  # fmt: skip
    found = Beside([], tests).visibility(CELL)
    assert [each.adjusted for each in found] == [0.02, 0.006, None]
    assert [verdict(each, 0.01) for each in found] == ["not seen", "visible", "cannot tell: why"]
    assert most_visible(found).row.test == "variance"
    assert most_visible(found[2:]) is None
    assert verdict(Beside([], [measured_test("ks", 0.04, least_p_value=0.04)]).visibility(CELL)[0]) == (
        "cannot tell: too few networks"
    )


def test_both_files_may_lie_among_records(tmp_path: Path):
    save_record(of_scheme(), tmp_path)
    CALIBRATION.merge([measured_rate()], tmp_path)
    DETECTABILITY.merge([measured_test("ks", 0.5)], tmp_path)
    complaints = []
    assert len(list(load_records(tmp_path, complaints.append))) == 1
    assert complaints == []


@pytest.mark.parametrize("twice", [2, 3])
def test_a_file_that_says_a_test_twice_breaks_nothing(twice):
    found = Beside([], [measured_test("ks", 0.001)] * twice).visibility(CELL)
    assert [each.adjusted for each in found] == [0.001 * twice] * twice
