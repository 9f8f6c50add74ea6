"""The content-addressed store of results: each is written once, atomically, with checksums.

`STORE/ab/abcd.../` holds `meta.json` (what was computed, from what, how long it took, and a checksum of every file and
of itself), `result.json` and one safetensors file per group of tensors. A folder that is there is complete, because it
was renamed into place.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.identity import digest
from bench.lease import lease

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Store", "StoreError", "Stored", "key_of", "sealed", "write_through"]


class StoreError(RuntimeError):
    """A stored result is missing or damaged.

    Attributes:
        key: of the step to compute again; None where that would not help.
    """

    def __init__(self, message: str, key: str | None = None) -> None:
        super().__init__(message)
        self.key = key


@dataclass(frozen=True)
class Stored:
    """One stored result."""

    folder: Path
    meta: dict[str, Any]
    result: dict[str, Any]

    def tensors(self, group: str) -> dict[str, Tensor]:
        """The tensors saved under this group name, on the CPU.

        Raises:
            StoreError: there is no such group, or its bytes changed since they were written.
        """
        from safetensors.torch import load

        path = self.folder / f"{group}.safetensors"
        if not path.exists():
            raise StoreError(f"Expected tensors {group!r} in {self.folder}, but there are none.")
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != self.meta["files"].get(path.name):
            raise _set_aside(self.folder, path.name)
        return load(content)

    def check(self) -> None:
        """Compare every file with its checksum.

        Raises:
            StoreError: one is missing or damaged; the result is set aside.
        """
        for name, checksum in self.meta["files"].items():
            try:
                with (self.folder / name).open("rb") as file:
                    whole = hashlib.file_digest(file, "sha256").hexdigest() == checksum
            except FileNotFoundError:
                whole = False
            if not whole:
                raise _set_aside(self.folder, name)


class Store:
    """The store below `root`; it is created by the first `save`.

    Attributes:
        url: of the place beyond this machine that it shares results with; None for none.
        note: what a person should know of sharing that went wrong; None where nothing did.
    """

    url: str | None = None
    note: str | None = None

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, key: str) -> Path:
        """Where the result of `key` is, or would be."""
        return self.root / key[:2] / key

    def has(self, key: str) -> bool:
        """Is there a complete result? One with a missing or shortened file counts as none and is removed."""
        return self.holds(key)

    def holds(self, key: str) -> bool:
        """Is there a complete result in this very folder? One with a missing or shortened file is removed."""
        folder = self.folder(key)
        if not folder.exists():
            return False
        whole = _whole(folder)
        if not whole:
            shutil.rmtree(folder, ignore_errors=True)
        return whole

    def obtain(self, key: str) -> bool:
        """Whether the result of `key` can be loaded; a store that shares results fetches it first."""
        return self.holds(key)

    def load(self, key: str) -> Stored:
        """The result of `key`.

        Raises:
            StoreError: there is none, or it is damaged and was set aside.
        """
        folder = self.folder(key)
        try:
            meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
            content = (folder / "result.json").read_bytes()
            whole = _intact(meta) and hashlib.sha256(content).hexdigest() == meta["files"]["result.json"]
        except FileNotFoundError as error:
            raise StoreError(f"Expected a stored result in {folder}, but there is none.", key) from error
        except OSError as error:
            raise StoreError(f"Expected a stored result in {folder}, but could not read it: {error}.") from error
        except (ValueError, KeyError, TypeError, AttributeError):
            whole = False
        if not whole:
            raise self.set_aside(key, "meta.json or result.json")
        return Stored(folder, meta, json.loads(content))

    def save(
        self, key: str, meta: Mapping[str, Any], result: Mapping[str, Any], tensors: Mapping[str, Mapping[str, Tensor]]
    ) -> None:
        """Write a result: into a temporary folder first, then renamed; who comes second loses nothing.

        Raises:
            OSError: it could not be written, or not be renamed.
        """
        import torch
        from safetensors.torch import save

        contents = {"result.json": json.dumps(result, allow_nan=False).encode()}
        for group, named in tensors.items():
            contents[f"{group}.safetensors"] = save(
                {n: t.detach().cpu().clone(memory_format=torch.contiguous_format) for n, t in named.items()}
            )
        sums = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
        sizes = {name: len(content) for name, content in contents.items()}
        with self.writing(key, {**meta, "files": sums, "sizes": sizes}) as folder:
            for name, content in contents.items():
                write_through(folder / name, [content])

    @contextmanager
    def writing(self, key: str, meta: Mapping[str, Any]) -> Iterator[Path]:
        """A folder to write the files of a result into; it becomes the result of `key` when the block ends.

        Args:
            key: of the step.
            meta: for `meta.json`, which is written last; it names every file with its checksum and its size.

        Raises:
            OSError: it could not be written, or not be renamed.
        """
        target = self.folder(key)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".writing-", dir=self.root))
        try:
            yield temporary
            write_through(temporary / "meta.json", [json.dumps(sealed(meta), indent=1).encode()])
            temporary.rename(target)
        except OSError:
            if not self.holds(key):  # else another process was first: its result is the same
                raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def set_aside(self, key: str, name: str) -> StoreError:
        """Move a damaged result out of the way, so that it is computed again; returns the error to raise."""
        return _set_aside(self.folder(key), name)

    def prepare(self) -> None:
        """Make ready for a run; a store that shares results proves that it can."""
        self.sweep()

    @contextmanager
    def lock(self, key: str) -> Iterator[None]:
        """Only one process computes `key` at a time; the lock is void once the process is gone."""
        folder = self.root / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        with lease(folder / key):
            try:
                yield
            finally:
                self._epoch_file(key).unlink(missing_ok=True)

    def note_epoch(self, key: str, epoch: int, epochs: int) -> None:
        """Leave word of how far the training in a step is that is being computed; a full disk stops nothing."""
        with suppress(OSError):
            self._epoch_file(key).write_text(f"{epoch}/{epochs}", encoding="ascii")

    def epoch(self, key: str) -> str:
        """How far the training in a step is, as `3/16`; empty where nothing is known."""
        try:
            return self._epoch_file(key).read_text(encoding="ascii")[:20]
        except (OSError, UnicodeDecodeError):
            return ""

    def _epoch_file(self, key: str) -> Path:
        return self.root / "locks" / f"{key}.epoch"

    def metas(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Key and `meta.json` of everything stored; one that is not as it was written is passed over."""
        for path in self.root.glob("??/*/meta.json"):
            try:
                meta = json.loads(path.read_text(encoding="utf-8"))
                whole = _intact(meta) and isinstance(meta["identity"], dict) and "label" in meta
            except (OSError, ValueError, KeyError, TypeError, AttributeError):
                continue
            if whole:
                yield path.parent.name, meta

    def sweep(self, older_than_s: float = 86_400.0) -> None:
        """Remove what killed writers left half-written, and what was set aside as damaged, a day ago."""
        for folder in (*self.root.glob(".writing-*"), *self.root.glob(".damaged-*")):
            if time.time() - folder.stat().st_mtime > older_than_s:
                shutil.rmtree(folder, ignore_errors=True)


