"""Tracebacks as an author needs them: the error, the frames of the author's file, the project's frames last."""

from __future__ import annotations

import inspect
import re

__all__ = ["authors_first"]

OPENING = "Traceback (most recent call last):\n"
FRAME = re.compile(r'  File "(.+?)", line .*\n(?:    .*\n)*')


def authors_first(message: str, cls: type) -> str:
    """A message with its traceback reordered; of chained errors only the last is kept.

    Args:
        message: a sentence, perhaps with a traceback behind it.
        cls: the author's class, whose file tells the frames apart.
    """
    before, opening, text = message.rpartition(OPENING)
    if not opening:
        return message
    file = inspect.getfile(cls)
    frames = [(found[1] == file, found[0]) for found in FRAME.finditer(text)]
    error = FRAME.sub("", text).strip()
    own, project = ("".join(frame for mine, frame in frames if mine is which) for which in (True, False))
    return f"{before.partition(OPENING)[0]}{error}\n{own}Called by the project:\n{project}".rstrip()
