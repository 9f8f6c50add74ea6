"""The robustness curve of a record as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.records import Record
from bench.tracking.projection import log10, mean, or_nan, run_name, verdict_mean

__all__ = ["draw_curve"]

BLUE, GREEN, RED, GREY = "#1f5fa8", "#2e8b57", "#c0392b", "#777777"


def draw_curve(record: Record, path: Path) -> None:
    """Test accuracy, evidence and (for payloads) bit error rate along the attack's strength, one panel each."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with_ber = any(verdict_mean(point, "ber") is not None for point in record.points)
    draw = [_draw_accuracy, _draw_evidence, *([_draw_ber] if with_ber else [])]
    inches = 1.4 + 1.8 * len(draw)
    figure = Figure(figsize=(7.0, inches), dpi=100)
    # Margins by hand: a layout engine draws everything twice, and the figure is most of what a run costs.
    grid = {"left": 0.115, "right": 0.975, "top": 1 - 0.85 / inches, "bottom": 0.5 / inches, "hspace": 0.12}
    axes = figure.subplots(len(draw), 1, sharex=True, squeeze=False, gridspec_kw=grid)[:, 0]
    for axis, panel in zip(axes, draw, strict=True):
        panel(axis, record)
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
        axis.yaxis.set_label_coords(-0.085, 0.5)
    _set_strength_axis(axes[-1], record)
    cell = record.cell
    title = f"{run_name(record)}\n{cell.dataset}, {cell.situation}, profile {cell.profile}"
    figure.text(0.5, 1 - 0.08 / inches, title, fontsize=11, ha="center", va="top")
    FigureCanvasAgg(figure).print_png(path)


def _draw_accuracy(axis: Any, record: Record) -> None:
    """Filled markers where the claim holds, crosses where it fails."""
    points = record.points
    x, y = [point.strength for point in points], [100 * or_nan(point.test_accuracy) for point in points]
    axis.plot(x, y, color=BLUE, linewidth=1.6, zorder=2)
    shares = [verdict_mean(point, "detected") for point in points]
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


def _draw_evidence(axis: Any, record: Record) -> None:
    """The mean of log10 p over owners, against the nominal false positive rate."""
    points = record.points
    evidence = [or_nan(mean(log10(verdict.p_value) for verdict in point.verdicts)) for point in points]
    axis.plot([point.strength for point in points], evidence, "o-", color=BLUE, linewidth=1.6, markersize=5)
    threshold = log10(record.fpr)
    axis.axhline(threshold, color=RED, linestyle=":", linewidth=1.3)
    _name_line(axis, threshold, f"detected below p = {record.fpr:g}", RED)
    axis.margins(y=0.15)
    axis.set_ylabel("log10 of p-value")


def _draw_ber(axis: Any, record: Record) -> None:
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


def _set_strength_axis(axis: Any, record: Record) -> None:
    """Ticks at the rungs; a ladder that spans more than a factor of 30 gets a logarithmic axis from its first rung."""
    rungs = [point.strength for point in record.curve if point.strength > 0]
    if rungs and max(rungs) > 30 * min(rungs):
        axis.set_xscale("symlog", linthresh=min(rungs), linscale=0.5)
    strengths = sorted({point.strength for point in record.points})
    if len(strengths) <= 12:
        axis.set_xticks(strengths, [f"{strength:g}" for strength in strengths], minor=False)
        axis.minorticks_off()
    axis.set_xlabel(f"{record.cell.attack}: {record.unit or 'strength'} (0: before the attack)", parse_math=False)
