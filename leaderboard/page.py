"""The page: one HTML file with everything in it, which asks the network for nothing."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from bench.metrics import BUDGET_PP, DEFAULT_FPR
from bench.records.record import CellRecord
from leaderboard.summary import Row, canonical
from leaderboard.table import rows

__all__ = ["build"]

HERE = Path(__file__).parent
DIGITS = 5


def build(records: Iterable[CellRecord], out: Path, *, fpr: float = DEFAULT_FPR, generated: str | None = None) -> Path:
    """Write the leaderboard of `records` as one self-contained page.

    Args:
        records: of any profiles and statuses; of several records of one cell the first counts.
        out: directory of the page, made if it is missing.
        fpr: the false positive rate that every p-value on the page is held to.
        generated: what the page says of its own date; None leaves it out, so that equal records give equal bytes.

    Returns:
        The path of `index.html`, which opens from file:// without a server.
    """
    given = list(records)
    script = (HERE / "page.js").read_text(encoding="utf-8")
    html = (
        _environment()
        .get_template("page.html.j2")
        .render(
            budget=f"{BUDGET_PP:g}",
            data=_payload(rows(given, fpr), fpr),
            fpr=f"{100 * fpr:g}",
            generated=generated,
            newest=max((record.provenance.finished for record in given), default=""),
            records=len(given),
            script=Markup(script),
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
            style=Markup((HERE / "page.css").read_text(encoding="utf-8")),
        )
    )
    out.mkdir(parents=True, exist_ok=True)
    path = out / "index.html"
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(html, encoding="utf-8", newline="\n")
    temporary.replace(path)
    return path


def _environment() -> Environment:
    made = Environment(loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined)
    made.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    return made


class _Shared:
    """Values that many rows have in common: each is embedded once, and named by its place."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._places: dict[str, int] = {}

    def place(self, value: Any) -> int:
        """Where `value` is, or will be, in `values`."""
        found = self._places.setdefault(canonical(value), len(self.values))
        if found == len(self.values):
            self.values.append(value)
        return found


def _payload(made: list[Row], fpr: float) -> dict[str, Any]:
    """What the page embeds: rounded numbers, and each environment and each space of signatures once."""
    environments, spaces = _Shared(), _Shared()
    slim = [_slim(row, environments, spaces) for row in made]
    return {
        "rows": _rounded(slim),
        "environments": environments.values,
        "spaces": _rounded(spaces.values),
        "budget_pp": BUDGET_PP,
        "fpr": fpr,
    }


def _slim(row: Row, environments: _Shared, spaces: _Shared) -> Row:
    """The row, with places instead of what it shares with others."""

    def placed(searches: list[Row]) -> list[Row]:
        return [{**search, "candidates": spaces.place(search["candidates"])} for search in searches]

    found, attacks = row["searches"], row["attacks"]
    return {
        **row,
        "environments": [environments.place(environment) for environment in row["environments"]],
        "searches": found and {**found, "owners": placed(found["owners"]), "heldout": placed(found["heldout"])},
        "attacks": {name: {**attack, "searches": placed(attack["searches"])} for name, attack in attacks.items()},
    }


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        short = float(f"{value:.{DIGITS}g}")
        return int(short) if short.is_integer() and abs(short) < 1e15 else short
    if isinstance(value, dict):
        return {name: _rounded(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_rounded(part) for part in value]
    return value
