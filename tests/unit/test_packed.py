"""Records packed into one file: read like others, and no wider a door."""

from __future__ import annotations

import lzma
import re
from pathlib import Path

import pytest

from bench.records import files
from bench.records.files import load_records, pack_records, save_record
from bench.records.record import RecordError
from tests.fakes import of_scheme


def test_packed_records_are_read_like_others_and_after_them(tmp_path: Path) -> None:
    first, second, third = (of_scheme(seed=seed) for seed in (1, 2, 3))
    pack_records([third, second], tmp_path / "some.jsonl.xz")
    again = tmp_path / "again.xz"
    pack_records([second, third], again)
    assert again.read_bytes() == (tmp_path / "some.jsonl.xz").read_bytes(), "the order given does not matter"
    save_record(first, tmp_path)
    assert list(load_records(tmp_path)) == [first, second, third]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"no archive", "format"),
        (lzma.compress(b'{"type": 1}\n'), "type"),
        (lzma.compress(b'{"a": NaN}\n'), "NaN"),
        (lzma.compress(b"\xff\n"), "utf-8"),
        (lzma.compress(b"1" * 2000), "holds more than 1000 bytes"),
        (lzma.compress(b"\n" * 5000), "holds more than 1000 bytes"),
        (lzma.compress(b"{}\n" * 100)[:40], "ended|Compressed"),
    ],
)
def test_a_packed_file_that_is_damaged_or_hostile_hides_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, why: str
) -> None:
    monkeypatch.setattr(files, "MAX_UNPACKED", 1000)
    monkeypatch.setattr(files, "MAX_BYTES", 1500)
    (tmp_path / "bad.jsonl.xz").write_bytes(content)
    (tmp_path / "folder.jsonl.xz").mkdir()
    save_record(of_scheme(), tmp_path)
    told: list[RecordError] = []
    assert list(load_records(tmp_path, told.append)) == [of_scheme()]
    assert any(re.search(why, str(error)) for error in told)
    assert "not a regular file" in str(told[-1])
    with pytest.raises(RecordError):
        list(load_records(tmp_path))
