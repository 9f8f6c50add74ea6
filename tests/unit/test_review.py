"""The review of a pull request's submissions, and the gate that the committed page passes."""

from __future__ import annotations

import importlib.util
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from bench.records.files import save_record
from leaderboard.table import rows
from tests.fakes import HOSTILE, of_scheme, rung, said
from tests.fakes import submissions as fakes

ROOT = Path(__file__).parents[2]


def tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


review, drift = tool("review"), tool("drift")


def by_id(*records: Any, **submitted: Any) -> dict[str, Any]:
    return {row["id"]: row for row in rows(records, submitted=submitted.get("submitted", ()))}


def test_submissions_are_touched_by_any_of_their_files(tmp_path: Path) -> None:
    place = tmp_path / review.PLACE
    for name in ("a", "b", "c"):
        (place / name).mkdir(parents=True)
    paths = [f"{review.PLACE}/a/verification.json", f"{review.PLACE}/b/records/x.json", f"{review.PLACE}/gone/x.json",
             f"{review.PLACE}/README.md", "schemes/c.py"]  # fmt: skip
    assert [path.name for path in review.touched(paths, tmp_path)] == ["a", "b"]


@pytest.mark.parametrize(
    ("status", "arrived", "found", "fine"),
    [
        (0, None, ["smoke"], True),
        (0, ["smoke"], ["smoke"], True),
        (0, ["smoke", "standard"], ["smoke"], False),
        (1, None, None, False),
        (1, ["smoke"], None, False),
        (2, None, None, True),
        (2, ["smoke"], None, False),
        (139, None, None, False),
    ],
)
def test_a_stamp_that_arrives_is_found_anew_or_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, arrived: Any, found: Any, fine: bool
) -> None:
    folder = fakes.written(tmp_path / "x")

    def stamp(profiles: list[str]) -> None:
        whole = fakes.stamped(folder).rerun[0]
        fakes.stamped(folder, rerun=[whole.model_copy(update={"profile": profile}) for profile in profiles])

    def verified(*_: Any) -> tuple[int, str]:
        assert not (folder / "verification.json").exists(), "what arrives is not believed"
        if found:
            stamp(found)
        return status, "said"

    if arrived:
        stamp(arrived)
    monkeypatch.setattr(review, "verified", verified)
    assert review.reviewed(folder, [])[0] == fine


def test_rows_that_come_change_and_go_are_told() -> None:
    kept, old, new = (of_scheme(name, curve=[rung(10, 0.9, said(1e-9))]) for name in ("kept", "old", "new"))
    better = kept.model_copy(update={"clean_accuracy": 0.92})
    lines = review.difference(by_id(kept, old), by_id(better, new))
    assert [line.split("|")[1:3] for line in lines[2:]] == [
        [" added ", " `new` "], [" changed ", " `kept` "], [" removed ", " `old` "],
    ]  # fmt: skip
    assert "-2.0" in lines[3]
    assert review.difference(by_id(kept), by_id(kept)) == ["No row of the leaderboard changes."]


def test_a_stranger_writes_no_markdown() -> None:
    for text in (HOSTILE, "a|b", "`x`", "a\nb", "[x](http://y)", "@everyone"):
        shown = review._text(text)
        assert shown.startswith("`")
        assert shown.endswith("`")
        assert "`" not in shown[1:-1]
        assert not {"|", "\n"} & set(shown)


def test_the_origin_of_a_submission_is_in_its_row(tmp_path: Path) -> None:
    folder = fakes.written(tmp_path / review.PLACE / "x")
    fakes.stamped(folder)
    assert [row["origin"] for row in review.table_of(tmp_path).values()] == ["stale"], "the source is not today's"
    (folder / "verification.json").unlink()
    assert [row["origin"] for row in review.table_of(tmp_path).values()] == ["self-reported"]


def test_a_review_of_a_branch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    def git(*words: str) -> None:
        named = ("-c", "user.name=A", "-c", "user.email=a@b.c")
        subprocess.run(["git", "-C", str(tmp_path), *named, *words], check=True, capture_output=True)

    git("init", "--quiet", "--initial-branch=main")
    (tmp_path / "README.md").write_text("x")
    git("add", "-A")
    git("commit", "-qm", "base")
    git("switch", "-qc", "branch")
    fakes.written(tmp_path / review.PLACE / "uchida-random")
    (tmp_path / "bench.py").write_text("x")
    git("add", "-A")
    git("commit", "-qm", "submission")
    monkeypatch.setattr(review, "ROOT", tmp_path)
    monkeypatch.setattr(review.touched, "__defaults__", (tmp_path,))
    monkeypatch.setattr("sys.argv", ["review.py", "main"])
    for status in (0, 1):
        monkeypatch.setattr(review, "verified", lambda *_, status=status: (status, "said last"))
        assert review.main() == status
        printed = capsys.readouterr().out
        assert f"`uchida-random`: **{review.NAMES[status]}**. `said last`" in printed
        assert "changes 1 files; read them first" in printed
        assert "| added | `uchida-random` |" in printed


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    import leaderboard

    monkeypatch.setattr(leaderboard, "__file__", str(tmp_path / "__init__.py"))
    save_record(of_scheme(), tmp_path / "records")
    return lambda write=False: drift.main(tmp_path, write)


def test_the_gate_passes_without_a_page_and_with_a_fresh_one(page: Callable[..., int], tmp_path: Path) -> None:
    assert page() == 0
    assert page(True) == 0
    assert (tmp_path / "index.html").exists()
    assert page() == 0


def test_the_gate_fails_for_a_page_that_the_records_do_not_render(page: Callable[..., int], tmp_path: Path) -> None:
    page(True)
    save_record(of_scheme(seed=1), tmp_path / "records")
    assert page() == 1
    page(True)
    assert page() == 0
    fakes.written(tmp_path / "submissions" / "x")
    assert page() == 1, "a submission is a part of the page"


def test_the_committed_page_is_what_the_records_render() -> None:
    assert drift.main(ROOT / "leaderboard", False) == 0


def test_workflows_of_pull_requests_have_no_rights() -> None:
    import yaml

    for path in (ROOT / ".github" / "workflows").glob("*.yml"):
        text = path.read_text(encoding="utf-8")
        made = yaml.safe_load(text)
        events = made[True]  # YAML 1.1 reads `on` as true
        assert "pull_request_target" not in text
        assert "secrets" not in text.partition("permissions")[2]
        assert "permissions" in made, path.name
        if "pull_request" in events:
            assert made["permissions"] == {"contents": "read"}
            assert not any("permissions" in job for job in made["jobs"].values()), path.name
        for job in made["jobs"].values():
            runs_code = any("run" in step for step in job["steps"])
            rights = job.get("permissions", made["permissions"])
            assert not (runs_code and set(rights.values()) & {"write"}), f"{path.name}: code of ours has rights"
