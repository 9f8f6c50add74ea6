"""Attacks the marked model, and has every rung judged."""

from __future__ import annotations

from torch import Tensor

from bench.contract.verdict import Point
from bench.steps import samples
from bench.steps.chain import unattacked, walk
from bench.steps.judge import Judge, State
from bench.steps.ownership import published_images
from bench.steps.scheme_workspace import SchemeWorkspace
from bench.steps.workspace import Output

__all__ = ["run_attack"]


def run_attack(workspace: SchemeWorkspace) -> Output:
    """The curve of the last attack, after all others at one strength."""
    scheme, keys = workspace.scheme, workspace.keys()
    published = published_images(workspace, scheme, keys)
    victim = workspace.model("mark")
    remedy = any(attack.card.remedy for attack in workspace.attacks)
    alone = len(workspace.attacks[-1].ladder) == 1
    judge = Judge(workspace, scheme, keys, published, victim if remedy else None, all_unseen=alone)
    # Details may cost many times the verdict: worth it once for each training, not at each rung of a ladder.
    trains = workspace.attacks[-1].card.stage in ("data", "training")

    shown: dict[str, Tensor] = {}

    def judged(state: State, strength: float, trained_s: float) -> Point:
        shown.update(samples.attacked(published, state.images))  # of the last rung
        return judge(state, strength, details=trains).model_copy(update={"attack_time_s": trained_s})

    points = walk(workspace, unattacked(workspace, published, lambda: victim), keys, judged)
    tensors = {samples.SAMPLES: shown} if shown else {}
    return Output({"points": [point.model_dump(mode="json") for point in points]}, tensors)
