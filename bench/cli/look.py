"""The commands `bench list` and `bench show`."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import rich_click as click

from bench.cli.common import console, sentences

__all__ = ["COMMANDS"]


@click.command("list")
@click.argument("what", type=click.Choice(["schemes", "attacks", "archs", "datasets", "profiles", "claims"]))
@click.option("--format", "style", type=click.Choice(["table", "json"]), default="table")
@sentences
def list_(what: str, style: str) -> None:
    """List what exists: schemes, attacks, archs, datasets, profiles or claims."""
    from bench.cli.tables import plain_table

    entries = _ENTRIES[what]()
    if style == "json":
        click.echo(json.dumps(entries, indent=1))
        return
    if not entries:
        console().print(f"No {what} yet.")
        return
    columns = [name for name in _COLUMNS[what] if name in entries[0]]
    table = plain_table(columns, [[_short(entry[name]) for name in columns] for entry in entries])
    table.collapse_padding = True
    for column in table.columns:  # only what is long anyway is broken, between its words
        column.no_wrap = column.header not in _LONG
    console().print(table)


@click.command()
@click.argument("kind", type=click.Choice(["scheme", "attack", "arch", "dataset", "profile"]))
@click.argument("name")
@sentences
def show(kind: str, name: str) -> None:
    """Show the card of one scheme, attack, architecture, data set or profile."""
    from bench.cli.tables import plain_table
    from bench.registry import RegistryError, unknown

    entries = {entry["name"]: entry for entry in _ENTRIES[f"{kind}s"]()}
    if name not in entries:
        raise RegistryError(unknown(name, entries, f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"))
    entry = dict(entries[name])
    params = entry.pop("params") if isinstance(entry.get("params"), list) else None
    out = console()
    out.print(plain_table(("", ""), [(label.replace("_", " "), _long(value)) for label, value in entry.items()]))
    if params:
        rows = [(f"{name}.{p['name']}", p["type"], _long(p["default"]), p["description"]) for p in params]
        out.print(plain_table(("--set", "type", "default", "meaning"), rows))


COMMANDS = (list_, show)


def _schemes() -> list[dict[str, Any]]:
    from bench.registry import schemes

    return [_card(cls) for cls in schemes().values()]


def _attacks() -> list[dict[str, Any]]:
    from bench.registry import attacks

    return [_card(cls) for cls in attacks().values()]


def _archs() -> list[dict[str, Any]]:
    from bench import archs

    found = [archs.arch(name) for name in archs.names()]
    return [{"name": a.name, "title": a.title, "layers": dict(a.layers), "head": a.head} for a in found]


def _datasets() -> list[dict[str, Any]]:
    from bench.data import DATASETS

    return [asdict(card) for card in DATASETS.values()]


def _profiles() -> list[dict[str, Any]]:
    from bench.plan.profiles import PROFILES

    return [asdict(profile) for profile in PROFILES.values()]


def _claims() -> list[dict[str, Any]]:
    """Papers' claims replayed as code; none is registered yet."""
    return []


_ENTRIES: dict[str, Callable[[], list[dict[str, Any]]]] = {
    "schemes": _schemes, "attacks": _attacks, "archs": _archs,
    "datasets": _datasets, "profiles": _profiles, "claims": _claims,
}  # fmt: skip

_COLUMNS = {
    "schemes": ("name", "carrier", "access", "payload", "title"),
    "attacks": ("name", "stage", "access", "paper", "title"),
    "archs": ("name", "layers", "title"),
    "datasets": ("name", "classes", "content", "augment", "title"),
    "profiles": ("name", "dataset", "seeds", "ranked", "title"),
    "claims": ("id", "paper", "statement"),
}
_LONG = ("title", "layers", "statement")


def _card(cls: type[Any]) -> dict[str, Any]:
    from bench.registry import params_of

    entry: dict[str, Any] = json.loads(json.dumps(asdict(cls.card)))
    defaults = params_of(cls())
    entry["params"] = [
        {
            "name": name,
            "type": _kind(field.annotation),
            "default": defaults[name],
            "description": field.description or "",
        }
        for name, field in cls.Params.model_fields.items()
    ]
    return entry


def _kind(annotation: Any) -> str:
    """What may be typed for a parameter: `int`, `off | intended`, `list of float`."""
    origin, parts = get_origin(annotation), [part for part in get_args(annotation) if part is not Ellipsis]
    if origin is Literal:
        return " | ".join(map(str, parts))
    if origin in (Union, UnionType):
        return " | ".join(map(_kind, parts))
    if origin in (tuple, list):
        return f"list of {_kind(parts[0])}"
    if origin is Annotated:
        return _kind(parts[0])
    return "none" if annotation is NoneType else str(getattr(annotation, "__name__", annotation))


def _short(value: Any) -> str | None:
    """What fits into a column: a paper as its first author's surname and its year, a map as its names."""
    if isinstance(value, dict) and "authors" in value:
        return f"{value['authors'].split(',')[0].split(' and ')[0].split()[-1]} {value['year']}"
    if isinstance(value, dict):
        return ", ".join(value)
    if isinstance(value, list | tuple) and len(value) > 6:
        return f"{len(value)}"
    return _long(value)


def _long(value: Any) -> str | None:
    if value is None or value == "":
        return None
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_long(part)}" for name, part in value.items() if part is not None) or None
    if isinstance(value, list | tuple):
        return ", ".join(str(_long(part)) for part in value) or None
    return {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)