def sealed(meta: Mapping[str, Any]) -> dict[str, Any]:
    """`meta` with a checksum of itself, as `digest`.

    Raises:
        ValueError: it holds NaN or infinity.
    """
    rest = {name: value for name, value in meta.items() if name != "digest"}
    return {**rest, "digest": digest(rest)}


def key_of(identity: Mapping[str, Any]) -> str:
    """The content key of a step, from the identity that is stored beside its result.

    Raises:
        AttributeError, KeyError: it is no identity.
        ValueError: it holds NaN or infinity.
    """
    lines = "".join(f"{name} {source}\n" for name, source in identity["sources"].items())
    return digest({**identity, "sources": hashlib.sha256(lines.encode()).hexdigest()})


def write_through(path: Path, chunks: Iterable[bytes]) -> None:
    """Write a new file, and see it on the disk."""
    with path.open("xb") as file:
        file.writelines(chunks)
        file.flush()
        os.fsync(file.fileno())


def _intact(meta: Mapping[str, Any]) -> bool:
    """Whether `meta.json` is as it was written; what earlier versions wrote has no checksum of itself."""
    return "digest" not in meta or sealed(meta) == meta


def _whole(folder: Path) -> bool:
    """Whether every file is there in its full size.

    Raises:
        OSError: a file cannot be read, which says nothing about the result.
    """
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        sizes = meta["sizes"].items()
        return _intact(meta) and all((folder / name).stat().st_size == size for name, size in sizes)
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _set_aside(folder: Path, name: str) -> StoreError:
    """Move a damaged result out of the way, so that it is computed again; returns the error to raise."""
    aside = folder.parent.parent / f".damaged-{folder.name}"
    shutil.rmtree(aside, ignore_errors=True)
    with suppress(FileNotFoundError):  # another process has moved it
        folder.rename(aside)
    return StoreError(f"{folder / name} was damaged (its checksum differs) and is set aside.", folder.name)
