"""Explains why a step is not cached: what differs from the nearest one that is."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from bench.plan.fingerprint import changed
from bench.plan.step import Step
from bench.records.files import load_records
from bench.runner.rundir import RunDir
from bench.runner.store import key_of

__all__ = ["explain", "remember"]

MOST = 1000  # planned steps remembered
Identity = Mapping[str, Any]


def remember(steps: Iterable[Step], run_dir: RunDir) -> None:
    """Note the identities of planned steps, so that `explain` can speak of what was never computed."""
    path = run_dir.path / "planned.json"
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    known = dict(list(_planned(run_dir).items())[-MOST:])
    known |= {step.key: [step.label, step.identity] for step in steps}
    with suppress(OSError):  # a plan is worth having where nothing can be written
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_text(json.dumps(known), encoding="utf-8")
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def explain(asked: str, folder: Path) -> list[str]:
    """Sentences about every step or cell that is meant; empty if there is none.

    Args:
        asked: the beginning of a step's or a cell's key, or of a record's file name, with or without its folder.
        folder: the run directory.
    """
    run_dir, prefix = RunDir(folder), Path(asked).name
    if not prefix:
        return []
    kept = {key: [meta["label"], meta["identity"]] for key, meta in run_dir.store.metas()}
    stored = {key: entry for key, entry in kept.items() if _remembered(entry)}
    planned = _planned(run_dir)
    lines: list[str] = []
    for record in load_records(run_dir.records, lambda error: None):
        if record.cell_key.startswith(prefix) or record.filename.startswith(prefix):
            lines.append(f"cell {record.filename}: {record.status}")
            for name, key in record.provenance.steps.items():
                lines += [f"step {name}:", *_explain(key, stored, planned)]
    for key in {**stored, **planned}:
        if key.startswith(prefix):
            lines += _explain(key, stored, planned)
    return lines


def _explain(key: str, stored: Mapping[str, Any], planned: Mapping[str, Any]) -> list[str]:
    if key in stored:
        label, identity = stored[key]
        edited = changed(identity["sources"])
        now = f"but the source has changed since: {', '.join(edited)}" if edited else "the source is unchanged since"
        return [f"  {key[:12]} {label}: cached, {now}"]
    if key not in planned:
        return [f"  {key[:12]}: neither stored nor planned"]
    label, identity = planned[key]
    rivals = [(other, known) for other, (_, known) in stored.items() if known["kind"] == identity["kind"]]
    if not rivals:
        return [f"  {key[:12]} {label}: not cached, nor is any step of its kind"]
    nearest, known = min(rivals, key=lambda rival: len(_differences(identity, rival[1])))
    differences = _differences(identity, known)
    return [f"  {key[:12]} {label}: not cached; it differs from the stored {nearest[:12]} in", *differences]


def _differences(new: Identity, old: Identity) -> list[str]:
    lines = []
    for part in ("spec", "inputs", "sources"):
        a, b = dict(new[part]), dict(old[part])
        for name in sorted({*a, *b}):
            if a.get(name) != b.get(name):
                lines.append(f"    {part}.{name}: {_short(b.get(name))} -> {_short(a.get(name))}")
    if new["data"] != old["data"]:
        lines.append(f"    data: {_short(old['data'])} -> {_short(new['data'])}")
    return lines


def _planned(run_dir: RunDir) -> dict[str, Any]:
    """Key -> [label, identity] of the planned steps that were remembered; a malformed entry counts as absent."""
    try:
        found = json.loads((run_dir.path / "planned.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    entries = found.items() if isinstance(found, dict) else ()
    return {key: entry for key, entry in entries if _remembered(entry) and _belongs(key, entry[1])}


def _belongs(key: str, identity: Identity) -> bool:
    """Whether an identity gives this key: one with a changed byte does not."""
    try:
        return key_of(identity) == key
    except (AttributeError, ValueError):
        return False


def _remembered(entry: Any) -> bool:
    parts = ("kind", "spec", "inputs", "sources", "data")
    whole = isinstance(entry, list) and len(entry) == 2 and isinstance(entry[1], dict)
    return whole and all(part in entry[1] for part in parts)


def _short(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 24 else text[:12] + "..."
