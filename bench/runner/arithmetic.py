"""Pins how a GPU computes (TF32, determinism) by one setting, and says for the record how a device computes."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

from bench.steps.training import half
from bench.steps.workspace import Place

__all__ = ["PINNED", "Arithmetic", "pin", "spoken"]


@dataclass(frozen=True)
class Arithmetic:
    """The choices that a GPU leaves; a CPU has none of these.

    Attributes:
        tf32_convolutions: convolutions of float32, which judging asks for, round their inputs to TF32.
        tf32_products: products of float32 matrices do, such as those that a mark is read by.
        deterministic: the same inputs give the same bits: cuDNN chooses among deterministic algorithms and does not
            time them, and cuBLAS has a work space of fixed size.
    """

    tf32_convolutions: bool = True
    tf32_products: bool = False
    deterministic: bool = True


PINNED = Arithmetic()
WORKSPACE = ("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def pin(device: str, chosen: Arithmetic = PINNED) -> None:
    """Make the choices for this process, before anything is computed on the device; a CPU needs none.

    Args:
        device: where steps are computed.
        chosen: the one setting.
    """
    if torch.device(device).type != "cuda":
        return
    if chosen.deterministic:
        os.environ.setdefault(*WORKSPACE)
    torch.backends.cudnn.deterministic = chosen.deterministic
    torch.backends.cudnn.benchmark = not chosen.deterministic
    torch.backends.cudnn.allow_tf32 = chosen.tf32_convolutions
    torch.backends.cuda.matmul.allow_tf32 = chosen.tf32_products


def spoken(place: Place) -> str:
    """How this process computes at a place, as PyTorch itself says: `float32`, or `bfloat16 training, ...`.

    Args:
        place: where steps are computed, and in which precision they train.
    """
    device = torch.device(place.device)
    trained = str(half(device) if place.mixed else torch.float32).removeprefix("torch.")
    if device.type != "cuda":
        return "float32" if trained == "float32" else f"{trained} training, float32 otherwise"
    convolutions = "TF32" if torch.backends.cudnn.allow_tf32 else "float32"
    products = "TF32" if torch.backends.cuda.matmul.allow_tf32 else "float32"
    steady = torch.backends.cudnn.deterministic and not torch.backends.cudnn.benchmark
    said = f"{trained} training, {convolutions} convolutions, {products} products"
    return said + (", deterministic" if steady else "")
