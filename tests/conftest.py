"""What several tests share."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)
PLUGINS = Path(__file__).parent / "plugins"
Bench = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def bench() -> Bench:
    """Run the command line as a person does: in a process of its own."""

    def call(
        *words: str | Path, check: int | None = 0, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "bench.cli", *map(str, words)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "BENCH_THREADS": "1", "COLUMNS": "200", **(env or {})}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=280)
        assert check is None or done.returncode == check, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    return call
