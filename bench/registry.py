"""All schemes and attacks by name, found by scanning their folders; nobody edits a list.

Those from outside the repository come from the files and folders in `BENCH_PLUGINS` (separated as in PATH; `--plugin`
adds to it) and from the entry points of installed packages in the groups `watermark_bench.schemes` and
`watermark_bench.attacks`, each of which names a module or a class.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping
from copy import copy
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import cache, partial
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType, NoneType
from typing import Any, TypeVar, get_args, get_origin

from pydantic import ValidationError, create_model
from pydantic.fields import FieldInfo

import attacks as attack_package
import schemes as scheme_package
from bench.api import Attack, Params, Scheme
from bench.identity import unknown

__all__ = [
    "PLUGINS", "RegistryError", "add_plugins", "attack_chain", "attacks", "choose", "make", "params_of", "schemes",
    "tags", "unknown",
]  # fmt: skip

PLUGINS = "BENCH_PLUGINS"

Part = TypeVar("Part", bound=Scheme | Attack)


class RegistryError(ValueError):
    """A name, a parameter or a plug-in file is not usable; the message says what to do."""


def schemes() -> dict[str, type[Scheme]]:
    """All registered schemes by name."""
    return _collect(Scheme, tuple(_plugin_files()))  # type: ignore[type-abstract]  # the base is only compared


def attacks() -> dict[str, type[Attack]]:
    """All registered attacks by name."""
    return _collect(Attack, tuple(_plugin_files()))  # type: ignore[type-abstract]  # the base is only compared


def add_plugins(files: Collection[Path]) -> None:
    """Add files or folders to `BENCH_PLUGINS`, which worker processes inherit.

    Raises:
        RegistryError: one does not exist, or its path cannot stand in a list of paths.
    """
    for path in files:
        _check_plugin(path)
        if os.pathsep in str(path.absolute()):
            raise RegistryError(
                f'Expected the path of a plug-in without "{os.pathsep}", but got {path}: move the file.'
            )
    before = os.environ.get(PLUGINS)
    os.environ[PLUGINS] = os.pathsep.join([*filter(None, [before]), *(str(path.absolute()) for path in files)])


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


def tags(cls: type[Scheme[Any]] | type[Attack]) -> set[str]:
    """What `@tag` selects by: a scheme's carrier, access and payload; an attack's stage and what its adversary has.

    `@white-box`, `@scores`, `@labels` and `@no-data` follow from the adversary; `@weights` acts on the network,
    `@extraction` on what it answers, `@fine-tuning` on the network with images of the adversary's own; the family is
    the file that an attack stands in (`@pruning`).
    """
    if issubclass(cls, Scheme):
        return {str(part).replace(" ", "-") for part in (cls.card.carrier, cls.card.access, cls.card.payload)}
    adversary, stage = cls.card.adversary, cls.card.stage
    found = {stage, adversary.access} - {"none"} | ({"none"} if stage == "none" else set())
    found |= set() if adversary.images else {"no-data"}
    found.add(cls.__module__.rpartition(".")[2].strip("_").replace("_", "-"))
    if stage == "model" and adversary.access == "white-box":
        found.add("weights")
    if stage == "model" and adversary.access in ("scores", "labels"):
        found.add("extraction")
    if stage == "model" and adversary.access == "white-box" and "own" in adversary.images:
        found.add("fine-tuning")
    return found


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
    labels = {f"@{label}" for some in known.values() for label in some}
    for item in filter(None, (_spelt(part.strip(), {*known, *labels}) for part in expression.split(","))):
        if item == "all":
            hits = set(known)
        elif item.startswith("@"):
            hits = {name for name, labels in known.items() if item[1:] in labels}
        else:
            hits = {name for name in known if fnmatchcase(name, item)}
        if not hits:
            raise RegistryError(unknown(item, [*known, *sorted(labels)], what))
        chosen |= hits
    if not chosen:
        raise RegistryError(unknown(expression, known, what))
    return [name for name in known if name in chosen]


def _spelt(name: str, known: Collection[str]) -> str:
    """The name; `quantization` and the like as they are spelt here."""
    ours = name.replace("iz", "is")
    return ours if name not in known and ours in known else name


def attack_chain(text: str) -> list[tuple[str, float | None]]:
    """The attacks of `a=strength+b`, in order, with the strengths that are given.

    Raises:
        RegistryError: a name does not exist, a strength is no number, an attack without a ladder is in a chain, or one
            begins a training anew after another has changed the network.
    """
    chain = []
    for item in text.split("+"):
        name, equals, strength = item.strip().partition("=")
        name = _spelt(name, attacks())
        if name not in attacks():
            raise RegistryError(unknown(name, attacks(), "an attack"))
        try:
            chain.append((name, float(strength) if equals else None))
        except ValueError as error:
            raise RegistryError(f'Expected a strength as in "{name}=50", but got "{item}".') from error
    without = [name for name, _ in chain if attacks()[name].card.stage == "none"]
    if without and len(chain) > 1:
        raise RegistryError(f'Expected attacks in "{text}", but got {without[0]}, which does nothing: leave it out.')
    stages = [attacks()[name].card.stage for name, _ in chain]
    late = [i for i, stage in enumerate(stages) if stage in ("data", "training") and "model" in stages[:i]]
    if late:
        changed, trains = chain[stages.index("model")][0], chain[late[0]][0]
        raise RegistryError(
            f'Expected trainings first in "{text}", but got {trains} after {changed}, whose network it would replace: '
            "change the order."
        )
    return chain


@cache
def _collect(base: type[Part], plugins: tuple[Path, ...]) -> dict[str, type[Part]]:
    found: dict[str, type[Part]] = {}
    for cls in dict.fromkeys(_classes(base, plugins)):
        for named in (cls, *_variants(cls)):
            _check(named, found)
            found[named.card.name] = named
    return dict(sorted(found.items()))


def _classes(base: type[Part], plugins: tuple[Path, ...]) -> Iterator[type[Part]]:
    """Every class with a card of its own: of the project's folder, of plug-in files, of installed packages."""
    package = scheme_package if issubclass(base, Scheme) else attack_package
    for module in (*_package_modules(package), *map(_plugin_module, plugins)):
        yield from _defined(module, base)
    for point in entry_points(group=f"watermark_bench.{package.__name__}"):
        yield from _pointed_at(point, base)


