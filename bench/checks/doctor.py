"""Looks for what is wrong with this installation."""

from __future__ import annotations

import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

__all__ = ["examine"]


def examine(run_dir: Path, data_root: Path | None) -> Iterator[tuple[str, str, bool]]:
    """Yield (what was looked at, what was found, is it fine?)."""
    checks: tuple[tuple[str, Callable[[], str]], ...] = (
        ("Python", _python),
        ("torch", _torch),
        ("MLflow", _mlflow),
        ("schemes and attacks", _registry),
        ("embedded data set", _digits),
        ("cache of decoded images", lambda: _cache(run_dir)),
        ("run directory", lambda: _writable(run_dir)),
        ("data root", lambda: _data_root(data_root)),
    )
    for title, look in checks:
        try:
            yield title, look(), True
        except Exception as error:  # the point of a doctor is to report whatever is broken
            yield title, f"{type(error).__name__}: {error}", False


def _python() -> str:
    return f"{platform.python_version()} in {sys.prefix}"


def _torch() -> str:
    import torch
    import torchvision

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    where = ", ".join(gpus) if gpus else f"no GPU, {torch.get_num_threads()} CPU threads"
    return f"{torch.__version__}, torchvision {torchvision.__version__}, {where}"


def _mlflow() -> str:
    from importlib.metadata import version

    return version("mlflow")


def _registry() -> str:
    from bench.registry import attacks, schemes

    return f"{len(schemes())} schemes, {len(attacks())} attacks"


def _digits() -> str:
    from bench.data import load

    split = load("digits-m").split
    return ", ".join(f"{split[part]} {part}" for part in ("owner", "adversary", "heldout"))


def _cache(run_dir: Path) -> str:
    from bench.data import homeless
    from bench.data.catalog import default_cache

    if homeless():
        return f"{_writable(run_dir / 'cache')} (there is no home directory, and BENCH_CACHE is not set)"
    return _writable(default_cache())


def _writable(folder: Path) -> str:
    nearest = next(path for path in (folder, *folder.resolve().parents) if path.exists())
    with tempfile.TemporaryFile(dir=nearest):
        pass
    free_gb = os.statvfs(nearest).f_bavail * os.statvfs(nearest).f_frsize / 1e9
    if free_gb < 1:
        raise RuntimeError(f"{folder} has {free_gb:.1f} GB free: a full matrix needs more")
    return f"{folder.resolve()}, {free_gb:.0f} GB free"


def _data_root(data_root: Path | None) -> str:
    if data_root is None:
        return "none given (only the embedded data set can be used)"
    if not data_root.is_dir():
        raise RuntimeError(f"there is no folder {data_root}")
    return f"{data_root}: {', '.join(sorted(path.name for path in data_root.iterdir() if path.is_dir())) or 'empty'}"
