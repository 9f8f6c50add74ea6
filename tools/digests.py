"""Prints the table of docs/: which edit changes which kind of key.

python tools/digests.py
"""

from __future__ import annotations

from dataclasses import replace

from bench.plan import fingerprint
from bench.plan.matrix import Planned, Request, expand
from bench.plan.profiles import PROFILES

KINDS = ("host", "keys", "mark", "attack", "nulls", "attacked_nulls")
# What is edited, and a module that stands for it. The cells are `uchida-random` x `pruning` on `wrn`.
EDITS = {
    "the training loop": "bench.steps.training",
    "the data path": "bench.data.loading",
    "the cell's architecture": "bench.archs.wrn",
    "the judge": "bench.steps.judge",
    "the walk along an attack's ladder": "bench.steps.attack",
    "false claims": "bench.steps.nulls",
    "the cell's scheme": "schemes.uchida",
    "the cell's attack": "attacks.pruning",
    "another scheme": "schemes.membership",
    "another attack": "attacks.learner",
    "another architecture": "bench.archs.vgg",
    "records": "bench.records.record",
    "the registry": "bench.registry",
    "the matrix and the profiles' file": "bench.plan.matrix",
    "the store and the executors": "bench.runner.store",
    "MLflow": "bench.tracking",
    "the command line": "bench.cli.run",
}


def cell() -> Planned:
    """The cell whose keys are compared."""
    request = Request(
        ("uchida-random",), ("pruning",), ("wrn",), ("digits-m",), ("fine-tune",), PROFILES["quick"], (0,)
    )  # fmt: skip
    (planned,) = expand(request, {"digits-m": "0" * 64})
    return planned


def keys_after(module: str | None) -> dict[str, str]:
    """Kind -> key, as if `module` had been edited."""
    tree = fingerprint.Tree(fingerprint.tree().root)
    if module is not None:
        tree.modules[module] = replace(tree.module(module), digest="edited")
    before, fingerprint.tree = fingerprint.tree, lambda: tree
    try:
        return {kind: step.key for kind, step in cell().steps.items()}
    finally:
        fingerprint.tree = before


def main() -> None:
    """The table, as Markdown."""
    known = keys_after(None)
    print("| edit | " + " | ".join(kind.replace("_", " ") for kind in KINDS) + " |")
    print("|---|" + "---|" * len(KINDS))
    for edit, module in EDITS.items():
        found = keys_after(module)
        marks = ["changes" if found[kind] != known[kind] else "" for kind in KINDS]
        print(f"| {edit} (`{module}`) | " + " | ".join(marks) + " |")


if __name__ == "__main__":
    main()
