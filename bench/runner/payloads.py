"""Searches the largest payload that each scheme carries; every trial is an ordinary cell with an ordinary record."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bench import archs
from bench.api import SchemeCard
from bench.metrics.capacity import LOSS_PP, Trial, contradicted, trial
from bench.plan.matrix import Planned, Request, expand
from bench.plan.payload import Bracket, bracket, next_size
from bench.records.files import load_record
from bench.records.record import CellRecord, RecordError
from bench.registry import RegistryError, schemes
from bench.runner.coordinator import Summary

__all__ = ["Search", "pursue", "searches"]

Compute = Callable[[list[Planned]], Summary]


@dataclass
class Search:
    """The search for one scheme on one host: which sizes were tried, and what they gave.

    Attributes:
        request: its cells, but for the payload size: one scheme, architecture, data set and situation, all seeds.
        parameter: the scheme's parameter that is searched.
        layer: the layer group that carries the mark; None where the scheme has none to choose.
        start, most: the first size, and the largest that is tried.
        tolerance_pp: fidelity that a payload may cost, in points.
        trials: by size.
        limit: an upper bound that the scheme knows for this host, in payload bits; None for none.
        reason: why the search has no result, or ended before it had one; None where it went well.
        status: `ok`, `not applicable`, `failed` (a trial did) or `incomplete` (one was not computed).
    """

    request: Request
    parameter: str
    layer: str | None
    start: int
    most: int
    tolerance_pp: float = LOSS_PP
    trials: dict[int, Trial] = field(default_factory=dict)
    limit: float | None = None
    reason: str | None = None
    status: str = "ok"

    @property
    def scheme(self) -> str:
        """The scheme's name."""
        return self.request.schemes[0]

    @property
    def outcomes(self) -> dict[int, bool]:
        """Sizes tried -> whether they worked."""
        return {size: not each.costs(self.tolerance_pp) for size, each in self.trials.items()}

    @property
    def next(self) -> int | None:
        """The size to try next; None where nothing is left to try."""
        return None if self.reason else next_size(self.outcomes, self.start, self.most)

    @property
    def bracket(self) -> Bracket:
        """Payload bits: the most that worked, and the least that did not."""
        return bracket(self.outcomes)

    @property
    def capacity(self) -> float | None:
        """Bits of the message at the most that worked, 0 where nothing did; None where no trial says it."""
        works = self.bracket.works
        return self.trials[works].bits if works else 0.0 if self.trials and self.status == "ok" else None

    @property
    def ordered(self) -> list[Trial]:
        """The trials by size."""
        return [self.trials[size] for size in sorted(self.trials)]

    @property
    def reached_most(self) -> bool:
        """Whether the largest size that may be tried worked, so that the capacity may be larger."""
        return self.bracket.fails is None and self.bracket.works >= self.most

    @property
    def contradicted(self) -> bool:
        """Whether the trials contradict the assumption that the search rests on."""
        return contradicted(self.ordered, self.tolerance_pp)

    def cells(self, size: int, checksums: Mapping[str, str]) -> list[Planned]:
        """The cells of one trial, one a seed.

        Raises:
            RegistryError: the scheme refuses this size.
        """
        chosen = {**self.request.overrides.get(self.scheme, {}), self.parameter: size}
        return expand(replace(self.request, overrides={**self.request.overrides, self.scheme: chosen}), checksums)

    def take(self, size: int, records: Sequence[CellRecord | None]) -> None:
        """Note what a trial gave, one record a seed; None for one that was not computed."""
        broken = next((record for record in records if record is not None and record.status != "ok"), None)
        if broken is not None:
            last = (broken.reason or broken.traceback or "").strip().splitlines()
            self.status, self.reason = broken.status, f"{size} bits: {last[-1] if last else broken.status}"
            return
        found = [record for record in records if record is not None]
        if len(found) < len(records):
            self.status, self.reason = "incomplete", f"{size} bits: not computed"
            return
        self.trials[size] = trial(size, found)
        self.limit = found[0].measures.get("capacity_limit", self.limit)
        self.most = min(self.most, int(found[0].measures.get("capacity_most", self.most)))


def searches(
    wish: Request, checksums: Mapping[str, str], layers: Sequence[str], start: int, most: int, tolerance_pp: float
) -> list[Search]:
    """One search a scheme, architecture, data set, situation and layer.

    Args:
        wish: the axes; its attacks are not looked at.
        checksums: of its data sets.
        layers: layer groups; none for the one that the parameters say.
        start: the first size that is tried.
        most: the largest.
        tolerance_pp: fidelity that a payload may cost, in points.

    Raises:
        RegistryError: a scheme has no payload size or no layer to choose or is given one, a size is out of its bounds,
            or no search has a meaning.
    """
    found = [
        search
        for name in wish.schemes
        for layer in layers or (None,)
        for search in _of(name, layer, replace(wish, attacks=("none",)), checksums, (start, most), tolerance_pp)
    ]
    if all(search.reason for search in found):
        raise RegistryError(found[0].reason)
    return found


