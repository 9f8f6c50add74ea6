"""Prints how far the numbers of two runs of the same cells lie apart, and which verdicts differ.

python tools/replay.py RUN_DIR OTHER_RUN_DIR

Run the same command twice, on two machines or with other settings (`OMP_NUM_THREADS=1`, `ATEN_CPU_CAPABILITY=avx2`),
each into a run directory of its own; `docs/protocol.md` states the tolerance that was measured so.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bench.records.files import load_records
from bench.records.record import CellRecord

FPR = 0.01


def records(run_dir: Path) -> dict[tuple[object, ...], CellRecord]:
    """The settled cells of a run by what they are."""
    found = (r for r in load_records(run_dir / "records") if isinstance(r, CellRecord) and r.status == "ok")
    return {
        (r.cell.scheme, r.cell.attack, r.cell.arch, r.cell.dataset, r.cell.situation, r.cell.seed): r for r in found
    }


def pairs(one: CellRecord, other: CellRecord) -> Iterator[tuple[float, bool]]:
    """Of each rung, the marked model's first: accuracy in points, whether the verdict differs."""
    for left, right in zip(one.points, other.points, strict=True):
        points = 100 * abs(left.test_accuracy - right.test_accuracy)
        p, q = left.verdicts[0].p_value, right.verdicts[0].p_value
        yield points, (p <= FPR) != (q <= FPR)


def main() -> None:
    """The table."""
    one, other = (records(Path(folder)) for folder in sys.argv[1:3])
    print("scheme                 rungs | accuracy, points: marked, median, largest | verdicts that differ")
    everything: list[tuple[float, bool]] = []
    for cell in sorted(one.keys() & other.keys(), key=str):
        found = list(pairs(one[cell], other[cell]))
        everything += found
        points = [row[0] for row in found]
        print(
            f"{cell[0]!s:22} {len(found):5} | {points[0]:5.1f} {np.median(points):5.1f} {max(points):5.1f} | "
            f"{sum(row[1] for row in found)}"
        )
    points = [row[0] for row in everything]
    print(
        f"{len(everything)} rungs: accuracy differs by {np.median(points):.1f} points (median), "
        f"{np.quantile(points, 0.95):.1f} (95 % of rungs), {max(points):.1f} (largest); "
        f"{sum(row[1] for row in everything):d} verdicts differ"
    )


if __name__ == "__main__":
    main()
