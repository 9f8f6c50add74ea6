"""Walks folders as a person sees them: without hidden files, without what archives and editors leave behind.

Left out are names that begin with a dot (`._a.jpg` of macOS, `.ipynb_checkpoints`), `__MACOSX`, empty files, and links
to folders below the root.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

__all__ = ["class_folders", "shown", "walk"]

LEFT_BEHIND = {"__macosx", "@eadir", "$recycle.bin", "system volume information"}


def walk(root: Path, empty: Callable[[str], None] = lambda name: None) -> Iterator[tuple[PurePosixPath, list[str]]]:
    """Each folder below `root`, relative to it, with the sorted names of its files; a folder before its own folders.

    Args:
        root: the folder, which may be a link.
        empty: told the relative path of each file of zero bytes, which is left out.

    Raises:
        OSError: a folder cannot be listed.
    """
    pending = [PurePosixPath()]
    while pending:
        place = pending.pop()
        files, folders = [], []
        for item in _listed(root / place):
            if item.is_dir(follow_symlinks=False):
                folders.append(place / item.name)
            elif item.is_file() and item.stat().st_size:
                files.append(item.name)
            elif item.is_file():
                empty((place / item.name).as_posix())
        yield place, files
        pending += reversed(folders)


def class_folders(folder: Path) -> list[str]:
    """The names of the folders directly in `folder`, sorted; links to folders count.

    Raises:
        OSError: it cannot be listed.
    """
    return [item.name for item in _listed(folder) if item.is_dir()]


def shown(name: object) -> str:
    """A path as it can be printed anywhere: bytes that are not UTF-8 and control characters are escaped."""
    text = str(name).encode("utf-8", "backslashreplace").decode()
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _listed(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as items:
        seen = [item for item in items if not item.name.startswith(".") and item.name.lower() not in LEFT_BEHIND]
    return sorted(seen, key=lambda item: item.name)
