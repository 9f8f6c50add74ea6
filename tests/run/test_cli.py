"""What a person types."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner

from bench.checks import suite
from bench.cli import main
from bench.data.catalog import default_cache
from bench.records.files import save_record
from bench.runner.store import Store
from tests.conftest import Bench, BenchHere
from tests.fakes import cell, provenance, record

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "scipy", "mlflow", "pandas", "numpy", "sklearn", "pydantic")


def test_help_imports_nothing_heavy() -> None:
    code = f"import sys, bench.cli; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_command_and_option_is_explained() -> None:
    for name, command in main.commands.items():
        assert command.help, f"{name} has no help"
        for param in command.params:
            if param.param_type_name == "option" and param.name not in ("style",):
                assert getattr(param, "help", None), f"{name} --{param.name} has no help"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("run", "--scheme", "uchda-random"), 'Did you mean "uchida-random"?'),
        (("run", "--attack", "prunning"), 'Did you mean "pruning"?'),
        (("run", "--arch", "wnr"), 'Did you mean "wrn"?'),
        (("run", "--dataset", "digit-m"), 'Did you mean "digits-m"?'),
        (("run", "--profile", "quik"), 'Did you mean "quick"?'),
        (("run", "--situation", "finetune"), 'Did you mean "fine-tune"?'),
        (("run", "--set", "uchida-random.bits=0"), "uchida-random.bits"),
        (("run", "--scheme", "zhang-noise", "--set", "uchida-random.bits=4"), "of this run"),
        (("run", "--arch", ","), "Expected an architecture"),
        (("leaderboard", "--run-dir", "nowhere"), "Expected a run directory"),
        (("run", "--set", "bits=4"), "Expected --set NAME.PARAM=VALUE"),
        (("run", "--dataset", "cifar10", "--data-root", "nowhere"), "cifar10"),
        (("run", "--device", "cuda:9"), "Expected a device of this machine"),
        (("run", "--device", "meta"), "Expected a device of kind cpu or cuda, but got 'meta'"),
        (("run", "--device", "mps"), "Expected a device of kind cpu or cuda, but got 'mps'"),
        (("run", "--device", "xla"), "Expected a device of kind cpu or cuda, but got 'xla'"),
        (("run", "--device", "gpu"), "Expected a device of this machine"),
        (("show", "scheme", "uchida"), "Expected a scheme"),
        (("check", "nothing"), "Expected a scheme or attack"),
        (("results", "--run-dir", "nowhere"), "Expected a run directory"),
        (("new", "scheme", "Bad Name"), "lower case"),
        (("new", "scheme", "uchida-random"), "exists"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence_and_status_2(words: tuple[str, ...], sentence: str, tmp_path: Path) -> None:
    where = ("--run-dir", str(tmp_path)) if words[0] == "run" else ()
    done = CliRunner().invoke(main, [*words, *where])
    assert done.exit_code == 2, done.output
    assert sentence in " ".join(done.output.replace("│", " ").split())
    assert "Traceback" not in done.output


@pytest.mark.parametrize(
    "words",
    [
        ("run", "--fpr"), ("results", "--fpr"), ("leaderboard", "--fpr"), ("sync", "--fpr"), ("run", "--max-time"),
        ("verify-images", "--fpr"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("value", ["nan", "inf"])
def test_what_is_no_finite_number_is_refused(words: tuple[str, ...], value: str) -> None:
    done = CliRunner().invoke(main, [*words, value])
    assert done.exit_code == 2
    said = " ".join(done.output.replace("│", " ").split())
    assert "Expected a finite number" in said or "is not in the range" in said


@pytest.mark.parametrize("what", ["schemes", "attacks", "archs", "datasets", "profiles", "claims"])
def test_list_as_json_and_table(what: str) -> None:
    entries = json.loads(CliRunner().invoke(main, ["list", what, "--format", "json"]).output)
    assert all("name" in entry for entry in entries)
    table = CliRunner().invoke(main, ["list", what]).output
    assert all(entry["name"] in table for entry in entries)


@pytest.mark.parametrize("what", ["schemes", "attacks", "archs", "datasets", "profiles"])
def test_lists_fit_80_columns_with_names_whole(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every entry begins a line, with its name in one piece and nothing cut off."""
    monkeypatch.setenv("COLUMNS", "80")
    entries = json.loads(CliRunner().invoke(main, ["list", what, "--format", "json"]).output)
    table = CliRunner().invoke(main, ["list", what]).output
    lines = table.splitlines()
    assert max(map(len, lines)) <= 80
    first = [line.split()[0] for line in lines if line[:2].strip()]
    assert [name for name in first if name in {entry["name"] for entry in entries}] == [e["name"] for e in entries]
    assert "…" not in table
    words = re.findall(r"[^\s-]+", " ".join(entry["title"] for entry in entries))
    assert all(word in table for word in words), "titles are broken between words and after hyphens only"


