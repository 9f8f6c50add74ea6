"""Turns the results of steps into the record of a cell, and says where it comes from."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import bench
from bench.api import AttackCard
from bench.identity import digest
from bench.plan.fingerprint import closure
from bench.plan.matrix import Planned
from bench.records.record import AFTER_ATTACK, FRESH_KEY, LEFT_OUT, CellRecord, NullSet, Provenance
from bench.runner.arithmetic import spoken
from bench.runner.machine import processor
from bench.runner.store import Store
from bench.steps.workspace import Place

__all__ = ["assemble", "failed", "not_applicable_record", "null_sets", "stage_of", "whereabouts"]

FPR = 0.01
SOURCES = (":/bench", ":/schemes", ":/attacks")
BEFORE = (("nulls", FRESH_KEY), ("left_out_claims", LEFT_OUT))
PACKAGES = ("torch", "torchvision", "numpy", "scipy", "scikit-learn", "safetensors")


def assemble(planned: Planned, store: Store) -> CellRecord:
    """The record of a cell whose steps are all in the store."""
    stored = {name: store.load(step.key) for name, step in planned.steps.items()}
    results = {name: each.result for name, each in stored.items()}
    host, keys, mark = results["host"], results["keys"], results["mark"]
    control = results.get("control", {})
    capacity = {f"capacity_{part}": keys[f"capacity_{part}"] for part in ("bits", "limit", "most")}
    return CellRecord(
        **_head(planned),
        status="ok",
        marked=mark["point"],
        curve=results["attack"]["points"],
        clean_accuracy=host["test_accuracy"],
        control_accuracy=control.get("test_accuracy"),
        clean_unseen_accuracy=host["unseen_accuracy"],
        control_unseen_accuracy=control.get("unseen_accuracy"),
        clean_verdicts=mark["clean_verdicts"],
        heldout_verdicts=mark["heldout_verdicts"],
        nulls=null_sets(results),
        histories=_histories(keys, mark),
        timings_s={"host": host["time_s"], "keygen": keys["time_s"], "embed": mark["time_s"]},
        measures={name: value for name, value in {**mark["measures"], **capacity}.items() if value is not None},
        provenance=_provenance(planned, stored["attack"].meta["where"], host["split"]),
    )


def failed(planned: Planned, traceback: str, *, place: Place, threads: int) -> CellRecord:
    """The record of a cell of which a step failed."""
    where = _provenance(planned, whereabouts(place, threads))
    return CellRecord(**_head(planned), status="failed", traceback=_public(traceback)[-20_000:], provenance=where)


def _public(traceback: str) -> str:
    """A traceback without the folders of whoever computed it: records are published."""
    for folder in (Path(bench.__file__).parents[1], sys.prefix, sys.base_prefix):
        traceback = traceback.replace(f"{folder}/", "")
    return traceback


def not_applicable_record(planned: Planned) -> CellRecord:
    """The record of a cell that has no meaning."""
    return CellRecord(
        **_head(planned),
        status="not applicable",
        reason=planned.reason,
        provenance=_provenance(planned, whereabouts(Place(), 1)),
    )


def whereabouts(place: Place, threads: int) -> dict[str, Any]:
    """Where and with what something is computed: kept with every result, for the process that assembles is another."""
    revision, dirty = _git()
    return {
        "bench_version": bench.__version__,
        "git_revision": revision,
        "git_dirty": dirty,
        "packages": _packages(),
        "python": platform.python_version(),
        "platform": " ".join((platform.system(), platform.machine(), *platform.libc_ver())).strip(),
        "device": place.device,
        "arithmetic": spoken(place),
        "threads": threads,
        **processor(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _head(planned: Planned) -> dict[str, Any]:
    return {
        "cell_key": planned.key,
        "cell": planned.cell,
        "carrier": planned.scheme.carrier,
        "access": planned.scheme.access,
        "stage": stage_of(planned.attacks),
        "committed": _committed(planned.attacks),
        "unit": planned.attacks[-1].unit,
    }


def stage_of(attacks: Sequence[AttackCard]) -> str:
    """Of a chain: where its ladder acts; a forged claim stays one whatever follows."""
    stages = [card.stage for card in attacks]
    return "evidence" if "evidence" in stages else stages[-1]


def _committed(attacks: Sequence[AttackCard]) -> bool | None:
    """Whether a forgery works with a key that was committed to; None for a chain that forges nothing."""
    forgeries = [card.committed for card in attacks if card.stage == "evidence"]
    return all(forgeries) if forgeries else None


def _histories(keys: Mapping[str, Any], mark: Mapping[str, Any]) -> dict[str, list[float]]:
    """What was trained, a number per epoch: by the key's maker, and while embedding."""
    epochs = mark["history"]
    learned = {name: [epoch[name] for epoch in epochs] for name in ("loss", "accuracy") if epochs}
    trainings = {"keygen": keys["histories"], "training": learned}
    return {f"{which}/{name}": series for which, found in trainings.items() for name, series in found.items()}


def null_sets(results: Mapping[str, Any]) -> list[NullSet]:
    """The p-values of claims that are false: by kind, those on null models by model, after the attack by strength.

    Args:
        results: name of the step -> its result; names of other steps are passed over.
    """
    before = [(kind, results[name]["p_values"]) for name, kind in BEFORE if name in results]
    attacked = results.get("attacked_nulls", {}).get("p_values", [])
    claimed = [claim for name in results if name.startswith("null_claims_") for claim in results[name]["claims"]]
    return [
        *(NullSet(kind=kind, p_values=p_values) for kind, p_values in before),
        *(NullSet(kind=kind, network=number, p_values=p_values) for kind, number, p_values in claimed),
        *(NullSet(kind=AFTER_ATTACK, strength=strength, p_values=p_values) for strength, p_values in attacked),
    ]


def _provenance(planned: Planned, where: Mapping[str, Any], split: Mapping[str, int] | None = None) -> Provenance:
    return Provenance(
        **where,
        source_hash=planned.source_hash if planned.steps else digest(dict(closure(["bench.plan.matrix"]))),
        data_checksum=planned.data,
        split=dict(split or {}),
        steps={name: step.key for name, step in planned.steps.items()},
    )


@cache
def _packages() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@cache
def _git() -> tuple[str | None, bool | None]:
    """Revision and whether the work tree differs from it; (None, None) outside a checkout."""
    folder = Path(bench.__file__).parent

    def ask(*words: str) -> str:
        command = ["git", "--no-optional-locks", "-C", str(folder), *words]  # a question writes nothing
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        return ask("rev-parse", "HEAD"), bool(ask("status", "--porcelain", "--", *SOURCES))
    except (OSError, subprocess.SubprocessError):
        return None, None
