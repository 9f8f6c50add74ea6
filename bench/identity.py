"""How is a thing named, compared and seeded? Canonical JSON, content digests, derived random streams."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import torch

__all__ = ["Rng", "canonical", "digest", "unknown"]

_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def canonical(value: Any) -> str:
    """The one JSON text of `value`: sorted keys, no spaces; NaN and infinity are refused.

    Raises:
        ValueError: `value` holds NaN or infinity.
        TypeError: `value` holds something that JSON cannot say.
    """
    return _ENCODER.encode(value)


def digest(value: Any) -> str:
    """SHA-256 of the canonical JSON of `value`, in hex (64 characters)."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def unknown(name: str, known: Iterable[str], what: str) -> str:
    """The sentence for a name that does not exist, with the nearest one that does."""
    names = list(known)
    near = get_close_matches(name.lower(), names, n=1, cutoff=0.5)
    hint = f' Did you mean "{near[0]}"?' if near else ""
    return f'Expected {what}, but got "{name}".{hint} Known: {", ".join(names)}.'


class Rng:
    """A tree of independent random streams, each named by the identity of what it serves.

    Two streams with different names are independent; the same path of names always gives the same
    numbers, whatever else was drawn in between. Generators live on the CPU, so that a key does not
    depend on the device.

    Example:
        >>> Rng("uchida-random", 0).child("payload").seed == Rng("uchida-random", 0, "payload").seed
        True
    """

    def __init__(self, *path: str | int) -> None:
        self.path = path

    def child(self, *names: str | int) -> Rng:
        """The stream of a part, named below this one."""
        return Rng(*self.path, *names)

    @property
    def seed(self) -> int:
        """A 63-bit seed derived from the path."""
        return int(digest(list(self.path))[:16], 16) >> 1

    def torch(self, *names: str | int) -> torch.Generator:
        """A fresh CPU generator for the stream below `names`."""
        import torch

        return torch.Generator().manual_seed(self.child(*names).seed)

    def numpy(self, *names: str | int) -> np.random.Generator:
        """A fresh numpy generator for the stream below `names`."""
        import numpy as np

        return np.random.default_rng(self.child(*names).seed)

    def __repr__(self) -> str:
        return f"Rng({', '.join(map(repr, self.path))})"
