"""A record as pictures: the robustness curve, the searches for signatures, what was trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.contract.verdict import Verdict
from bench.metrics.aggregate import average
from bench.metrics.robustness import detected_share
from bench.records.record import CellRecord
from bench.tracking.projection import log10, or_nan, run_name, verdict_mean

__all__ = ["draw_curve", "draw_histories", "draw_searches"]

MANY = 12  # lines or panels that a reader can still tell apart
HUES = ("#1f5fa8", "#c0392b", "#2e8b57", "#e08214", "#7b3fa0", "#17a2b8",
        "#8c564b", "#d6589f", "#777777", "#a6a61f", "#111111", "#5dade2")  # fmt: skip
BLUE, GREEN, RED, GREY = "#1f5fa8", "#2e8b57", "#c0392b", "#777777"


def draw_curve(record: CellRecord, path: Path, fpr: float) -> None:
    """Test accuracy, evidence and (for payloads) bit error rate along the attack's strength, one panel each."""
    with_ber = any(verdict_mean(point, "ber") is not None for point in record.points)
    draw = [_draw_accuracy, _draw_evidence, *([_draw_ber] if with_ber else [])]
    figure, axes = _panels(record, len(draw), size=(7.0, 1.8), gap=0.12, left=0.115, right=0.975, sharex=True)
    for axis, panel in zip(axes, draw, strict=True):
        panel(axis, record, fpr)
        axis.yaxis.set_label_coords(-0.085, 0.5)
    _set_strength_axis(axes[-1], record)
    _save(figure, path)


def _panels(
    record: CellRecord,
    rows: int,
    columns: int = 1,
    *,
    size: tuple[float, float],
    gap: float,
    sharex: bool = False,
    **margins: float,
) -> tuple[Any, list[Any]]:
    """A figure with the run's name above `rows x columns` empty panels of this size in inches."""
    from matplotlib.figure import Figure

    inches = 1.4 + size[1] * rows
    figure = Figure(figsize=(size[0] * columns, inches), dpi=100)
    # Margins by hand: a layout engine draws everything twice, and the figure is most of what a run costs.
    grid = {"top": 1 - 0.85 / inches, "bottom": 0.5 / inches, "hspace": gap, **margins}
    axes = list(figure.subplots(rows, columns, sharex=sharex, squeeze=False, gridspec_kw=grid).flat)
    for axis in axes:
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    cell = record.cell
    title = f"{run_name(record)}\n{cell.dataset}, {cell.situation}, profile {cell.profile}"
    figure.text(0.5, 1 - 0.08 / inches, title, fontsize=11, ha="center", va="top")
    return figure, axes


def _save(figure: Any, path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure).print_png(path)


def _draw_accuracy(axis: Any, record: CellRecord, fpr: float) -> None:
    """Filled markers where the claim holds, crosses where it fails."""
    points = record.points
    x, y = [point.strength for point in points], [100 * or_nan(point.test_accuracy) for point in points]
    axis.plot(x, y, color=BLUE, linewidth=1.6, zorder=2)
    shares = [detected_share(point, fpr) for point in points]
    for label, marker, color, rows in (
        ("claim holds", "o", GREEN, [i for i, share in enumerate(shares) if share is not None and share >= 0.5]),
        ("claim fails", "X", RED, [i for i, share in enumerate(shares) if share is not None and share < 0.5]),
    ):
        if rows:
            axis.scatter(
                [x[i] for i in rows], [y[i] for i in rows], s=55, c=color, marker=marker, label=label, zorder=3
            )
    if record.clean_accuracy is not None:
        axis.axhline(100 * record.clean_accuracy, color=GREY, linestyle="--", linewidth=1.1, label="clean host")
    axis.set_ylabel("test accuracy (%)")
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize=8, frameon=False, ncols=3, loc="lower left", bbox_to_anchor=(0, 1.0), borderpad=0)


def _draw_evidence(axis: Any, record: CellRecord, fpr: float) -> None:
    """The mean of log10 p over owners, against the nominal false positive rate."""
    points = record.points
    evidence = [or_nan(average(log10(verdict.p_value) for verdict in point.verdicts)) for point in points]
    axis.plot([point.strength for point in points], evidence, "o-", color=BLUE, linewidth=1.6, markersize=5)
    threshold = log10(fpr)
    axis.axhline(threshold, color=RED, linestyle=":", linewidth=1.3)
    _name_line(axis, threshold, f"detected below p = {fpr:g}", RED)
    axis.margins(y=0.15)
    axis.set_ylabel("log10 of p-value")


def _draw_ber(axis: Any, record: CellRecord, fpr: float) -> None:
    points = record.points
    errors = [100 * or_nan(verdict_mean(point, "ber")) for point in points]
    axis.plot([point.strength for point in points], errors, "o-", color=BLUE, linewidth=1.6, markersize=5)
    axis.axhline(50, color=GREY, linestyle="--", linewidth=1.1)
    _name_line(axis, 50, "guessing", GREY)
    axis.set_ylim(-3, max(55.0, *(e + 5 for e in errors if e == e)))
    axis.set_ylabel("bit errors (%)")


