"""What MLflow is told: a run's name, tags, parameters, metrics, data set and description; the experiment's tags."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

from bench.contract.verdict import Point
from bench.metrics import DEMONSTRATIONS
from bench.metrics.aggregate import average
from bench.metrics.beside import Beside, most_visible, worst
from bench.metrics.capacity import carried_bits
from bench.metrics.efficiency import embed_ratio
from bench.metrics.fidelity import fidelity_pp
from bench.metrics.protection import protection
from bench.metrics.ranking import comparable, contestant, rankings
from bench.metrics.robustness import detected_share, removal_cost, survival, survived_share
from bench.metrics.security import (
    false_claims,
    false_claims_after_attack,
    false_claims_by_kind,
    forged,
    forged_claims,
)
from bench.records.record import Cell, CellRecord

__all__ = [
    "VIEW",
    "dataset",
    "experiment_tags",
    "log10",
    "measured_beside",
    "metrics",
    "or_nan",
    "params",
    "rank_tags",
    "run_name",
    "tags",
    "verdict_mean",
]

VIEW = "bench"  # the name of the shared view that the link opens
COMPARED = (
    "test_accuracy", "detected", "worst_case_survival", "removal_cost_pp", "fidelity_pp", "p_value", "survived_share",
)  # fmt: skip
CURVES = ("test_accuracy", "detected", "log10_p", "ber")
DESCRIPTION = """\
One run per cell of the matrix (scheme x attack x architecture x data set x situation x seed).

- `test_accuracy`, `fidelity_pp`, `detected`, `p_value`, `ber` and their like: the marked model before the attack.
- `worst_case_survival`: the share of owners whose claim holds at every rung that costs at most 5 points of accuracy.
  `removal_cost_pp`: the least accuracy given up to break the claim. `survived_share`: the share of rungs survived.
- `curve/...`: the same along the attack; the step is the strength, or the number of the rung where strengths are
  fractions (`curve/strength` has them).
- `calibrated_false_positive_rate`, `detectability_p_value` and their like: what `bench calibrate` and `bench detect`
  measured about the scheme, over seeds of their own; the same in all runs of the scheme.
- Tags `rank` and `rank_of`: the ranks of the scheme that are possible over all its seeds, among so many schemes.
- A run that FAILED has its traceback in its description. Cells that are not applicable have no run: `bench results`
  and the leaderboard page give their reasons.
"""

MAX_PARAM, MAX_TAG, MAX_NAME, MAX_DATASET = 6_000, 5_000, 250, 500  # characters; MLflow cuts or refuses what is longer
LOG10_P_FLOOR = -300.0
TABLE_ROWS = 40


def run_name(record: CellRecord) -> str:
    """The run's readable name."""
    cell = record.cell
    return f"{cell.scheme} / {cell.attack} / {cell.arch} / s{cell.seed}"


def experiment_tags() -> dict[str, str]:
    """What makes MLflow open the experiment on its runs, say what they mean, and show what people compare."""
    columns = [*(f"params.`{name}`" for name in ("scheme", "attack")), *(f"metrics.`{m}`" for m in COMPARED)]
    view = {
        "orderByKey": "attributes.start_time",
        "orderByAsc": False,
        "searchFilter": "",
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "modelVersionFilter": "All Runs",
        "datasetsFilter": [],
        "selectedColumns": columns,
        "columnOrder": columns,
        "compareRunSections": [{"uuid": "compared", "name": "What people compare", "display": True}],
        "compareRunCharts": _charts(),
        "isAccordionReordered": True,  # else MLflow sorts the sections by name
    }
    return {
        "mlflow.experimentKind": "custom_model_development",
        "mlflow.note.content": DESCRIPTION,
        f"mlflow.sharedViewState.{VIEW}": json.dumps(view),
    }


def _charts() -> list[dict[str, Any]]:
    """The charts that the view opens with; MLflow adds one for each other metric."""
    common = {"metricSectionId": "compared", "runsCountToCompare": 10}
    curves = [{"uuid": name, "type": "LINE", "metricKey": f"curve/{name}", **_LINE, **common} for name in CURVES]
    bars = [{"uuid": f"bar-{name}", "type": "BAR", "metricKey": name, **common} for name in COMPARED]
    return [*curves, *bars]


_LINE = {"xAxisKey": "step", "yAxisKey": "metric", "scaleType": "linear", "xAxisScaleType": "linear", "range": {},
         "lineSmoothness": 0, "useGlobalXaxisKey": True, "useGlobalLineSmoothing": True}  # fmt: skip


def dataset(record: CellRecord) -> dict[str, str]:
    """What MLflow's data set input is made from; its digest has at most 36 characters."""
    name = record.cell.dataset
    return {
        "name": _cut(name, MAX_DATASET),
        "digest": record.provenance.data_checksum[:36] or "unknown",
        "source_type": "bench",
        "source": json.dumps({"dataset": name, "checksum": record.provenance.data_checksum}),
    }


