"""The commands that reproduce records."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from bench.metrics import DEFAULT_FPR
from bench.records.record import Cell, CellRecord
from leaderboard.summary import short

__all__ = ["command", "commands"]


def commands(groups: Iterable[Sequence[CellRecord]], fpr: float) -> list[str]:
    """What reproduces a row, given its records by attack: the source that computed it, then one command an attack."""
    found, at = [], None
    for members in groups:
        source = members[0].provenance
        if source.git_revision != at and re.fullmatch("[0-9a-f]{7,64}", source.git_revision or ""):
            at = source.git_revision
            found.append(f"git checkout {at}" + ("  # and what was not committed then" if source.git_dirty else ""))
        found.append(command(members, fpr))
    return found


def command(members: Sequence[CellRecord], fpr: float) -> str:
    """What reproduces these records; quoted, because parameters of a stranger's record may hold anything."""
    cell = members[0].cell
    words = ["bench", "run"]
    for name in ("scheme", "attack", "arch", "dataset", "situation", "profile"):
        # A post-hoc scheme has its one situation whatever is asked for, and the option does not know it.
        if getattr(cell, name) != "post-hoc":
            words += [f"--{name}", getattr(cell, name)]
    words += ["--seeds", str(max(record.cell.seed for record in members) + 1)]
    words += ["--owners", str(cell.owners)] if cell.owners > 1 else []
    words += ["--fpr", f"{fpr:g}"] if fpr != DEFAULT_FPR else []
    words += ["--threads", str(members[0].provenance.threads)]
    for part, params in _settable(cell):
        words += [word for name, value in params.items() for word in ("--set", f"{part}.{name}={_typed(value)}")]
    return shlex.join(words)


def _settable(cell: Cell) -> Iterator[tuple[str, dict[str, Any]]]:
    """Scheme and attacks with the parameters that `--set` takes; a chain's name says all strengths but the last's."""
    yield cell.scheme, cell.scheme_params
    for number, applied in enumerate(cell.attacks, start=1):
        named = number < len(cell.attacks)
        yield applied.name, {name: v for name, v in applied.params.items() if not (named and name == "ladder")}


def _typed(value: Any) -> str:
    """A parameter as it is typed on the command line: lists with commas, `none`."""
    if value is None:
        return "none"
    return ",".join(map(short, value)) if isinstance(value, list) else short(value)
