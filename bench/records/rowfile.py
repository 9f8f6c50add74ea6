"""Files of rows that a command measured about several seeds, and that are part of no cell's record."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from bench.records.record import RecordError
from bench.records.strictjson import StrictJSONError, read_strict

__all__ = ["RowFile"]

Row = TypeVar("Row", bound=BaseModel)


@dataclass(frozen=True)
class RowFile(Generic[Row]):
    """One kind of rows, and the file of a run directory that holds them.

    Attributes:
        name: of the file.
        command: that writes it.
        rows: validates a list of rows.
        about: what a row is about; a later row about the same takes an earlier one's place.
    """

    name: str
    command: str
    rows: TypeAdapter[list[Row]]
    about: Callable[[Row], str]

    def load(self, folder: Path) -> list[Row]:
        """The rows in a folder; none where nothing was measured.

        Raises:
            RecordError: the file is not as it was written.
        """
        path = folder / self.name
        if not path.exists():
            return []
        try:
            return self.rows.validate_python(read_strict(path), strict=True)
        except (StrictJSONError, ValidationError) as error:
            first = str(error).splitlines()[0][:500]
            raise RecordError(f"Expected rows of `{self.command}` in {path}, but: {first}. Remove the file.") from error

    def merge(self, rows: Iterable[Row], folder: Path) -> None:
        """Write rows into the folder's file, atomically, in the place of earlier ones about the same.

        Raises:
            RecordError: as `load`.
        """
        merged = {self.about(row): row for row in [*self.load(folder), *rows]}
        path = folder / self.name
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_bytes(self.rows.dump_json(list(merged.values()), indent=1) + b"\n")
        temporary.replace(path)