def pursue(found: Sequence[Search], checksums: Mapping[str, str], records: Path, compute: Compute) -> Summary:
    """Try size after size, in each round one of every search, until nothing is left to try.

    Args:
        found: the searches; their trials are filled in.
        checksums: of their data sets.
        records: the folder with the records of earlier runs: trials of other sizes count, too, and none is computed
            twice.
        compute: runs cells that have no record.

    Returns:
        How the rounds together went.
    """
    for search in found:
        _remember(search, checksums, records)
    total = Summary()
    while not total.stopped and (asked := {i: size for i, one in enumerate(found) if (size := one.next) is not None}):
        trials = {i: found[i].cells(size, checksums) for i, size in asked.items()}
        cells = [cell for trial_cells in trials.values() for cell in trial_cells]
        known = {cell.key: record for cell in cells if (record := _sufficient(cell, records))}
        missing = [cell for cell in cells if cell.key not in known]
        if missing:
            _add(total, round_ := compute(missing))
            known |= {record.cell_key: record for record in round_.records}
        for i, size in asked.items():
            found[i].take(size, [known.get(cell.key) for cell in trials[i]])
    for search in found:
        if search.next is not None:
            search.status, search.reason = "incomplete", f"stopped before {search.next} bits"
    return total


def _of(
    name: str,
    layer: str | None,
    wish: Request,
    checksums: Mapping[str, str],
    sizes: tuple[int, int],
    tolerance_pp: float,
) -> list[Search]:
    """The searches of one scheme and layer: one an architecture, data set and situation."""
    card = schemes()[name].card
    parameter, chosen = _chosen(card, layer, wish.overrides.get(name, {}))
    asked = replace(wish, schemes=(name,), overrides={**wish.overrides, name: chosen})
    # The largest size, so that a parameter that is out of bounds is refused before anything is computed.
    largest = replace(asked, overrides={**asked.overrides, name: {**chosen, parameter: sizes[1]}})
    found: dict[tuple[str, str, str], Search] = {}
    for cell in expand(largest, checksums):
        arch, dataset, situation = axes = cell.cell.arch, cell.cell.dataset, cell.cell.situation
        which: Any = cell.cell.scheme_params.get(card.layer_parameter) if card.layer_parameter else None
        request = replace(asked, archs=(arch,), datasets=(dataset,), situations=(situation,))
        search = Search(request, parameter, which, *sizes, tolerance_pp)
        search.reason = cell.reason or _no_layer(arch, which)
        search.status = "not applicable" if search.reason else "ok"
        found.setdefault(axes, search)
    return list(found.values())


def _chosen(card: SchemeCard, layer: str | None, settings: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The parameter that is searched, and the values of the others that were chosen."""
    if card.payload_parameter is None:
        raise RegistryError(f"Expected a scheme with a payload size to search, but {card.name} names none on its card.")
    if card.payload_parameter in settings:
        raise RegistryError(f"{card.name}.{card.payload_parameter} is what is searched: leave it out of --set.")
    if layer is None:
        return card.payload_parameter, dict(settings)
    if card.layer_parameter is None:
        raise RegistryError(f"Expected schemes with a layer to choose, but {card.name} has none: leave out --layers.")
    return card.payload_parameter, {**settings, card.layer_parameter: layer}


def _no_layer(arch: str, layer: str | None) -> str | None:
    try:
        _ = layer and archs.layer_path(arch, layer)
    except ValueError as error:
        return str(error)
    return None


def _remember(search: Search, checksums: Mapping[str, str], records: Path) -> None:
    """Take the trials that earlier runs left, whatever their sizes, as far as all seeds are there."""
    if search.reason:
        return
    name = search.cells(search.start, checksums)[0].cell.filename.rpartition("__")[0]
    for path in sorted(records.glob(f"{name}__*.json")):
        try:
            size = load_record(path).cell.scheme_params.get(search.parameter)
        except RecordError:
            continue
        if isinstance(size, int) and size <= search.most and size not in search.trials:
            kept = [_sufficient(cell, records) for cell in search.cells(size, checksums)]
            if None not in kept:
                search.take(size, kept)


def _sufficient(cell: Planned, records: Path) -> CellRecord | None:
    """The record that an earlier run left, if it holds all that the cell needs; it may hold more, such as nulls."""
    path = records / cell.cell.filename
    try:
        record = load_record(path) if path.exists() else None
    except RecordError:
        return None
    needed = {name: step.key for name, step in cell.steps.items()}.items()
    if record is None or record.status != "ok":
        return None
    return record if needed <= record.provenance.steps.items() else None


def _add(total: Summary, one: Summary) -> None:
    total.records += one.records
    total.failures |= one.failures
    total.notes += one.notes
    total.computed, total.cached = total.computed + one.computed, total.cached + one.cached
    total.seconds += one.seconds
    total.stopped, total.signal = one.stopped, one.signal
