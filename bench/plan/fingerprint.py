"""Hashes of the source that computes a step: a module and every project module that its imports reach.

A hash is over a module's tokens without comments, blank lines and docstrings, so that words do not make results stale
and every Python version finds the same one. Only the standard library is needed, so that any interpreter can try it.
"""

from __future__ import annotations

import ast
import hashlib
import io
import sys
import tokenize
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

__all__ = ["ASIDE", "Tree", "changed", "closure", "closure_digest", "digest_of", "tree"]

# Modules that no closure enters: they look things up by name, plan, store or describe, and compute no number of a
# step. What they find (a scheme's module, an architecture's) is a root of its own.
ASIDE = (
    "bench.registry", "bench.archs.lookup", "bench.plan", "bench.runner", "bench.records", "bench.metrics",
    "bench.tracking", "bench.claims", "bench.checks", "bench.stamping", "bench.cli",
)  # fmt: skip
PACKAGES = ("bench", "schemes", "attacks")

_LAYOUT = {tokenize.INDENT: "\1", tokenize.DEDENT: "\2"}
_HOLD_STATEMENTS = (ast.stmt, ast.excepthandler, ast.match_case)
_SILENT = {tokenize.COMMENT, tokenize.NL, tokenize.ENCODING, tokenize.ENDMARKER}
# Python 3.12 splits f-strings (3.14: t-strings) into tokens, 3.11 does not: numbers of the first and the last part.
_OPENING = {getattr(tokenize, name, None) for name in ("FSTRING_START", "TSTRING_START")} - {None}
_CLOSING = {getattr(tokenize, name, None) for name in ("FSTRING_END", "TSTRING_END")} - {None}


def digest_of(source: str) -> str:
    """SHA-256, in hex, of the tokens of `source` but comments, blank lines and docstrings.

    A logical line of plain string literals alone counts as a docstring: it computes nothing.

    Raises:
        SyntaxError: `source` is not Python. (tokenize.TokenError before Python 3.12.)
    """
    kept: list[str] = []
    line: list[str] = []
    for kind, text in _whole_strings(source):
        if kind == tokenize.NEWLINE:
            kept += [] if _only_strings(line) else [*line, "\n"]
            line = []
        elif kind in _LAYOUT:
            kept.append(_LAYOUT[kind])
        elif kind not in _SILENT:
            line.append(text)
    return hashlib.sha256("\0".join(kept).encode()).hexdigest()


def _whole_strings(source: str) -> Iterator[tuple[int, str]]:
    """Kind and text of each token; an f-string is one token with its text in the source, as in Python 3.11."""
    lines = source.splitlines(keepends=True)
    depth, start = 0, (0, 0)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in _OPENING:
            start = start if depth else token.start
            depth += 1
        elif token.type in _CLOSING:
            depth -= 1
            if not depth:
                yield tokenize.STRING, _between(lines, start, token.end)
        elif not depth:
            yield token.type, token.string


def _between(lines: list[str], start: tuple[int, int], end: tuple[int, int]) -> str:
    (first, left), (last, right) = start, end
    if first == last:
        return lines[first - 1][left:right]
    return "".join([lines[first - 1][left:], *lines[first : last - 1], lines[last - 1][:right]])


def _only_strings(line: list[str]) -> bool:
    def plain(text: str) -> bool:
        prefix = text[: len(text) - len(text.lstrip("rRbBuUfFtT"))]
        return text[len(prefix) :][:1] in ("'", '"') and not set(prefix) & set("fFtT")

    return all(map(plain, line))


@dataclass(frozen=True)
class _Import:
    """One imported name: `from module import name as bound`; without a name the module itself."""

    module: str
    name: str | None
    bound: str


@dataclass(frozen=True)
class _Module:
    """What is known of one source file.

    Attributes:
        digest: of its tokens.
        imports: what it imports, wherever in the file; but for type checkers only.
        passes_on: whether it only re-exports, so that its importers depend on what stands behind it.
    """

    digest: str
    imports: tuple[_Import, ...]
    passes_on: bool


