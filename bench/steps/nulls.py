"""False claims: p-values of fresh keys on clean hosts, before and after an attack, and of left-out owners."""

from __future__ import annotations

from collections.abc import Iterable

from bench.contract.keys import Key
from bench.contract.verdict import Point
from bench.steps.chain import unattacked, walk
from bench.steps.host import left_out_rows
from bench.steps.judge import Judge, State, examine
from bench.steps.ownership import fresh_keys, published_images
from bench.steps.scheme_workspace import SchemeWorkspace, host_for, stored_keys
from bench.steps.workspace import Output

__all__ = ["attacked_false_claims", "false_claims", "left_out_claims"]


def false_claims(workspace: SchemeWorkspace) -> Output:
    """Fresh keys, which no network has seen, claim the clean host: their p-values."""
    scheme = workspace.scheme
    keys: Iterable[Key] = fresh_keys(workspace, scheme, workspace.spec["keys"])
    keys = list(keys) if scheme.card.keygen_trains else keys
    verdicts = examine(scheme, keys, model=workspace.model("host"), images=workspace.data.owner)
    p_values = [verdict.p_value for verdict in verdicts]
    if not isinstance(keys, list):
        return Output({"p_values": p_values})
    stored = stored_keys(keys)
    return Output({"p_values": p_values, **stored.result}, stored.tensors)


def left_out_claims(workspace: SchemeWorkspace) -> Output:
    """Owners drawn as the marked ones were claim a network that was trained without their images: their p-values."""
    scheme, images, name = workspace.scheme, workspace.data.owner, workspace.spec["scheme"]
    keys = (
        scheme.keygen(host_for(workspace, images[rows], i), workspace.rng("left-out", name, i)).to(workspace.device)
        for i, rows in enumerate(left_out_rows(workspace)[: workspace.spec["claims"]])
    )
    verdicts = examine(scheme, keys, model=workspace.model("without"), images=images)
    return Output({"p_values": [verdict.p_value for verdict in verdicts]})


def attacked_false_claims(workspace: SchemeWorkspace) -> Output:
    """Fresh keys claim the clean host after the attack: strengths, and p-values at each."""
    scheme, count = workspace.scheme, workspace.spec["keys"]
    made = "nulls" in workspace.inputs
    keys = workspace.keys("nulls")[:count] if made else list(fresh_keys(workspace, scheme, count))
    published = published_images(workspace, scheme, [])
    judge = Judge(workspace, scheme, keys, published)
    examined = workspace.attacks[-1].examined(workspace.spec["rungs"])
    rungs: list[tuple[float, list[float]]] = []

    def claim_all(state: State, strength: float, trained_s: float) -> Point:
        if strength in examined:
            rungs.append((strength, judge.p_values(state, keys)))
        return Point(strength=strength)

    host = workspace.model("host")
    walk(workspace, unattacked(workspace, published, lambda: host), keys, claim_all)
    return Output({"p_values": rungs})
