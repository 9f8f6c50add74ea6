"""Objects below a URL, by any file system that fsspec opens: read, written, listed, and created only once."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from bench.runner.store import StoreError, write_through

__all__ = ["Objects", "RemoteError"]


class RemoteError(StoreError):
    """A place beyond this machine cannot be used; the message says why and what to do."""


class Objects:
    """The objects below `url`, by their names relative to it; every other trouble is a `RemoteError`.

    Attributes:
        shown: the URL without a password.
    """

    def __init__(self, url: str) -> None:
        """Open the file system of a URL; nothing is asked of it.

        Raises:
            RemoteError: there is no such kind of URL, what opens it is not installed, or it names no folder.
        """
        import fsspec

        self.shown = re.sub(r"//[^/@]*@", "//...@", url)
        options: dict[str, Any] = {"use_listings_cache": False, "skip_instance_cache": True}
        self._local = "://" not in url or url.startswith(("file://", "local://"))
        try:
            self._fs, root = fsspec.url_to_fs(url, **options, **({"auto_mkdir": True} if self._local else {}))
        except ImportError as error:
            extra = ' (pip install "watermark-bench[s3]" for s3:// URLs)' if url.startswith("s3") else ""
            raise RemoteError(f"Expected what opens {self.shown} to be installed, but: {error}{extra}.") from error
        except Exception as error:  # whatever the file system's own constructor raises
            raise RemoteError(f"Expected a URL such as s3://bucket/folder, but got {self.shown}: {error}.") from error
        self._root = root.rstrip("/")
        if not self._root and not url.startswith("memory:"):
            raise RemoteError(f"Expected a URL with a bucket or a folder, but got {self.shown}.")

    def names(self, folder: str) -> list[str]:
        """The names of all objects below `folder`; none where there is no such folder."""
        with self._asked("list"):
            found = self._fs.find(self._path(folder))
        return [name[len(self._root) :].lstrip("/") for name in found]

    def exists(self, name: str) -> bool:
        """Whether there is such an object."""
        with self._asked("read"):
            return bool(self._fs.exists(self._path(name)))

    def read(self, name: str, limit: int) -> bytes:
        """The bytes of a small object.

        Raises:
            FileNotFoundError: there is none.
            ValueError: it is larger than `limit` bytes.
        """
        with self.reading(name) as take:
            content = take(limit + 1)
        if len(content) > limit:
            raise ValueError(f"it is larger than {limit} bytes")
        return content

    @contextmanager
    def reading(self, name: str) -> Iterator[Callable[[int], bytes]]:
        """What gives the next bytes of an object, at most so many; none at its end.

        Raises:
            FileNotFoundError: there is none.
        """
        with self._asked("read"):
            file = self._fs.open(self._path(name), "rb")

        def take(count: int) -> bytes:
            with self._asked("read"):
                return bytes(file.read(count))

        with file:
            yield take

    def create(self, name: str, content: bytes) -> None:
        """Write an object that nobody has written before, whole or not at all.

        Where a file system cannot create exclusively, fsspec looks before it writes: then who comes second may
        replace what the first has written.

        Raises:
            FileExistsError: there is one of this name.
        """
        path = self._path(name)
        with self._asked("write"):
            if self._local:
                _link(Path(path), content)
            else:
                self._fs.pipe_file(path, content, mode="create")

    def put(self, name: str, content: bytes) -> None:
        """Write an object, whether there is one or not; nobody reads half of it."""
        path = self._path(name)
        with self._asked("write"):
            if self._local:
                _replace(Path(path), content)
            else:
                self._fs.pipe_file(path, content)

    def write(self, name: str, chunks: Iterable[bytes]) -> None:
        """Write a large object; nothing of it is left where its chunks raise."""
        with self._asked("write"):
            file = self._fs.open(self._path(name), "wb")
        try:
            for chunk in chunks:
                with self._asked("write"):
                    file.write(chunk)
        except BaseException:
            with suppress(Exception):
                file.close()
            with suppress(RemoteError):
                self.remove(name)
            raise
        with self._asked("write"):
            file.close()

    def remove(self, name: str) -> None:
        """Remove an object; one that is gone is no mistake."""
        with suppress(FileNotFoundError), self._asked("remove"):
            self._fs.rm_file(self._path(name))

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    @contextmanager
    def _asked(self, what: str) -> Iterator[None]:
        """Name whatever a file system raises: each has exceptions of its own."""
        try:
            yield
        except FileExistsError:
            raise
        except FileNotFoundError as error:
            if what in ("read", "remove"):
                raise
            raise self._error(what, error, "Create the bucket or the folder first, or mend the URL.") from error
        except PermissionError as error:
            raise self._error(what, error, "Check your rights and credentials.") from error
        except Exception as error:
            raise self._error(what, error, "Check the URL, the network and the credentials.") from error

    def _error(self, what: str, error: Exception, advice: str) -> RemoteError:
        why = " ".join(str(error).split())[:300] or type(error).__name__
        return RemoteError(f"Expected to {what} in {self.shown}, but: {why.rstrip('.')}. {advice}")


def _replace(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{uuid4().hex}")
    try:
        write_through(temporary, [content])
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _link(path: Path, content: bytes) -> None:
    """Create a file with its content at once: written under another name, then linked to its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{uuid4().hex}")
    try:
        write_through(temporary, [content])
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links, or one that refuses to write: which, the next line says
        write_through(path, [content])
    finally:
        temporary.unlink(missing_ok=True)
