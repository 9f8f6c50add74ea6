"""Other data sets that adversaries have: which are asked for, their checksums, and cells that cannot have them."""

import pytest

from bench import data
from bench.plan.matrix import auxiliaries, expand
from bench.plan.profiles import PROFILES
from bench.plan.selection import cells_of, checksums
from tests.fakes import CHECKSUMS, request

WITH = {**CHECKSUMS, "photographs": "f" * 64}


def asked(**fields):
    return request(**{"attacks": ("cross-domain",), "profile": PROFILES["smoke"], **fields})


def test_only_attacks_that_name_one_ask_for_another_data_set():
    assert auxiliaries(asked(attacks=("pruning", "ftal"))) == []
    assert auxiliaries(asked()) == ["photographs"]
    assert auxiliaries(asked(attacks=("pruning=50+cross-domain",))) == ["photographs"]
    assert auxiliaries(asked(overrides={"cross-domain": {"auxiliary": "mnist"}})) == ["mnist"]


def test_the_other_data_set_is_part_of_the_attacks_key():
    (one,), (other,) = (expand(asked(), {**WITH, "photographs": digit * 64}) for digit in "12")
    assert one.steps["attack"].spec["auxiliary"] == {"photographs": "1" * 64}
    for kind in ("attack", "attacked_nulls"):
        assert one.steps[kind].key != other.steps[kind].key
    assert one.steps["mark"].key == other.steps["mark"].key


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("digits-m", "cross-domain needs another data set than the host's digits-m: set cross-domain.auxiliary."),
        ("mnist", "cross-domain needs mnist, which cannot be loaded: see --data-root, or set cross-domain.auxiliary."),
    ],
)
def test_a_cell_without_its_other_data_set_is_not_applicable(name, reason):
    (planned,) = expand(asked(overrides={"cross-domain": {"auxiliary": name}}), WITH)
    assert (planned.reason, planned.steps) == (reason, {})


def test_checksums_are_of_all_that_can_be_loaded(tmp_path):
    found = checksums(asked(), tmp_path)
    assert found == {name: data.checksum(name) for name in ("digits-m", "photographs")}
    missing = asked(overrides={"cross-domain": {"auxiliary": "mnist"}})
    assert set(checksums(missing, tmp_path)) == {"digits-m"}


def test_a_missing_data_set_of_the_host_and_an_unknown_one_are_errors(tmp_path):
    with pytest.raises(data.DataError, match="Expected MNIST below"):
        checksums(asked(datasets=("mnist",)), tmp_path)
    with pytest.raises(data.DataError, match=r'got "mnits".*Did you mean "mnist"'):
        checksums(asked(overrides={"cross-domain": {"auxiliary": "mnits"}}), tmp_path)


def test_a_run_plans_the_cell_and_says_why_it_has_no_meaning(tmp_path):
    chosen = {"scheme": "uchida-random", "attack": "cross-domain", "profile": "smoke", "data_root": tmp_path}
    (planned,) = cells_of(chosen)
    assert planned.reason is None
    (without,) = cells_of({**chosen, "settings": {"cross-domain.auxiliary": "caltech101"}})
    assert without.reason is not None
    assert without.reason.startswith("cross-domain needs caltech101, which cannot be loaded")
