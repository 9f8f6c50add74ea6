"""The schema of records, and how they are kept."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pydantic import ValidationError

from bench.records import RecordError, load_record, load_records, save_record
from bench.results import COLUMNS, as_csv, as_json, as_parquet, rows
from tests.factories import cell, point, record, verdict


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
