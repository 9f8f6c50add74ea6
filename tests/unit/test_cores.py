"""Cores that a process may use: the quotas of control groups, versions 1 and 2."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.runner.cores import cores, quota


def fake(tmp_path: Path, own: str, files: dict[str, str]) -> float | None:
    (tmp_path / "own").write_text(own)
    for name, text in files.items():
        path = tmp_path / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return quota(tmp_path / "own", tmp_path / "root")


V1 = "3:memory:/docker/x\n2:cpu,cpuacct:/docker/x\n"


@pytest.mark.parametrize(
    ("own", "files", "cores"),
    [
        ("0::/\n", {"cpu.max": "100000 100000\n"}, 1.0),
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000", "a/cpu.max": "250000 100000"}, 2.5),
        ("0::/a/b\n", {"a/b/cpu.max": "400000 100000", "a/cpu.max": "150000 100000"}, 1.5),
        ("0::/\n", {"cpu.max": "broken"}, None),
        (
            V1,
            {"cpu,cpuacct/docker/x/cpu.cfs_quota_us": "50000", "cpu,cpuacct/docker/x/cpu.cfs_period_us": "100000"},
            0.5,
        ),
        (V1, {"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"}, 3.0),
        (V1, {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ("", {}, None),
    ],
)
def test_quotas(tmp_path: Path, own: str, files: dict[str, str], cores: float | None) -> None:
    assert fake(tmp_path, own, files) == cores


def test_without_control_groups_there_is_no_quota(tmp_path: Path) -> None:
    assert quota(tmp_path / "absent", tmp_path) is None


@pytest.mark.parametrize(("limit", "expected"), [(0.5, 1), (1.9, 1), (10_000.0, None), (None, None)])
def test_whole_cores_at_least_one(monkeypatch: pytest.MonkeyPatch, limit: float | None, expected: int | None) -> None:
    unlimited = cores()
    monkeypatch.setattr("bench.runner.cores.quota", lambda: limit)
    assert cores() == (unlimited if limit != limit or expected is None else expected)
