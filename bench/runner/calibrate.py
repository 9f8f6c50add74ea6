"""The false claims of cells, without the marks and the attacks on them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from bench.metrics.calibration import Rate, rates
from bench.plan.matrix import Planned
from bench.plan.step import Step
from bench.records.calibration import CalibrationRow
from bench.records.record import Cell, NullSet
from bench.runner.assembly import null_sets, stage_of
from bench.runner.store import Store

__all__ = ["Claims", "claims_of", "null_steps", "rows"]

NULLS = ("nulls", "left_out_claims", "attacked_nulls")


class Claims(NamedTuple):
    """The false claims of one cell; see `bench.metrics.calibration.Claimed`."""

    cell: Cell
    nulls: list[NullSet]
    access: str
    stage: str


def null_steps(cell: Planned) -> dict[str, Step]:
    """The steps that make false claims, by name; none for a cell that has no meaning."""
    return {name: step for name, step in cell.steps.items() if name in NULLS or name.startswith("null_claims_")}


def claims_of(cells: Iterable[Planned], store: Store) -> list[Claims]:
    """The false claims of the cells, as far as they are stored.

    Raises:
        StoreError: a stored result is damaged; it was set aside.
    """
    found = []
    for cell in cells:
        results = {name: store.load(step.key).result for name, step in null_steps(cell).items() if store.has(step.key)}
        if sets := null_sets(results):
            found.append(Claims(cell.cell, sets, cell.scheme.access, stage_of(cell.attacks)))
    return found


def rows(claims: Sequence[Claims], nominal: Sequence[float]) -> list[CalibrationRow]:
    """The rates of the claims, as they are kept beside records."""
    return [_row(rate, claims) for rate in rates(claims, nominal)]


def _row(rate: Rate, claims: Sequence[Claims]) -> CalibrationRow:
    cells = [each.cell for each in claims if (each.cell.scheme, each.cell.arch) == (rate.scheme, rate.arch)]
    found, one = rate.found, cells[0]
    return CalibrationRow(
        scheme=rate.scheme, scheme_params=one.scheme_params, arch=rate.arch, profile=one.profile,
        datasets=list(dict.fromkeys(cell.dataset for cell in cells)), seeds=len({cell.seed for cell in cells}),
        attack=rate.attack, null=rate.null, nominal=rate.nominal, accepted=found.hits, n=found.trials,
        networks=rate.networks, keys=rate.keys, false_positive_rate=found.share,
        interval_low=found.low or 0.0, interval_high=1.0 if found.high is None else found.high,
        p_value=rate.p_value, beyond=rate.beyond,
    )  # fmt: skip
