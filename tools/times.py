"""Prints where the time of one training step and of one judged rung goes.

python tools/times.py [--arch wrn] [--width 0.25] [--steps 20] [--schemes uchida-random,zhang-content,anw-hue]
    [--attack pruning] [--profile smoke] [--device cpu] [--threads 0]

A step: drawing and augmenting a batch, forward, loss, backward, optimiser, and what is left for the loop. A rung: the
attack, the verdicts, the accuracy on held-out images, image quality, and what is left for the judge.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch.nn import functional as F

from bench import archs
from bench.api import ImageSet, Recipe, Rng
from bench.contract.networks import clock_s
from bench.plan.selection import cells_of
from bench.plan.step import with_inputs
from bench.runner.cores import cores
from bench.runner.store import Store
from bench.runner.worker import Task, compute
from bench.steps import judge, training, workspace
from bench.steps.workspace import Place

BATCH = 64


class Stopwatch:
    """Seconds by name; what is timed inside another counts for itself alone.

    Args:
        device: that has to finish before the clock is read.
    """

    def __init__(self, device: str) -> None:
        self.device, self.seconds = torch.device(device), defaultdict[str, float](float)
        self.calls, self._inner = defaultdict[str, int](int), list[float]()

    def __call__(self, name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        """A function that is timed."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            start = clock_s(self.device)
            self._inner.append(0.0)
            try:
                return work(*args, **kwargs)
            finally:
                taken = clock_s(self.device) - start
                self.seconds[name] += taken - self._inner.pop()
                self.calls[name] += 1
                if self._inner:
                    self._inner[-1] += taken

        return timed

    @contextmanager
    def on(self, **places: tuple[Any, str]) -> Iterator[None]:
        """Scope in which attributes of modules and classes are timed: name -> (holder, attribute)."""
        with ExitStack() as stack:
            for name, (holder, attribute) in places.items():
                timed = self(name.replace("_", " "), getattr(holder, attribute))
                stack.enter_context(mock.patch.object(holder, attribute, timed))
            yield


def step_times(arch: str, width: float, steps: int, device: str) -> Mapping[str, float]:
    """Seconds of the parts of so many training steps."""
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randint(256, (steps * BATCH, 3, 32, 32), dtype=torch.uint8, generator=generator)
    images = ImageSet(pictures, torch.randint(10, (len(pictures),), generator=generator)).to(device)
    model, watch = archs.build(arch, 10, width=width, rng=Rng("times"), device=device), Stopwatch(device)
    options: dict[str, Any] = {"rng": Rng("times"), "augment": ("crop", "flip"), "mixed_precision": device != "cpu"}
    training.train(model, images[: 2 * BATCH], Recipe(1, 1e-4, BATCH), **options)
    watched = watch.on(
        forward=(type(model), "forward"), loss=(F, "cross_entropy"), backward=(torch.Tensor, "backward"),
        optimiser=(torch.optim.SGD, "step"), augmentation=(training, "augmented"), batches=(ImageSet, "__getitem__"),
        floats=(training, "pixels"), end_of_epoch=(training._Steps, "read_out"),
    )  # fmt: skip
    with watched:
        watch("the loop itself", training.train)(model, images, Recipe(1, 1e-4, BATCH), **options)
    return watch.seconds


def rung_times(scheme: str, attack: str, profile: str, place: Place) -> tuple[Mapping[str, float], int]:
    """Seconds of the parts of all rungs of a cell's attack, and their number; its trainings are computed before."""
    (cell,) = cells_of({"scheme": scheme, "attack": attack, "profile": profile, "null_keys": 0, "seeds": 1})
    if cell.reason is not None:
        raise SystemExit(cell.reason)
    watch = Stopwatch(place.device)
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        *before, last = with_inputs([cell.steps["attack"]])
        for step in before:
            _compute(step, store, place)
        judging = watch.on(
            the_judge_itself=(judge.Judge, "__call__"), verdicts=(judge.Judge, "verdicts"),
            accuracy=(training, "accuracy"), image_quality=(judge.Judge, "_image_quality"),
            data=(workspace, "load"),
        )  # fmt: skip
        with judging:
            watch("attack, and reading inputs", _compute)(last, store, place)
    return watch.seconds, watch.calls["the judge itself"]


def _compute(step: Any, store: Store, place: Place) -> None:
    done = compute(Task(step.kind, step.key, step.identity, step.label), store.root, place)
    if done.error:
        raise SystemExit(done.error)


def show(title: str, seconds: Mapping[str, float], count: int) -> None:
    """A table: milliseconds of one, and shares."""
    total = sum(seconds.values())
    print(f"{title}: {1000 * total / count:.2f} ms")
    for name, taken in sorted(seconds.items(), key=lambda part: -part[1]):
        print(f"  {name:28} {1000 * taken / count:9.2f} ms {100 * taken / total:6.1f} %")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="wrn")
    parser.add_argument("--width", type=float, default=0.25)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--schemes", default="uchida-random,zhang-content,anw-hue")
    parser.add_argument("--attack", default="pruning")
    parser.add_argument("--profile", default="smoke")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=0)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads or cores())
    print(f"{torch.get_num_threads()} threads, {asked.device}, {time.strftime('%Y-%m-%d')}")
    times = step_times(asked.arch, asked.width, asked.steps, asked.device)
    show(f"One training step of {asked.arch} at width {asked.width:g}, {BATCH} images", times, asked.steps)
    for scheme in filter(None, asked.schemes.split(",")):
        rungs, count = rung_times(scheme, asked.attack, asked.profile, Place(asked.device))
        show(f"One rung of {asked.attack} on {scheme} ({asked.profile})", rungs, count)


if __name__ == "__main__":
    main()
