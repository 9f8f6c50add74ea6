"""The content-addressed store of results: each is written once, atomically, with checksums.

`STORE/ab/abcd.../` holds `meta.json` (what was computed, from what, how long it took), `result.json` and one
safetensors file per group of tensors. A folder that is there is complete, because it was renamed into place.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.lease import lease

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Store", "StoreError", "Stored"]


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


class Store:
    """The store below `root`; it is created by the first `save`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, key: str) -> Path:
        """Where the result of `key` is, or would be."""
        return self.root / key[:2] / key

    def has(self, key: str) -> bool:
        """Is there a complete result? One with a missing or shortened file counts as none and is removed."""
        folder = self.folder(key)
        if not folder.exists():
            return False
        whole = _whole(folder)
        if not whole:
            shutil.rmtree(folder, ignore_errors=True)
        return whole

    def load(self, key: str) -> Stored:
        """The result of `key`.

        Raises:
            StoreError: there is none, or it is damaged and was set aside.
        """
        folder = self.folder(key)
        try:
            meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
            content = (folder / "result.json").read_bytes()
            whole = hashlib.sha256(content).hexdigest() == meta["files"]["result.json"]
        except FileNotFoundError as error:
            raise StoreError(f"Expected a stored result in {folder}, but there is none.", key) from error
        except OSError as error:
            raise StoreError(f"Expected a stored result in {folder}, but could not read it: {error}.") from error
        except (ValueError, KeyError, TypeError):
            whole = False
        if not whole:
            raise _set_aside(folder, "result.json")
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

        target = self.folder(key)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".writing-", dir=self.root))
        contents = {"result.json": json.dumps(result, allow_nan=False).encode()}
        for group, named in tensors.items():
            contents[f"{group}.safetensors"] = save(
                {n: t.detach().cpu().clone(memory_format=torch.contiguous_format) for n, t in named.items()}
            )
        for name, content in contents.items():
            _write(temporary / name, content)
        sums = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
        sizes = {name: len(content) for name, content in contents.items()}
        _write(temporary / "meta.json", json.dumps({**meta, "files": sums, "sizes": sizes}, indent=1).encode())
        try:
            temporary.rename(target)
        except OSError:
            shutil.rmtree(temporary, ignore_errors=True)
            if not self.has(key):  # else another process was first: its result is the same
                raise

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
            except (OSError, ValueError):
                continue
            if isinstance(meta, dict) and isinstance(meta.get("identity"), dict) and "label" in meta:
                yield path.parent.name, meta

    def sweep(self, older_than_s: float = 86_400.0) -> None:
        """Remove what killed writers left half-written, and what was set aside as damaged, a day ago."""
        for folder in (*self.root.glob(".writing-*"), *self.root.glob(".damaged-*")):
            if time.time() - folder.stat().st_mtime > older_than_s:
                shutil.rmtree(folder, ignore_errors=True)


def _whole(folder: Path) -> bool:
    """Whether every file is there in its full size.

    Raises:
        OSError: a file cannot be read, which says nothing about the result.
    """
    try:
        sizes = json.loads((folder / "meta.json").read_text(encoding="utf-8"))["sizes"]
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _set_aside(folder: Path, name: str) -> StoreError:
    """Move a damaged result out of the way, so that it is computed again; returns the error to raise."""
    aside = folder.parent.parent / f".damaged-{folder.name}"
    shutil.rmtree(aside, ignore_errors=True)
    with suppress(FileNotFoundError):  # another process has moved it
        folder.rename(aside)
    return StoreError(f"{folder / name} was damaged (its checksum differs) and is set aside.", folder.name)


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