def tags(record: CellRecord, fpr: float) -> dict[str, str]:
    """What runs are searched by."""
    cell, origin = record.cell, record.provenance
    tags = {
        "bench.cell": cell.identity,
        "bench.cell_key": record.cell_key,
        **{name: str(getattr(cell, name)) for name in _CELL_FIELDS},
        "status": record.status,
        "carrier": record.carrier,
        "access": record.access,
        "stage": record.stage,
        "error": (record.traceback or "").strip().rpartition("\n")[2],
        "git_revision": origin.git_revision,
        "git_dirty": None if origin.git_dirty is None else str(origin.git_dirty).lower(),
        "device": origin.device,
        "mlflow.source.name": "bench",
        "mlflow.source.git.commit": origin.git_revision,
        "mlflow.note.content": _note(record, fpr),
    }
    return {name: _cut(value, MAX_TAG) for name, value in tags.items() if value}


def rank_tags(records: Iterable[CellRecord], fpr: float) -> dict[str, dict[str, str]]:
    """Tags `rank` (`1-3`) and `rank_of` by the cell's identity; none of demonstrations, baselines and single seeds."""
    compared = [record for record in records if record.cell.profile not in DEMONSTRATIONS]
    standings = {
        (place, each.name): {"rank": each.range, "rank_of": str(len(ranking.standings))}
        for place, ranking in rankings(compared, fpr).items()
        if ranking.seeds > 1
        for each in ranking.standings
    }
    found = {record.cell.identity: standings.get((comparable(record), contestant(record))) for record in compared}
    return {identity: tags for identity, tags in found.items() if tags}


_CELL_FIELDS = ("scheme", "attack", "arch", "dataset", "situation", "profile", "seed")


def _note(record: CellRecord, fpr: float) -> str:
    """The run's description, in Markdown: the curve as a table, or why there is none."""
    if record.status == "failed":
        return f"Failed:\n\n```\n{(record.traceback or '')[-MAX_TAG + 100 :]}\n```"
    lines = [f"| {record.unit or 'strength'} | accuracy | p-value | detected |", "|---|---|---|---|"]
    for point in record.points[:TABLE_ROWS]:
        p_value, share = verdict_mean(point, "p_value"), detected_share(point, fpr)
        holds = {1.0: "yes", 0.0: "no"}.get(or_nan(share), _percent(share))
        cells = (f"{point.strength:g}", _percent(point.test_accuracy), f"{or_nan(p_value):.2g}", holds)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _percent(fraction: float | None) -> str:
    return "n/a" if fraction is None else f"{100 * fraction:.1f} %"


def params(record: CellRecord, fpr: float) -> dict[str, str]:
    """What was asked for: the cell and the parameters of its scheme and attack."""
    cell = record.cell
    params: dict[str, str] = {}
    for name in (*_CELL_FIELDS, "owners"):
        _put(params, name, str(getattr(cell, name)))
    _put(params, "fpr", f"{fpr:g}")
    for prefix, group in (("scheme", cell.scheme_params), ("attack", cell.attack_params)):
        for name, value in group.items():
            _put(params, f"{prefix}.{name}", _cut(_text(value), MAX_PARAM))
    return params


def _text(value: Any) -> str:
    if isinstance(value, list):  # not as JSON, which MLflow's comparison spreads over a line per item
        return ", ".join(map(_text, value))
    return value if isinstance(value, str) else json.dumps(value)


def metrics(record: CellRecord, fpr: float) -> list[tuple[str, float, int]]:
    """Name, value and step of every metric.

    First come the numbers of the whole cell, because MLflow's comparison opens on the first metric: plain names are
    the marked model's. Then the curve along the strength (`curve/...`, from strength 0); last what was trained, along
    the epochs (1 is the first).
    """
    points = record.points
    values: dict[str, float] = {}
    by_kind = {f"false_positive_rate/{kind}": n.share for kind, n in false_claims_by_kind([record], fpr).items()}
    for name, value in [*_headline(record, fpr), *by_kind.items(), *record.measures.items()]:
        _put(values, name, value)
    headline = [(name, value, 0) for name, value in values.items()]
    rungs = [_point_metrics(point, record, fpr) for point in points]
    rows = [
        (f"curve/{name}", value, step)
        for step, rung in zip(steps(points), rungs, strict=True)
        for name, value in rung.items()
    ]
    values.update(dict.fromkeys((name for name, _, _ in rows), math.nan))  # names that are taken
    return headline + rows + _histories(record, values)


