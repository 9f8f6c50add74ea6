"""What exists, and how is it named? Finds schemes and attacks by scanning their folders; nobody edits a list.

`BENCH_PLUGINS` (files or folders, separated as in PATH) adds schemes and attacks from outside the repository.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Collection, Iterator, Mapping
from copy import copy
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from types import ModuleType, NoneType
from typing import Any, TypeVar, get_args, get_origin

from pydantic import ValidationError, create_model
from pydantic.fields import FieldInfo

import attacks as attack_package
import schemes as scheme_package
from bench.api import Attack, Params, Scheme
from bench.identity import unknown

__all__ = ["RegistryError", "attack_chain", "attacks", "choose", "make", "params_of", "schemes", "tags", "unknown"]

Part = TypeVar("Part", bound=Scheme | Attack)


class RegistryError(ValueError):
    """A name, a parameter or a plug-in file is not usable; the message says what to do."""


def schemes() -> dict[str, type[Scheme]]:
    """All registered schemes by name."""
    return _collect(Scheme, tuple(_plugin_files()))  # type: ignore[type-abstract]  # the base is only compared


def attacks() -> dict[str, type[Attack]]:
    """All registered attacks by name."""
    return _collect(Attack, tuple(_plugin_files()))  # type: ignore[type-abstract]  # the base is only compared


def make(cls: type[Part], params: Mapping[str, Any]) -> Part:
    """An instance with these parameters (strings are converted).

    Raises:
        RegistryError: a parameter is unknown or out of bounds.
    """
    try:
        return cls(**{name: _parsed(cls.Params, name, value) for name, value in params.items()})
    except ValidationError as error:
        first = error.errors()[0]
        where = f"{cls.card.name}.{'.'.join(map(str, first['loc']))}"
        known = ", ".join(cls.Params.model_fields)
        raise RegistryError(
            f"Parameter {where}: {first['msg']}, but got {first['input']!r}. Known: {known}."
        ) from error


def _parsed(model: type[Params], name: str, value: Any) -> Any:
    """A list as it is typed, with commas, and `none`; everything else is converted by the field itself."""
    field = model.model_fields.get(name)
    if not isinstance(value, str) or field is None:
        return value
    if get_origin(field.annotation) in (tuple, list):
        return [item.strip() for item in value.split(",")]
    return None if value == "none" and NoneType in get_args(field.annotation) else value


def params_of(part: Scheme | Attack) -> dict[str, Any]:
    """The parameters as JSON values."""
    dumped: dict[str, Any] = part.params.model_dump(mode="json")
    return dumped


def tags(cls: type[Scheme] | type[Attack]) -> set[str]:
    """What `@tag` selects a scheme or attack by: carrier, access and payload, or stage."""
    card: Any = cls.card
    fields = ("carrier", "access", "payload") if issubclass(cls, Scheme) else ("stage",)
    return {str(getattr(card, name)).replace(" ", "-") for name in fields}


def choose(expression: str, known: Mapping[str, Collection[str]], what: str) -> list[str]:
    """Names selected by an expression: a comma list of names, globs, `all` and `@tag`, in the order of `known`.

    Args:
        expression: what was typed.
        known: name -> tags.
        what: for the message, for instance "a scheme".

    Raises:
        RegistryError: an item selects nothing.
    """
    chosen: set[str] = set()
    for item in filter(None, (part.strip() for part in expression.split(","))):
        if item == "all":
            hits = set(known)
        elif item.startswith("@"):
            hits = {name for name, labels in known.items() if item[1:] in labels}
        else:
            hits = {name for name in known if fnmatchcase(name, item)}
        if not hits:
            labels = sorted({f"@{label}" for some in known.values() for label in some})
            raise RegistryError(unknown(item, [*known, *labels], what))
        chosen |= hits
    if not chosen:
        raise RegistryError(unknown(expression, known, what))
    return [name for name in known if name in chosen]


def attack_chain(text: str) -> list[tuple[str, float | None]]:
    """The attacks of `a=strength+b`, in order, with the strengths that are given.

    Raises:
        RegistryError: a name does not exist, a strength is no number, or an attack without a ladder is in a chain.
    """
    chain = []
    for item in text.split("+"):
        name, equals, strength = item.strip().partition("=")
        if name not in attacks():
            raise RegistryError(unknown(name, attacks(), "an attack"))
        try:
            chain.append((name, float(strength) if equals else None))
        except ValueError as error:
            raise RegistryError(f'Expected a strength as in "{name}=50", but got "{item}".') from error
    without = [name for name, _ in chain if attacks()[name].card.stage == "none"]
    if without and len(chain) > 1:
        raise RegistryError(f'Expected attacks in "{text}", but got {without[0]}, which does nothing: leave it out.')
    return chain


@cache
def _collect(base: type[Part], plugins: tuple[Path, ...]) -> dict[str, type[Part]]:
    package = scheme_package if issubclass(base, Scheme) else attack_package
    found: dict[str, type[Part]] = {}
    for module in (*_package_modules(package), *map(_plugin_module, plugins)):
        for _, cls in inspect.getmembers(module, inspect.isclass):
            if not issubclass(cls, base) or cls.__module__ != module.__name__ or "card" not in cls.__dict__:
                continue
            for named in (cls, *_variants(cls)):
                _check(named, found)
                found[named.card.name] = named
    return dict(sorted(found.items()))


def _variants(cls: type[Part]) -> Iterator[type[Part]]:
    """A class for each variant: the same code under another name, with other defaults."""
    if "variants" not in cls.__dict__:
        return
    for variant in cls.variants:
        fields = cls.Params.model_fields
        unknown_names = sorted(set(variant.presets) - set(fields))
        if unknown_names:
            raise RegistryError(
                f"{_where(cls)}: expected presets of {variant.name} among {', '.join(fields)}, but got "
                f"{', '.join(unknown_names)}."
            )
        presets: dict[str, Any] = {
            name: (fields[name].annotation, _with_default(fields[name], value))
            for name, value in variant.presets.items()
        }
        params = create_model(cls.Params.__name__, __base__=cls.Params, __doc__=cls.Params.__doc__, **presets)
        card = replace(cls.card, name=variant.name, title=variant.title, **variant.card)
        body = {"card": card, "Params": params, "variants": (), "__module__": cls.__module__, "__doc__": variant.title}
        yield type(f"{cls.__name__}:{variant.name}", (cls,), body)


def _with_default(field: FieldInfo, value: Any) -> FieldInfo:
    """The same bounds and description, another default."""
    changed = copy(field)
    changed.default = tuple(value) if isinstance(value, list) else value
    changed.validate_default = True
    return changed


def _check(cls: type[Any], found: Mapping[str, type[Any]]) -> None:
    if cls.card.name in found:
        other = found[cls.card.name]
        raise RegistryError(f'Two classes call themselves "{cls.card.name}": {_where(other)} and {_where(cls)}.')
    if inspect.isabstract(cls):
        missing = ", ".join(sorted(cls.__abstractmethods__))
        raise RegistryError(f"{_where(cls)} does not override {missing}: see bench/api.py for the signatures.")
    if not issubclass(cls.Params, Params):
        raise RegistryError(f"{_where(cls)}: expected Params to derive from bench.api.Params.")


def _where(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _package_modules(package: ModuleType) -> Iterator[ModuleType]:
    for folder in package.__path__:
        for path in sorted(Path(folder).glob("[!_]*.py")):
            yield _imported(path, lambda name=f"{package.__name__}.{path.stem}": importlib.import_module(name))


def _plugin_files() -> Iterator[Path]:
    for entry in filter(None, os.environ.get("BENCH_PLUGINS", "").split(os.pathsep)):
        path = Path(entry).resolve()
        if not path.exists():
            raise RegistryError(f"Expected BENCH_PLUGINS to name files or folders, but there is no {path}.")
        yield from sorted(path.glob("[!_]*.py")) if path.is_dir() else [path]


def _plugin_module(path: Path) -> ModuleType:
    name = f"bench_plugin_{path.stem}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise RegistryError(f"Expected a Python file, but got {path}.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    loader = spec.loader

    def load() -> ModuleType:
        loader.exec_module(module)
        return module

    return _imported(path, load)


def _imported(path: Path, load: Any) -> ModuleType:
    try:
        module: ModuleType = load()
    except RegistryError:
        raise
    except Exception as error:  # a submitted file may fail in any way; the message must name it
        raise RegistryError(f"{path} could not be imported: {type(error).__name__}: {error}") from error
    return module
