"""Writes the shipped durations, bench/runner/typical.json, from what runs took on this machine.

python tools/typical.py [RUN_DIR ...] [--networks]

Without a run directory the steps that are shipped already stay, scaled to this machine. With --networks the pace of
training is measured anew, for every architecture at its widths in the profiles (a minute on two cores).
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from pathlib import Path
from statistics import median

import torch
from torch.nn import functional as F

from bench import archs
from bench.identity import Rng
from bench.plan.profiles import PROFILES
from bench.runner.estimate import SHIPPED, Names, Typical, logged, probe_s
from bench.steps import cpu as cpu

BATCH = 64


def paces() -> dict[str, dict[str, float]]:
    """Architecture -> width -> seconds to train on 1,000 images of 32 x 32."""
    found: dict[str, dict[str, float]] = {}
    for name in archs.names():
        widths = {p.width(name, learner=learner) for p in PROFILES.values() for learner in (False, True)}
        found[name] = {str(width): round(pace_s(name, width), 4) for width in sorted(widths)}
    return found


def pace_s(arch: str, width: float) -> float:
    """Seconds per 1,000 images."""
    model = archs.build(arch, 10, width=width, rng=Rng("pace")).train()
    images, labels = torch.rand(BATCH, 3, 32, 32), torch.arange(BATCH) % 10
    taken: list[float] = []
    while len(taken) < 4 or (sum(taken) < 0.7 and len(taken) < 40):
        start = time.perf_counter()
        F.cross_entropy(model(images), labels).backward()
        taken.append(time.perf_counter() - start)
    return median(taken[1:]) * 1000 / BATCH


def main() -> None:
    """Write the file anew."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_dirs", nargs="*", type=Path)
    parser.add_argument("--networks", action="store_true")
    asked = parser.parse_args()
    before = Typical.load() if SHIPPED.exists() else None
    here_s = probe_s(budget_s=3.0)
    scale = here_s / before.probe_s if before else 1.0
    training = (
        {a: {str(w): round(s * scale, 4) for w, s in p.items()} for a, p in before.training.items()} if before else {}
    )
    steps = {names: seconds * scale for names, seconds in before.steps.items()} if before else {}
    taken: dict[Names, list[float]] = defaultdict(list)
    for folder in asked.run_dirs:
        for names, seconds in logged(folder / "durations.jsonl"):
            taken[names].append(seconds)
    steps |= {names: median(seconds) for names, seconds in taken.items()}
    if asked.networks or not training:
        training = paces()
    lines = ",\n  ".join(json.dumps([*names, round(steps[names], 2)]) for names in sorted(steps))
    head = json.dumps({"probe_s": round(here_s, 5), "training": training})[:-1]
    SHIPPED.write_text(f'{head}, "steps": [\n  {lines}\n]}}\n', encoding="utf-8")
    print(f"{len(steps)} steps, {len(taken)} of them new; the probe took {here_s * 1000:.1f} ms.")


if __name__ == "__main__":
    main()
