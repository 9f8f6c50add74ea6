"""False claims: fresh keys on clean hosts, before and after an attack."""

from __future__ import annotations

from collections.abc import Iterable

from bench.api import Claim, Key, Point, Victim
from bench.steps.judge import Judge
from bench.steps.ownership import Published, attackers_view, fresh_keys, published_images
from bench.steps.workspace import AttackContext, Job, Output, stored_keys

__all__ = ["attacked_false_claims", "false_claims"]


def false_claims(job: Job) -> Output:
    """Fresh keys, which no model has seen, claim the clean host: their p-values."""
    scheme, images = job.scheme, job.data.owner
    judge = Judge(job, scheme, [], Published(images, images.images))
    clean = Claim(0.0, model=job.model("host"))
    keys: Iterable[Key] = fresh_keys(job, scheme, job.spec["keys"])
    if not scheme.card.keygen_trains:
        return Output({"p_values": judge.p_values(clean, keys)})
    stored = stored_keys(keys := list(keys))
    return Output({"p_values": judge.p_values(clean, keys), **stored.result}, stored.tensors)


def attacked_false_claims(job: Job) -> Output:
    """Fresh keys claim the clean host after the attack: strengths, and p-values at each."""
    scheme = job.scheme
    count = job.spec["keys"]
    keys = job.keys("nulls")[:count] if "nulls" in job.inputs else list(fresh_keys(job, scheme, count))
    published = published_images(job, scheme, [])
    judge = Judge(job, scheme, keys, published)
    attack = job.attack
    examined = attack.examined(job.spec["rungs"])
    rungs: list[tuple[float, list[float]]] = []

    def claim_all(claim: Claim) -> Point:
        if claim.strength in examined:
            rungs.append((claim.strength, judge.p_values(claim, keys)))
        return Point(strength=claim.strength)

    victim = Victim(job.model("host"), keys[0], attackers_view(job, published.images))
    attack.run(victim, AttackContext(job), claim_all)
    return Output({"p_values": rungs})
