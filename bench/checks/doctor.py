"""Looks for what is wrong with this installation."""

from __future__ import annotations

import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.runner.rundir import RunDir

__all__ = ["examine"]


def examine(run_dir: Path, data_root: Path | None) -> Iterator[tuple[str, str, bool]]:
    """Yield (what was looked at, what was found, is it fine?)."""
    from bench.data.catalog import default_cache

    checks: tuple[tuple[str, Callable[[], str]], ...] = (
        ("Python", _python),
        ("home directory", lambda: _home(run_dir)),
        ("torch", _torch),
        ("MLflow", _mlflow),
        ("schemes and attacks", _registry),
        ("embedded data set", _digits),
        ("cache of decoded images", lambda: _writable(default_cache())),
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
    import mlflow  # which fails where it finds no home directory

    return str(mlflow.__version__)


def _registry() -> str:
    from bench.registry import attacks, schemes

    return f"{len(schemes())} schemes, {len(attacks())} attacks"


def _digits() -> str:
    from bench.data import load

    split = load("digits-m").split
    return ", ".join(f"{split[part]} {part}" for part in ("owner", "adversary", "heldout"))


def _home(run_dir: Path) -> str:
    try:
        return str(Path.home())
    except RuntimeError:
        RunDir(run_dir).lend_home()
        return f"there is none: {_writable(run_dir)}, is used instead"


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
