"""How does the leaderboard look? One HTML file with everything in it, which asks the network for nothing."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from bench.records import Record
from leaderboard.table import BUDGET_PP, Row, canonical, rows

__all__ = ["build"]

HERE = Path(__file__).parent
DIGITS = 5


def build(records: Iterable[Record], out: Path, *, generated: str | None = None) -> Path:
    """Write the leaderboard of `records` as one self-contained page.

    Args:
        records: of any profiles and statuses; of several records of one cell the first counts.
        out: directory of the page, made if it is missing.
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
            data=_payload(rows(given)),
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


def _payload(made: list[Row]) -> dict[str, Any]:
    """What the page embeds: rounded numbers, and each environment once."""
    environments: dict[str, int] = {}
    kept: list[Any] = []
    slim = []
    for row in made:
        places = []
        for environment in row["environments"]:
            key = canonical(environment)
            if key not in environments:
                environments[key] = len(kept)
                kept.append(environment)
            places.append(environments[key])
        slim.append(_rounded({**row, "environments": places}))
    return {"rows": slim, "environments": kept, "budget_pp": BUDGET_PP}


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        short = float(f"{value:.{DIGITS}g}")
        return int(short) if short.is_integer() and abs(short) < 1e15 else short
    if isinstance(value, dict):
        return {name: _rounded(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_rounded(part) for part in value]
    return value
