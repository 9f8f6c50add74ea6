"""What `import bench` gives: plan, run and results."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

import bench
from bench.records.files import save_record
from bench.registry import RegistryError
from tests.fakes import record

ROOT = Path(__file__).parents[2]
SMOKE = {"profile": "smoke", "scheme": "uchida-posthoc", "attack": "pruning"}


def test_the_documented_example_runs(tmp_path: Path) -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / "python.md").read_text(), re.M | re.S)
    path = tmp_path / "example.py"
    path.write_text(code)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, path], capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    assert "1 cells, 6 steps to compute" in done.stdout
    assert "('uchida-posthoc', 'ok', " in done.stdout
    assert "Name: detected" in done.stdout


def test_a_plan_computes_nothing_and_is_callable_beside_its_modules(tmp_path: Path) -> None:
    import bench.plan.matrix  # after which `bench.plan` is a folder of modules, too

    made = bench.plan(tmp_path, **SMOKE)
    assert [cell.cell.scheme for cell in made.cells] == ["uchida-posthoc"]
    assert len(made.missing) == 6
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("selectors", "sentence"),
    [
        ({"sheme": "all"}, 'Did you mean "scheme"?'),
        ({"seeds": 0}, "Expected seeds to be a whole number from 1 to 10000, but got 0"),
        ({"owners": True}, "Expected owners to be a whole number"),
        ({"scheme": "uchda-random"}, 'Did you mean "uchida-random"?'),
        ({"settings": {"bits": 4}}, 'Expected NAME.PARAM, but got "bits"'),
    ],
)
def test_a_mistake_is_one_sentence(selectors: dict[str, object], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match=re.escape(sentence)):
        bench.plan(tmp_path, **{"profile": "smoke", **selectors})


def test_results_are_a_frame_at_the_rate_asked_for(tmp_path: Path) -> None:
    save_record(record(), tmp_path / "records")
    frame = bench.results(tmp_path, fpr=0.01)
    assert frame["strength"].iloc[0] == 0
    assert frame["detected"].iloc[0]
    assert not bench.results(tmp_path, fpr=1e-300)["detected"].any()
    for wrong in (float("nan"), 0.0, 1.0):
        with pytest.raises(RegistryError, match="false positive rate"):
            bench.results(tmp_path, fpr=wrong)
    with pytest.raises(RegistryError, match="there is no"):
        bench.results(tmp_path / "nowhere")


def test_importing_bench_is_quick_and_imports_nothing_heavy() -> None:
    code = "import sys, bench; print([m for m in ('torch', 'pandas', 'numpy', 'pydantic', 'rich') if m in sys.modules])"
    took_s = []
    for _ in range(3):
        start = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        took_s.append(time.perf_counter() - start)
    assert done.stdout.strip() == "[]"
    assert min(took_s) < 0.3


def test_what_bench_does_not_have_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'plann'"):
        bench.plann  # noqa: B018  # reading it is the test
