"""What the last sync left in a SQLite store: while nobody changed the file, the same records need no look into it.

To open the store and read a thousand runs takes seconds. The file's size and time of change tell whether anybody wrote
since: a run that a person deleted or renamed is found as before, by a whole sync.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

__all__ = ["leave", "left"]


def left(database: Path, told: str) -> str | None:
    """The experiment's id, if the last sync was told the same and nobody wrote to the database since; else None.

    Args:
        database: the SQLite file.
        told: a hash of everything that the sync would write.
    """
    try:
        known = json.loads(_note(database).read_text(encoding="utf-8"))
        same = known["told"] == told and known["files"] == _files(database)
        return str(known["experiment_id"]) if same else None
    except (OSError, ValueError, KeyError, TypeError):  # none yet, or cut short: a sync finds out
        return None


def leave(database: Path, told: str, experiment_id: str) -> None:
    """Note what a sync has just written.

    Raises:
        OSError: the folder cannot be written.
    """
    note = _note(database)
    aside = note.with_name(f"{note.name}.{os.getpid()}")
    words = {"told": told, "files": _files(database), "experiment_id": experiment_id}
    aside.write_text(json.dumps(words), encoding="utf-8")
    aside.replace(note)


def _note(database: Path) -> Path:
    return database.with_name(f"{database.name}.synced")


def _files(database: Path) -> list[list[int]]:
    """Inode, size and time of change of the database, and of the journals that SQLite keeps beside it."""
    paths = [database.with_name(f"{database.name}{end}") for end in ("", "-wal", "-journal")]
    states = [path.stat() for path in paths if path.exists()]
    return [[state.st_ino, state.st_size, state.st_mtime_ns] for state in states]