def _defined(module: ModuleType, base: type[Part]) -> Iterator[type[Part]]:
    """The classes that a module or its submodules define; what it only imports is another's."""
    for _, cls in inspect.getmembers(module, inspect.isclass):
        own = f"{cls.__module__}.".startswith(f"{module.__name__}.")
        if own and issubclass(cls, base) and "card" in cls.__dict__:
            yield cls


def _pointed_at(point: EntryPoint, base: type[Part]) -> Iterator[type[Part]]:
    where = f"Entry point {point.group}:{point.name} = {point.value}"
    loaded = _imported(where, point.load)
    if isinstance(loaded, ModuleType):
        yield from _defined(loaded, base)
    elif isinstance(loaded, type) and issubclass(loaded, base) and "card" in loaded.__dict__:
        yield loaded
    else:
        raise RegistryError(f"{where}: expected a module or a {base.__name__} with a card, but got {loaded!r}.")


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
        raise RegistryError(
            f'Two classes call themselves "{cls.card.name}": {_where(other)} and {_where(cls)}: rename one.'
        )
    if inspect.isabstract(cls):
        missing = ", ".join(sorted(cls.__abstractmethods__))
        raise RegistryError(f"{_where(cls)} does not override {missing}: see bench/api.py for the signatures.")
    if not issubclass(cls.Params, Params):
        raise RegistryError(f"{_where(cls)}: expected Params to derive from bench.api.Params.")


def _where(cls: type) -> str:
    return f"{cls.__qualname__} in {sys.modules[cls.__module__].__file__}"


def _package_modules(package: ModuleType) -> Iterator[ModuleType]:
    for folder in package.__path__:
        for path in sorted(Path(folder).glob("[!_]*.py")):
            yield _imported(path, partial(importlib.import_module, f"{package.__name__}.{path.stem}"))


def _plugin_files() -> Iterator[Path]:
    """Each plug-in file once, however often it or its folder is named."""
    files: dict[Path, None] = {}
    for entry in filter(None, os.environ.get(PLUGINS, "").split(os.pathsep)):
        path = _check_plugin(Path(entry)).resolve()
        files |= dict.fromkeys(sorted(path.glob("[!_]*.py")) if path.is_dir() else [path])
    return iter(files)


def _check_plugin(path: Path) -> Path:
    if not path.exists():
        raise RegistryError(
            f"Expected {PLUGINS} and --plugin to name files or folders, but there is no {path.absolute()}."
        )
    return path


def _plugin_module(path: Path) -> ModuleType:
    """A plug-in file as a module whose name holds a digest of its path, so that equal stems do not meet."""
    name = f"bench_plugin_{path.stem}_{hashlib.sha256(os.fsencode(path)).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise RegistryError(f"Expected a Python file, but got {path}: give a file that ends in .py.")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        _imported(path, partial(spec.loader.exec_module, module))
    except RegistryError:
        del sys.modules[name]
        raise
    return module


def _imported(where: Path | str, load: Callable[[], Any]) -> Any:
    try:
        return load()
    except RegistryError:
        raise
    except (Exception, SystemExit) as error:  # a submitted file may fail in any way; the message must name it
        line = _line(where, error)
        raise RegistryError(f"{where} could not be imported{line}: {type(error).__name__}: {error}") from error


def _line(where: Path | str, error: BaseException) -> str:
    """The last line of the file that took part in the error."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(where)]
    return f" (line {lines[-1]})" if lines else ""