@dataclass
class Tree:
    """The project's source below `root`; each file is read once.

    Attributes:
        root: the folder that holds `bench/`, `schemes/` and `attacks/`.
        modules: what was read, by name.
    """

    root: Path
    modules: dict[str, _Module] = field(default_factory=dict, repr=False)
    _closures: dict[tuple[str, ...], dict[str, str]] = field(default_factory=dict, repr=False)
    _digests: dict[tuple[str, ...], str] = field(default_factory=dict, repr=False)
    _next: dict[str, tuple[str, ...]] = field(default_factory=dict, repr=False)

    def closure(self, roots: tuple[str, ...]) -> Mapping[str, str]:
        """Module -> hash, for `roots` and every project module that they reach.

        Imports lead from module to module. Modules `ASIDE` end the way; modules that only re-export are seen through:
        `from bench.api import Key` reaches the module that defines `Key`, and no other.

        Raises:
            ModuleNotFoundError: one of `roots` does not exist.
        """
        if roots not in self._closures:
            seen: dict[str, str] = {}
            pending = list(roots)
            while pending:
                name = pending.pop()
                if name not in seen:
                    seen[name] = self.module(name).digest
                    pending += self._reached(name)
            self._closures[roots] = dict(sorted(seen.items()))
        return self._closures[roots]

    def closure_digest(self, roots: tuple[str, ...]) -> str:
        """One hash of a whole closure."""
        if roots not in self._digests:
            lines = "".join(f"{name} {digest}\n" for name, digest in self.closure(roots).items())
            self._digests[roots] = hashlib.sha256(lines.encode()).hexdigest()
        return self._digests[roots]

    def module(self, name: str) -> _Module:
        """What is known of a module.

        Raises:
            ModuleNotFoundError: there is no such module, or it has no source.
        """
        if name not in self.modules:
            path = self._path(name)
            if path is None:
                raise ModuleNotFoundError(f"Expected a module with source, but got {name!r}.")
            source = path.read_text(encoding="utf-8")
            package = name if path.name == "__init__.py" else name.rpartition(".")[0]
            parsed = ast.parse(source)
            imports = tuple(_imports(parsed, package))
            self.modules[name] = _Module(digest_of(source), imports, all(map(_only_passes_on, parsed.body)))
        return self.modules[name]

    def _reached(self, name: str) -> tuple[str, ...]:
        """The modules that compute what a module imports."""
        if name not in self._next:
            imports = self.module(name).imports
            found = (behind for made in imports for behind in self._behind(made.module, made.name))
            self._next[name] = tuple(dict.fromkeys(found))
        return self._next[name]

    def _behind(self, module: str, name: str | None) -> Iterator[str]:
        """The modules that compute what `from module import name` binds (`import module`: whatever it holds)."""
        if self._path(module) is None or _aside(module):
            return
        known = self.module(module)
        made = [i for i in known.imports if name in (None, "*", i.bound)] if known.passes_on else []
        if name is not None and not made and self._path(f"{module}.{name}") is not None:
            yield from self._behind(f"{module}.{name}", None)
        elif known.passes_on:
            for each in made:
                yield from self._behind(each.module, each.name)
        else:
            yield module

    def _path(self, name: str) -> Path | None:
        """The file of a project module or of a loaded plug-in; None where there is none."""
        if name.split(".")[0] in PACKAGES:
            base = self.root.joinpath(*name.split("."))
            found = (path for path in (base.with_suffix(".py"), base / "__init__.py") if path.exists())
            return next(found, None)
        file = getattr(sys.modules.get(name), "__file__", None)
        return Path(file) if file is not None and _is_plugin(name) else None


def _is_plugin(name: str) -> bool:
    return name.startswith("bench_plugin")


def _aside(name: str) -> bool:
    return any(name == part or name.startswith(f"{part}.") for part in ASIDE)


def _only_passes_on(node: ast.stmt) -> bool:
    """Is it an import, a docstring, or a name between double underscores set?"""
    if isinstance(node, ast.Import | ast.ImportFrom) or _for_type_checkers(node):
        return True
    if isinstance(node, ast.Assign):
        return all(isinstance(target, ast.Name) and target.id.startswith("__") for target in node.targets)
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _for_type_checkers(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def _imports(node: ast.AST, package: str) -> Iterator[_Import]:
    """Every import below `node` that runs."""
    if isinstance(node, ast.Import):
        yield from (_Import(alias.name, None, alias.asname or alias.name.split(".")[0]) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        above = package.rsplit(".", node.level - 1)[0] if node.level else ""
        module = ".".join(filter(None, (above, node.module)))
        yield from (_Import(module, alias.name, alias.asname or alias.name) for alias in node.names)
    elif not _for_type_checkers(node):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, _HOLD_STATEMENTS):
                yield from _imports(child, package)


@cache
def tree() -> Tree:
    """The source that this process runs."""
    return Tree(Path(__file__).resolve().parents[2])


def closure(roots: Iterable[str]) -> Mapping[str, str]:
    """`Tree.closure` of the source that this process runs."""
    return tree().closure(tuple(roots))


def closure_digest(roots: Iterable[str]) -> str:
    """One hash of a whole closure."""
    return tree().closure_digest(tuple(roots))


def changed(known: Mapping[str, str]) -> list[str]:
    """The modules among `known` (module -> hash) whose source now has another hash, or is gone."""

    def now(name: str) -> str | None:
        try:
            return tree().module(name).digest
        except ModuleNotFoundError:
            return None

    return sorted(name for name, digest in known.items() if now(name) != digest)
