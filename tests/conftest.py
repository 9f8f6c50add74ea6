"""What several tests share."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

torch.set_num_threads(1)
PLUGINS = Path(__file__).parent / "plugins"
SETTING = {"OMP_NUM_THREADS": "1", "BENCH_THREADS": "1", "COLUMNS": "200"}
Bench = Callable[..., "subprocess.CompletedProcess[str]"]
BenchHere = Callable[..., Result]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rounding", type=int, metavar="SEED", help="Weights begin trainings with other last bits.")


@pytest.fixture(scope="session", autouse=True)
def _rounding(request: pytest.FixtureRequest) -> Iterator[None]:
    """`--rounding SEED`: trainings in this process end as they might on another processor, which rounds otherwise.

    A test that fails then depends on chance, unless it compares a training here with one in another process, or with
    the exact weights that it began with.
    """
    seed = request.config.getoption("--rounding")
    if seed is None:
        yield
        return
    from bench.steps import training

    begin = training._Steps.__init__

    def moved(self: Any, model: torch.nn.Module, *given: Any, **named: Any) -> None:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for weights in filter(lambda each: each.requires_grad, model.parameters()):
                weights *= 1 + 2**-20 * torch.randn(weights.shape, generator=generator).to(weights.device)
        begin(self, model, *given, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training._Steps, "__init__", moved)
        yield


@pytest.fixture(scope="session")
def bench() -> Bench:
    """Run the command line as a person does: in a process of its own."""

    def call(
        *words: str | Path, check: int | None = 0, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "bench.cli", *map(str, words)]
        environment = {**os.environ, **SETTING, **(env or {})}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=280)
        assert check is None or done.returncode == check, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    return call


@pytest.fixture(scope="session")
def bench_here() -> BenchHere:
    """Run the command line in this process, where a test is not about processes: that saves imports."""

    def call(*words: str | Path | int, check: int = 0, env: dict[str, str] | None = None) -> Result:
        from bench.cli import main

        before, threads = dict(os.environ), torch.get_num_threads()
        try:
            done = CliRunner().invoke(main, list(map(str, words)), env={**SETTING, **(env or {})})
        finally:
            os.environ.clear()
            os.environ.update(before)
            torch.set_num_threads(threads)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert done.exit_code == check, f"exit {done.exit_code}\n{done.stdout}\n{done.stderr}"
        return done

    return call
