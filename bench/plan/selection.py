"""Turns what a person selects (names, globs, tags, numbers) into the request that the matrix expands."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypedDict

from bench import archs, data
from bench.plan.matrix import Planned, Request, auxiliaries, expand
from bench.plan.profiles import PROFILES, Profile
from bench.registry import RegistryError, attack_chain, attacks, choose, schemes, tags, unknown

__all__ = ["DEFAULTS", "Selectors", "cells_of", "checksums", "overrides"]

SITUATIONS = ("train", "fine-tune", "distill")


class Selectors(TypedDict, total=False):
    """Which cells a plan or a run is about; the command line has an option for each.

    Attributes:
        scheme, attack, arch: names, globs, comma lists, `all` or `@tags`; attacks chain as `a=strength+b`.
        dataset: names, with commas.
        profile: what the numbers mean.
        situation: embedding while `train`, `fine-tune`, `distill`, or `all`.
        seeds: how many.
        owners: that a host carries at once.
        null_keys: at most so many fresh keys claim each clean host.
        null_hosts: null models of each kind that are trained for fresh keys to claim.
        fresh_keys: so many fresh keys claim each clean host and null model, and each host after an attack.
        trained_keys: at most so many of them where making a key takes a training.
        left_out_owners: owners who claim a network that was trained without their images.
        settings: `NAME.PARAM` -> value, or texts `NAME.PARAM=VALUE`.
        data_root: the folder with real data sets.
        download: let torchvision fetch what is missing.
    """

    scheme: str
    attack: str
    arch: str | None
    dataset: str | None
    profile: str
    situation: str | None
    seeds: int | None
    owners: int
    null_keys: int | None
    null_hosts: int | None
    fresh_keys: int | None
    trained_keys: int | None
    left_out_owners: int | None
    settings: Mapping[str, Any] | Iterable[str]
    data_root: Path | str | None
    download: bool


DEFAULTS: Selectors = {
    "scheme": "all", "attack": "pruning", "arch": None, "dataset": None, "profile": "quick", "situation": None,
    "seeds": None, "owners": 1, "null_keys": None, "null_hosts": None, "fresh_keys": None,
    "trained_keys": None, "left_out_owners": None, "settings": (), "data_root": None, "download": False,
}  # fmt: skip
# What `@pipeline` stands for: before, while and after a learner trains, and on a stolen network.
PIPELINES = (
    "images-jpeg+cutout+output-noise",
    "images-wavelet+mixup+randomised-smoothing",
    "pruning=50+ftal+input-jpeg",
    "quantisation+input-median",
)
LEAST = {
    "seeds": 1, "owners": 1, "null_keys": 0, "null_hosts": 0, "fresh_keys": 1, "trained_keys": 1, "left_out_owners": 1,
}  # fmt: skip
MOST = 10_000
MOST_NULL_HOSTS = 200  # a record holds 2,000 sets of p-values, and each null model several


def cells_of(selectors: Selectors) -> list[Planned]:
    """All cells that are selected, each with its steps.

    Raises:
        RegistryError: a selector, a name or a parameter does not exist, or a number is out of bounds.
        DataError: a data set does not exist, is broken or is too small.
    """
    wish, root = request(selectors), _folder(selectors.get("data_root"))
    return expand(wish, checksums(wish, root, selectors.get("download", False)))


def checksums(wish: Request, data_root: Path | None = None, download: bool = False) -> dict[str, str]:
    """The checksum of each data set of a request, and of those others of its adversaries that can be loaded.

    Raises:
        DataError: a data set of the request is missing, broken or too small, or an adversary's does not exist.
        RegistryError: a parameter of an attack is out of bounds.
    """
    place: dict[str, Any] = {"data_root": data_root, "download": download}
    found = {name: data.checksum(name, **place) for name in wish.datasets}
    for name in auxiliaries(wish):
        data.card(name, data_root=data_root)
        with suppress(data.DataError):  # its cells say that they have no meaning without it
            found[name] = data.checksum(name, **place)
    return found


def request(selectors: Selectors) -> Request:
    """The axes of the matrix that the selectors describe.

    Raises:
        RegistryError: as `cells_of`.
    """
    given: dict[str, Any] = {**DEFAULTS, **_checked(selectors)}
    profile = _nulls(PROFILES[choose(given["profile"], dict.fromkeys(PROFILES, ()), "a profile")[0]], given)
    situations = dict.fromkeys(SITUATIONS, ())
    chosen_schemes = choose(given["scheme"], {n: tags(c) for n, c in schemes().items()}, "a scheme")
    chosen_attacks = _attacks(given["attack"])
    return Request(
        schemes=tuple(chosen_schemes),
        attacks=tuple(chosen_attacks),
        archs=_archs(given["arch"]) if given["arch"] else profile.archs,
        datasets=_datasets(given["dataset"], given["data_root"]) if given["dataset"] else (profile.dataset,),
        situations=tuple(choose(given["situation"] or profile.situation, situations, "a situation")),
        profile=profile,
        seeds=tuple(range(given["seeds"] or profile.seeds)),
        owners=given["owners"],
        null_keys=given["null_keys"],
        overrides=overrides(given["settings"], [*chosen_schemes, *_in_chains(chosen_attacks)]),
    )


def _nulls(profile: Profile, given: Mapping[str, Any]) -> Profile:
    """The profile with as many null models and fresh keys as were asked for."""
    asked = {
        "null_hosts": given["null_hosts"], "null_keys": given["fresh_keys"], "attacked_null_keys": given["fresh_keys"],
        "trained_null_keys": given["trained_keys"], "left_out_owners": given["left_out_owners"],
    }  # fmt: skip
    return replace(profile, **{name: number for name, number in asked.items() if number is not None})


def overrides(settings: Mapping[str, Any] | Iterable[str], chosen: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Scheme or attack -> parameter -> value, from `NAME.PARAM` -> value or texts `NAME.PARAM=VALUE`.

    Raises:
        RegistryError: a text is of another form, or names nothing of `chosen`.
    """
    found: dict[str, dict[str, Any]] = {}
    pairs = settings.items() if isinstance(settings, Mapping) else map(_pair, settings)
    for name, value in pairs:
        target, dot, param = name.rpartition(".")
        if not (dot and target and param):
            raise RegistryError(f'Expected NAME.PARAM, but got "{name}": for instance uchida-random.bits.')
        for part in choose(target, dict.fromkeys(chosen, ()), "a scheme or attack of this run"):
            found.setdefault(part, {})[param] = value
    return found


