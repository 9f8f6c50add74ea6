"""Packing a run's records, and verifying what cannot be computed again as it stands."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.checks import canary, verification
from bench.checks.canary import replayed
from bench.checks.replay import UnfitError, rebuilt
from bench.records.files import load_records
from bench.records.submission import load_submission
from tests.conftest import PLUGINS, BenchHere
from tests.fakes import submissions as fakes

ROOT = Path(__file__).parents[2]
QUICK = ("--profile", "smoke", "--arch", "alexnet", "--attack", "pruning", "--set", "pruning.ladder=40",
         "--null-keys", "0", "--no-mlflow", "--device", "cpu", "-q")  # fmt: skip


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory, bench_here: BenchHere) -> Path:
    made = tmp_path_factory.mktemp("run")
    bench_here("run", "--scheme", "uchida-random", *QUICK, "--run-dir", made)
    return made


@pytest.fixture
def submitted(run_dir: Path, tmp_path: Path, bench_here: BenchHere) -> Path:
    bench_here("submit", "uchida-random", "--run-dir", run_dir, "--who", "Me", "--into", tmp_path)
    return tmp_path / "uchida-random"


def test_a_submission_names_its_source_its_records_and_its_command(submitted: Path) -> None:
    found = load_submission(submitted)
    assert found.envelope.who == "Me"
    assert "schemes/uchida.py" in found.envelope.source.files
    assert len(found.records) == 1
    (command,) = found.envelope.command
    assert command.startswith("bench run --scheme uchida-random --attack pruning --arch alexnet")


def test_packing_again_replaces_the_old_one_and_its_stamp(
    submitted: Path, run_dir: Path, bench_here: BenchHere
) -> None:
    fakes.stamped(submitted)
    bench_here("submit", "uchida-random", "--run-dir", run_dir, "--who", "You", "--into", submitted.parent)
    assert load_submission(submitted).envelope.who == "You"
    assert not (submitted / "verification.json").exists()


def test_records_of_another_folder_can_be_taken(run_dir: Path, tmp_path: Path, bench_here: BenchHere) -> None:
    shutil.copytree(run_dir / "records", tmp_path / "mine")
    bench_here("submit", "uchida-random", "--records", tmp_path / "mine", "--who", "Me", "--into", tmp_path / "out")
    assert load_submission(tmp_path / "out" / "uchida-random").records


def test_an_attack_is_submitted_with_the_schemes_that_it_met(
    run_dir: Path, tmp_path: Path, bench_here: BenchHere
) -> None:
    bench_here("submit", "pruning", "--run-dir", run_dir, "--who", "Me", "--into", tmp_path)
    assert load_submission(tmp_path / "pruning").envelope.kind == "attack"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("submit", "uchda-random", "--who", "Me"), 'Did you mean "uchida-random"?'),
        (("submit", "zhang-noise", "--who", "Me"), "there are none"),
        (("submit", "uchida-random", "--run-dir", "nowhere", "--who", "Me"), "Expected a run directory"),
        (("verify-submission", "nowhere"), "bench submit` makes one"),
        (("verify-submission", "nowhere", "--budget", "nan"), "finite"),
    ],
)
def test_a_mistake_is_one_sentence_and_status_2(
    run_dir: Path, tmp_path: Path, bench_here: BenchHere, words: tuple[str, ...], sentence: str
) -> None:
    at = ("--run-dir", run_dir) if words[0] == "submit" and "--run-dir" not in words else ()
    into = ("--into", tmp_path) if words[0] == "submit" else ()
    done = bench_here(*words, *at, *into, check=2)
    assert sentence in " ".join((done.stdout + done.stderr).replace("│", " ").split())
    assert not any(tmp_path.iterdir())


def test_records_of_other_source_are_refused(run_dir: Path, tmp_path: Path, bench_here: BenchHere) -> None:
    shutil.copytree(run_dir / "records", tmp_path / "records")
    (path,) = (tmp_path / "records").glob("*.json")
    data = json.loads(path.read_text())
    del data["checksum"]  # as those of earlier versions
    data["provenance"]["steps"]["mark"] = "0" * 64
    path.write_text(json.dumps(data))
    done = bench_here("submit", "uchida-random", "--records", tmp_path / "records", "--who", "Me", "--into",
                      tmp_path / "out", check=2)  # fmt: skip
    assert "its step 'mark' was not" in " ".join((done.stdout + done.stderr).replace("│", " ").split())


def test_a_plug_in_is_copied_beside_its_records_and_verified_from_there(tmp_path: Path, bench_here: BenchHere) -> None:
    bench_here("new", "scheme", "my-scheme", "--folder", tmp_path)
    plugin = ("--plugin", tmp_path / "my_scheme.py")
    bench_here(*plugin, "run", "--scheme", "my-scheme", *QUICK, "--run-dir", tmp_path / "run")
    bench_here(*plugin, "submit", "my-scheme", "--run-dir", tmp_path / "run", "--who", "Me", "--into", tmp_path / "out")
    folder = tmp_path / "out" / "my-scheme"
    assert (folder / "source" / "my_scheme.py").read_text() == (tmp_path / "my_scheme.py").read_text()
    (tmp_path / "my_scheme.py").unlink()
    said = bench_here("verify-submission", folder).stdout
    assert "verified: 1 of 1 records computed again." in said


def test_a_cell_beyond_the_budget_leaves_it_self_reported(
    submitted: Path, bench_here: BenchHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cell takes half a second, which no budget that can be typed is below."""
    verify = verification.verify

    def hasty(folder: Path, *, budget_s: float, **others: Any) -> verification.Outcome:
        return verify(folder, budget_s=budget_s / 1000, **others)

    monkeypatch.setattr(verification, "verify", hasty)
    said = bench_here("verify-submission", submitted, "--budget", "1", check=2).stdout
    assert "beyond the budget" in said
    assert "stays self-reported" in said
    assert not (submitted / "verification.json").exists()