def test_piped_output_is_as_wide_as_columns_says(monkeypatch: pytest.MonkeyPatch) -> None:
    widths = {}
    for columns in ("60", "200"):
        monkeypatch.setenv("COLUMNS", columns)
        widths[columns] = max(map(len, CliRunner().invoke(main, ["list", "attacks"]).output.splitlines()))
    assert widths["60"] <= 60 < widths["200"]


def test_show_a_card() -> None:
    card = CliRunner().invoke(main, ["show", "scheme", "uchida-random"]).output
    assert "Uchida" in card
    assert "uchida-random.bits" in card
    assert "256" in card
    for part, kinds in (("scheme deepstamp", "str | none"), ("scheme anw-hue", "draw | spread | float")):
        assert kinds in " ".join(CliRunner().invoke(main, ["show", *part.split()]).output.split())
    assert "list of float" in CliRunner().invoke(main, ["show", "attack", "lct-forged"]).output
    for kind, name in (("attack", "pruning"), ("arch", "wrn"), ("dataset", "digits-m"), ("profile", "quick")):
        shown = CliRunner().invoke(main, ["show", kind, name])
        assert shown.exit_code == 0
        assert name in shown.output


def test_plan_counts_and_computes_nothing(bench_here: BenchHere, tmp_path: Path) -> None:
    words = ("plan", "--profile", "smoke", "--scheme", "uchida-random,zhang-noise", "--attack", "pruning-embedded",
             "--run-dir", tmp_path)  # fmt: skip
    plan = json.loads(bench_here(*words, "--format", "json").stdout)
    assert set(plan) == {"steps", "cached", "cells", "estimate_s"}
    assert plan["cells"] == {"run": 1, "not_applicable": 1}
    assert plan["steps"] == 7
    assert not (tmp_path / "store").exists()
    keys = [
        line.split()[0]
        for line in bench_here(*words, "--keys").stdout.splitlines()
        if line.startswith(tuple("0123456789abcdef"))
    ]
    listed = [key for key in keys if len(key) == 16]
    assert len(listed) == 7
    assert "not cached" in bench_here("why", listed[0], "--run-dir", tmp_path).stdout
    bench_here("why", "ffffffffffffffffffff", "--run-dir", tmp_path, check=2)


def test_plan_counts_reasons_instead_of_cells_and_says_who_stands_alone(tmp_path: Path) -> None:
    words = ("plan", "--profile", "smoke", "--scheme", "uchida-random,uchida-diff,zhang-noise", "--seeds", "50",
             "--attack", "images-jpeg,cutout", "--owners", "5", "--run-dir", str(tmp_path))  # fmt: skip
    printed = CliRunner().invoke(main, list(words)).output
    assert "300 cells: 0 to compute, 300 not applicable." in printed
    reasons = [line for line in printed.splitlines() if " not applicable: " in line]
    assert len(reasons) == 2
    assert all(line.startswith("150 not applicable: The attack acts on ") for line in reasons)
    assert printed.count("--owners 5 has no effect on uchida-diff, uchida-random: a host carries one such mark.") == 1


def test_doctor_is_content(bench_here: BenchHere, tmp_path: Path) -> None:
    printed = bench_here("doctor", "--run-dir", tmp_path).stdout
    assert "problem" not in printed
    assert "problem" in bench_here("doctor", "--run-dir", tmp_path, "--data-root", tmp_path / "missing", check=1).stdout


