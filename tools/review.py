"""What a pull request's submissions are worth, as Markdown: each one verified, and the leaderboard's rows that change.

python tools/review.py BASE [--budget SECONDS] [--salt WORD] [--isolated]

BASE is the commit that the pull request starts from. Exit status: 0 nothing failed, 1 a submission failed,
could not be read, or brings a stamp that is not confirmed here.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from bench.checks.source import today
from bench.records.files import load_records
from bench.records.record import RecordError
from bench.records.submission import STAMP, Stamp, load_stamp, load_submissions
from leaderboard.table import rows

ROOT = Path(__file__).parents[1]
PLACE = "leaderboard/submissions"
METHODS = ("schemes/", "attacks/", "leaderboard/submissions/", "docs/", "tests/")
COLUMNS = ("scheme", "arch", "dataset", "situation", "profile", "origin")
NAMES = {0: "verified", 1: "failed", 2: "not verified"}


def git(*words: str) -> str:
    """What git answers in the project's folder."""
    return subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=True).stdout


def changed(base: str) -> list[str]:
    """The paths that differ from where this branch left `base`."""
    return [path for path in git("diff", "--name-only", "-z", f"{base}...HEAD").split("\0") if path]


def touched(paths: Iterable[str], root: Path = ROOT) -> list[Path]:
    """The submissions among changed paths that still exist; one whose stamp alone changed is among them."""
    names = {path.split("/")[2] for path in paths if path.startswith(f"{PLACE}/") and path.count("/") > 2}
    return [root / PLACE / name for name in sorted(names) if (root / PLACE / name).exists()]


def table_of(root: Path) -> dict[str, dict[str, Any]]:
    """The rows of the leaderboard of a checkout, by their identifiers."""

    def say(error: RecordError) -> None:
        print(f"Passed over: {error}", file=sys.stderr)

    own = load_records(root / "leaderboard" / "records", say)
    return {row["id"]: row for row in rows(own, submitted=load_submissions(root / PLACE, today, say))}


def difference(before: dict[str, dict[str, Any]], after: dict[str, dict[str, Any]]) -> list[str]:
    """A Markdown table of the rows that were added, changed or removed."""
    lines = []
    for mark, found in (("added", after), ("changed", after), ("removed", before)):
        for name, row in found.items():
            other = (before if found is after else after).get(name)
            differs = other is not None and other != row
            if (mark == "changed" and differs) or (mark != "changed" and other is None):
                lines.append(f"| {mark} | " + " | ".join(_cells(row)) + " |")
    if not lines:
        return ["No row of the leaderboard changes."]
    head = ["change", *COLUMNS, "seeds", "fidelity, points", "effectiveness", "worst case"]
    return ["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *lines]


def _cells(row: dict[str, Any]) -> Iterator[str]:
    yield from (_text(row[name]) for name in COLUMNS)
    yield str(len(row["seeds"]))
    yield "-" if row["fidelity"] is None else f"{row['fidelity']['mean']:+.1f}"
    for part in ("effectiveness", "robustness"):
        count = row[part]
        yield "-" if count is None else f"{count['hits']:g} of {count['trials']:g}"


def _text(value: object, length: int = 80) -> str:
    """A stranger's word as code: nothing in it is Markdown, a link or a mention."""
    return "`" + str(value).replace("`", "'").replace("|", "/").replace("\n", " ")[:length] + "`"


def verified(folder: Path, words: Sequence[str]) -> tuple[int, str]:
    """Exit status of `bench verify-submission` and the last line that it printed."""
    command = [sys.executable, "-m", "bench.cli", "verify-submission", str(folder), *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    return done.returncode, ((done.stdout + done.stderr).strip().splitlines() or [""])[-1]


def reviewed(folder: Path, words: Sequence[str]) -> tuple[bool, str]:
    """Whether a submission may be merged, and a line of Markdown that says why.

    A stamp that arrives is not believed: it goes, and what is found here must say as much as it did.
    """
    arrived = _stamp(folder)
    if not folder.is_symlink():
        (folder / STAMP).unlink(missing_ok=True)
    status, said = verified(folder, words)
    found = _stamp(folder)
    claimed = {each.profile for each in arrived.rerun} if arrived else set()
    more = claimed - {each.profile for each in found.rerun} if found and status == 0 else claimed
    line = f"- {_text(folder.name)}: **{NAMES.get(status, 'failed')}**. {_text(said, 600)}"
    if more and status != 1:
        line += f" Its `{STAMP}` says more than was found here: remove it."
    return status in (0, 2) and not more, line


def _stamp(folder: Path) -> Stamp | None:
    try:
        return load_stamp(folder / STAMP)
    except RecordError:
        return None


def main() -> int:
    """Print the review; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base")
    parser.add_argument("--budget", default="120")
    parser.add_argument("--salt", default="")
    parser.add_argument("--isolated", action="store_true")
    asked = parser.parse_args()
    paths, fine = changed(asked.base), True
    words = ["--budget", asked.budget, "--salt", asked.salt, *(["--isolated"] if asked.isolated else [])]
    print("## Submissions\n")
    for folder in touched(paths):
        good, line = reviewed(folder, words)
        fine &= good
        print(line, flush=True)
    others = [path for path in paths if not path.startswith(METHODS)]
    if others and touched(paths):
        print(f"\nVerified by a harness of which this pull request changes {len(others)} files; read them first:")
        print(f"{', '.join(map(_text, others[:10]))}.")
    print("\n## Rows of the leaderboard\n")
    print("\n".join(difference(table_at(asked.base), table_of(ROOT))))
    return 0 if fine else 1


def table_at(base: str) -> dict[str, dict[str, Any]]:
    """The rows at the commit where this branch left `base`."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "base"
        git("worktree", "add", "--detach", "--quiet", str(folder), git("merge-base", base, "HEAD").strip())
        try:
            return table_of(folder)
        finally:
            git("worktree", "remove", "--force", str(folder))


if __name__ == "__main__":
    sys.exit(main())
