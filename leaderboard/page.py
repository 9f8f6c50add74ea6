"""The page: one HTML file with everything in it, which asks the network for nothing."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from bench.identity import canonical
from bench.metrics import BUDGET_PP, DEFAULT_FPR, DEMONSTRATIONS
from bench.metrics.beside import Beside
from bench.records.record import CellRecord
from leaderboard.outcomes import Stream, steps, together
from leaderboard.summary import Row
from leaderboard.table import Submitted, rows

__all__ = ["build"]

HERE = Path(__file__).parent
SCRIPTS = (
    "elements", "intervals", "outcomes", "state", "address", "threat", "measured", "cells", "columns", "choice",
    "table", "charts", "roc", "searches", "detail", "attacks", "schemes", "heatmap", "tradeoff", "removal", "claims",
    "views", "export", "main",
)  # fmt: skip
DIGITS, CURVE_DIGITS = 5, 4  # of numbers that are read, and of those that are drawn
PACK = 16  # rows whose details are packed together: enough to deflate well, few enough to open at once
DETAILS = (
    "heldout", "searches", "histories", "capacity", "commands", "environments", "finished", "calibration",
    "detectability", "pictures",
)  # fmt: skip
RECOMPUTED = ("robustness", "removal", "survival", "outcomes")  # which the page finds for the choice of its reader
Cards = Mapping[str, Mapping[str, Mapping[str, Any]]]


def build(
    records: Iterable[CellRecord],
    out: Path,
    *,
    submitted: Iterable[Submitted] = (),
    cards: Cards | None = None,
    fpr: float = DEFAULT_FPR,
    generated: str | None = None,
    beside: Beside | None = None,
) -> Path:
    """Write the leaderboard as one self-contained page.

    Args:
        records: computed here, of any profiles and statuses; of several records of one cell the first counts.
        out: directory of the page, made if it is missing.
        submitted: records that arrived by pull request, with their origins; alone they are self-reported.
        cards: what a row links to, by `schemes` or `attacks`, then by name: texts `title`, `paper`, `link`, `code`,
            `adversary`, `stage`, a list `extensions`, and what an attack's adversary `needs` (`access`, lists `images`
            and `knows`, `copies`), of which any may be missing: an attack of unknown needs is open to everybody.
        fpr: the false positive rate that every p-value on the page is held to.
        generated: what the page says of its own date; None leaves it out, so that equal records give equal bytes.
        beside: what was measured about the schemes of `records` beside them; it says nothing of `submitted` ones.

    Returns:
        The path of `index.html`, which opens from file:// without a server.
    """
    own, reported = list(records), list(submitted)
    script = "\n".join((HERE / "script" / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS)
    made = rows(own, fpr, submitted=reported, beside=beside)
    payload, stream, details = _payload(made, fpr, cards or {})
    html = (
        _environment()
        .get_template("page.html.j2")
        .render(
            budget=f"{BUDGET_PP:g}",
            data=payload,
            details=details,
            fpr=f"{100 * fpr:g}",
            generated=generated,
            outcomes=base64.b64encode(bytes(stream)).decode(),  # not deflated: the first table needs it at once
            newest=max((record.provenance.finished for record in own), default=""),
            records=len(own),
            reported=len(reported),
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


def _payload(made: list[Row], fpr: float, cards: Cards) -> tuple[dict[str, Any], Stream, list[str]]:
    """What the page embeds: what its table needs, the outcomes of attacks, and the details of rows, packed.

    Numbers are rounded; each environment, each space of signatures and each layout of outcomes stands once.
    """
    environments, spaces, layouts, stream = _Shared(), _Shared(), _Shared(), Stream(fpr)
    needs = _Needs(cards)
    details = [_rounded(_detail(row, environments, spaces)) for row in made]
    shown = [_rounded(_summary(row, stream, layouts, needs)) for row in made]
    payload = {
        "rows": shown,
        "environments": environments.values,
        "spaces": _rounded(spaces.values),
        "layouts": layouts.values,
        "needs": needs.known,
        "cards": _used(cards, made),
        "pack": PACK,
        "budget_pp": BUDGET_PP,
        "demonstrations": list(DEMONSTRATIONS),
        "fpr": fpr,
    }
    return payload, stream, [_packed(details[start : start + PACK]) for start in range(0, len(details), PACK)]


class _Needs:
    """What the adversary of each attack, or chain of attacks, must have; None where a card does not say."""

    def __init__(self, cards: Cards) -> None:
        self._cards = cards.get("attacks", {})
        self.known: dict[str, Row | None] = {}

    def of(self, label: str) -> Row | None:
        """The needs of an attack by the name that a row has for it."""
        if label not in self.known:
            self.known[label] = together([self._cards.get(name, {}).get("needs") for name in steps(label)])
        return self.known[label]


def _packed(values: list[Row]) -> str:
    """JSON, deflated, in base64."""
    text = json.dumps(values, separators=(",", ":"), allow_nan=False)
    return base64.b64encode(zlib.compress(text.encode(), 9)).decode()


def _summary(row: Row, stream: Stream, layouts: _Shared, needs: _Needs) -> Row:
    """What the table, its filters and its sorting need; of each attack a list, as most of the page is these.

    The list holds the status, the stage, the place of its layout (None where nothing was judged), and whether there are
    curves to draw; what is left out at its end is None.
    """

    def brief(label: str, attack: Row) -> list[Any]:
        need, judged = needs.of(label), attack["outcomes"]
        layout = layouts.place(stream.add(judged, need, attack["unit"])) if judged else None
        said = [attack["status"], attack["stage"], layout, int(bool(attack["curves"]))]
        return said if attack["status"] == "ok" else said[:2]

    kept = {name: value for name, value in row.items() if name not in (*DETAILS, *RECOMPUTED)}
    return {
        **kept,
        "date": row["finished"][-1] if row["finished"] else None,
        "attacks": {label: brief(label, attack) for label, attack in row["attacks"].items()},
    }


def _detail(row: Row, environments: _Shared, spaces: _Shared) -> Row:
    """What an opened row shows besides, with places instead of what it shares with others."""

    def placed(searches: list[Row]) -> list[Row]:
        return [{**search, "candidates": spaces.place(search["candidates"])} for search in searches]

    found = row["searches"]
    return {
        **{name: row[name] for name in DETAILS},
        "environments": [environments.place(environment) for environment in row["environments"]],
        "searches": found and {**found, "owners": placed(found["owners"]), "heldout": placed(found["heldout"])},
        "attacks": {
            name: {
                **{kept: value for kept, value in attack.items() if kept not in RECOMPUTED},
                "curves": _rounded(attack["curves"], CURVE_DIGITS),
                "searches": placed(attack["searches"]),
            }
            for name, attack in row["attacks"].items()
        },
    }


def _used(cards: Cards, made: list[Row]) -> dict[str, dict[str, Any]]:
    """The cards of the schemes and attacks on the page."""
    chains = {name for row in made for name in row["attacks"]}
    used = {step for chain in chains for step in steps(chain)}
    named = {"schemes": {row["scheme"] for row in made}, "attacks": used}
    return {
        kind: {n: cards[kind][n] for n in sorted(names) if n in cards.get(kind, {})} for kind, names in named.items()
    }


def _rounded(value: Any, digits: int = DIGITS) -> Any:
    if isinstance(value, float):
        short = float(f"{value:.{digits}g}")
        return int(short) if short.is_integer() and abs(short) < 1e15 else short
    if isinstance(value, dict):
        return {name: _rounded(part, digits) for name, part in value.items()}
    if isinstance(value, list):
        return [_rounded(part, digits) for part in value]
    return value
