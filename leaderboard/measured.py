"""False claims, visibility and pictures of a row's scheme, from the files beside the records."""

from __future__ import annotations

from bench.metrics.beside import Beside, Visibility, most_visible, verdict, worst
from bench.records.calibration import CalibrationRow
from bench.records.record import Cell
from leaderboard.summary import Row, short

__all__ = ["measured"]

PICTURED = 24  # pictures of one row
LISTED = 60  # false claims of one row: attacks and kinds of nulls


def measured(cell: Cell, beside: Beside, fpr: float) -> Row:
    """What no record holds about the scheme of a row; None and empty lists where nothing was measured.

    Returns:
        `calibrated`, the false claims that speak most against the scheme, and `visible`, the test that sees most, whose
        `p` is adjusted for the number of tests; all of them in `calibration` and `detectability`; and `pictures`.
    """
    rates, tests = beside.rates(cell), beside.visibility(cell)
    most, seen = worst(rates), most_visible(tests)
    return {
        "calibrated": most and _rate(most),
        "visible": seen and _test(seen, fpr),
        "calibration": [_rate(rate) for rate in rates[:LISTED]],
        "detectability": [_test(test, fpr) for test in tests],
        "pictures": [
            {"what": row.what, "images": row.images, "png": row.png} for row in beside.pictures(cell)[:PICTURED]
        ],
    }


def _rate(row: CalibrationRow) -> Row:
    return {
        "null": row.null,
        "attack": row.attack,
        "nominal": row.nominal,
        "rate": row.false_positive_rate,
        "low": row.interval_low,
        "high": row.interval_high,
        "n": row.n,
        "networks": row.networks,
        "seeds": row.seeds,
        "beyond": row.beyond,
    }


def _test(found: Visibility, fpr: float) -> Row:
    row = found.row
    return {
        "test": row.test,
        "part": None if row.part is None else short(row.part),
        "p": found.adjusted,
        "auc": row.auc,
        "low": row.interval_low,
        "high": row.interval_high,
        "effect": row.effect,
        "clean_effect": row.clean_effect,
        "seeds": row.seeds,
        "clean": row.clean,
        "verdict": short(verdict(found, fpr)),
    }