def _name_line(axis: Any, y: float, text: str, color: str) -> None:
    """Write `text` below the left end of a horizontal line."""
    style = {"textcoords": "offset points", "va": "top", "fontsize": 8, "color": color}
    axis.annotate(text, (0.005, y), xycoords=("axes fraction", "data"), xytext=(0, -3), **style)


def _set_strength_axis(axis: Any, record: CellRecord) -> None:
    """Ticks at the rungs; a ladder that spans more than a factor of 30 gets a logarithmic axis from its first rung."""
    rungs = [point.strength for point in record.curve if point.strength > 0]
    if rungs and max(rungs) > 30 * min(rungs):
        axis.set_xscale("symlog", linthresh=min(rungs), linscale=0.5)
    strengths = sorted({point.strength for point in record.points})
    if len(strengths) <= 12:
        axis.set_xticks(strengths, [f"{strength:g}" for strength in strengths], minor=False)
        axis.minorticks_off()
    axis.set_xlabel(f"{record.cell.attack}: {record.unit or 'strength'} (0: before the attack)", parse_math=False)


def draw_searches(record: CellRecord, path: Path) -> None:
    """Loss over the signatures tried on the marked model, a line per owner; held-out users in a panel of their own."""
    panels = {"owners": record.points[0].verdicts, "held-out users": record.heldout_verdicts}
    searched = {name: [(i, v) for i, v in enumerate(verdicts) if v.search] for name, verdicts in panels.items()}
    found = {name: verdicts for name, verdicts in searched.items() if verdicts}
    figure, axes = _panels(record, len(found), size=(9.0, 3.1), gap=0.26, left=0.075, right=0.68)
    for axis, (name, verdicts) in zip(axes, found.items(), strict=True):
        _draw_searches(axis, name, verdicts, with_own=name == "owners")
    _save(figure, path)


def _draw_searches(axis: Any, name: str, verdicts: Sequence[tuple[int, Verdict]], with_own: bool) -> None:
    """A square at the least loss of each, a dashed line at the owner's own signature."""
    for color, (number, verdict) in zip(HUES, verdicts, strict=False):
        search = verdict.search
        assert search is not None, "only verdicts that searched are drawn"
        own = search.true if with_own else None
        least, loss = search.candidates[search.best], search.losses[search.best]
        label = f"{number}: least at {least:g}" + ("" if own is None else f", own {own:g}")
        axis.plot(search.candidates, search.losses, color=color, linewidth=1.3, zorder=2)
        axis.plot([least], [loss], "s-", color=color, markersize=6, label=label, zorder=3)
        if own is not None:
            axis.axvline(own, color=color, linestyle="--", linewidth=1.1, alpha=0.8, zorder=1)
        axis.set_xlabel(f"signature ({search.unit})" if search.unit else "signature", parse_math=False)
    axis.set_ylabel("mean loss")
    rest = f", {MANY} of {len(verdicts)}" if len(verdicts) > MANY else ""
    signs = "square: least, dashed: own" if with_own else f"square: least{_unmarked(verdicts)}"
    axis.legend(
        title=f"{name}{rest}\n({signs})", loc="upper left", bbox_to_anchor=(1.02, 1.03), alignment="left",
        fontsize=8, title_fontsize=8, frameon=False, labelspacing=0.35,
    )  # fmt: skip


def _unmarked(verdicts: Sequence[tuple[int, Verdict]]) -> str:
    """For how many of them no watermark is the likeliest, where that was tried."""
    answers = [v.search.unmarked for _, v in verdicts if v.search and v.search.unmarked is not None]
    return f"; {sum(answers)} of {len(answers)} at 0" if answers else ""


def draw_histories(record: CellRecord, path: Path) -> None:
    """What was trained, for instance while making keys: a panel per name, a number per epoch."""
    shown = [(name, series) for name, series in record.histories.items() if series][:MANY]
    columns = min(2, len(shown))
    figure, axes = _panels(record, -(-len(shown) // columns), columns, size=(5.0, 2.2), gap=0.55, left=0.09, right=0.97)
    for axis, (name, series) in zip(axes, shown, strict=False):
        epochs = range(1, len(series) + 1)
        axis.plot(epochs, series, "o-" if len(series) <= 30 else "-", color=BLUE, linewidth=1.4, markersize=3.5)
        axis.set_title(name if len(name) <= 60 else name[:57] + "...", fontsize=9, loc="left", parse_math=False)
        axis.set_xlabel("epoch")
        axis.xaxis.get_major_locator().set_params(integer=True)
    for axis in axes[len(shown) :]:
        axis.set_visible(False)
    _save(figure, path)
