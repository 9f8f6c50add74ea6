"""Simulated schedules of known graphs, FLOPs of known layers, and what steps of the real plan are taken to cost."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor, nn

from bench import archs
from bench.identity import Rng
from bench.plan.matrix import Request, expand, steps_of
from bench.plan.profiles import PROFILES
from bench.registry import attacks
from tools import scaling

# Two chains that meet: 0 -> 2, 1 -> 2, 2 -> 3 and 2 -> 4.
DIAMOND = ([3.0, 1.0, 2.0, 4.0, 1.0], [[], [], [0, 1], [2], [2]])


def drawn(seed: int) -> tuple[list[float], list[list[int]]]:
    """A graph of 30 steps by chance."""
    draw = random.Random(seed)
    inputs = [draw.sample(range(step), min(step, draw.randrange(4))) for step in range(30)]
    return [draw.uniform(0.1, 5) for _ in inputs], inputs


@pytest.mark.parametrize(("workers", "makespan"), [(1, 11.0), (2, 9.0), (5, 9.0)])
def test_a_known_graph_takes_as_long_as_by_hand(workers: int, makespan: float) -> None:
    """On two workers: 0 and 1, then 2 from 3 to 5, then 3 and 4 until 9."""
    found = scaling.schedule(*DIAMOND, workers)
    assert (found.makespan, found.total, found.critical) == (makespan, 11.0, 9.0)
    assert found.ideal == max(9.0, 11.0 / workers)
    assert found.limit == ("the work" if workers == 1 else "the longest chain of steps")


def test_grahams_own_example_meets_his_bound() -> None:
    """m (m - 1) short steps before one of length m: list scheduling takes 2 m - 1, the best m (Graham 1969)."""
    workers = 4
    durations = [1.0] * (workers * (workers - 1)) + [float(workers)]
    none: list[list[int]] = [[] for _ in durations]
    assert scaling.schedule(durations, none, workers).makespan == 2 * workers - 1
    longest_first = [-length for length in durations]
    assert scaling.schedule(durations, none, workers, longest_first).makespan == workers


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("workers", [1, 2, 3, 7])
def test_no_schedule_beats_the_ideal_or_exceeds_grahams_bound(seed: int, workers: int) -> None:
    durations, inputs = drawn(seed)
    found = scaling.schedule(durations, inputs, workers)
    assert found.ideal - 1e-9 <= found.makespan <= found.critical + (found.total - found.critical) / workers + 1e-9
    assert found.makespan <= (2 - 1 / workers) * found.ideal * (1 + 1e-9)


def test_one_worker_is_never_idle_and_many_are_limited_by_the_longest_chain() -> None:
    durations, inputs = drawn(1)
    assert scaling.schedule(durations, inputs, 1).makespan == pytest.approx(sum(durations))
    assert scaling.schedule(durations, inputs, 30).makespan == pytest.approx(max(scaling.tails(durations, inputs)))


def test_the_longest_chain_is_found_among_all() -> None:
    durations, inputs = drawn(2)

    def longest(step: int) -> float:
        """Of the chains that end with the step."""
        return durations[step] + max(map(longest, inputs[step]), default=0.0)

    assert max(scaling.tails(durations, inputs)) == pytest.approx(max(map(longest, range(len(durations)))))


@pytest.mark.parametrize("arch", ["wrn", "alexnet", "vgg16"])
def test_flops_are_those_of_the_layers(arch: str) -> None:
    """Counted a second time: two for each weight and each place where it is used."""
    counted = []

    def count(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        places = output[0, 0].numel() if output.dim() == 4 else 1
        counted.append(2 * layer.weight.numel() * places)

    model = archs.build(arch, 10, width=0.25, rng=Rng("flops")).eval()
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(count)
    model(torch.zeros(1, 3, 32, 32))
    assert scaling.flops(arch, 0.25) == sum(counted)
    first = counted[0]  # whose input needs no gradient
    assert scaling.flops(arch, 0.25, train=True) == 3 * sum(counted) - first


def test_the_plan_is_counted_as_it_is() -> None:
    profile = PROFILES["standard"]
    passes = scaling.Passes({"pruning": 1000.0}, {"pruning": 10.0}, {"uchida-random": 1.0})
    request = Request(("uchida-random",), ("pruning",), ("wrn",), ("cifar10",), ("train",), profile, (0,))
    steps = {step.kind: step for step in steps_of(expand(request, {"cifar10": "a", "digits-m": "b"}))}
    work = scaling.Work(passes)
    assert work.images(steps["host"]) == (30 * 33_333, 10_000 + 33_333)
    assert work.images(steps["mark"]) == (30 * 33_333 + 2, 10_000)
    assert work.images(steps["nulls"]) == (100, 0)
    # 19 rungs where `quick` has 9, each judged on the held-out images; the adversary has no images.
    assert work.images(steps["attack"]) == (pytest.approx(1000 * 19 / 9 + 10), 19 * 10_000)


@pytest.mark.parametrize(
    ("name", "params", "epochs", "times"),
    [
        ("pruning", {"ladder": [10.0] * 18}, 30, 2),  # twice the rungs, no images
        ("ftal", {"ladder": [1, 10]}, 30, 2 * 33_333 / 898),  # epochs are the ladder: 10 for 5
        ("fine-tuning-full", {"ladder": [100.0]}, 16, 2 * 33_333 / 898),  # the recipe's epochs: 16 for 8
        ("distillation", {"ladder": [100.0], "epochs": 40}, 30, 0.5 * 33_333 / 898),  # one rung for two
        ("label-smoothing", {"ladder": [0.1]}, 32, None),  # a learner's training at each rung
    ],
)
def test_attacks_grow_with_what_they_train(name: str, params: dict, epochs: int, times: float | None) -> None:
    if times is None:
        cls = attacks()[name]
        before = cls.card.scales.get("quick", {}).get("ladder") or cls.Params().ladder
        times = 2 * 33_333 / 898 / len(before)
    assert scaling.scale(name, params, epochs) == pytest.approx(times)
