"""What does one step compute? Train a host, make keys, embed, attack, test false claims: pure functions.

Each takes a `Job` (spec, inputs from the store, where to compute) and returns an `Output`. Nothing here knows of
profiles, records, processes or time limits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from bench import training
from bench.api import Claim, ContractError, Key, Point, Scheme, Verdict, Victim
from bench.job import AttackContext, Job, Output, host_for, start, stored_keys
from bench.judging import Judge
from bench.owners import Published, attackers_view, fresh_keys, heldout_users, owner_shares, published_images
from bench.parts import clock_s

__all__ = ["COMPUTE"]


def train_host(job: Job) -> Output:
    """The clean host: one per architecture, data set, recipe and seed."""
    images = job.data
    trained = job.train(job.fresh(), images.owner, job.recipe, job.rng("host training"))
    result = {
        "test_accuracy": training.accuracy(trained.model, images.heldout),
        "train_accuracy": training.accuracy(trained.model, images.owner),
        "history": [asdict(epoch) for epoch in trained.history],
        "time_s": trained.time_s,
        "split": images.split,
    }
    return Output(result, {"model": dict(trained.model.state_dict())})


def make_keys(job: Job) -> Output:
    """One key per owner."""
    scheme, start_s = job.scheme, clock_s(job.device)
    hosts = [host_for(job, share, number) for number, share in enumerate(owner_shares(job, scheme))]
    keys = [scheme.keygen(host, job.rng("key", job.spec["scheme"], i)) for i, host in enumerate(hosts)]
    for key in keys:
        if not isinstance(key, Key):
            raise ContractError(f"Expected keygen to return a Key, but got {type(key).__name__}.")
    capacity = scheme.capacity(hosts[0])
    stored = stored_keys(keys)
    return Output(
        {
            **stored.result,
            "histories": {name: list(series) for name, series in keys[0].history.items()},
            "capacity_bits": capacity and capacity.bits,
            "capacity_limit": capacity and capacity.limit,
            "time_s": clock_s(job.device) - start_s,
        },
        stored.tensors,
    )


def embed(job: Job) -> Output:
    """The marked model: marked data, the embedding loss, and what the scheme writes afterwards."""
    scheme, keys = job.scheme, job.keys()
    strangers = heldout_users(job, scheme, job.spec["heldout_users"])  # refused, if so, before the training
    start_s = clock_s(job.device)
    published = published_images(job, scheme, keys)
    model, history = start(job), []
    if job.spec["situation"] != "post-hoc":
        extra = {"extra_loss": _embedding_loss(scheme, keys), "undecayed": _undecayed(scheme, keys)}
        rng = job.rng("embedding", job.spec["scheme"])
        trained = job.train(model, published.images, job.recipe, rng, **extra)
        model, history = trained.model, trained.history
    for number, (key, share) in enumerate(zip(keys, owner_shares(job, scheme), strict=True)):
        model = scheme.mark_model(model, key, host_for(job, share, number)).to(job.device)
    seconds = clock_s(job.device) - start_s
    judge = Judge(job, scheme, keys, published)
    result = {
        "point": _dump(judge(Claim(0.0, model=model))),
        "clean_verdicts": _dump_all(judge.verdicts(job.model("host"), job.data.owner, keys, details=False)),
        "heldout_verdicts": _dump_all(judge.verdicts(model, published.images, strangers)),
        "history": [asdict(epoch) for epoch in history],
        "measures": {**published.quality, **_on_marked_images(job, scheme, keys, model)},
        "time_s": seconds,
    }
    return Output(result, {"model": dict(model.state_dict())})


def run_attack(job: Job) -> Output:
    """The attack's ladder against the marked model, each rung judged."""
    scheme, keys = job.scheme, job.keys()
    published = published_images(job, scheme, keys)
    victim = Victim(job.model("mark"), keys[0], attackers_view(job, published.images))
    points = job.attack.run(victim, AttackContext(job), Judge(job, scheme, keys, published))
    return Output({"points": [_dump(point) for point in points]})


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


COMPUTE: dict[str, Callable[[Job], Output]] = {
    "host": train_host,
    "keys": make_keys,
    "mark": embed,
    "attack": run_attack,
    "nulls": false_claims,
    "attacked_nulls": attacked_false_claims,
}


def _embedding_loss(scheme: Scheme, keys: Sequence[Key]) -> Callable[[nn.Module], Tensor | None]:
    def total(model: nn.Module) -> Tensor | None:
        losses = [loss for loss in (scheme.embedding_loss(model, key) for key in keys) if loss is not None]
        return torch.stack(losses).sum() if losses else None

    return total


def _undecayed(scheme: Scheme, keys: Sequence[Key]) -> set[str]:
    return {name for key in keys for name in scheme.undecayed(key)}


def _on_marked_images(job: Job, scheme: Scheme, keys: Sequence[Key], model: nn.Module) -> dict[str, float]:
    """Accuracy on held-out images that bear the mark, where all of a data set does."""
    if scheme.card.carrier != "data" or not scheme.owns_all:
        return {}
    marked = scheme.mark_data(job.data.heldout, keys[0]).to(job.device)
    return {"marked_test_accuracy": training.accuracy(model, marked)}


def _dump(part: Point | Verdict) -> dict[str, Any]:
    return part.model_dump(mode="json")


def _dump_all(verdicts: Sequence[Verdict]) -> list[dict[str, Any]]:
    return [_dump(verdict) for verdict in verdicts]
