"""Envelopes, records and stamps that a stranger sends: read strictly, or refused with one sentence."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.records import submission as module
from bench.records.record import RecordError
from bench.records.submission import (
    ENVELOPE,
    FAILED,
    RECORDS,
    REPORTED,
    SOURCE,
    STALE,
    STAMP,
    VERIFIED,
    SubmissionError,
    load_submission,
    load_submissions,
)
from tests.fakes import HOSTILE
from tests.fakes import submissions as fakes

HASH = "c" * 64


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return fakes.written(tmp_path / "uchida-random")


def origins(folder: Path, today: Any = fakes.SOURCE) -> set[str]:
    complaints: list[RecordError] = []
    found = {origin for origin, _ in load_submissions(folder.parent, lambda *_: today, complaints.append)}
    assert not complaints, complaints
    return found


def told(folder: Path) -> dict[str, Any]:
    return json.loads((folder / ENVELOPE).read_text())


def tell(folder: Path, **fields: Any) -> None:
    (folder / ENVELOPE).write_text(json.dumps({**told(folder), **fields}))


def test_an_honest_submission_is_read_whole(folder: Path) -> None:
    found = load_submission(folder)
    assert sorted(record.cell.seed for record in found.records.values()) == [0, 1]
    assert found.stamp is None
    assert origins(folder) == {REPORTED}


# ---- the envelope ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"format": 2}, "Expected format 1"),
        ({"format": "1"}, "Expected format 1"),
        ({"format": True}, "Expected format 1"),
        ({"format": 1.0}, "Expected format 1"),
        ({"format": None}, "Expected format 1"),
        ({"kind": "defence"}, "kind"),
        ({"name": HOSTILE}, "name"),
        ({"name": "../../etc"}, "name"),
        ({"name": "a" * 41}, "name"),
        ({"name": "other"}, "Expected records of other"),
        ({"kind": "attack"}, "Expected records of uchida-random"),
        ({"who": ""}, "who"),
        ({"who": "A\nB"}, "who"),
        ({"who": "\x1b[31m"}, "who"),
        ({"who": "x" * 201}, "who"),
        ({"who": 7}, "who"),
        ({"when": "yesterday"}, "when"),
        ({"when": 20261120}, "when"),
        ({"command": ["x" * 2001]}, "command"),
        ({"command": ["x"] * 201}, "command"),
        ({"command": "bench run"}, "command"),
        ({"state": "verified"}, "state"),
        ({"extra": 1}, "extra"),
        ({"records": {}}, "records"),
        ({"records": {"../x.json": HASH}}, "records"),
        ({"records": {"/etc/passwd": HASH}}, "records"),
        ({"records": {"a/b.json": HASH}}, "records"),
        ({"records": {"..json": HASH}}, "records"),
        ({"records": {"x.json\u0000": HASH}}, "records"),
        ({"records": {"x.json\n": HASH}}, "records"),
        ({"records": {"missing.json": HASH}}, "there is none"),
        ({"records": {"x.json": HASH.upper()}}, "records"),
        ({"records": {"x.json": 5}}, "records"),
        ({"source": {"files": {}, "harness": HASH}}, "source.files"),
        ({"source": {"files": {"../../x.py": HASH}, "harness": HASH}}, "source.files"),
        ({"source": {"files": {"bench/cli/x.py": HASH}, "harness": HASH}}, "source.files"),
        ({"source": {"files": {"schemes/../x.py": HASH}, "harness": HASH}}, "source.files"),
        ({"source": {"files": {"source/x.py": HASH}, "harness": HASH}}, "there is none"),
    ],
)
def test_a_hostile_envelope_is_refused_with_one_sentence(folder: Path, fields: dict, sentence: str) -> None:
    tell(folder, **fields)
    with pytest.raises(SubmissionError) as refused:
        load_submission(folder)
    words = str(refused.value)
    assert sentence in words
    assert len(words) < 1000
    assert words.isprintable(), "a terminal is not told what to do"


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "null", "1", '"x"', "{", '{"format": 1, "format": 1}', '{"format": NaN}', '{"format": 1e999}',
        '{"format": 1' + "0" * 5000 + "}", "[" * 100_000, '{"format": 1, "kind": ' + "[" * 40 + "]" * 40 + "}",
        "\ufeff{}",
    ],
    ids=range(13),
)  # fmt: skip
def test_what_is_no_json_within_bounds_is_refused(folder: Path, text: str) -> None:
    (folder / ENVELOPE).write_text(text)
    with pytest.raises(SubmissionError):
        load_submission(folder)


def test_bytes_that_are_no_text_are_refused(folder: Path) -> None:
    (folder / ENVELOPE).write_bytes(b"\xff\xfe{\x00}\x00")
    with pytest.raises(SubmissionError, match="UTF-8"):
        load_submission(folder)


# ---- files -----------------------------------------------------------------------------------------------------------
def a_record(folder: Path) -> Path:
    return sorted((folder / RECORDS).iterdir())[0]


def replaced(path: Path, by: str) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    if by == "symlink":
        path.symlink_to("/etc/passwd")
    elif by == "dangling":
        path.symlink_to("/nowhere")
    elif by == "fifo":
        os.mkfifo(path)
    elif by == "folder":
        path.mkdir()


@pytest.mark.parametrize("by", ["symlink", "dangling", "fifo", "folder", "gone"])
@pytest.mark.parametrize("what", ["envelope", "record", "records", "stamp"])
def test_only_regular_files_are_opened(folder: Path, what: str, by: str) -> None:
    fakes.stamped(folder)
    places = {"envelope": folder / ENVELOPE, "record": a_record(folder), "records": folder / RECORDS,
              "stamp": folder / STAMP}  # fmt: skip
    replaced(places[what], by)
    if what == "stamp" and by == "gone":
        assert load_submission(folder).stamp is None
        return
    start = time.monotonic()
    with pytest.raises(SubmissionError):
        load_submission(folder)
    assert time.monotonic() - start < 2, "a FIFO was opened"


def test_a_folder_that_is_a_link_is_refused(folder: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(folder)
    with pytest.raises(SubmissionError, match="folder"):
        load_submission(link)


@pytest.mark.parametrize("name", ["extra.json", "records/extra.json", "source/x.py", "run.sh", "records/.hidden"])
def test_a_file_that_the_envelope_does_not_name_is_refused(folder: Path, name: str) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("{}")
    with pytest.raises(SubmissionError, match="what its envelope names"):
        load_submission(folder)


def test_bytes_that_differ_from_their_digest_are_refused(folder: Path) -> None:
    path = a_record(folder)
    path.write_text(path.read_text().replace('"test_accuracy":0.6', '"test_accuracy":0.9'))
    with pytest.raises(SubmissionError, match="its bytes differ"):
        load_submission(folder)


@pytest.mark.parametrize(("limit", "where"), [("MAX_RECORD", RECORDS), ("MAX_ENVELOPE", ""), ("MAX_TOTAL", "")])
def test_absurd_sizes_are_refused_before_anything_is_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch, limit: str, where: str
) -> None:
    monkeypatch.setattr(module, limit, 50)
    monkeypatch.setattr(module, "read_strict", lambda *_: pytest.fail("it was read"))
    with pytest.raises(SubmissionError, match="larger"):
        load_submission(folder)


def test_a_sparse_file_of_a_terabyte_costs_nothing(folder: Path) -> None:
    with a_record(folder).open("r+b") as file:
        file.truncate(1 << 40)
    with pytest.raises(SubmissionError, match="larger"):
        load_submission(folder)


def test_too_many_files_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_FILES", 1)
    for number in range(70):
        (folder / RECORDS / f"{number}.json").touch()
    with pytest.raises(SubmissionError, match="more files"):
        load_submission(folder)


# ---- records ---------------------------------------------------------------------------------------------------------
def changed_to(*path: str | int, value: Any) -> Any:
    def change(data: Any) -> None:
        for name in path[:-1]:
            data = data[name]
        data[path[-1]] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        changed_to("marked", "test_accuracy", value="0.9"),
        changed_to("marked", "test_accuracy", value=float("nan")),
        changed_to("marked", "test_accuracy", value=1.5),
        changed_to("marked", "test_accuracy", value=True),
        changed_to("marked", "verdicts", 0, "p_value", value=-0.1),
        changed_to("marked", "verdicts", 0, "queries", value=2**70),
        changed_to("marked", "verdicts", 0, "details", value={"x": {"y": 1}}),
        changed_to("timings_s", "embed", value=1e12),
        changed_to("schema_version", value=1),
        changed_to("status", value="excellent"),
        changed_to("cell", "scheme", value=HOSTILE),
        changed_to("cell", "seed", value=3),  # which has another file name
        changed_to("curve", 0, "strength", value=-1.0),
        changed_to("extra", value=1),
    ],
    ids=range(14),
)
def test_a_hostile_record_with_a_right_digest_is_refused(folder: Path, change: Any) -> None:
    fakes.doctored(folder, change)
    with pytest.raises(RecordError):
        load_submission(folder)


def test_a_script_in_a_text_is_kept_as_text(folder: Path) -> None:
    """It is the page that escapes; nothing is lost and nothing is run."""
    fakes.doctored(folder, changed_to("provenance", "device", value=HOSTILE))
    tell(folder, who=HOSTILE)
    found = load_submission(folder)
    assert found.envelope.who == HOSTILE
    assert {record.provenance.device for record in found.records.values()} == {HOSTILE}


# ---- stamps and origins ----------------------------------------------------------------------------------------------
def test_a_stamp_makes_rows_verified_or_failed(folder: Path) -> None:
    fakes.stamped(folder)
    assert origins(folder) == {VERIFIED}
    fakes.stamped(folder, state="failed", reason="it was invented", rerun=[])
    assert origins(folder) == {FAILED}


def test_a_stamp_of_other_content_is_ignored(folder: Path) -> None:
    fakes.stamped(folder, content=HASH)
    assert origins(folder) == {REPORTED}
    fakes.stamped(folder)
    fakes.doctored(folder, fakes.raised(2))
    assert origins(folder) == {REPORTED}
    tell(folder, who="Somebody else")
    assert origins(folder) == {REPORTED}


@pytest.mark.parametrize("text", ["", "{}", "[" * 10_000, '{"format": 1, "state": "verified"}'])
def test_a_stamp_that_is_none_is_ignored(folder: Path, text: str) -> None:
    (folder / STAMP).write_text(text)
    assert origins(folder) == {REPORTED}


def test_a_stamp_of_other_source_is_stale(folder: Path) -> None:
    fakes.stamped(folder)
    for today in (None, fakes.SOURCE.model_copy(update={"harness": HASH}),
                  fakes.SOURCE.model_copy(update={"files": {"schemes/uchida.py": HASH}})):  # fmt: skip
        assert origins(folder, today) == {STALE}


def test_a_profile_of_which_nothing_was_computed_again_stays_self_reported(tmp_path: Path) -> None:
    cheap, dear = fakes.honest(), fakes.honest(1)
    dear = dear.model_copy(update={"cell": dear.cell.model_copy(update={"profile": "standard"})})
    folder = fakes.written(tmp_path / "both", [cheap, dear])
    stamp = fakes.stamped(folder)
    fakes.stamped(folder, rerun=[each for each in stamp.rerun if each.profile == "smoke"])
    found = {
        record.cell.profile: origin for origin, record in load_submissions(tmp_path, lambda *_: fakes.SOURCE, print)
    }
    assert found == {"smoke": VERIFIED, "standard": REPORTED}


def test_a_stamp_needs_its_evidence(folder: Path) -> None:
    for fields in ({"rerun": []}, {"state": "failed"}, {"reason": "but why"}):
        with pytest.raises(ValueError, match="Expected"):
            fakes.stamped(folder, **fields)


def test_one_unreadable_submission_hides_no_other(folder: Path) -> None:
    fakes.written(folder.parent / "broken", format=7)
    (folder.parent / "loose.json").write_text(fakes.honest(5).model_dump_json())
    os.mkfifo(folder.parent / "fifo.json")
    complaints: list[RecordError] = []
    found = list(load_submissions(folder.parent, lambda *_: fakes.SOURCE, complaints.append))
    assert sorted(record.cell.seed for _, record in found) == [0, 1, 5]
    assert len(complaints) == 2


def test_a_folder_without_submissions_gives_none(tmp_path: Path) -> None:
    assert list(load_submissions(tmp_path / "nowhere", lambda *_: None, print)) == []


# ---- any bytes -------------------------------------------------------------------------------------------------------
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_subnormal=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=10,
)
PIECES = st.sampled_from([*fakes.envelope({"x.json": b""}), "files", "harness", "x"])
FUZZ = settings(max_examples=60, deadline=2000, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FUZZ
@given(st.dictionaries(PIECES, JSON, max_size=6))
def test_no_envelope_crashes_the_reader(fields: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = fakes.written(Path(place) / "x")
        (folder / ENVELOPE).write_text(json.dumps({**told(folder), **fields}))
        refused_or_read(folder)


@FUZZ
@given(st.binary(max_size=300), st.sampled_from([ENVELOPE, STAMP, "record"]))
def test_no_bytes_crash_the_reader(content: bytes, what: str) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = fakes.written(Path(place) / "x")
        (a_record(folder) if what == "record" else folder / what).write_bytes(content)
        refused_or_read(folder)


@FUZZ
@given(st.lists(st.sampled_from(["marked", "curve", "verdicts", 0, "p_value", "test_accuracy", "cell", "nulls"]),
                min_size=1, max_size=4), JSON)  # fmt: skip
def test_no_record_crashes_the_reader(path: list[str | int], value: Any) -> None:
    def change(data: Any) -> None:
        for name in path[:-1]:
            if not (isinstance(data, dict) and name in data) and not (isinstance(data, list) and name == 0 and data):
                return
            data = data[name]
        if isinstance(data, dict):
            data[str(path[-1])] = value

    with tempfile.TemporaryDirectory() as place:
        folder = fakes.written(Path(place) / "x")
        fakes.doctored(folder, change)
        refused_or_read(folder)


def refused_or_read(folder: Path) -> None:
    with suppress(RecordError):
        load_submission(folder)
    assert not (folder / SOURCE).exists()
