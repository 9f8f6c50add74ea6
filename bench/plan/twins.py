"""The clean twins of a marked network: independent networks that went the same way without a mark."""

from __future__ import annotations

from bench import archs
from bench.plan.matrix import Planned
from bench.plan.step import ROOTS, Step
from bench.records.record import OWN_DATA

__all__ = ["clean_twins"]


def clean_twins(cell: Planned) -> list[Step]:
    """The steps that leave them, one a null model of the cell.

    They are null models of the owner's recipe and images. Where a mark is embedded into the trained host (fine-tune,
    distill), each is trained further by the embedding's recipe, as the control of fidelity is. Nothing that is done to
    one of them distinguishes it from the marked network but the mark.

    Args:
        cell: planned with null models.
    """
    claims = [step for name, step in cell.steps.items() if name.startswith("null_claims_")]
    hosts = [step.inputs[OWN_DATA] for step in claims if OWN_DATA in step.inputs]
    control = cell.steps.get("control")
    return hosts if control is None else [_further(control, host, number) for number, host in enumerate(hosts)]


def _further(control: Step, host: Step, number: int) -> Step:
    """A null model's further training, by the spec of the clean host's."""
    spec = {**control.spec, "index": number}
    modules = (ROOTS["null_control"], archs.module_of(spec["arch"]))
    names = ("null control", spec["situation"], number, spec["arch"], spec["dataset"], "seed", spec["seed"])
    return Step("null_control", spec, {"host": host}, modules, control.data, " ".join(map(str, names)))
