"""How fast is it? Ratios within one run, which hold when the machine's speed drifts. Run by `make bench` only."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch

from bench import archs, data
from bench.api import Batch, ImageSet, Recipe, Rng, Suspect
from bench.data import augment
from bench.registry import make, schemes
from bench.runner.store import Store
from bench.steps import training
from bench.steps.scheme_workspace import host_for
from tests.fakes import on_digits, opened

Benchmark = Any
SMALL_RUN = ("run", "--profile", "smoke", "--scheme", "uchida-random", "--set", "pruning.ladder=50", "--device", "cpu")


def seconds(work: Callable[[], object], rounds: int = 5) -> float:
    """The quickest of some rounds, after one that does not count."""
    work()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def bench(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "bench.cli", *words], check=True, capture_output=True, env=os.environ)


def test_help_answers_in_a_third_of_a_second(benchmark: Benchmark) -> None:
    benchmark.pedantic(bench, args=("--help",), rounds=7, warmup_rounds=1)
    assert benchmark.stats.stats.min < 0.3


def test_a_run_with_nothing_to_do_ends_in_five_seconds(benchmark: Benchmark, tmp_path: Path) -> None:
    words = (*SMALL_RUN, "--run-dir", str(tmp_path))
    bench(*words)
    benchmark.pedantic(bench, args=words, rounds=3)
    assert benchmark.stats.stats.min < 5


@pytest.fixture(scope="module")
def images() -> ImageSet:
    return data.load("digits-m").owner[:1280]


def epoch(
    images: ImageSet, names: tuple[str, ...] = (), loss: Callable[..., Any] | None = None
) -> Callable[[], object]:
    def work() -> object:
        model = archs.build("wrn", 10, width=0.25, rng=Rng("speed"), device="cpu")
        return training.train(model, images, Recipe(1, 0.1, 64), rng=Rng("speed"), augment=names, extra_loss=loss)

    return work


def test_augmentation_costs_little(benchmark: Benchmark, images: ImageSet) -> None:
    batch, generator = images.images[:128].float(), torch.Generator().manual_seed(0)
    augmented = seconds(lambda: augment(batch, ("crop", "flip"), generator)) / len(batch)
    benchmark.pedantic(augment, args=(batch, ("crop", "flip"), generator), rounds=20)
    trained = seconds(epoch(images), rounds=3) / len(images)
    assert augmented < 0.1 * trained


def test_the_embedding_loss_costs_little(benchmark: Benchmark, images: ImageSet) -> None:
    projection, payload = torch.randn(256, 144), torch.randint(0, 2, (256,)).float()
    layer = archs.layer_path("wrn", "conv2")

    def loss(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        weight = model.get_parameter(f"{layer}.weight")
        logits = projection @ weight.mean(0).flatten()
        return torch.nn.functional.binary_cross_entropy_with_logits(logits, payload, reduction="sum")

    plain = seconds(epoch(images), rounds=3)
    benchmark.pedantic(epoch(images, loss=loss), rounds=3)
    assert benchmark.stats.stats.min < 1.2 * plain


def test_a_claim_without_grounds_ends_early(benchmark: Benchmark, tmp_path: Path) -> None:
    """The rank among decoys is decided for most fresh keys long before the last decoy is asked about."""
    workspace = opened(on_digits(schemes=("zhang-content",)).steps["keys"], Store(tmp_path))
    scheme, host = make(schemes()["zhang-content"], {"probe": 16}), host_for(workspace, workspace.data.owner)
    keys = [scheme.keygen(host, Rng("key", i)) for i in range(8)]
    model = archs.build("wrn", 10, width=0.25, rng=Rng("speed"), device="cpu")

    def asked() -> float:
        suspect = Suspect("labels", model=model)
        return sum(scheme.verify(suspect, key).details["decoys_asked"] for key in keys) / len(keys)

    assert benchmark.pedantic(asked, rounds=1) < 0.5 * scheme.params.decoys


@pytest.mark.parametrize(("arch", "width"), [("wrn", 0.25), ("alexnet", 1.0)])
def test_grid_search_costs_its_forward_passes(benchmark: Benchmark, images: ImageSet, arch: str, width: float) -> None:
    """12 signatures x 500 images: each is sent once, and all else costs a tenth of these forward passes at most.

    All else is the search of a network that costs nothing: two timings of the same passes differ by more than a tenth.
    """
    from bench.contract.networks import predict
    from schemes._signatures import AnwKey
    from schemes.anw import AnwHue

    scheme, few = AnwHue(), images[:500]
    key = AnwKey(few.images, few.labels, few.images, few.labels, torch.zeros(500).bool(), 60.0, 0)
    free = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten())
    suspect = Suspect("scores", model=free)
    scheme.grid_search(suspect, few.images, few.labels, key)
    assert suspect.queries == 12 * 500
    model = archs.build(arch, 10, width=width, rng=Rng("speed"), device="cpu")
    plain = seconds(lambda: [predict(model, few.images) for _ in scheme.candidates], rounds=3)
    benchmark.pedantic(scheme.grid_search, args=(suspect, few.images, few.labels, key), rounds=5, warmup_rounds=1)
    assert benchmark.stats.stats.median < 0.1 * plain, plain


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting is glibc's")
def test_kept_memory_makes_narrow_networks_faster(benchmark: Benchmark, images: ImageSet) -> None:
    """`bench.cpu`, against the C library's own setting, in turns within one process."""
    from bench.steps.cpu import keep_freed_memory

    libc, few = ctypes.CDLL(None), images[:512]

    def with_the_librarys_setting() -> float:
        libc.mallopt(-4, 65_536)  # M_MMAP_MAX, M_TRIM_THRESHOLD and M_MMAP_THRESHOLD as mallopt(3) gives them
        libc.mallopt(-1, 128 * 1024)
        libc.mallopt(-3, 128 * 1024)
        libc.malloc_trim(0)
        return seconds(epoch(few), rounds=2)

    def kept() -> float:
        keep_freed_memory()
        return seconds(epoch(few), rounds=2)

    pairs = [(with_the_librarys_setting(), kept()) for _ in range(3)]
    benchmark.pedantic(epoch(few), rounds=3)
    assert median(fetched / held for fetched, held in pairs) > 1.1, pairs
