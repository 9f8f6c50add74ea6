"""Reads the selectors of a run from a YAML file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import rich_click as click

__all__ = ["read_suite"]


def read_suite(path: Path, known: Mapping[str, str]) -> dict[str, Any]:
    """The values in the file, by the names of the command's parameters.

    A list of names is what a comma list is when typed; `set` is a list of `NAME.PARAM=VALUE` or a mapping.

    Args:
        path: of a YAML file that holds one mapping.
        known: option as it is typed, without hyphens before it -> parameter.

    Raises:
        click.UsageError: the file is no such mapping, or names an option that does not exist.
    """
    from bench.identity import unknown

    found = {}
    for key, value in _mapping(path).items():
        name = str(key).replace("_", "-")
        if name not in known:
            raise click.UsageError(f"{path}: {unknown(name, known, 'a selector')}")
        if value is not None:
            found[known[name]] = _settings(value) if name == "set" else _typed(value)
    return found


def _mapping(path: Path) -> dict[Any, Any]:
    import yaml

    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise click.UsageError(f"Expected YAML in {path}, but: {' '.join(str(error).split())[:300]}.") from error
    if not isinstance(found, dict):
        raise click.UsageError(f"Expected selectors such as `scheme: all` in {path}, but got {type(found).__name__}.")
    return found


def _settings(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [f"{name}={_typed(each)}" for name, each in value.items()]
    return [str(each) for each in (value if isinstance(value, list) else [value])]


def _typed(value: Any) -> Any:
    """As it would be typed; `yes` and `no` stay what YAML makes of them."""
    if isinstance(value, list):
        return ",".join(map(str, value))
    return "none" if value is None else value if isinstance(value, bool) else str(value)
