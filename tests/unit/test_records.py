"""The schema of records, and how they are kept."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pydantic import ValidationError
from rich.console import Console

from bench.cli.tables import results_table
from bench.contract.verdict import Search
from bench.metrics.flat import COLUMNS, as_csv, as_json, as_parquet, rows
from bench.records.files import load_any, load_record, load_records, save_record
from bench.records.record import CalibrationRecord, CellRecord, ClaimRecord, RecordError
from tests.fakes import HASH, cell, identified, nulls, point, provenance, record, search, verdict


def test_round_trip(tmp_path: Path) -> None:
    made = record()
    assert load_record(save_record(made, tmp_path)) == made
    assert not list(tmp_path.glob("*.tmp"))


def written(folder: Path, change: dict[str, Any] | None = None, name: str = "bad.json") -> Path:
    """A file with the record that everybody has, but for `change`."""
    path = folder / name
    path.write_text(json.dumps(json.loads(record().model_dump_json()) | (change or {})))
    return path


ODD_RUNG: dict[str, Any] = {"strength": 10.0, "verdicts": [{"statistic": 1.0, "p_value": 0.5}]}


def heldout(**fields: Any) -> dict[str, Any]:
    return {"heldout_verdicts": [{"statistic": 1.0, "p_value": 0.5, **fields}]}


@pytest.mark.parametrize(
    "change",
    [
        {"surprise": 1},
        {"type": "cel"},
        {"clean_accuracy": 91.0},
        {"cell_key": "abc"},
        {"status": "great"},
        {"timings_s": {"host": -1}},
        {"clean_accuracy": "0.9"},
        {"clean_accuracy": True},
        {"status": "not applicable", "reason": "why"},
        {"nulls": [{"kind": "fresh key", "p_values": ["0.001"]}]},
        {"nulls": [{"kind": "fresh key", "p_values": [1.5]}]},
        {"curve": [ODD_RUNG, ODD_RUNG]},
        {"curve": [{**ODD_RUNG, "strength": 0.0}]},
        {"curve": [{**ODD_RUNG, "verdicts": 2 * ODD_RUNG["verdicts"]}]},
        {"curve": [], "marked": {"strength": 0.0, "verdicts": 2 * ODD_RUNG["verdicts"]}},
        {"clean_verdicts": 10_001 * ODD_RUNG["verdicts"]},
        {"measures": {"x": 2e30}},
        {"measures": {str(i): 1.0 for i in range(1001)}},
        heldout(queries=2**63),
        heldout(queries=1.5),
        heldout(matched="yes"),
        heldout(details={"n": 10**300}),
        heldout(detected=True),
    ],
    ids=lambda change: str(change)[:60],
)
def test_what_does_not_follow_the_schema_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    assert load_record(written(tmp_path)) == record()
    with pytest.raises(RecordError, match=r"bad\.json"):
        load_record(written(tmp_path, change))


def test_whole_numbers_are_numbers(tmp_path: Path) -> None:
    assert load_record(written(tmp_path, {"clean_accuracy": 1, "measures": {"x": 2}})).clean_accuracy == 1.0


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"type": "cell", "type": "cell"}', "'type' twice"),
        ('{"type": NaN}', "NaN"),
        ('{"type": 1e999}', "too large"),
        ('{"type": 1' + 30 * "0" + "}", "64 bits"),
        ("[" * 100_000, "nested"),
        ("[" * 40 + "]" * 40, "nested"),
        ('"\ud800"', "UTF-8"),
        ("[]", "the record"),
    ],
    ids=range(8),
)
def test_json_that_only_some_readers_understand_is_refused(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "odd.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(RecordError, match=why):
        load_record(tmp_path / "odd.json")


def test_what_is_no_file_of_a_records_size_is_refused_without_being_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.json")
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "device.json").symlink_to("/dev/zero")
    with (tmp_path / "sparse.json").open("wb") as file:
        file.truncate(1 << 40)
    complaints: list[RecordError] = []
    assert list(load_records(tmp_path, complaints.append)) == []
    whys = [str(each) for each in complaints]
    assert [("regular" in why, "larger than" in why) for why in whys] == [(True, False)] * 3 + [(False, True)]


def test_records_of_the_first_schema_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"by an earlier version \(schema 1\): remove it, or run .* fresh --run-dir"):
        load_record(written(tmp_path, {"schema_version": 1, "fpr": 0.01}))
    with pytest.raises(RecordError, match="by a later version"):
        load_record(written(tmp_path, {"schema_version": 3}))


def test_a_record_under_another_name_is_refused_where_names_count(tmp_path: Path) -> None:
    written(tmp_path)
    with pytest.raises(RecordError, match=record().filename):
        list(load_records(tmp_path))
    assert list(load_records(tmp_path, named=False)) == [record()]


def test_a_combined_attack_has_a_name_and_a_file(tmp_path: Path) -> None:
    combined = record(
        cell=cell(
            attack="pruning=50+output-noise",
            attacks=[{"name": "pruning", "params": {"order": "random"}}, {"name": "output-noise"}],
        )
    )
    path = save_record(combined, tmp_path)
    assert "pruning=50+output-noise" in path.name
    assert list(load_records(tmp_path)) == [combined]
    longest = cell(**dict.fromkeys(("scheme", "arch", "dataset", "situation", "profile"), "x" * 80), attack="y" * 200)
    assert len(save_record(record(cell=longest), tmp_path).name) < 240, "255 bytes, less the suffix while writing"
    with pytest.raises(ValidationError):
        cell(attack="../x")


def test_other_types_of_records_share_the_folder(tmp_path: Path) -> None:
    place = {"arch": "wrn", "dataset": "digits-m", "profile": "small", "provenance": provenance()}
    calibration = CalibrationRecord(scheme="s", attack="none", nulls=[nulls(1, 20)], **place)
    claim = ClaimRecord(
        paper="p", claim="c", statement="s", source="t", profile="small", verdict="PASS", cells=[HASH],
        provenance=provenance(),
    )  # fmt: skip
    paths = [save_record(each, tmp_path) for each in (calibration, claim, record())]
    assert [load_any(path) for path in paths] == [calibration, claim, record()]
    assert list(load_records(tmp_path)) == [record()]
    with pytest.raises(RecordError, match="the record of a cell"):
        load_record(paths[0])


def test_every_p_value_of_the_nulls_is_kept(tmp_path: Path) -> None:
    kept = record(nulls=[nulls(3, 60)])
    assert load_record(save_record(kept, tmp_path)).nulls[0].p_values == [0.005] * 3 + [0.5] * 57


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
    assert record().filename != record(cell=cell(attacks=[{"name": "pruning", "params": {"order": "random"}}])).filename


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


def printed(*records: CellRecord, width: int = 100, fpr: float = 0.01) -> str:
    console = Console(width=width, file=io.StringIO(), no_color=True)
    console.print(results_table(records, console.width, fpr))
    return console.file.getvalue()


def test_the_terminal_shows_the_advantage_of_what_identifies_within_100_columns() -> None:
    anti_neuron = cell(scheme="anti-neuron", attack="none", situation="train")
    text = printed(record(), record(cell=anti_neuron, marked=point(0.0, verdicts=[identified()] * 12)))
    assert max(map(len, text.splitlines())) <= 100
    words = text.split()
    assert {"accuracy", "fidelity", "adv.", "0.92", "1/100"} <= set(words)
    assert "protection advantage" in " ".join(words)
    assert "adv." not in printed(record())
    for width in (50, 70, 110):
        text = printed(record(cell=cell(scheme="visible-displacement")), width=width)
        assert max(map(len, text.splitlines())) <= width
        assert ("visible-displacement" in text) == (width > 100), "names are whole where there is room"
        assert "1/100" in text or width == 50, "numbers are folded last"
    assert "BER" not in printed(record(marked=point(0.0, verdicts=[identified()])))


def test_a_rate_is_applied_when_rows_are_read() -> None:
    made = [record(marked=point(0.0, 0.9, 0.005), curve=[])]
    assert [rows(made, fpr)[0]["detected"] for fpr in (0.01, 0.001)] == [True, False]
    assert ("yes" in printed(*made).split(), "no" in printed(*made, fpr=0.001).split()) == (True, True)


def test_texts_that_look_like_formulas_are_inert_in_csv_and_numbers_stay() -> None:
    text = as_csv(rows([record("failed", traceback="=1+1"), record(marked=point(0.0, 0.8), curve=[])]))
    assert ",'=1+1," in text
    assert ",-10.9" in text
