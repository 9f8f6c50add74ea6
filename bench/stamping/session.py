"""One command on a person's folder: the key that it uses, what it may go on with, and what a folder's pictures say."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from bench.api import ImageSet, Key, Rng, Scheme, Verdict
from bench.data.walking import shown
from bench.plan.profiles import PROFILES
from bench.registry import choose, make, params_of, schemes, unknown
from bench.stamping import Report, StampError, Survey, key_size, sample, survey
from bench.stamping.host import KeyMaker
from bench.stamping.keyfile import About, file_digest, key_path, load_key, save_key
from bench.steps.judge import examine

__all__ = ["Examined", "Folder", "Wish", "able", "examine_folder", "scheme_to_stamp"]

NOTE = ".stamped.json"


@dataclass(frozen=True)
class Examined:
    """What a folder's pictures say about one key.

    Attributes:
        about: the key's scheme and size.
        verdict: of the scheme; `detected` is left to the reader's false positive rate.
        images, total: pictures examined, and files that should be pictures.
        resized: pictures that had another size than the key.
        skipped: drawn files that are no pictures.
        digest: of the key file, SHA-256 in hex.
        published: whether the folder's own note names this key; None where it has none.
    """

    about: About
    verdict: Verdict
    images: int
    total: int
    resized: int
    skipped: int
    digest: str
    published: bool | None


@dataclass(frozen=True)
class Wish:
    """The key that was asked for.

    Attributes:
        side: every picture's, in pixels; None for their own sizes.
        seed: of the key; None for one that nobody can guess.
        arch, profile: names, for a mark that is trained.
        device: where to compute.
        say: prints a line.
    """

    scheme: Scheme
    images: Path
    looked: Survey
    side: int | None
    seed: int | None
    arch: str
    profile: str
    device: str
    say: Callable[[str], None]

    def key(self, path: Path) -> Key:
        """The key in this file, if it was made for the same wish; a new one, written there, if there is none.

        Raises:
            StampError: it was made for another.
        """
        if not path.exists():
            key, about = self._made()
            save_key(path, key, about)
            return key
        key, about = load_key(path)
        self._compare(about, path)
        self.say(f"Using the key in {shown(path)}.")
        return key

    def _made(self) -> tuple[Key, About]:
        name, params = self.scheme.card.name, params_of(self.scheme)
        rng = Rng("stamp", name, secrets.token_hex(32) if self.seed is None else self.seed)
        size = key_size(self.images, self.looked.total, rng, self.side)
        against = self.scheme.card.key_arch and params[self.scheme.card.key_arch]
        key = KeyMaker(
            self.images, self.looked.total, size, against or self.arch, PROFILES[self.profile],
            rng, self.device, self.say,
        ).make(self.scheme)  # fmt: skip
        return key, About(scheme=name, params=params, size=size, options=self._beside())

    def _beside(self) -> dict[str, Any]:
        """What a key depends on beside the scheme's parameters."""
        mark = getattr(self.scheme.params, "watermark", None)
        found = {"size": self.side, "watermark": mark and file_digest(Path(mark).expanduser()), "seed": self.seed}
        return found | ({"arch": self.arch, "profile": self.profile} if self.scheme.card.keygen_trains else {})

    def _compare(self, about: About, path: Path) -> None:
        # What stands beside comes last: the watermark's content takes the place of its path.
        asked = {"scheme": self.scheme.card.name, **params_of(self.scheme), **self._beside()}
        made = {"scheme": about.scheme, **about.params, **about.options}
        if asked["seed"] is None:
            asked["seed"] = made.get("seed")
        for name in sorted(set(asked) | set(made)):
            if asked.get(name) != made.get(name):
                raise StampError(
                    f"Expected the key in {shown(path)} to have been made with {name} {asked.get(name)!r}, but it was "
                    f"made with {made.get(name)!r}: give the same options, or another --key and --out."
                )