@pytest.fixture(scope="module")
def computed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the contract suites of this file compute, each host once."""
    return tmp_path_factory.mktemp("suites")


@pytest.fixture
def shared(computed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suite, "suite", partial(suite.suite, folder=computed))


@pytest.mark.usefixtures("shared")
@pytest.mark.parametrize("kind", ["scheme", "attack"])
def test_a_new_file_keeps_the_contract_at_once(bench_here: BenchHere, tmp_path: Path, kind: str) -> None:
    told = bench_here("new", kind, "my-method", "--folder", tmp_path).stdout
    path = tmp_path / "my_method.py"
    assert f"bench --plugin {path} check my-method" in told
    assert "exists" in bench_here("new", kind, "my-method", "--folder", tmp_path, check=2).stderr
    assert "keeps the contract" in bench_here("--plugin", path, "check", "my-method").stdout
    submitted = bench_here("--plugin", path, "check", "my-method", "--submission", check=1).stdout
    assert "failed  The card is no longer the template's" in submitted
    edited = tmp_path / "edited.py"  # this process has read the other file
    edited.write_text(path.read_text().replace("TITLE OF THE PAPER", "A title"))
    assert "failed" not in bench_here("--plugin", edited, "check", "my-method", "--submission").stdout


@pytest.mark.parametrize("name", ["true", "scheme", "params", "my-method", "a" * 40])
def test_a_new_file_passes_the_projects_linters_untouched(name: str, tmp_path: Path) -> None:
    for kind in ("scheme", "attack"):
        done = CliRunner().invoke(main, ["new", kind, name, "--folder", str(tmp_path / kind)])
        assert done.exit_code == 0, done.output
        path = tmp_path / kind / f"{name.replace('-', '_')}.py"
        for words in (("ruff", "check"), ("ruff", "format", "--check")):
            found = subprocess.run(
                [sys.executable, "-m", *words, "--config", ROOT / "pyproject.toml", path],
                capture_output=True,
                text=True,
            )
            assert found.returncode == 0, found.stdout


def test_new_files_are_typed_as_the_projects_own(tmp_path: Path) -> None:
    for kind in ("scheme", "attack"):
        CliRunner().invoke(main, ["new", kind, f"my-{kind}", "--folder", str(tmp_path)])
    command = [sys.executable, "-m", "mypy", "--config-file", ROOT / "pyproject.toml", *tmp_path.glob("*.py")]
    found = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert found.returncode == 0, found.stdout


def test_new_writes_beside_the_caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "bench --plugin my_scheme.py check" in CliRunner().invoke(main, ["new", "scheme", "my-scheme"]).output
    assert (tmp_path / "my_scheme.py").exists()


def test_an_installed_package_holds_every_file_that_it_reads() -> None:
    """What is no Python is in a wheel only where `package-data` names it."""
    told = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    packed = {
        path for package, globs in told.items() for g in globs for path in (ROOT / package.replace(".", "/")).glob(g)
    }
    read = {
        path
        for package in ("bench", "schemes", "attacks", "leaderboard")
        for path in (ROOT / package).rglob("*")
        if path.is_file()
        and path.suffix not in (".py", ".pyc", ".md")
        and "submissions" not in path.parts
        # The example belongs to the repository.
        and path.name != "index.html"
        and path.parent != ROOT / "leaderboard" / "records"
    }
    assert read - packed == set()
    assert {path.name for path in packed} >= {"template_scheme.txt", "template_attack.txt"}


@pytest.mark.usefixtures("shared")
def test_the_suite_stops_where_the_rest_is_explained_and_blames_the_authors_line(
    bench_here: BenchHere, tmp_path: Path
) -> None:
    bench_here("new", "attack", "my-attack", "--folder", tmp_path)
    path = tmp_path / "my_attack.py"
    path.write_text(path.read_text().replace("model = victim.model()", "model = victim.model(); 1 / 0"))
    told = bench_here("--plugin", path, "check", "my-attack", check=1).stdout
    assert told.count("failed  ") == 1
    assert "1 check failed" in told
    first, own, project = (told.index(words) for words in ("ZeroDivisionError", "1 / 0", "Called by the project"))
    assert first < own < project
    assert "site-packages" not in told[first:project]


def test_plugins_of_the_command_line_reach_worker_processes(
    bench: Bench, bench_here: BenchHere, tmp_path: Path
) -> None:
    bench_here("new", "scheme", "my-scheme", "--folder", tmp_path)
    bench_here("new", "attack", "my-attack", "--folder", tmp_path)
    files = ("--plugin", tmp_path / "my_scheme.py", "--plugin", tmp_path / "my_attack.py")
    words = ("run", "--profile", "smoke", "--arch", "alexnet", "--scheme", "my-scheme", "--attack", "my-attack",
             "--null-keys", "0", "--jobs", "2")  # fmt: skip
    bench(*files, *words, "--run-dir", tmp_path / "runs")
    assert "Expected BENCH_PLUGINS and --plugin" in bench_here("--plugin", "no.py", "list", "schemes", check=2).stderr


def test_why_takes_each_of_the_three_identities(tmp_path: Path) -> None:
    kept = record(cell_key="ab" * 32)
    path = save_record(kept, tmp_path / "records")
    for asked in (kept.cell_key[:10], path.name, path.stem, str(path)):
        done = CliRunner().invoke(main, ["why", asked, "--run-dir", str(tmp_path)])
        assert f"cell {path.name}: ok" in done.output, asked
    assert CliRunner().invoke(main, ["why", "", "--run-dir", str(tmp_path)]).exit_code == 2


def test_show_record_prints_its_curve_and_where_it_comes_from(tmp_path: Path) -> None:
    kept = record(provenance=provenance(cpu_model="A processor [red]"))
    shown = CliRunner().invoke(main, ["show", "record", str(save_record(kept, tmp_path))])
    assert shown.exit_code == 0, shown.output
    assert all(words in shown.output for words in (kept.cell_key, "A processor [red]", "test_accuracy"))
    assert CliRunner().invoke(main, ["show", "record", str(tmp_path / "none.json")]).exit_code == 2


def test_compare_tells_the_difference_of_numbers_and_of_provenance(tmp_path: Path) -> None:
    here, there = record(), record(provenance=provenance(cpu_capability="AVX2"), cell=cell())
    there = there.model_copy(update={"marked": there.marked.model_copy(update={"test_accuracy": 0.5})})
    here = here.model_copy(update={"marked": here.marked.model_copy(update={"test_accuracy": 0.75})})
    a = save_record(here, tmp_path / "a" / "records")
    save_record(there, tmp_path / "b" / "records")
    save_record(record(cell=cell(seed=7)), tmp_path / "b" / "records")
    done = CliRunner().invoke(main, ["compare", str(a), str(tmp_path / "b"), "--format", "json"])
    told = json.loads(done.output)
    assert [entry["accuracy"] for entry in told["cells"]] == [-25.0]
    assert told["cells"][0]["log10 p"] == 0
    assert {"field": "cpu_capability", "a": "", "b": "AVX2", "cells": 1} in told["provenance"]
    assert (told["only_a"], told["only_b"]) == (0, 1)
    table = CliRunner().invoke(main, ["compare", str(a), str(tmp_path / "b")]).output
    assert "-25" in table
    assert "1 cells in both, 0 only in A, 1 only in B." in table


def test_clean_removes_what_no_record_needs_and_nothing_else(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    kept, below, loose = "a" * 64, "b" * 64, "c" * 64
    for key, inputs in ((kept, {"host": below}), (below, {}), (loose, {})):
        store.save(key, {"label": f"step {key[0]}", "identity": {"inputs": inputs}}, {}, {})
    (tmp_path / "store" / ".writing-x").mkdir()
    save_record(record(provenance=provenance(steps={"attack": kept})), tmp_path / "records")
    words = ["clean", "--run-dir", str(tmp_path)]
    listed = CliRunner().invoke(main, words).output
    assert "2 stored results that no record needs" in listed
    assert "step c" in listed
    assert "step b" not in listed
    assert store.has(loose)
    assert "removed" in CliRunner().invoke(main, [*words, "--yes"]).output
    assert [store.has(key) for key in (kept, below, loose)] == [True, True, False]
    assert not (tmp_path / "store" / ".writing-x").exists()


def test_clean_touches_nothing_where_a_record_cannot_be_read(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    store.save("c" * 64, {"label": "step", "identity": {"inputs": {}}}, {}, {})
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "broken.json").write_text("{")
    assert CliRunner().invoke(main, ["clean", "--yes", "--run-dir", str(tmp_path)]).exit_code == 2
    assert store.has("c" * 64)


def test_a_suite_is_read_from_a_file_and_what_is_typed_counts_more(tmp_path: Path) -> None:
    suite = tmp_path / "suite.yaml"
    suite.write_text(
        "scheme: [uchida-random, uchida-diff]\nprofile: smoke\nseeds: 3\nset: {uchida-random.bits: 32}\n"
        f"null-keys: 0\nrun-dir: {tmp_path / 'runs'}\n"
    )

    def cells(*typed: str) -> int:
        done = CliRunner().invoke(main, ["plan", str(suite), *typed, "--format", "json"])
        assert done.exit_code == 0, done.output
        return json.loads(done.output)["cells"]["run"]

    assert (cells(), cells("--seeds", "1"), cells("--scheme", "uchida-random")) == (6, 2, 3)
    planned = json.loads((tmp_path / "runs" / "planned.json").read_text())
    bits = {identity["spec"].get("scheme_params", {}).get("bits") for _, identity in planned.values()}
    assert 32 in bits


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("sheme: all", 'Did you mean "scheme"?'),
        ("seeds: .nan", "not a valid integer"),
        ("seeds: 0", "not in the range"),
        ("- all", "Expected selectors"),
        ("scheme: [", "Expected YAML"),
        ("scheme: !!python/object/apply:os.getcwd []", "Expected YAML"),
        ("set: [uchida-random.bits]", "Expected --set NAME.PARAM=VALUE"),
    ],
)
def test_a_mistake_in_a_suite_is_one_sentence(text: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "suite.yaml").write_text(text)
    done = CliRunner().invoke(main, ["run", str(tmp_path / "suite.yaml"), "--run-dir", str(tmp_path / "runs")])
    assert done.exit_code == 2, done.output
    assert sentence in " ".join(done.output.replace("│", " ").split())


SMALL = ("run", "--profile", "smoke", "--arch", "alexnet", "--scheme", "uchida-posthoc", "--null-keys", "0",
         "--no-mlflow")  # fmt: skip


def test_places_that_refuse_are_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place, words in ((tmp_path / ("x" * 300), "File name too long"), (tmp_path / "file" / "r", "Not a directory")):
        done = CliRunner().invoke(main, [*SMALL, "--run-dir", str(place)])
        assert done.exit_code == 2, done.output
        assert words in " ".join(done.output.replace("│", " ").split())


def test_a_full_disk_is_one_sentence_and_loses_nothing_and_a_quiet_run_says_nothing(
    tmp_path: Path, bench_here: BenchHere
) -> None:
    limit = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000)); from bench.cli import main; main()"
    )
    words = [*SMALL, "--threads", "1", "--run-dir", str(tmp_path / "r[bold]")]
    full = subprocess.run([sys.executable, "-c", limit, *words], capture_output=True, text=True)
    assert full.returncode in (1, 2), full.stderr
    assert "File too large" in full.stdout + full.stderr
    assert "Traceback" not in full.stderr
    done = subprocess.run([sys.executable, "-m", "bench.cli", *words, "--quiet"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    again = bench_here(*words)
    assert "r[bold]/site/index.html" in again.stdout


def test_a_user_without_a_home_directory_is_lent_the_run_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def home(cls: type[Path]) -> Path:
        if not os.environ["HOME"]:
            raise RuntimeError("Could not determine home directory.")
        return Path(os.environ["HOME"])

    monkeypatch.setattr(Path, "home", classmethod(home))
    monkeypatch.setenv("HOME", "")
    done = CliRunner().invoke(main, ["doctor", "--run-dir", str(tmp_path)])
    assert f"home directory: there is none: {tmp_path}" in done.output
    assert done.exit_code == 0, done.output
    assert os.environ["HOME"] == str(tmp_path)


def test_the_cache_of_images_needs_no_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import platformdirs

    def homeless(*names: str) -> str:
        raise RuntimeError("could not determine the home directory")

    monkeypatch.delenv("BENCH_CACHE", raising=False)
    monkeypatch.setattr(platformdirs, "user_cache_dir", homeless)
    monkeypatch.setenv("BENCH_RUN_DIR", str(tmp_path))
    assert default_cache() == tmp_path / "cache"
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "other"))
    assert default_cache() == tmp_path / "other"


def test_sync_copies_records_and_then_changes_nothing(tmp_path: Path, bench_here: BenchHere) -> None:
    (tmp_path / "records").mkdir()
    save_record(record(), tmp_path / "records")
    said = [bench_here("sync", "--run-dir", str(tmp_path)).stdout for _ in range(2)]
    assert "1 created, 0 updated, 0 unchanged" in said[0]
    assert "0 created, 0 updated, 1 unchanged" in said[1]
    assert "mlflow ui" in said[0]
