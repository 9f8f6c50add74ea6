"""Embeds the owners' marks, and has the marked model judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from operator import is_
from typing import Any

from torch import nn

from bench.contract.images import ImageSet
from bench.contract.keys import Key
from bench.contract.networks import clock_s
from bench.contract.scheme import Scheme
from bench.contract.verdict import Point, Verdict
from bench.steps import samples, training
from bench.steps.embedding import embedded
from bench.steps.judge import Judge, State, examine
from bench.steps.ownership import heldout_users, owner_shares, published_images
from bench.steps.scheme_workspace import SchemeWorkspace, host_for, stored_keys
from bench.steps.workspace import Output

__all__ = ["embed"]


def embed(workspace: SchemeWorkspace) -> Output:
    """The marked model: marked data, the embedding loss, and what the scheme writes afterwards."""
    scheme, keys = workspace.scheme, workspace.keys()
    heldout = heldout_users(workspace, scheme, workspace.spec["heldout_users"])  # refused, if so, before the training
    start_s = clock_s(workspace.device)
    published = published_images(workspace, scheme, keys)
    hosts = [host_for(workspace, share, number) for number, share in enumerate(owner_shares(workspace, scheme))]

    def publish(current: Sequence[Key]) -> ImageSet:
        same = all(map(is_, current, keys))
        return published.images if same else published_images(workspace, scheme, current).images

    recipe = None if workspace.spec["situation"] == "post-hoc" else workspace.recipe
    rng = workspace.rng("embedding", workspace.spec["scheme"])
    marked = embedded(workspace, workspace.start(), keys, hosts, publish, recipe, rng)
    seconds = clock_s(workspace.device) - start_s
    judge = Judge(workspace, scheme, marked.keys, published, all_unseen=True)
    clean = examine(scheme, marked.keys, model=workspace.model("host"), images=workspace.data.owner)
    result = {
        "point": _dump(judge(State(published.images, workspace.recipe, lambda: marked.model), 0.0, details=True)),
        "clean_verdicts": _dump_all(clean),
        "heldout_verdicts": _dump_all(
            examine(scheme, heldout, model=marked.model, images=published.images, details=True)
        ),
        "history": [asdict(epoch) for epoch in marked.history],
        "measures": {**published.quality, **_on_marked_images(workspace, scheme, marked.keys, marked.model)},
        "time_s": seconds,
    }
    tensors = {"model": dict(marked.model.state_dict())}
    if shown := samples.published(published):
        tensors[samples.SAMPLES] = shown
    if scheme.card.refreshes:
        refreshed = stored_keys(marked.keys)
        result, tensors = {**result, **refreshed.result}, {**tensors, **refreshed.tensors}
    return Output(result, tensors)


def _on_marked_images(
    workspace: SchemeWorkspace, scheme: Scheme[Any], keys: Sequence[Key], model: nn.Module
) -> dict[str, float]:
    """Accuracy on held-out images that bear the mark, where all of a data set does."""
    if scheme.card.carrier != "data" or not scheme.share.whole:
        return {}
    marked = scheme.mark_data(workspace.data.heldout, keys[0]).to(workspace.device)
    return {"marked_test_accuracy": training.accuracy(model, marked)}


def _dump(part: Point | Verdict) -> dict[str, Any]:
    return part.model_dump(mode="json")


def _dump_all(verdicts: Sequence[Verdict]) -> list[dict[str, Any]]:
    return [_dump(verdict) for verdict in verdicts]
