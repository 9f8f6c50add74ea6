"""Settings of the process that arithmetic on a CPU wants."""

from __future__ import annotations

import platform
import resource

import pytest
import torch

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


def test_denormal_numbers_are_flushed_to_zero() -> None:
    assert torch.tensor(1e-30).mul(torch.tensor(1e-12)).item() == 0.0
