"""Describes the processor and the math libraries of this process: another instruction set rounds differently."""

from __future__ import annotations

import os
import platform
import re
from functools import cache
from pathlib import Path

import torch

__all__ = ["killed_for_memory", "processor"]

CPUINFO = Path("/proc/cpuinfo")
VMSTAT = Path("/proc/vmstat")
# Each of these variables lets a library use fewer instructions than the processor has.
FORCING = ("ATEN_CPU_CAPABILITY", "DNNL_MAX_CPU_ISA", "ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS", "MKL_CBWR")
LIBRARIES = (
    ("BLAS", r"BLAS_INFO=(\w+)"),
    ("MKL", r"Math Kernel Library Version (\d[\w.]*)"),
    ("oneDNN", r"MKL-DNN v(\d[\w.]*)"),
    ("OpenMP", r"OpenMP (\d+)"),
)
LONGEST = 200  # characters that a record keeps of each


@cache
def processor() -> dict[str, str]:
    """The fields `cpu_model`, `cpu_capability` and `math_library` of a record's provenance."""
    found = {"cpu_model": model(), "cpu_capability": _capability(), "math_library": libraries()}
    return {name: value[:LONGEST] for name, value in found.items()}


def model(cpuinfo: Path = CPUINFO) -> str:
    """The processor's name, as the kernel tells it; elsewhere its architecture."""
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    named = re.search(r"^(?:model name|Model|cpu model)\s*:\s*(.+)$", text, re.MULTILINE)
    return named[1].strip() if named else platform.processor() or platform.machine()


def killed_for_memory(vmstat: Path = VMSTAT) -> int:
    """How many processes the kernel has killed for want of memory since it started; 0 where it does not say."""
    try:
        found = re.search(r"^oom_kill (\d+)$", vmstat.read_text(encoding="ascii"), re.MULTILINE)
    except (OSError, UnicodeDecodeError):
        return 0
    return int(found[1]) if found else 0


def libraries(told: str | None = None) -> str:
    """Names and versions, for instance `BLAS mkl, MKL 2024.2, oneDNN 3.12.0, OpenMP 201511`.

    Args:
        told: what PyTorch says of how it was built; by default it is asked.
    """
    words = torch.__config__.show() + torch.__config__.parallel_info() if told is None else told
    found = ((name, re.search(pattern, words)) for name, pattern in LIBRARIES)
    return ", ".join(f"{name} {match[1]}" for name, match in found if match)


def _capability() -> str:
    """The instructions that PyTorch uses, and the variables that limit a library to fewer."""
    forced = [f"{name}={os.environ[name]}" for name in FORCING if os.environ.get(name)]
    return " ".join([torch.backends.cpu.get_cpu_capability(), *forced])
