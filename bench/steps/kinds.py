"""The kinds of steps, and the function that computes each."""

from __future__ import annotations

from collections.abc import Callable

from bench.steps.attack import run_attack
from bench.steps.embed import embed
from bench.steps.host import train_control, train_host, train_without
from bench.steps.keys import make_keys
from bench.steps.null_claims import null_claims
from bench.steps.null_control import train_null_control
from bench.steps.null_host import train_null_host
from bench.steps.nulls import attacked_false_claims, false_claims, left_out_claims
from bench.steps.scheme_workspace import SchemeWorkspace
from bench.steps.workspace import Output

__all__ = ["COMPUTE"]

COMPUTE: dict[str, Callable[[SchemeWorkspace], Output]] = {
    "host": train_host,
    "control": train_control,
    "keys": make_keys,
    "mark": embed,
    "attack": run_attack,
    "without": train_without,
    "nulls": false_claims,
    "left_out_claims": left_out_claims,
    "attacked_nulls": attacked_false_claims,
    "null_host": train_null_host,
    "null_control": train_null_control,
    "null_claims": null_claims,
}
