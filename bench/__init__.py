"""Watermark Bench: every neural-network watermarking scheme against every attack on every architecture.

`bench.plan(...)`, `bench.run(...)` and `bench.results(...)` are the commands of the same names as functions; they are
imported when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.library import plan, results, run

__all__ = ["__version__", "plan", "results", "run"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """The functions of `bench.library`; `plan` is the folder of modules, which can be called."""
    if name == "plan":
        return import_module("bench.plan")
    if name in ("results", "run"):
        return getattr(import_module("bench.library"), name)
    raise AttributeError(f"module 'bench' has no attribute {name!r}")
