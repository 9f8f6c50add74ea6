"""The commands `bench list` and `bench show`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import rich_click as click

from bench.cli.common import console, fpr_option, sentences

__all__ = ["COMMANDS"]


@click.command("list")
@click.argument("what", type=click.Choice(["schemes", "attacks", "archs", "datasets", "profiles", "claims"]))
@click.option("--format", "style", type=click.Choice(["table", "json"]), default="table")
@sentences
def list_(what: str, style: str) -> None:
    """List what exists: schemes, attacks, archs, datasets, profiles or claims."""
    from bench.cli.fitting import plain_table

    entries = _ENTRIES[what]()
    if style == "json":
        click.echo(json.dumps(entries, indent=1))
        return
    if not entries:
        console().print(f"No {what} yet.")
        return
    columns = [name for name in _COLUMNS[what] if name in entries[0]]
    out, rows = console(), [[_short(entry[name]) for name in columns] for entry in entries]
    whole = [name for name in columns if name not in _LONG]
    out.print(plain_table(columns, rows, width=out.width, whole=whole, leave_out=columns[-2:0:-1]))


@click.command()
@click.argument("kind", type=click.Choice(["scheme", "attack", "arch", "dataset", "profile", "record"]))
@click.argument("name")
@fpr_option
@sentences
def show(kind: str, name: str, fpr: float) -> None:
    """Show the card of one scheme, attack, architecture, data set or profile, or what a record holds.

    NAME of a record is the path of its file; --fpr is for records alone.
    """
    from bench.cli.fitting import plain_table

    if kind == "record":
        _show_record(Path(name), fpr)
        return
    entry = dict(_entry(kind, name))
    params = entry.pop("params") if isinstance(entry.get("params"), list) else None
    _print_pairs((label.replace("_", " "), _long(value)) for label, value in entry.items())
    if params:
        out, rows = (
            console(),
            [(f"{name}.{p['name']}", p["type"], _long(p["default"]), p["description"]) for p in params],
        )
        out.print(plain_table(("--set", "type", "default", "meaning"), rows, width=out.width, leave_out=("type",)))


def _entry(kind: str, name: str) -> dict[str, Any]:
    from bench.registry import RegistryError, unknown

    entries = {entry["name"]: entry for entry in _ENTRIES[f"{kind}s"]()}
    if name not in entries:
        raise RegistryError(unknown(name, entries, f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"))
    return entries[name]


def _show_record(path: Path, fpr: float) -> None:
    """A cell's axes, headline numbers and curve, and where they come from; of another record its fields."""
    from bench.cli.report import print_rungs
    from bench.cli.tables import headline
    from bench.metrics.flat import rows
    from bench.metrics.security import false_claims_by_kind
    from bench.records.files import load_any
    from bench.records.record import CellRecord

    record = load_any(path)
    if not isinstance(record, CellRecord):
        _print_pairs((label.replace("_", " "), _long(value)) for label, value in record.model_dump(mode="json").items())
        return
    cell = {label: value for label, value in record.cell.model_dump(mode="json").items() if label != "attacks"}
    shown = {**cell, "status": record.status, "reason": record.reason, "cell key": record.cell_key}
    _print_pairs((label.replace("_", " "), _long(value)) for label, value in shown.items())
    if record.points:
        _print_pairs(headline(record, fpr).items())
        counts = false_claims_by_kind([record], fpr)
        _print_pairs((f"false claims, {kind}", f"{count.hits}/{count.trials}") for kind, count in counts.items())
        print_rungs(rows([record], fpr), axes=False)
    if record.traceback:
        console().print(record.traceback, soft_wrap=True)
    came = record.provenance.model_dump(mode="json", exclude={"steps"})
    _print_pairs((label.replace("_", " "), _long(value)) for label, value in came.items())


def _print_pairs(pairs: Iterable[tuple[str, Any]]) -> None:
    from bench.cli.fitting import plain_table

    out = console()
    out.print(plain_table(("", ""), list(pairs), width=out.width))


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
