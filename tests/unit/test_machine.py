"""What a record says of the processor and the math libraries."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from bench.runner.assembly import whereabouts
from bench.runner.machine import libraries, model

TOLD = """  - Intel(R) oneAPI Math Kernel Library Version 2024.2-Product Build 20240605 for Intel(R) 64 architecture
  - Intel(R) MKL-DNN v3.12.0 (Git Hash 80afa71)
  - Build settings: BLAS_INFO=mkl, BUILD_TYPE=Release
OpenMP 201511 (a.k.a. OpenMP 4.5)
"""


def test_libraries_and_their_versions() -> None:
    assert libraries(TOLD) == "BLAS mkl, MKL 2024.2, oneDNN 3.12.0, OpenMP 201511"
    assert libraries("BLAS_INFO=accelerate") == "BLAS accelerate"


def test_the_processor_is_named_by_the_kernel_or_by_its_architecture(tmp_path: Path) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text("processor\t: 0\nmodel name\t: A processor @ 3 GHz\n")
    assert model(path) == "A processor @ 3 GHz"
    assert model(tmp_path / "missing")


def test_whereabouts_tell_another_instruction_set() -> None:
    code = "from bench.runner.machine import processor; print(processor()['cpu_capability'])"
    environment = {**os.environ, "ATEN_CPU_CAPABILITY": "default", "DNNL_MAX_CPU_ISA": "SSE41"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == "DEFAULT ATEN_CPU_CAPABILITY=default DNNL_MAX_CPU_ISA=SSE41"
    here = whereabouts("cpu", 1)
    assert all(here[name] for name in ("cpu_model", "cpu_capability", "math_library"))
