"""What is one computation? A step: what decides its outcome, the steps it reads, and its content key."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from bench.identity import digest
from bench.plan import fingerprint

__all__ = ["ROOTS", "Step", "with_inputs"]

# The module whose function computes a kind of step: with all that it imports, the source that its key covers.
ROOTS = {
    "host": "bench.steps.host",
    "control": "bench.steps.host",
    "keys": "bench.steps.keys",
    "mark": "bench.steps.embed",
    "attack": "bench.steps.attack",
    "without": "bench.steps.host",
    "nulls": "bench.steps.nulls",
    "left_out_claims": "bench.steps.nulls",
    "attacked_nulls": "bench.steps.nulls",
    "null_host": "bench.steps.null_host",
    "null_control": "bench.steps.null_control",
    "null_claims": "bench.steps.null_claims",
}


@dataclass(frozen=True, eq=False)
class Step:
    """One computation: a pure function of its spec, its inputs and the source that computes it.

    Attributes:
        kind: which function of `bench.steps` computes it.
        spec: JSON; everything that decides the outcome but code, data and inputs.
        inputs: steps whose results it reads.
        modules: the modules that compute it (with all they import).
        data: checksum of the data set.
        label: for people.
    """

    kind: str
    spec: Mapping[str, Any]
    inputs: Mapping[str, Step]
    modules: tuple[str, ...]
    data: str
    label: str

    @cached_property
    def sources(self) -> Mapping[str, str]:
        """Module -> hash of the source that computes this step."""
        return fingerprint.closure(self.modules)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Everything that the key covers, as stored beside the result (`bench why` compares it)."""
        return self._identity(dict(self.sources))

    def _identity(self, sources: Mapping[str, str] | str) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "spec": dict(self.spec),
            "inputs": {name: step.key for name, step in self.inputs.items()},
            "sources": sources,
            "data": self.data,
        }

    @cached_property
    def key(self) -> str:
        """The content key."""
        return digest(self._identity(fingerprint.closure_digest(self.modules)))


def with_inputs(steps: Iterable[Step]) -> list[Step]:
    """The steps and all that they read, once, inputs before those that read them."""
    ordered: dict[str, Step] = {}

    def visit(step: Step) -> None:
        if step.key not in ordered:
            for needed in step.inputs.values():
                visit(needed)
            ordered[step.key] = step

    for step in steps:
        visit(step)
    return list(ordered.values())
