"""Settings of the process that arithmetic on a CPU wants."""

from __future__ import annotations

import ctypes
import platform
import resource
from types import SimpleNamespace

import pytest
import torch

from bench.steps import cpu
from bench.steps import training as training

PAGE = resource.getpagesize()


def faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting is glibc's")
def test_freed_memory_is_not_fetched_from_the_system_again() -> None:
    size = 40 << 20

    def use() -> None:
        torch.empty(size, dtype=torch.uint8).fill_(1)

    for _ in range(20):  # aligned blocks leave gaps, which the first rounds fill
        use()
    before = faults()
    for _ in range(10):
        use()
    # Fetched anew each time, it would be 10 * size / PAGE.
    assert faults() - before < size / PAGE / 10


@pytest.mark.parametrize("refused", [None, -4, -1])
def test_no_block_is_mapped_for_itself_and_none_trimmed(refused: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The numbers of mallopt(3): M_MMAP_MAX is -4, M_TRIM_THRESHOLD is -1; it answers 1, or 0 where it refuses."""
    asked: list[tuple[int, int]] = []

    def mallopt(parameter: int, value: int) -> int:
        asked.append((parameter, value))
        return int(parameter != refused)

    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace(mallopt=mallopt))
    assert cpu.keep_freed_memory() is (refused is None)
    assert asked == [(-4, 0), (-1, 2**31 - 1)][: 1 if refused == -4 else 2]


def test_other_libraries_are_left_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace())
    assert cpu.keep_freed_memory() is False


def test_denormal_numbers_are_flushed_to_zero() -> None:
    assert torch.tensor(1e-30).mul(torch.tensor(1e-12)).item() == 0.0
