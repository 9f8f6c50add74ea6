"""Computes one step into the store."""

from __future__ import annotations

import gc
import time
import traceback as tracebacks
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from bench.plan.fingerprint import changed
from bench.registry import attacks, schemes
from bench.runner.arithmetic import pin
from bench.runner.assembly import whereabouts
from bench.runner.shared import store_at
from bench.runner.store import StoreError
from bench.steps import training
from bench.steps.kinds import COMPUTE
from bench.steps.scheme_workspace import SchemeWorkspace
from bench.steps.workspace import Place

__all__ = ["LOWER", "Outcome", "Task", "compute"]

LOWER = "give fewer --jobs, a smaller or narrower --arch, or a device with more memory."


@dataclass(frozen=True)
class Task:
    """A step as it travels to a worker: names and keys, no code."""

    kind: str
    key: str
    identity: Mapping[str, Any]
    label: str


@dataclass(frozen=True)
class Outcome:
    """What a worker answers.

    Attributes:
        seconds: that it took here; those of waiting where another process was computing it.
        found: whether another process had stored it.
        note: what a person should know of sharing it that went wrong.
        starved: whether it failed for want of memory.
        error: the traceback of a failure.
        damaged: key of an input whose stored result was damaged, and must be computed again first.
    """

    key: str
    seconds: float
    error: str | None = None
    damaged: str | None = None
    found: bool = False
    note: str | None = None
    starved: bool = False


def compute(task: Task, store_root: Path, place: Place, url: str | None = None) -> Outcome:
    """Compute one step into the store, unless another process has; never raises for what the step does wrong.

    Args:
        task: the step.
        store_root: of the local store.
        place: where the step is computed.
        url: where results are shared with other machines; None for nowhere.
    """
    start = time.perf_counter()
    try:
        store = store_at(store_root, url)
        _same_source(task)
        pin(place.device)
        with store.lock(task.key):
            if store.obtain(task.key):
                return Outcome(task.key, time.perf_counter() - start, found=True, note=store.note)
            inputs = {name: store.load(key) for name, key in task.identity["inputs"].items()}
            workspace = SchemeWorkspace(task.identity["spec"], inputs, place, task.identity["data"])
            with training.watched_by(partial(store.note_epoch, task.key)):
                output = COMPUTE[task.kind](workspace)
            meta = {
                "identity": dict(task.identity),
                "label": task.label,
                "seconds": time.perf_counter() - start,
                "where": whereabouts(place, torch.get_num_threads()),
            }
            store.save(task.key, meta, output.result, output.tensors)
    except StoreError as error:
        return Outcome(task.key, time.perf_counter() - start, tracebacks.format_exc(), error.key)
    except (Exception, SystemExit) as error:  # whatever a submitted scheme raises must fail its own cells only
        starved = _starved(error)
        words = tracebacks.format_exc() + (f"Out of memory on {place.device}: {LOWER}" if starved else "")
        return Outcome(task.key, time.perf_counter() - start, words, starved=starved)
    return Outcome(task.key, time.perf_counter() - start, note=store.note)


def _starved(error: BaseException) -> bool:
    """Whether an error says that memory is short; what a device's allocator keeps for later is given back then."""
    starved = isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)
    if starved and torch.cuda.is_available():
        gc.collect()
        torch.cuda.empty_cache()
    return starved


def _same_source(task: Task) -> None:
    """A worker that started after an edit must not store its result under the key of the code before."""
    for load in (schemes, attacks):  # a plug-in's module exists once the registry has loaded it
        load()
    edited = changed(task.identity["sources"])
    if edited:
        raise RuntimeError(
            f"Expected the source that the run was planned with, but {', '.join(edited)} changed meanwhile: "
            "give the same command again."
        )
