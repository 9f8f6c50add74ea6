"""What a record says of the processor and the math libraries."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
import torch

from bench.runner import arithmetic
from bench.runner.arithmetic import Arithmetic
from bench.runner.assembly import whereabouts
from bench.runner.machine import libraries, model
from bench.steps.workspace import Place

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
    here = whereabouts(Place(), 1)
    assert all(here[name] for name in ("cpu_model", "cpu_capability", "math_library"))


@pytest.fixture
def as_it_was() -> Iterator[None]:
    """PyTorch's settings come back."""
    names = (
        (torch.backends.cudnn, ("deterministic", "benchmark", "allow_tf32")),
        (torch.backends.cuda.matmul, ("allow_tf32",)),
    )
    before = [(where, name, getattr(where, name)) for where, each in names for name in each]
    with mock.patch.dict(os.environ), mock.patch("torch.cuda.is_bf16_supported", return_value=True):
        yield
    for where, name, value in before:
        setattr(where, name, value)


@pytest.mark.parametrize(
    ("chosen", "told"),
    [
        (Arithmetic(), "bfloat16 training, TF32 convolutions, float32 products, deterministic"),
        (Arithmetic(False, True, False), "bfloat16 training, float32 convolutions, TF32 products"),
    ],
)
def test_one_setting_pins_how_a_gpu_computes_and_the_record_says_it(
    as_it_was: None, chosen: Arithmetic, told: str
) -> None:
    torch.backends.cudnn.benchmark = chosen.deterministic
    arithmetic.pin("cuda:1", chosen)
    assert whereabouts(Place("cuda:1"), 1)["arithmetic"] == told
    assert ("CUBLAS_WORKSPACE_CONFIG" in os.environ) == chosen.deterministic


def test_a_cpu_has_no_choice(as_it_was: None) -> None:
    before = torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic
    arithmetic.pin("cpu")
    assert before == (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic)
    assert whereabouts(Place(), 1)["arithmetic"] == "float32"


@pytest.mark.parametrize(
    ("device", "precision", "told"),
    [
        ("cpu", "half", "bfloat16 training, float32 otherwise"),
        ("cpu", "float32", "float32"),
        ("cuda", "float32", "float32 training, TF32 convolutions, float32 products, deterministic"),
        ("cuda", "half", "bfloat16 training, TF32 convolutions, float32 products, deterministic"),
    ],
)
def test_the_precision_of_training_is_a_choice_and_the_record_says_it(
    as_it_was: None, device: str, precision: str, told: str
) -> None:
    arithmetic.pin(device)
    assert Place(device, precision=precision).mixed == (precision == "half")
    assert whereabouts(Place(device, precision=precision), 1)["arithmetic"] == told


def test_a_precision_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match="Expected a precision of auto, float32, half, but got 'int8'"):
        Place(precision="int8")
