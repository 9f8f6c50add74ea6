"""Compares marked networks of a run directory's store with their clean twins."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from bench.identity import Rng, canonical, digest
from bench.metrics.detectability import FEWEST_TWINS, Part, parts, two_sample
from bench.metrics.property_inference import FEWEST_SEEDS, classifier
from bench.plan.matrix import Planned
from bench.plan.step import Step
from bench.plan.twins import clean_twins
from bench.records.detectability import SUBJECT, DetectabilityRow, Test
from bench.runner.store import Store

__all__ = ["TESTS", "Pool", "pools_of", "rows", "steps_of"]

TESTS: tuple[Test, ...] = ("ks", "variance", "classifier")
CARRIERS = ("weights", "behaviour")


class Pool(NamedTuple):
    """The networks of one seed: the marked one of a cell, and its clean twins."""

    cell: Planned
    marked: Step
    twins: tuple[Step, ...]


def pools_of(cells: Iterable[Planned]) -> list[Pool]:
    """The pools of the cells whose scheme marks a model; others have none."""
    return [
        Pool(cell, cell.steps["mark"], tuple(clean_twins(cell)))
        for cell in cells
        if cell.reason is None and cell.scheme.carrier in CARRIERS
    ]


def steps_of(pools: Iterable[Pool]) -> list[Step]:
    """The steps that leave the networks of the pools."""
    return [step for pool in pools for step in (pool.marked, *pool.twins)]


def rows(pools: Iterable[Pool], store: Store) -> Iterator[DetectabilityRow]:
    """The tests of each scheme, architecture, data set and situation over the seeds whose networks are stored."""
    read = cache(lambda key: _parts(store, key))
    groups: dict[str, list[Pool]] = defaultdict(list)
    for pool in pools:
        groups[canonical(_subject(pool.cell))].append(pool)
    for group in groups.values():
        whole = [pool for pool in group if all(store.has(step.key) for step in (pool.marked, *pool.twins))]
        networks = [[read(step.key) for step in (pool.marked, *pool.twins)] for pool in whole]
        keys = digest([[step.key for step in (pool.marked, *pool.twins)] for pool in whole])
        known = {**_subject(group[0].cell), "seeds": len(whole), "clean": sum(len(pool.twins) for pool in whole)}
        for test in TESTS:
            yield DetectabilityRow(**known, test=test, networks=keys, **_tested(networks, test, keys))


def _parts(store: Store, key: str) -> dict[str, Part]:
    weights = store.load(key).tensors("model")
    return parts({name: tensor.float().numpy() for name, tensor in weights.items() if tensor.is_floating_point()})


def _subject(cell: Planned) -> dict[str, Any]:
    return cell.cell.model_dump(mode="json", include=SUBJECT)


def _tested(networks: Sequence[Sequence[Mapping[str, Part]]], test: str, keys: str) -> dict[str, Any]:
    reason = _too_few(networks, test)
    if reason is not None:
        return {"reason": reason}
    inferred = test == "classifier"
    found = classifier(networks, Rng("detectability", keys)) if inferred else two_sample(networks, test)
    told = found._asdict()
    low, high = told.pop("interval") or (None, None)
    return {**told, "interval_low": low, "interval_high": high}


def _too_few(networks: Sequence[Sequence[Any]], test: str) -> str | None:
    """Why a test says nothing about so few networks."""
    if not networks:
        return "no seed has all its networks"
    if any(len(pool) - 1 < FEWEST_TWINS for pool in networks):
        return f"it takes {FEWEST_TWINS} clean networks a seed"
    if test == "classifier" and len(networks) < FEWEST_SEEDS:
        return f"it takes {FEWEST_SEEDS} seeds"
    return None
