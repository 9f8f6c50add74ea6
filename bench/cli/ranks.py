"""The table of ranks for the terminal: a row per scheme of a comparable set, over its seeds."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from rich.table import Table

from bench.cli.fitting import plain_table
from bench.metrics import BUDGET_PP, DEFAULT_FPR, DEMONSTRATIONS
from bench.metrics.ranking import LEVEL, Comparable, Ranking, Standing, rankings
from bench.records.record import CellRecord

__all__ = ["ranks_table"]

COLUMNS = ("scheme", "survival", "interval", "worst case", "coverage", "rank")
NUMBERS = ("survival", "interval", "coverage", "rank")
LEAVE_OUT = ("owners", "profile", "dataset", "situation", "worst case", "coverage", "interval", "arch")
CAPTION = (
    "survival: share of attacks under which the claim holds at every strength that costs at most {budget:g} points, "
    "mean over seeds; interval: at {level:g} %, from five seeds on; worst case: claims that survive all attacks at "
    "once; coverage: attacks faced, of those that apply and some scheme faced; rank: all that paired sign-flip tests "
    "over seeds leave possible (Holm over all pairs, {level:g} %)"
)
SHOWN_ONLY = "\nprofile {names}: a demonstration; the leaderboard page never ranks it"


def ranks_table(records: Iterable[CellRecord], width: int, fpr: float = DEFAULT_FPR) -> Table | None:
    """One row per scheme, the sets one after another; None where no scheme has two seeds."""
    found = {place: ranking for place, ranking in rankings(records, fpr).items() if _has_seeds(ranking)}
    if not found:
        return None
    places = [place for place, ranking in found.items() for _ in ranking.standings]
    varying = [name for name in Comparable._fields if len({getattr(place, name) for place in places}) > 1]
    rows = [
        [*(getattr(place, name) for name in varying), *row]
        for place, ranking in found.items()
        for row in _rows(ranking)
    ]
    table = plain_table([*varying, *COLUMNS], rows, width=width, numbers=NUMBERS, leave_out=LEAVE_OUT)
    fixed = [f"{name} {getattr(places[0], name)}" for name in Comparable._fields if name not in varying]
    table.title, table.title_justify, table.title_style = ", ".join(fixed), "left", "bold"
    left_out = f"{table.caption}\n" if table.caption else ""
    table.caption = left_out + CAPTION.format(budget=BUDGET_PP, level=100 * (1 - LEVEL)) + _remarks(found)
    table.caption_justify = "left"
    return table


def _has_seeds(ranking: Ranking) -> bool:
    return any(len(standing.score.values) > 1 for standing in ranking.standings)


def _rows(ranking: Ranking) -> list[list[Any]]:
    names = _labels([standing.name for standing in ranking.standings])
    return [_row(name, each, len(names) > 1) for name, each in zip(names, ranking.standings, strict=True)]


def _row(name: str, standing: Standing, ranked: bool) -> list[Any]:
    score = standing.score
    return [
        name,
        f"{score.mean:.2f}",
        None if score.low is None or score.high is None else f"{score.low:.2f}-{score.high:.2f}",
        f"{standing.survived} of {standing.decided}" if standing.decided else None,
        f"{standing.covered}/{standing.of}",
        standing.range if ranked else None,
    ]


def _labels(contestants: Iterable[str]) -> list[str]:
    """Schemes by name; those that stand twice with the parameters in which they differ."""
    known = [json.loads(contestant) for contestant in contestants]
    labels = []
    for scheme, params in known:
        others = [each for name, each in known if name == scheme]
        names = sorted(n for n in {n for each in others for n in each} if len({str(o.get(n)) for o in others}) > 1)
        labels.append(" ".join([scheme, *(f"{name}={params.get(name)}" for name in names)]))
    return labels


def _remarks(found: dict[Comparable, Ranking]) -> str:
    lines = []
    for ranking in found.values():
        count, seeds = len(ranking.standings), ranking.seeds
        if count > 1 and seeds < ranking.needed:
            words = f"{seeds} {'seed' if seeds == 1 else 'seeds'}"
            lines.append(
                f"\nwith {words} no two of {count} schemes can be told apart: it takes {ranking.needed} at least"
            )
    names = [name for name in DEMONSTRATIONS if any(place.profile == name for place in found)]
    return "".join(dict.fromkeys(lines)) + (SHOWN_ONLY.format(names=", ".join(names)) if names else "")