def measured_beside(cell: Cell, beside: Beside) -> dict[str, float]:
    """Metrics about the scheme of a cell that no record holds; nothing where nothing was measured.

    False claims are those of the kind of null that speaks most against the scheme, visibility is that of the test which
    sees most, adjusted for the number of tests.
    """
    found: dict[str, float | None] = {}
    claims = worst(beside.rates(cell))
    if claims:
        found["calibrated_false_positive_rate"] = claims.false_positive_rate
        found["calibrated_false_positive_rate_low"] = claims.interval_low
        found["calibrated_false_positive_rate_high"] = claims.interval_high
    seen = most_visible(beside.visibility(cell))
    if seen:
        found["detectability_p_value"] = seen.adjusted
        found["detectability_auc"] = seen.row.auc
    return {name: float(value) for name, value in found.items() if value is not None}


def _histories(record: CellRecord, values: dict[str, float]) -> list[tuple[str, float, int]]:
    """Every epoch of what was trained (`keygen/...`, `training/...`), under names that `values` has not yet."""
    rows = []
    for name, series in record.histories.items():
        _put(values, name, math.nan)
        rows += [(next(reversed(values)), value, epoch) for epoch, value in enumerate(series, start=1)]
    return rows


def steps(points: Sequence[Point]) -> list[int]:
    """MLflow's steps are integers: the strengths if they are increasing integers, else the rungs' numbers."""
    strengths = [point.strength for point in points]
    whole = all(s.is_integer() and 0 <= s < 2**31 for s in strengths)
    if whole and all(a < b for a, b in pairwise(strengths)):
        return [int(s) for s in strengths]
    return list(range(len(points)))


def _point_metrics(point: Point, record: CellRecord, fpr: float) -> dict[str, float]:
    """One rung; several owners are averaged, so `detected` is the share of them whose claim holds."""
    protected = protection(record, point, fpr)
    values: dict[str, float | None] = {
        "strength": point.strength,
        "test_accuracy": point.test_accuracy,
        "unseen_accuracy": point.unseen_accuracy,
        "fidelity_pp": fidelity_pp(record, point),
        "detected": detected_share(point, fpr),
        **{name: verdict_mean(point, name) for name in ("statistic", "p_value", "ber", "matched")},
        "protection_advantage": protected and protected.advantage,
        "protection_normalised": protected and protected.normalised,
        "log10_p": average(log10(verdict.p_value) for verdict in point.verdicts),
        "queries": verdict_mean(point, "queries"),
        "attack_time_s": point.attack_time_s,
        "verify_time_s": point.verify_time_s,
    }
    known = {name: float(value) for name, value in values.items() if value is not None}
    for name, value in point.measures.items():
        _put(known, name, value)
    return known


def _headline(record: CellRecord, fpr: float) -> Iterator[tuple[str, float]]:
    marked, cell = record.marked, [record]
    worst, cost = survival(cell, fpr), removal_cost(cell, fpr)
    rates = {
        "false_positive_rate": false_claims(cell, fpr),
        "attacked_false_positive_rate": false_claims_after_attack(cell, fpr),
        "forged_claims_rate": forged_claims(cell, fpr),
    }
    least = forged(cell)
    values: dict[str, float | None] = {
        "forged_p_value_committed": least and least.committed,
        "forged_p_value_uncommitted": least and least.uncommitted,
        "worst_case_survival": worst and worst.share,
        "survived_share": survived_share(record, fpr),
        "removal_cost_pp" if cost and not cost.more else "removal_cost_above_pp": cost and cost.pp,
        "clean_accuracy": record.clean_accuracy,
        "embed_ratio": embed_ratio(record),
        "carried_bits": carried_bits(record),
        **{name: count and count.share for name, count in rates.items()},
    }
    yield from ((name, value) for name, value in values.items() if value is not None)
    yield from ((f"{phase}_time_s", seconds) for phase, seconds in record.timings_s.items())
    if marked:
        yield from ((name, v) for name, v in _point_metrics(marked, record, fpr).items() if name != "strength")


def verdict_mean(point: Point, name: str) -> float | None:
    """The mean of a verdict's field over the owners."""
    return average(getattr(verdict, name) for verdict in point.verdicts)


def log10(p_value: float) -> float:
    """log10 of a p-value, not below -300."""
    return max(LOG10_P_FLOOR, math.log10(p_value)) if p_value > 0 else LOG10_P_FLOOR


def or_nan(value: float | None) -> float:
    """For plots, which leave NaN out."""
    return math.nan if value is None else value


def _put(values: dict[str, Any], name: str, value: Any) -> None:
    """Add under a name that MLflow takes and nothing else bears: letters, digits, `_ . / -` and spaces."""
    parts = re.sub(r"[^A-Za-z0-9_./ -]+", "_", name).split("/")
    key = "/".join(part for part in parts if part.strip(". "))[: MAX_NAME - 10].rstrip("/") or "unnamed"
    while key in values:
        key += "_"
    values[key] = value


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 3] + "..."
