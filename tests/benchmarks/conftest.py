"""Options of the benchmarks, the threads they use, and the figures that one session collects."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.runner.cores import cores
from tests.benchmarks.figures import Figures, machine_figures, threads

FIGURES = pytest.StashKey[Figures]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("figures")
    written = os.environ.get("BENCHMARKS_JSON", "benchmarks.json")
    group.addoption("--figures", default=written, metavar="PATH", help="Where figures are written (BENCHMARKS_JSON).")
    scales = ["small", "narrow", "full"]
    group.addoption("--recipe", choices=scales, default="small", help="Scale of recipe_epochs_ratio.")
    group.addoption("--recipe-batch", type=int, help="Batch size of its short recipe, if not the profile's.")
    group.addoption("--matrix-profile", default="quick", help="Profile of matrix_ratio.")
    group.addoption("--matrix-schemes", default="all", help="Schemes of matrix_ratio.")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[FIGURES] = Figures()


@pytest.fixture(scope="session")
def all_threads() -> Iterator[int]:
    """As many threads as the machine has cores, or BENCH_THREADS."""
    count = int(os.environ.get("BENCH_THREADS") or cores())
    with threads(count):
        yield count


@pytest.fixture(scope="session")
def figures(request: pytest.FixtureRequest, all_threads: int) -> Figures:
    """What the session measures; written and printed when it ends."""
    found = request.config.stash[FIGURES]
    found.machine = machine_figures(all_threads)
    return found


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    found = config.stash[FIGURES]
    if not found.found:
        return
    path = Path(config.getoption("--figures"))
    found.write(path)
    terminalreporter.section("figures")
    for line in found.lines():
        terminalreporter.write_line(line)
    terminalreporter.write_line(f"written to {path}")
