"""Fails if the committed page is not what the committed records and submissions render.

python tools/drift.py [--write]

Reads `leaderboard/records/`, `leaderboard/submissions/` and `leaderboard/index.html`. Without a committed page there is
nothing to compare; `--write` renders it. Exit status: 0 no drift, 1 drift.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import leaderboard
from bench.cli.report import write_page
from bench.runner.rundir import RunDir


def main(folder: Path, write: bool) -> int:
    """Compare or write; the exit status.

    Args:
        folder: that holds `records/` and `index.html`.
        write: render the committed page anew.
    """
    page = folder / "index.html"
    if write:
        print(write_page(RunDir(folder), folder))
        return 0
    if not page.exists():
        print(f"There is no {page}: nothing to compare.")
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        rendered = write_page(RunDir(folder), Path(temporary)).read_bytes()
    if rendered == page.read_bytes():
        print(f"{page} is what the records render.")
        return 0
    print(f"Expected {page} to be what the records render, but it differs: python tools/drift.py --write.")
    return 1


if __name__ == "__main__":
    sys.exit(main(Path(leaderboard.__file__).parent, "--write" in sys.argv[1:]))
