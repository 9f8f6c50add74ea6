"""Walks an attack's ladder against the marked model, each rung judged."""

from __future__ import annotations

from bench.api import Victim
from bench.steps.judge import Judge
from bench.steps.ownership import attackers_view, published_images
from bench.steps.workspace import AttackContext, Job, Output

__all__ = ["run_attack"]


def run_attack(job: Job) -> Output:
    """The attack's ladder against the marked model, each rung judged."""
    scheme, keys = job.scheme, job.keys()
    published = published_images(job, scheme, keys)
    victim = Victim(job.model("mark"), keys[0], attackers_view(job, published.images))
    points = job.attack.run(victim, AttackContext(job), Judge(job, scheme, keys, published))
    return Output({"points": [point.model_dump(mode="json") for point in points]})
