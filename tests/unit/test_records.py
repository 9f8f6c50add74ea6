"""The schema of records, and how they are kept."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pydantic import ValidationError
from rich.console import Console

from bench.cli.tables import results_table
from bench.contract.verdict import Search
from bench.metrics.flat import COLUMNS, as_csv, as_json, as_parquet, rows
from bench.records.files import load_record, load_records, save_record
from bench.records.record import Protection, Record, RecordError
from tests.fakes import cell, identified, member, point, record, search, verdict


def test_round_trip(tmp_path: Path) -> None:
    made = record()
    assert load_record(save_record(made, tmp_path)) == made
    assert not list(tmp_path.glob("*.tmp"))


@pytest.mark.parametrize(
    "change",
    [
        {"surprise": 1},
        {"schema_version": 2},
        {"fpr": 1.5},
        {"clean_accuracy": 91.0},
        {"cell_key": "abc"},
        {"status": "great"},
        {"timings_s": {"host": -1}},
    ],
)
def test_what_does_not_follow_the_schema_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    data = json.loads(record().model_dump_json()) | change
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(data))
    with pytest.raises(RecordError, match=r"bad\.json"):
        load_record(path)


def test_nan_and_names_that_are_paths_are_refused() -> None:
    with pytest.raises(ValidationError):
        verdict(statistic=float("nan"))
    with pytest.raises(ValidationError):
        cell(scheme="../../etc/passwd")


def test_a_file_that_is_no_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "cut.json").write_text('{"cell')
    with pytest.raises(RecordError, match=r"cut\.json"):
        list(load_records(tmp_path))


def test_failed_records_are_kept_apart_and_replaced_by_success(tmp_path: Path) -> None:
    save_record(record("failed"), tmp_path)
    assert not list(tmp_path.glob("*.json"))
    assert [r.status for r in load_records(tmp_path)] == ["failed"]
    save_record(record(), tmp_path)
    assert [r.status for r in load_records(tmp_path)] == ["ok"]
    save_record(record("failed"), tmp_path)
    assert [r.status for r in load_records(tmp_path)] == ["failed"]


@pytest.mark.parametrize("status", ["failed", "not applicable"])
def test_status_needs_its_evidence(status: str) -> None:
    with pytest.raises(ValidationError, match="Expected a record with status"):
        record(status, traceback=None, reason=None)


def test_different_parameters_are_different_cells() -> None:
    assert cell().identity != cell(scheme_params={"bits": 128}).identity
    assert record().filename != record(cell=cell(attack_params={"order": "random"})).filename


def test_removal_cost_is_the_least_accuracy_given_up_where_the_claim_breaks() -> None:
    curve = [point(10.0, 0.89), point(20.0, 0.80, 0.5), point(30.0, 0.85, 0.5), point(40.0, 0.2, 0.5)]
    made = record(marked=point(0.0, 0.9), curve=curve)
    assert made.removal_cost_pp == pytest.approx(5.0)
    assert record(marked=point(0.0, 0.9), curve=curve[:1]).removal_cost_pp is None
    assert record(marked=point(0.0, 0.9, 0.5), curve=[]).removal_cost_pp == 0.0


def test_worst_case_stays_within_the_budget() -> None:
    curve = [point(10.0, 0.88), point(20.0, 0.86, 0.5), point(90.0, 0.3, 0.9)]
    worst = record(marked=point(0.0, 0.9), curve=curve).worst_case(5.0)
    assert worst is not None
    assert worst.strength == 20.0
    harmless = record(marked=point(0.0, 0.9), curve=curve).worst_case(3.0)
    assert harmless is not None
    assert harmless.detected_share == 1


def test_a_refused_forgery_is_no_robustness_lost() -> None:
    forged = record(stage="evidence", curve=[point(1.0, 0.9, 0.8)])
    assert forged.worst_case() is None
    assert forged.removal_cost_pp is None


def test_what_was_not_measured_is_not_free() -> None:
    made = record(marked=point(0.0, 0.9), curve=[point(10.0, 0.9).model_copy(update={"test_accuracy": None})])
    assert made.loss_pp(made.curve[0]) is None
    assert made.worst_case() == made.marked


def test_one_unreadable_file_hides_no_others(tmp_path: Path) -> None:
    save_record(record(), tmp_path)
    (tmp_path / "broken.json").write_text("{")
    complaints: list[RecordError] = []
    assert len(list(load_records(tmp_path, complaints.append))) == 1
    assert "broken.json" in str(complaints[0])


def test_small_p_values_survive_every_format() -> None:
    table = rows([record(marked=point(0.0, 0.9, 3.3e-12), curve=[])])
    assert json.loads(as_json(table))[0]["p_value"] == 3.3e-12
    assert "3.3e-12" in as_csv(table)
    assert pd.read_parquet(io.BytesIO(as_parquet(table)))["p_value"][0] == 3.3e-12


def test_rows_have_the_contracts_columns() -> None:
    table = rows([record(), record("failed"), record("not applicable")])
    assert all(tuple(row) == COLUMNS for row in table)
    assert [row["strength"] for row in table] == [0.0, 50.0, 90.0, None, None]
    assert table[1]["fidelity_pp"] == pytest.approx(-3.0)
    assert table[3]["reason"] == "RuntimeError: boom"
    assert table[4]["test_accuracy"] is None


def test_findings_leave_out_times_and_environment() -> None:
    slow = record(marked=point(0.0, 0.9, attack_time_s=9.0, verify_time_s=9.0), timings_s={"host": 99.0})
    assert slow.findings() == record().findings()
    assert record(clean_accuracy=0.5).findings() != record().findings()


def test_twelve_slots_have_a_ceiling_of_eleven_twelfths() -> None:
    sure = record(marked=point(0.0, verdicts=[identified()] * 12)).protection()
    assert sure == (12, 12, 1 / 12)
    assert sure.advantage == pytest.approx(0.917, abs=5e-4)
    assert sure.normalised == pytest.approx(1.0)
    guessed = record(marked=point(0.0, verdicts=[identified()] + [identified(90.0)] * 11)).protection()
    assert guessed is not None
    assert guessed.advantage == pytest.approx(0.0)
    assert guessed.normalised == pytest.approx(0.0)


def test_the_interval_is_wilsons_less_the_chance() -> None:
    interval = Protection(12, 12, 1 / 12).interval  # of n successes in n trials: from n / (n + z^2) to 1
    assert interval == pytest.approx((12 / (12 + 1.959964**2) - 1 / 12, 11 / 12))
    assert Protection(0, 0, 0.5).interval is None


def test_certain_guesses_leave_nothing_to_normalise() -> None:
    assert Protection(3, 3, 1.0).advantage == 0
    assert Protection(3, 3, 1.0).normalised is None


def asked(owners: list[bool], heldout: list[bool]) -> Record:
    marked = point(0.0, verdicts=[member(answer) for answer in owners])
    return record(
        marked=marked,
        curve=[point(1.0, verdicts=marked.verdicts)],
        heldout_verdicts=[member(answer) for answer in heldout],
    )


def test_a_coins_question_has_a_ceiling_of_one_half_and_needs_users_who_are_no_members() -> None:
    right = asked([True] * 3, [False] * 5).protection()
    assert right == (8, 8, 0.5)
    assert (right.advantage, right.normalised) == (0.5, 1.0)
    always_yes = asked([True] * 4, [True] * 4).protection()
    assert always_yes is not None
    assert always_yes.advantage == 0.0
    assert asked([True] * 4, []).protection() is None
    made = asked([True] * 4, [False] * 4)
    assert made.protection(made.curve[0]) is None


def test_held_out_users_are_no_trials_where_signatures_are_inferred() -> None:
    made = record(marked=point(0.0, verdicts=[identified()]), heldout_verdicts=[identified(0.0)] * 5)
    assert made.protection() == (1, 1, 1 / 12)


@pytest.mark.parametrize("said", [{}, {"matched": True}, {"chance": 0.1}])
def test_what_identifies_nothing_is_right_where_it_detects_by_chance_at_the_fpr(said: dict[str, Any]) -> None:
    others = [verdict(p_value, matched=True, chance=0.1) for p_value in (0.05, 0.0501, 0.5)]
    verdicts = [verdict(1e-9, **said), *others]
    found = record(fpr=0.05, marked=point(0.0, verdicts=verdicts)).protection()
    assert found == (2, 4, 0.05)
    assert found.advantage == pytest.approx(0.45)


def test_a_rung_has_a_protection_of_its_own_and_a_forged_claim_has_none() -> None:
    curve = [point(1.0, verdicts=[identified(), identified(90.0)])]
    marked = point(0.0, verdicts=[identified(), identified()])
    made = record(marked=marked, curve=curve)
    assert made.protection() == (2, 2, 1 / 12)
    assert made.protection(made.curve[0]) == (1, 2, 1 / 12)
    forged = record(stage="evidence", marked=marked, curve=curve)
    assert forged.protection() == (2, 2, 1 / 12)
    assert forged.protection(forged.curve[0]) is None
    assert record("failed").protection() is None


def test_a_search_is_paired_and_in_order_and_knows_its_least_loss() -> None:
    assert search(90.0).candidates[search(90.0).best] == 90.0
    assert Search(candidates=[0, 1, 2], losses=[2, 1, 1]).best == 1
    with pytest.raises(ValidationError, match="Expected 2 losses, one a candidate, but got 1"):
        Search(candidates=[0, 30], losses=[1])
    with pytest.raises(ValidationError, match="Expected the candidates to increase"):
        Search(candidates=[0, 30, 30], losses=[1, 2, 3])


def test_searches_held_out_users_and_histories_survive_the_file(tmp_path: Path) -> None:
    made = record(
        marked=point(0.0, verdicts=[identified()]), heldout_verdicts=[identified(0.0, None)], histories={"a": [2, 1]}
    )
    assert load_record(save_record(made, tmp_path)) == made
    assert made.findings()["marked"]["verdicts"][0]["search"]["true"] == 60.0


def test_rows_end_with_the_signature_and_the_rungs_protection() -> None:
    curve = [point(5.0, verdicts=[identified(), identified(90.0)])]
    table = rows([record(marked=point(0.0, verdicts=[identified(), identified()]), curve=curve), record("failed")])
    assert COLUMNS[-3:] == ("owner", "inferred", "protection_advantage")
    assert [row["inferred"] for row in table] == [60.0, 60.0, 60.0, 90.0, None]
    values = [row["protection_advantage"] for row in table]
    assert values == [*[pytest.approx(11 / 12)] * 2, *[pytest.approx(5 / 12)] * 2, None]


def printed(*records: Record, width: int = 100) -> str:
    console = Console(width=width, file=io.StringIO(), no_color=True)
    console.print(results_table(records, console))
    return console.file.getvalue()  # type: ignore[attr-defined]  # it is the StringIO of above


def test_the_terminal_shows_the_advantage_of_what_identifies_within_100_columns() -> None:
    anti_neuron = cell(scheme="anti-neuron", attack="none", situation="train")
    text = printed(record(), record(cell=anti_neuron, marked=point(0.0, verdicts=[identified()] * 12)))
    assert max(map(len, text.splitlines())) <= 100
    words = text.split()
    assert {"accuracy", "fidelity", "adv.", "0.92", "1/100"} <= set(words)
    assert "protection advantage" in " ".join(words)
    assert "adv." not in printed(record())
    widest = printed(record(cell=cell(scheme="visible-displacement")), width=300)
    needed = max(len(line.rstrip()) for line in widest.splitlines() if "visible" in line)
    tight = printed(record(cell=cell(scheme="visible-displacement")), width=needed - 5)
    assert "visible-displacement" in tight, "headers of two words are folded before names"
    for width in (50, 70, 110):
        text = printed(record(cell=cell(scheme="visible-displacement")), width=width)
        assert max(map(len, text.splitlines())) <= width
        assert ("visible-displacement" in text) == (width > 70), "names are whole where there is room"
        assert "1/100" in text or width == 50, "numbers are folded last"
    assert "BER" not in printed(record(marked=point(0.0, verdicts=[identified()])))
