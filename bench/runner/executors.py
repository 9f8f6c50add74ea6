"""Executors of steps on one machine: this process, or worker processes; `bench.runner.ray` has those of a cluster."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

import torch

from bench.runner.cores import cores
from bench.steps.workspace import Place

__all__ = ["Inline", "NodesLostError", "Settings", "device_of", "pick_device", "pool_for"]


KINDS = ("cpu", "cuda")


@dataclass(frozen=True)
class Settings:
    """How to compute; of no influence on what is computed (but for the number of threads, which is recorded).

    Attributes:
        jobs: worker processes, of which 1 is this process; with Ray, the most steps at a time on a node.
        executor: `local` or `ray`.
        threads: threads of one worker; 0 lets the workers share the cores that this process may use.
        address: of the Ray cluster to join; None for `RAY_ADDRESS`, else a cluster of this machine alone.
        max_time_s: start no step that is expected to end after this many seconds; None for no limit.
    """

    place: Place
    jobs: int = 1
    executor: str = "local"
    max_time_s: float | None = None
    threads: int = 0
    address: str | None = None

    def __post_init__(self) -> None:
        if not self.threads:
            object.__setattr__(self, "threads", max(1, cores() // self.jobs))


def device_of(worker: int, devices: Sequence[int]) -> int:
    """The device of the worker that started as this one, from 0: each device has one before any has two.

    Raises:
        ValueError: there is no device.
    """
    if not devices:
        raise ValueError("Expected a GPU for --device cuda, but this worker sees none: try --device cpu.")
    return devices[worker % len(devices)]


def pick_device(asked: str) -> str:
    """`auto` is a GPU where there is one.

    Raises:
        ValueError: the device does not exist here, or is of a kind that was never tried.
    """
    if asked == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        if torch.device(asked).type not in KINDS:
            raise ValueError(f"Expected a device of kind {' or '.join(KINDS)}, but got {asked!r}: try --device auto.")
        torch.empty(0, device=asked)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"Expected a device of this machine, but got {asked!r} ({reason}): try --device auto."
        ) from error
    return asked


class Inline(Executor):
    """Computes at once, in this process."""

    def __init__(self, settings: Settings) -> None:
        torch.set_num_threads(settings.threads)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Compute at once."""
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


class NodesLostError(RuntimeError):
    """No machine is left that could compute; what is not computed stays to be done."""


def pool_for(settings: Settings) -> Executor:
    """Worker processes, as the settings say."""
    context = get_context("spawn")
    slots = context.Value("i", 0)
    arguments = (settings.threads, settings.place.device, slots, os.getpid())
    return ProcessPoolExecutor(settings.jobs, mp_context=context, initializer=_start_worker, initargs=arguments)


def _start_worker(threads: int, device: str, slots: Any, parent: int) -> None:
    """Share the cores and the GPUs, and go when the parent goes, even if it was killed."""
    torch.set_num_threads(threads)
    if device == "cuda":
        with slots.get_lock():
            torch.cuda.set_device(device_of(slots.value, range(torch.cuda.device_count())))
            slots.value += 1

    def watch_parent() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch_parent, daemon=True).start()
