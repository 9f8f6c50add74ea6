"""The source of a submitted method: its digest, found without importing it, and what it may not use."""

from __future__ import annotations

import ast
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from bench.identity import digest
from bench.plan.fingerprint import Tree, digest_of, tree
from bench.records.submission import SOURCE, Envelope, Source

__all__ = ["beside", "forbidden", "harness_digest", "own_files", "project_file", "today"]

OWN = ("schemes", "attacks")
# Modules that compute steps, whatever the method; their closure is what a cell's key covers besides the method's files.
STEPS = ("bench.steps.kinds", "bench.steps.scheme_workspace", "bench.stats")
# What a method needs: tensors, numbers and the words of Python. Nothing that reaches files, processes or networks.
ALLOWED = {
    "__future__", "abc", "attacks", "collections", "contextlib", "copy", "dataclasses", "enum", "functools",
    "hashlib", "io", "itertools", "math", "numbers", "numpy", "opacus", "operator", "PIL", "pydantic", "random",
    "reedsolo", "schemes", "scipy", "sklearn", "statistics", "string", "torch", "torchvision", "types", "typing",
    "warnings",
}  # fmt: skip
NAMES = {
    "__import__", "breakpoint", "compile", "delattr", "eval", "exec", "globals", "input", "locals", "open",
    "__builtins__", "__loader__", "__spec__",
}  # fmt: skip
ATTRIBUTES = {
    "__bases__", "__builtins__", "__code__", "__globals__", "__loader__", "__mro__", "__subclasses__",
    "f_back", "f_globals", "gi_frame", "hub", "load", "cpp_extension", "ctypeslib", "tofile", "fromfile", "memmap",
    "loadtxt", "genfromtxt",
}  # fmt: skip
KNOWN = {("schemes/_visible.py", "pathlib")}  # an owner's mark may be a picture


@cache
def harness_digest() -> str:
    """One hash of the modules of `bench` that compute steps."""
    found = tree().closure(STEPS)
    return digest({name: known for name, known in found.items() if name.split(".")[0] == "bench"})


def project_file(file: Path) -> str | None:
    """`schemes/my_scheme.py`, where that is the file; None for one outside the project."""
    file = file.resolve()
    return next((f"{folder}/{file.name}" for folder in OWN if file == tree().root / folder / file.name), None)


def own_files(name: str) -> dict[str, str]:
    """Path -> digest of `schemes/x.py` and of all files in `schemes/` and `attacks/` that it imports.

    Raises:
        ModuleNotFoundError: there is no such file.
        SyntaxError: one of them is not Python.
    """
    # A tree of its own: files may have changed since this process began.
    found = Tree(tree().root).closure((name.removesuffix(".py").replace("/", "."),))
    return {f"{module.replace('.', '/')}.py": known for module, known in found.items() if module.split(".")[0] in OWN}


def today(folder: Path, envelope: Envelope) -> Source | None:
    """The source of a submission's method as it is now, beside the envelope or in the project; None if it is gone."""
    try:
        files: dict[str, str] = {}
        for name in envelope.source.files:
            if name.startswith(f"{SOURCE}/"):
                files[name] = _digest(folder / name)
            elif name not in files:
                files |= own_files(name)
        return Source(files=files, harness=harness_digest())
    except (OSError, ModuleNotFoundError, SyntaxError, ValueError, tokenize.TokenError, RecursionError, MemoryError):
        return None


def _digest(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    ast.parse(text)  # tokens alone do not tell whether it is Python
    return digest_of(text)


def beside(folder: Path, envelope: Envelope) -> list[Path]:
    """The files that stand beside the envelope."""
    return [folder / name for name in sorted(envelope.source.files) if name.startswith(f"{SOURCE}/")]


def forbidden(folder: Path, envelope: Envelope) -> str | None:
    """What a method's source uses and no method needs; None if there is nothing.

    It keeps honest mistakes out and makes a reviewer's work short. It is no wall: Python has other ways.
    """
    for name in sorted(envelope.source.files):
        path = folder / name if name.startswith(f"{SOURCE}/") else tree().root / name
        for line, what in _uses(ast.parse(path.read_text(encoding="utf-8"))):
            if (name, what) in KNOWN:
                continue
            return f"Expected {name} to use bench.api, tensors and numbers alone, but line {line} uses {what}."
    return None


def _uses(parsed: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(parsed):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, a.name) for a in node.names if not _allowed(a.name))
        elif isinstance(node, ast.ImportFrom):
            module = node.module or "."
            yield from () if not node.level and _allowed(module) else [(node.lineno, module)]
            yield from ((node.lineno, a.name) for a in node.names if a.name in ATTRIBUTES)
        elif isinstance(node, ast.Name) and node.id in NAMES:
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and node.attr in ATTRIBUTES:
            yield node.lineno, node.attr


def _allowed(module: str) -> bool:
    return module == "bench.api" or module.split(".")[0] in ALLOWED
