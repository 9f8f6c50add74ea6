"""In which order steps start: that of the plan, or the longest chain first where the plan's could cost time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bench.plan.step import Step

__all__ = ["ordered", "priorities", "tails"]

WORTH = 0.1


def ordered(steps: Sequence[Step], seconds: Callable[[Step], float], workers: int) -> list[Step]:
    """The steps in the order in which they shall start where they are ready.

    Args:
        steps: to compute, each after those that it reads.
        seconds: the expected duration of a step.
        workers: at least 1.
    """
    number = {step.key: index for index, step in enumerate(steps)}
    inputs = [[number[read.key] for read in step.inputs.values() if read.key in number] for step in steps]
    first = priorities([seconds(step) for step in steps], inputs, workers)
    return sorted(steps, key=lambda step: first[number[step.key]])


def priorities(durations: Sequence[float], inputs: Sequence[Sequence[int]], workers: int) -> list[float]:
    """Of each step a number: of those that are ready, the one with the lowest starts.

    The order of the plan settles one cell after another. On m workers it ends at most (1 - 1/m) times the longest chain
    of steps later than the work divided evenly (Graham 1969, Theorem 1). Where that may be more than a tenth of the
    time, what begins the longest chain starts first.

    Args:
        durations: of each step; steps stand after their inputs.
        inputs: numbers of the steps that each step waits for.
        workers: at least 1.
    """
    longest = tails(durations, inputs)
    if (workers - 1) * max(longest, default=0.0) <= WORTH * sum(durations):
        return [float(number) for number in range(len(durations))]
    return [-chain for chain in longest]


def tails(durations: Sequence[float], inputs: Sequence[Sequence[int]]) -> list[float]:
    """Of each step, the longest chain that begins with it.

    Args:
        durations: of each step; steps stand after their inputs.
        inputs: numbers of the steps that each step waits for.
    """
    longest = list(durations)
    for step in reversed(range(len(durations))):
        for needed in inputs[step]:
            longest[needed] = max(longest[needed], durations[needed] + longest[step])
    return longest
