"""A local store that shares its results with other machines: it reads and writes through to a URL."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.runner.remote import RemoteError, remote_at
from bench.runner.store import Store, Stored, StoreError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["SharedStore", "store_at"]


class SharedStore(Store):
    """The store below `root`, and the place at `url`: what is lacking here is fetched, what is saved here is sent.

    Trouble with the place stops nothing, because everything is kept here as well: it is in `note`.
    """

    def __init__(self, root: Path, url: str) -> None:
        """Open the URL.

        Raises:
            RemoteError: it cannot be opened.
        """
        super().__init__(root)
        self.url, self.remote = url, remote_at(url)
        self._listed: dict[str, set[str]] = {}

    def has(self, key: str) -> bool:
        """Whether there is a complete result here or there; what is there is listed once.

        Raises:
            RemoteError: the place cannot be listed.
        """
        if self.holds(key):
            return True
        prefix = key[:2]
        if prefix not in self._listed:
            self._listed[prefix] = self.remote.keys(prefix)
        return key in self._listed[prefix]

    def obtain(self, key: str) -> bool:
        """Whether the result of `key` is here; it is fetched if need be, and not if it is damaged there."""
        if self.holds(key):
            return True
        try:
            return self.remote.fetch(key, self) is not None
        except StoreError as error:
            self.note = str(error)
            return False

    def load(self, key: str) -> Stored:
        """The result of `key`, fetched if it is lacking or damaged here.

        Raises:
            StoreError: there is none, or it is damaged and was set aside.
        """
        try:
            return super().load(key)
        except StoreError as error:
            if error.key is None or not self.obtain(key):
                raise
        return super().load(key)

    def save(
        self, key: str, meta: Mapping[str, Any], result: Mapping[str, Any], tensors: Mapping[str, Mapping[str, Tensor]]
    ) -> None:
        """Write a result here, and send it.

        Raises:
            OSError: it could not be written here.
        """
        super().save(key, meta, result, tensors)
        try:
            self.remote.send(key, self)
        except RemoteError as error:
            self.note = f"Results are kept here, but were not sent: {error} `bench push` sends them."

    @contextmanager
    def lock(self, key: str) -> Iterator[None]:
        """Only one process computes `key` at a time, on this machine and on others that share the place."""
        with super().lock(key):
            if self.obtain(key):
                yield
                return
            with self.remote.lease(key):
                yield

    def prepare(self) -> None:
        """Make ready for a run.

        Raises:
            RemoteError: nothing can be written there.
        """
        super().prepare()
        self.remote.probe()


def store_at(root: Path, url: str | None) -> Store:
    """The store below `root`, shared at `url` if there is one.

    Raises:
        RemoteError: the URL cannot be opened.
    """
    return SharedStore(root, url) if url else Store(root)
