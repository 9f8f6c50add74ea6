"""What was measured about a cell's scheme, and pictures of its mark: the files beside the records."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from bench.identity import canonical
from bench.metrics import DEFAULT_FPR
from bench.metrics.inference import holm
from bench.records.calibration import CalibrationRow
from bench.records.detectability import DetectabilityRow
from bench.records.pictures import PictureRow
from bench.records.record import Cell

__all__ = ["Beside", "Visibility", "most_visible", "verdict", "visibility", "worst"]


class Visibility(NamedTuple):
    """One test of how visible the marks are.

    Attributes:
        adjusted: its p-value after Holm's adjustment over the tests of the same marks; None where it has no result.
        reachable: the least that `adjusted` could have been; None as well.
    """

    row: DetectabilityRow
    adjusted: float | None
    reachable: float | None


class Beside:
    """The rows of these files, found by the cells that they say something about.

    Args:
        calibration: of `calibration.json`.
        detectability: of `detectability.json`.
        pictures: of `pictures.json`.
        fpr: of rates at several nominal ones, those nearest to it count.
    """

    def __init__(
        self,
        calibration: Iterable[CalibrationRow] = (),
        detectability: Iterable[DetectabilityRow] = (),
        fpr: float = DEFAULT_FPR,
        pictures: Iterable[PictureRow] = (),
    ) -> None:
        self._fpr = fpr
        self._rates: dict[str, list[CalibrationRow]] = defaultdict(list)
        self._tests: dict[str, list[DetectabilityRow]] = defaultdict(list)
        for rate in calibration:
            for dataset in rate.datasets:
                self._rates[canonical([rate.scheme, rate.scheme_params, rate.arch, dataset, rate.profile])].append(rate)
        self._pictures: dict[str, list[PictureRow]] = defaultdict(list)
        for picture in pictures:
            self._pictures[_shown(picture)].append(picture)
        for test in detectability:
            self._tests[_marks(test)].append(test)

    def rates(self, cell: Cell) -> list[CalibrationRow]:
        """False claims about the cell's scheme: of each attack and kind of null the row at the nearest nominal rate."""
        key = canonical([cell.scheme, cell.scheme_params, cell.arch, cell.dataset, cell.profile])
        nearest: dict[tuple[str, str], CalibrationRow] = {}
        for row in sorted(self._rates.get(key, []), key=lambda row: abs(row.nominal - self._fpr)):
            nearest.setdefault((row.attack, row.null), row)
        return sorted(nearest.values(), key=lambda row: (row.attack != "none", row.attack, row.null))

    def visibility(self, cell: Cell) -> list[Visibility]:
        """How visible the marks of the cell's scheme are, by test."""
        return visibility(self._tests.get(_marks(cell), []))

    def pictures(self, cell: Cell) -> list[PictureRow]:
        """Sample pictures of the mark and of what attacks left: first those of the mark, then by attack."""
        marks = {"before": 0, "after": 1, "triggers": 2}
        return sorted(self._pictures.get(_shown(cell), []), key=lambda row: (marks.get(row.what, 3), row.what))


def _shown(about: Cell | PictureRow) -> str:
    return canonical([about.scheme, about.scheme_params, about.dataset, about.profile])


def _marks(about: Cell | DetectabilityRow) -> str:
    place = [about.scheme, about.scheme_params, about.arch, about.dataset]
    return canonical([*place, about.situation, about.profile, about.owners])


def worst(rates: Sequence[CalibrationRow]) -> CalibrationRow | None:
    """The row that speaks most against the scheme: one beyond chance before all others, then the highest rate."""
    return max(rates, key=lambda row: (row.beyond, row.false_positive_rate, -row.n), default=None)


def visibility(tests: Sequence[DetectabilityRow]) -> list[Visibility]:
    """The tests of the same marks with Holm's adjustment over those that have a result."""
    p_values = [row.p_value for row in tests if row.p_value is not None]
    adjusted = iter(holm(p_values))
    return [
        Visibility(row, None, None)
        if row.p_value is None
        else Visibility(row, next(adjusted), min(1.0, (row.least_p_value or 0.0) * len(p_values)))
        for row in tests
    ]


def most_visible(found: Sequence[Visibility]) -> Visibility | None:
    """The test that sees most; None where none has a result."""
    told = [each for each in found if each.adjusted is not None]
    return min(told, key=lambda each: (each.adjusted, each.row.p_value), default=None)


def verdict(found: Visibility, fpr: float = DEFAULT_FPR) -> str:
    """`visible`, `not seen`, or why the test cannot tell."""
    if found.adjusted is None or found.reachable is None:
        return f"cannot tell: {found.row.reason or 'no result'}"
    if found.adjusted <= fpr:
        return "visible"
    return "cannot tell: too few networks" if found.reachable > fpr else "not seen"
