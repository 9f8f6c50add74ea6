"""Reads JSON that may come from anybody: bounded size, depth and numbers, no repeated keys, no NaN, files only."""

from __future__ import annotations

import json
import math
import stat
from pathlib import Path
from typing import Any, NoReturn

__all__ = ["MAX_BYTES", "StrictJSONError", "parse_strict", "read_strict"]

MAX_BYTES = 64 << 20
MAX_DEPTH = 32
MAX_INTEGER = 2**63


class StrictJSONError(ValueError):
    """A text or a file is not JSON within the bounds; the message says what is wrong."""


def read_strict(path: Path, limit: int = MAX_BYTES) -> Any:
    """The JSON value in a regular file of at most `limit` bytes.

    A FIFO or a device is refused before it is opened, because opening one may never return.

    Raises:
        StrictJSONError: the file is missing, not regular, too large, not UTF-8, or not JSON within the bounds.
    """
    try:
        state = path.stat()
        if not stat.S_ISREG(state.st_mode):
            raise StrictJSONError("it is not a regular file")
        with path.open("rb") as file:
            content = file.read(limit + 1) if state.st_size <= limit else b""
    except OSError as error:
        raise StrictJSONError(str(error)) from error
    if state.st_size > limit or len(content) > limit:
        raise StrictJSONError(f"it is larger than {limit} bytes")
    try:
        return parse_strict(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise StrictJSONError("it is not UTF-8 text") from error


def parse_strict(text: str) -> Any:
    """The JSON value of `text`.

    Raises:
        StrictJSONError: not JSON, a key twice in one object, NaN or infinity, an integer of more than 64 bits, or
            lists and objects nested more than `MAX_DEPTH` deep.
    """
    try:
        value = json.loads(
            text, object_pairs_hook=_object, parse_constant=_constant, parse_float=_float, parse_int=_integer
        )
    except RecursionError as error:
        raise StrictJSONError("it is nested too deep") from error
    except json.JSONDecodeError as error:
        raise StrictJSONError(f"it is not JSON: {error}") from error
    _check_depth(value)
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]  # `add` gives None
        raise StrictJSONError(f"it says {twice[:80]!r} twice")
    return found


def _constant(name: str) -> NoReturn:
    raise StrictJSONError(f"{name} is no number of JSON")


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise StrictJSONError(f"the number {text[:20]} is too large")
    return value


def _integer(text: str) -> int:
    if len(text) > 20 or not -MAX_INTEGER <= (value := int(text)) < MAX_INTEGER:
        raise StrictJSONError(f"the integer {text[:20]}... has more than 64 bits")
    return value


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        nested = [child for child in level if isinstance(child, dict | list)]
        if not nested:
            return
        level = [each for child in nested for each in (child.values() if isinstance(child, dict) else child)]
    raise StrictJSONError(f"it is nested more than {MAX_DEPTH} deep")