@dataclass(frozen=True)
class Folder:
    """The folder that stamped pictures go to, and the note in it that says what it holds."""

    out: Path
    looked: Survey
    side: int | None
    form: Literal["png", "keep"]

    def check(self, key_file: Path, overwrite: bool) -> None:
        """Refuse to go on where another command has begun.

        Raises:
            StampError: there are pictures of another key, of other files, or of another size or format.
        """
        if self.looked.written and not overwrite and _note(self.out) != self._holds(key_file):
            raise StampError(
                f"Expected {shown(self.out)} to be empty or begun by the same command on the same files, but "
                f"{self.looked.written} pictures in it are of another: choose another --out, or give --overwrite."
            )

    def begin(self, key_file: Path) -> str:
        """Write the note, and give the digest of the key that it publishes."""
        holds = self._holds(key_file)
        try:
            self.out.mkdir(parents=True, exist_ok=True)
            (self.out / NOTE).write_text(json.dumps(holds) + "\n", encoding="utf-8")
        except OSError as error:
            raise StampError(
                f"Expected to write into {shown(self.out)}, but cannot ({error}): choose another --out."
            ) from error
        return str(holds["key"])

    def _holds(self, key_file: Path) -> dict[str, Any]:
        key = file_digest(key_file) if key_file.exists() else None
        return {"key": key, "pictures": self.looked.digest, "size": self.side, "format": self.form}


def able() -> dict[str, type[Scheme]]:
    """The schemes that can stamp pictures, and find their mark in pictures alone."""
    return {
        name: cls
        for name, cls in schemes().items()
        if cls.card.access == "data set" and callable(getattr(cls, "stamp", None))
    }


def scheme_to_stamp(name: str, profile: str, overrides: Mapping[str, Any]) -> Scheme:
    """The scheme of this name with the profile's parameters and those that were given.

    Raises:
        RegistryError: it cannot stamp, or a parameter is not its own.
    """
    known = able()
    chosen = choose(name, dict.fromkeys(known, ()), "a scheme that stamps pictures")[0]
    scaled = known[chosen].card.scales.get(profile, {})
    return make(known[chosen], {**scaled, **overrides})


def examine_folder(
    key_file: Path,
    images: Path,
    *,
    samples: int = 500,
    seed: int = 0,
    overrides: Mapping[str, Any] | None = None,
    digest: str | None = None,
    device: str = "cpu",
) -> Examined:
    """Examine pictures of a folder for the mark of a key.

    Args:
        key_file: what `bench stamp` wrote.
        images: the folder in question.
        samples: how many pictures at most.
        seed: of the draw.
        overrides: parameters that take the place of the key's.
        digest: the published SHA-256 of the key file, which it must have.
        device: where to compute.

    Raises:
        StampError: there is no picture, or the key's scheme is not installed.
        KeyFileError: the file is no key, was edited, or is not the published one.
    """
    path, report = key_path(key_file), Report()
    key, about = load_key(path)
    found = file_digest(path)
    if digest is not None and digest.lower() != found:
        raise StampError(
            f"Expected the key with the published digest {digest}, but {shown(path)} has {found}: it is another."
        )
    if about.scheme not in able():
        raise StampError(unknown(about.scheme, able(), "the key of a scheme that is installed"))
    scheme = make(able()[about.scheme], about.params | dict(overrides or {}))
    total = survey(images).total
    pictures, _, resized = sample(images, total, samples, Rng("verify-images", seed), about.size, report)
    suspect = ImageSet(pictures, torch.zeros(len(pictures), dtype=torch.int64)).to(device)
    with torch.no_grad():
        (verdict,) = examine(scheme, [key.to(device)], images=suspect)
    told = _note(images)
    published = told["key"] == found if isinstance(told, dict) and told.get("key") else None
    return Examined(about, verdict, len(pictures), total, resized, report.skipped, found, published)


def _note(folder: Path) -> Any:
    try:
        return json.loads((folder / NOTE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
