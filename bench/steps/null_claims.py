"""False claims on null models: fresh keys claim networks, or data sets, that no key had any part in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import nn

from bench.contract.images import ImageSet
from bench.contract.keys import Key
from bench.contract.networks import last_linear
from bench.contract.scheme import Scheme
from bench.records.record import OTHER_DATA, OWN_DATA, PERMUTED, RIVAL_DATA
from bench.steps.judge import examine
from bench.steps.null_host import other_images
from bench.steps.ownership import fresh_keys
from bench.steps.scheme_workspace import SchemeWorkspace
from bench.steps.workspace import Output

__all__ = ["DERIVED", "FIXED", "TRAINED", "null_claims"]

GREY = 128
SURE = 10.0  # the logit of the class that a network of constant answers gives; the others are 0


def null_claims(workspace: SchemeWorkspace) -> Output:
    """Fresh keys claim the null models of one number: kind, number and p-values, one a key.

    The number is None for a suspect that no chance went into. The keys are made against the clean host, and are those
    that claim it in `bench.steps.nulls.false_claims`.
    """
    scheme, number = workspace.scheme, workspace.spec["index"]
    keys = _keys(workspace, scheme)
    if scheme.card.access == "data set":
        claims = [[kind, None, _p_values(scheme, keys, None, found)] for kind, found in _data_sets(workspace)]
    else:
        claims = [
            [kind, None if kind in FIXED else number, _p_values(scheme, keys, model, workspace.data.owner)]
            for kind, model in _networks(workspace)
        ]
    return Output({"claims": claims})


def _keys(workspace: SchemeWorkspace, scheme: Scheme[Any]) -> list[Key]:
    """The fresh keys; those whose making takes a training are not made twice."""
    count = workspace.spec["keys"]
    return workspace.keys("nulls")[:count] if "nulls" in workspace.inputs else [*fresh_keys(workspace, scheme, count)]


def _p_values(scheme: Scheme[Any], keys: Iterable[Key], model: nn.Module | None, images: ImageSet) -> list[float]:
    return [verdict.p_value for verdict in examine(scheme, keys, model=model, images=images)]


def _networks(workspace: SchemeWorkspace) -> Iterator[tuple[str, nn.Module]]:
    """The null models by kind: the trained ones that are inputs, and what is made of the independent clean one."""
    number = workspace.spec["index"]
    for kind in TRAINED:
        if kind in workspace.inputs:
            yield kind, workspace.model(kind)
    for kind, change in {**DERIVED, **(FIXED if number == 0 else {})}.items():
        model = workspace.model(OWN_DATA)
        with torch.no_grad():
            change(model, number)
        yield kind, model.eval()


def _data_sets(workspace: SchemeWorkspace) -> Iterator[tuple[str, ImageSet]]:
    """The null data sets by kind, for schemes that are verified on the images themselves."""
    yield RIVAL_DATA, workspace.data.adversary
    if "auxiliary" in workspace.spec:
        yield OTHER_DATA, other_images(workspace)
    own = workspace.data.owner
    yield "constant images", own.with_images(torch.full_like(own.images, GREY))


# ---- networks without a training of their own ------------------------------------------------------------------------
def _constant_answers(model: nn.Module, number: int) -> None:
    """Every image is of one class, which differs from model to model."""
    head = model.get_submodule(last_linear(model))
    assert isinstance(head, nn.Linear)
    head.weight.zero_()
    head.bias.zero_()
    head.bias[number % len(head.bias)] = SURE


def _constant_layers(model: nn.Module, number: int) -> None:
    """Each layer's weights are all their mean."""
    for weight in _weights(model):
        weight.fill_(weight.mean())


def _coarse(model: nn.Module, number: int) -> None:
    """Each layer's weights on the nearest of four levels, -1, -1/3, 1/3 and 1 times the largest of the layer."""
    for weight in _weights(model):
        largest = weight.abs().max().clamp_min(torch.finfo(weight.dtype).tiny)
        weight.copy_(((weight / largest + 1) * 1.5).round().div(1.5).sub(1) * largest)


def _filled(value: float) -> Callable[[nn.Module, int], None]:
    def fill(model: nn.Module, number: int) -> None:
        for parameter in model.parameters():
            parameter.fill_(value)

    return fill


def _weights(model: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.dim() > 1]


TRAINED = (OWN_DATA, PERMUTED, OTHER_DATA, RIVAL_DATA)
Change = Callable[[nn.Module, int], None]
DERIVED: dict[str, Change] = {
    "constant answers": _constant_answers, "constant layers": _constant_layers, "quantised to 2 bits": _coarse,
}  # fmt: skip
# Networks that are the same whatever they were made of: one of each is all there is.
FIXED: dict[str, Change] = {"zeroed weights": _filled(0.0), "NaN answers": _filled(float("nan"))}
