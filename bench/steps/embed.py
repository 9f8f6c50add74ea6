"""Makes the owners' keys, and embeds their marks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from bench.api import Claim, ContractError, Key, Point, Scheme, Verdict
from bench.contract.networks import clock_s
from bench.steps import training
from bench.steps.judge import Judge
from bench.steps.ownership import heldout_users, owner_shares, published_images
from bench.steps.workspace import Job, Output, host_for, start, stored_keys

__all__ = ["embed", "make_keys"]


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
