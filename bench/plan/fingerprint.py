"""Which source computes a step? The hash of a module and of all project modules that it reaches.

The hash is over the syntax tree without docstrings, so that a comment does not make results stale.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

__all__ = ["closure"]

PACKAGES = ("bench", "schemes", "attacks")


def closure(modules: Iterable[str]) -> dict[str, str]:
    """Module name -> SHA-256 of its code, for `modules` and every project module they import, however deep.

    Raises:
        ModuleNotFoundError: one of `modules` does not exist.
    """
    seen: dict[str, str] = {}
    pending = list(modules)
    while pending:
        name = pending.pop()
        if name not in seen:
            seen[name], imported = _read(name)
            pending += imported
    return dict(sorted(seen.items()))


@cache
def _read(name: str) -> tuple[str, tuple[str, ...]]:
    tree = ast.parse(_path(name).read_text(encoding="utf-8"))
    package = name if _path(name).name == "__init__.py" else name.rpartition(".")[0]
    imported = tuple(sorted({found for found in _imports(tree, package) if _is_ours(found)}))
    return hashlib.sha256(ast.dump(_without_docstrings(tree)).encode()).hexdigest(), imported


def _path(name: str) -> Path:
    module = sys.modules.get(name)
    spec = module.__spec__ if module is not None else importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"Expected a module with source, but got {name!r}.")
    return Path(spec.origin)


def _imports(tree: ast.AST, package: str) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.rsplit(".", node.level - 1)[0] if node.level else ""
            module = ".".join(filter(None, (above, node.module)))
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def _is_ours(name: str) -> bool:
    if name.split(".")[0] not in PACKAGES:
        return False
    try:
        spec = importlib.util.find_spec(name)
    except ModuleNotFoundError:  # `from bench.api import Key`: a name, not a module
        return False
    return spec is not None and spec.origin is not None


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                node.body = node.body[1:]
    return tree
