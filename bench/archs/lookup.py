"""Finds architectures by name; the files of the others are read as text, but not imported."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from bench.api import Arch
from bench.identity import unknown

__all__ = ["arch", "layer_path", "module_of", "names", "scan"]

FOLDER = Path(__file__).parent


class _Declared(NamedTuple):
    """A class that declares an architecture (`name`) or a family of them (`pattern`)."""

    file: Path
    cls: str
    name: str | None
    pattern: str | None

    @property
    def label(self) -> str:
        """What a person types: a family's numbers are named by its pattern's groups, as in `wrn-D-K`."""
        return self.name or re.sub(r"\(\?P<(\w+)>[^)]*\)", r"\1", self.pattern or "")


@cache
def scan(folder: Path = FOLDER) -> tuple[_Declared, ...]:
    """Every architecture and family declared in `folder`, the former sorted by name, then the latter.

    Raises:
        ValueError: two classes declare the same name or pattern.
    """
    found: dict[str, _Declared] = {}
    for path in sorted(folder.glob("*.py")):
        for new in _declared(path):
            if new.label in found:
                other = found[new.label].file
                raise ValueError(f'Expected one architecture called "{new.label}", but {other} and {path} declare it.')
            found[new.label] = new
    return tuple(sorted(found.values(), key=lambda each: (each.name is None, each.label)))


def _declared(path: Path) -> Iterator[_Declared]:
    kinds = {"Arch"}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if not isinstance(node, ast.ClassDef) or not any(isinstance(b, ast.Name) and b.id in kinds for b in node.bases):
            continue
        kinds.add(node.name)
        texts = dict(_texts(node))
        if "name" in texts:
            yield _Declared(path, node.name, texts["name"], None)
        if "pattern" in texts:
            yield _Declared(path, node.name, None, texts["pattern"])


def _texts(cls: ast.ClassDef) -> Iterator[tuple[str, str]]:
    """The class attributes that are set to a literal text."""
    for node in cls.body:
        if not isinstance(node, ast.Assign | ast.AnnAssign):
            continue
        target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
        value = node.value
        if isinstance(target, ast.Name) and isinstance(value, ast.Constant) and isinstance(value.value, str):
            yield target.id, value.value


def names() -> list[str]:
    """The architectures' names, sorted; `arch` also takes the members of families, such as `resnet-18-16`."""
    return [each.name for each in scan() if each.name is not None]


def arch(name: str) -> Arch:
    """The architecture called `name`, for instance `wrn`, `wrn-16-2` of depth 16 and width 2, or `resnet-18-16`.

    Raises:
        ValueError: there is none of that name, or no network of that depth or width.
    """
    found, numbers = _find(name)
    cls = getattr(import_module(_module(found)), found.cls)
    made: Arch = cls() if found.pattern is None else cls.member(*numbers)
    return made


def module_of(name: str) -> str:
    """The dotted name of the module that defines an architecture; nothing is imported.

    Raises:
        ValueError: there is no architecture of that name.
    """
    return _module(_find(name)[0])


def layer_path(name: str, group: str) -> str:
    """The path, within what `build` returns, of the embedding layer that Uchida et al. call `group`.

    Raises:
        ValueError: the architecture has no layer of that name.
    """
    layers = arch(name).layers
    if group not in layers:
        raise ValueError(f'Expected an embedding layer of {name} ({", ".join(layers)}), but got "{group}".')
    return f"net.{layers[group]}"


def _module(found: _Declared) -> str:
    return f"bench.archs.{found.file.stem}"


def _find(name: str) -> tuple[_Declared, tuple[int, ...]]:
    for each in scan():
        if each.name == name:
            return each, ()
        match = re.fullmatch(each.pattern, name) if each.pattern else None
        if match:
            return each, tuple(map(int, match.groups()))
    raise ValueError(unknown(name, [each.label for each in scan()], "an architecture"))
