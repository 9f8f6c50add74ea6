"""How many epochs does the short recipe need to reach what a paper's schedule reaches?"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
import torch

from bench import archs, data
from bench.api import Rng
from bench.plan.profiles import PROFILES
from bench.runner.arithmetic import pin
from bench.steps import training
from tests.benchmarks.figures import Figures

# Uchida et al.'s schedule: all of it on CIFAR-10, on a fifth of it and a narrow network, or half of it on few digits.
SCALES = {
    "small": {"dataset": "digits-m", "owner": None, "width": 0.125, "epochs": 100, "seeds": 2, "profile": "small"},
    "narrow": {"dataset": "cifar10", "owner": 10_000, "width": 0.25, "epochs": 200, "seeds": 1, "profile": "small"},
    "full": {"dataset": "cifar10", "owner": None, "width": 1.0, "epochs": 200, "seeds": 1, "profile": "standard"},
}
SHARES = (0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0)
WITHIN = 0.01


@pytest.mark.timeout(0)
def test_the_short_recipe_needs_a_tenth_of_the_epochs(
    request: pytest.FixtureRequest, figures: Figures, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first share of the paper's epochs at which `onecycle` ends within a point of the paper's accuracy.

    Each is a whole training of its own, since the learning rate falls to zero at its end; a short one that diverges
    answers what it has come to. `--recipe full` takes minutes on a GPU and a day on two cores, `narrow` hours of a slow
    core; both need CIFAR-10 (`BENCH_DATA_ROOT`). With `small` the networks see few images.
    """
    scale = SCALES[request.config.getoption("--recipe")]
    root = Path(os.environ.get("BENCH_DATA_ROOT", "."))
    loaded = data.load(scale["dataset"], data_root=root, owner=scale["owner"])
    device = "cuda" if torch.cuda.is_available() else "cpu"
    pin(device)
    owner, heldout = loaded.owner.to(device), loaded.heldout.to(device)
    paper = replace(PROFILES["paper"].host["wrn"], epochs=scale["epochs"])
    short = PROFILES[scale["profile"]].recipe("host", "wrn")
    short = replace(short, batch_size=request.config.getoption("--recipe-batch") or short.batch_size)

    def reached(recipe: training.Recipe, *, diverges: bool = True) -> float:
        found = []
        for seed in range(scale["seeds"]):
            model = archs.build("wrn", 10, width=scale["width"], rng=Rng("recipe", seed), device=device)
            options: dict[str, Any] = {"augment": loaded.card.augment, "mixed_precision": device != "cpu"}
            with suppress(*[training.Diverged] if diverges else []):
                training.train(model, owner, recipe, rng=Rng("recipe", seed), **options)
            found.append(training.accuracy(model, heldout))
            with capsys.disabled():
                print(f"\n{recipe.epochs} epochs, {recipe.schedule}, seed {seed}: {found[-1]:.4f}", flush=True)
        return mean(found)

    goal, tried = reached(paper, diverges=False), dict[str, float]()
    for share in SHARES:
        recipe = replace(short, epochs=max(1, round(share * scale["epochs"])))
        tried[f"{share:g}"] = reached(recipe)
        if tried[f"{share:g}"] >= goal - WITHIN:
            break
    details = {
        "device": device,
        "scale": request.config.getoption("--recipe"),
        "paper_accuracy": round(goal, 4),
        "short": tried,
        "short_batch": short.batch_size,
    }
    details["reached"] = tried[f"{share:g}"] >= goal - WITHIN
    met = figures.add("recipe_epochs_ratio", share, at_most=0.1, **scale, **details)
    with capsys.disabled():
        print(f"\npaper {goal:.3f} in {scale['epochs']} epochs; short recipe by share of them: {tried}")
    if request.config.getoption("--recipe") == "full":
        assert met