def test_a_cell_of_another_data_set_than_what_is_here_is_unavailable(
    submitted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = load_submission(submitted)
    (record,) = found.records.values()
    other = record.model_copy(update={"cell": record.cell.model_copy(update={"dataset": "cifar10"})})
    monkeypatch.setitem(found.records, other.filename, other)
    monkeypatch.delitem(found.records, record.filename)
    (tmp_path / "box").mkdir()
    finding = replayed(found, tmp_path / "box")
    assert (finding.failure, finding.rerun) == (None, ())
    assert "unavailable" in (finding.nothing or "")


def test_a_cell_that_the_matrix_does_not_make_is_no_cell(run_dir: Path) -> None:
    (record,) = load_records(run_dir / "records")
    assert rebuilt(record.cell, 0).cell == record.cell
    odd = record.cell.model_copy(update={"scheme_params": {"bits": 32}})
    with pytest.raises(UnfitError):
        rebuilt(odd, 0)


LIARS = {
    "never returns": "import time\ntime.sleep(600)\n",
    "ends the process": "raise SystemExit(0)\n",
    "says that all is done": "import os\nos._exit(0)\n",
    "has no such scheme": "x = 1\n",
    "steers the terminal": "raise ValueError('\\x1b[2J\\x07')\n",
}


@pytest.mark.parametrize("what", LIARS)
def test_source_that_does_not_play_along_verifies_nothing(
    submitted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Whatever it does, nothing was computed again: never `verified`."""
    monkeypatch.setattr(canary, "GRACE_S", 8.0)
    (tmp_path / "liar.py").write_text(LIARS[what])
    monkeypatch.setattr(canary, "_copied", lambda *_: iter([tmp_path / "liar.py"]))
    found = load_submission(submitted)
    envelope = found.envelope.model_copy(update={"name": "liar"})
    (tmp_path / "box").mkdir()
    finding = replayed(type(found)(found.folder, envelope, found.records, None), tmp_path / "box", budget_s=2)
    assert not finding.rerun
    assert f"{finding.failure} {finding.nothing}".isprintable()
    if what == "never returns":
        assert finding.nothing == "the method's process was not done in time"
    else:
        assert finding.failure


def test_what_the_process_leaves_is_read_as_strictly_as_what_was_sent(
    submitted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = load_submission(submitted)
    (name,) = found.records
    for number, left in enumerate(("link", "other cell", "no json", "fifo outcomes")):
        box = tmp_path / str(number)
        (box / canary.DONE / "records").mkdir(parents=True)
        target = box / canary.DONE / "records" / name
        (box / canary.OUTCOMES).write_text(json.dumps({name: [canary.COMPUTED, ""]}))
        if left == "link":
            target.symlink_to(submitted / "records" / name)
        elif left == "other cell":
            target.write_text(fakes.honest().model_dump_json())
        elif left == "no json":
            target.write_text("{")
        else:
            (box / canary.OUTCOMES).unlink()
            subprocess.run(["mkfifo", box / canary.OUTCOMES], check=True)
        monkeypatch.setattr(canary, "_run", lambda *_: canary.Ended(0, "", ()))
        finding = replayed(found, box)
        assert not finding.rerun, left


def test_verifying_imports_no_scheme_and_no_attack() -> None:
    code = "import sys, bench.checks.verification, bench.checks.canary, bench.cli.submit\n"
    code += "print([m for m in sys.modules if m.split('.')[0] in ('schemes', 'attacks') or m == 'bench.registry'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_the_plug_ins_of_the_tests_are_not_submitted_by_accident(tmp_path: Path, bench_here: BenchHere) -> None:
    done: Any = bench_here("--plugin", PLUGINS / "hooks.py", "submit", "uchida-random", "--run-dir", tmp_path, "--who",
                           "Me", "--into", tmp_path / "out", check=2)  # fmt: skip
    assert "there are none" in done.stderr + done.stdout
