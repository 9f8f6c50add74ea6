"""Which key does `bench stamp` use, and may it go on in a folder that it finds begun?"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from bench.api import Key
    from bench.stamping import Survey
    from bench.stamping.keyfile import About

__all__ = ["NOTE", "Form", "Request", "begun_by"]

Form = Literal["png", "keep"]
NOTE = ".stamped.json"


@dataclass(frozen=True)
class Request:
    """What a key is made for.

    Attributes:
        side: every picture's, in pixels; None for their own sizes.
        options: as typed.
        say: prints a line.
    """

    scheme: Any
    images: Path
    looked: Survey
    side: int | None
    device: str
    options: Mapping[str, Any]
    say: Callable[[str], None]

    def key(self, path: Path) -> Key:
        """The key in this file, if it was made for the same request; a new one if there is none.

        Raises:
            StampError: it was made for another.
        """
        from bench.stamping.keyfile import load_key, save_key

        if not path.exists():
            key, about = self._made()
            save_key(path, key, about)
            return key
        key, about = load_key(path)
        self._compare(about, path)
        self.say(f"Using the key in {path}.")
        return key

    def _made(self) -> tuple[Key, About]:
        import secrets

        from bench.api import Rng
        from bench.plan.profiles import PROFILES
        from bench.registry import params_of
        from bench.stamping import key_size
        from bench.stamping.host import KeyMaker
        from bench.stamping.keyfile import About

        name, options = self.scheme.card.name, self.options
        rng = Rng("stamp", name, secrets.token_hex(32) if options["seed"] is None else options["seed"])
        size = key_size(self.images, self.looked.total, rng, self.side)
        against = self.scheme.card.key_arch and params_of(self.scheme)[self.scheme.card.key_arch]
        key = KeyMaker(
            self.images, self.looked.total, size, against or options["arch"], PROFILES[options["profile"]],
            rng, self.device, self.say,
        ).make(self.scheme)  # fmt: skip
        return key, About(scheme=name, params=params_of(self.scheme), size=size, options=self._beside())

    def _beside(self) -> dict[str, Any]:
        """What a key depends on beside the scheme's parameters."""
        mark, trains = getattr(self.scheme.params, "watermark", None), self.scheme.card.keygen_trains
        names = ("seed", "arch", "profile") if trains else ("seed",)
        found = {"size": self.side, "watermark": mark and _digest(Path(mark).expanduser())}
        return found | {name: self.options[name] for name in names}

    def _compare(self, about: About, path: Path) -> None:
        from bench.registry import params_of
        from bench.stamping import StampError

        # What stands beside comes last: the watermark's content takes the place of its path.
        asked = {"scheme": self.scheme.card.name, **params_of(self.scheme), **self._beside()}
        made = {"scheme": about.scheme, **about.params, **about.options}
        if asked["seed"] is None:
            asked["seed"] = made.get("seed")
        for name in sorted(set(asked) | set(made)):
            if asked.get(name) != made.get(name):
                raise StampError(
                    f"Expected the key in {path} to have been made with {name} {asked.get(name)!r}, but it was made "
                    f"with {made.get(name)!r}: give the same options, or another --key and --out."
                )


def begun_by(
    out: Path, key_path: Path, looked: Survey, side: int | None, form: Form, overwrite: bool
) -> dict[str, Any]:
    """What to note in the folder of what it holds.

    Raises:
        StampError: there are pictures of another command, with which this one must not go on.
    """
    from bench.stamping import StampError

    key = _digest(key_path) if key_path.exists() else None
    asked = {"key": key, "pictures": looked.digest, "size": side, "format": form}
    if looked.written and not overwrite:
        try:
            found = json.loads((out / NOTE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            found = None
        if found != asked:
            raise StampError(
                f"Expected {out} to be empty or begun by the same command on the same files, but {looked.written} "
                "pictures in it are of another: choose another --out, or give --overwrite."
            )
    return asked


def _digest(path: Path) -> str:
    import hashlib

    from bench.stamping import StampError

    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise StampError(f"Expected to read {path}, but cannot: {error}.") from error