def _pair(setting: str) -> tuple[str, str]:
    name, equals, value = setting.partition("=")
    if not (equals and "." in name):
        raise RegistryError(f'Expected --set NAME.PARAM=VALUE, but got "{setting}": try --set uchida-random.bits=128.')
    return name, value


def _checked(selectors: Selectors) -> dict[str, Any]:
    """What a caller in Python may get wrong; the command line checks the same before."""
    given: dict[str, Any] = dict(selectors)
    for name, value in given.items():
        if name not in DEFAULTS:
            raise RegistryError(unknown(name, DEFAULTS, "a selector"))
        low = LEAST.get(name)
        most = MOST_NULL_HOSTS if name == "null_hosts" else MOST
        if low is not None and value is not None and not (type(value) is int and low <= value <= most):
            raise RegistryError(f"Expected {name} to be a whole number from {low} to {most}, but got {value!r}.")
    return given


def _folder(given: Path | str | None) -> Path | None:
    return None if given is None else Path(given)


def _in_chains(chains: list[str]) -> list[str]:
    return list(dict.fromkeys(name for chain in chains for name, _ in attack_chain(chain)))


def _attacks(expression: str) -> list[str]:
    """Names, globs and tags; chains (`a=strength+b`) as they are, and `@pipeline` as those of `PIPELINES`."""
    known = {name: tags(cls) for name, cls in attacks().items()}
    items = [item.strip() for item in expression.replace("@pipeline", ",".join(PIPELINES)).split(",") if item.strip()]
    chains = [item for item in items if "+" in item or "=" in item]
    for chain in chains:
        attack_chain(chain)
    plain = [item for item in items if item not in chains]
    return [*(choose(",".join(plain), known, "an attack") if plain or not chains else []), *chains]


def _archs(expression: str) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for item in filter(None, map(str.strip, expression.split(","))):
        try:
            found |= dict.fromkeys(choose(item, dict.fromkeys(archs.names(), ()), "an architecture"))
        except RegistryError:
            try:
                archs.arch(item)  # wrn-16-2 and the like are not listed, but exist
                found[item] = None
            except ValueError as error:
                raise RegistryError(str(error)) from error
    if not found:
        raise RegistryError(f'Expected an architecture, but got "{expression}".')
    return tuple(found)


def _datasets(expression: str, data_root: Path | str | None) -> tuple[str, ...]:
    names = list(filter(None, map(str.strip, expression.split(","))))
    if not names:
        raise data.DataError(f'Expected a data set, but got "{expression}".')
    return tuple(data.card(name, data_root=_folder(data_root)).name for name in names)
