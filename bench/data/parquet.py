"""Image sets in Parquet, as they are laid out on the Hugging Face hub.

`train-*.parquet` beside `test-*.parquet` (or `validation-*`, `valid-*`, `val-*`); a column `image` or `img` of
`struct<bytes, path>`; a column of class numbers; class names in the schema's metadata under `huggingface`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from bench.data.catalog import DataError, Spec
from bench.data.decode import decode
from bench.data.source import Found, Part, Source

__all__ = ["find"]

IMAGE_COLUMNS = ("image", "img")
LABEL_COLUMNS = ("fine_label", "label", "labels")
TEST_NAMES = ("test", "validation", "valid", "val")
BATCH = 2048


def find(spec: Spec, root: Path) -> Found | None:
    """The Parquet files of a data set in one of its folders, their direct subfolders, or the root itself.

    Raises:
        DataError: there are training files, but no test files or not all shards.
    """
    for base in spec.bases(root):
        if not base.is_dir():
            continue
        places = [base] if base == root else [base, *sorted(child for child in base.iterdir() if child.is_dir())]
        for place in places:
            train = _shards(place, "train")
            if train:
                return _found(spec, place, train)
    return None


def _found(spec: Spec, place: Path, train: list[Path]) -> Found:
    tests = [shards for name in TEST_NAMES if (shards := _shards(place, name))]
    if not tests:
        raise DataError(
            f"Expected test-*.parquet beside the training files of {spec.card.title} in {place}, but found none: "
            "copy the test part too."
        )
    return Found("parquet", place, [*train, *tests[0]], partial(_read, spec, train, tests[0]))


def _shards(place: Path, name: str) -> list[Path]:
    found = sorted(path for path in place.glob("*.parquet") if re.match(rf"{name}[-.]", path.name))
    for path in found:
        told = re.search(r"-of-(\d+)\.parquet$", path.name)
        if told and int(told[1]) != len(found):
            raise DataError(
                f"Expected {int(told[1])} {name} files in {place}, but found {len(found)}: copy the others."
            )
    return found


def _read(spec: Spec, train: Sequence[Path], test: Sequence[Path]) -> Source:
    import pyarrow as pa

    try:
        classes = _classes(train[0]) or spec.card.classes
        return Source(classes, _part(train, spec), _part(test, spec))
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(
            f"Expected whole Parquet files in {train[0].parent}, but could not read them ({reason}): copy them again."
        ) from error


def _classes(path: Path) -> tuple[str, ...] | None:
    """Class names told by the schema's metadata, None where it tells none."""
    import pyarrow.parquet as pq

    schema = pq.read_schema(path)
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        names = features[_column(path, schema.names, LABEL_COLUMNS)]["names"]
        return tuple(map(str, names))
    except (KeyError, TypeError, json.JSONDecodeError):
        return None


def _column(path: Path, names: Sequence[str], wanted: Sequence[str]) -> str:
    for name in wanted:
        if name in names:
            return name
    raise DataError(
        f"Expected a column {' or '.join(wanted)} in {path}, but got the columns {', '.join(names)}: "
        "rename it, or see whether this is an image set."
    )


def _part(paths: Sequence[Path], spec: Spec) -> Part:
    parts = [_batch(path, number, batch, spec) for path in paths for number, batch in _batches(path)]
    if not parts:
        return Part(torch.empty(0, 3, spec.size, spec.size, dtype=torch.uint8), torch.empty(0, dtype=torch.int64))
    return Part(torch.cat([part.images for part in parts]), torch.cat([part.labels for part in parts]))


def _batches(path: Path) -> Iterator[tuple[int, Any]]:
    """The number of the first row, and the rows with the columns `image` and `label`, batch by batch."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        names = file.schema_arrow.names
        columns = [_column(path, names, IMAGE_COLUMNS), _column(path, names, LABEL_COLUMNS)]
        row = 0
        for batch in file.iter_batches(batch_size=BATCH, columns=columns):
            yield row, batch.select(columns).rename_columns(["image", "label"])
            row += len(batch)


def _batch(path: Path, first: int, batch: Any, spec: Spec) -> Part:
    import pyarrow as pa

    image, label = batch.column("image"), batch.column("label")
    if not pa.types.is_struct(image.type) or image.type.get_field_index("bytes") < 0:
        raise DataError(f"Expected the image column of {path} to be struct<bytes, path>, but got {image.type}.")
    if not pa.types.is_integer(label.type) or label.null_count:
        raise DataError(f"Expected the labels of {path} to be class numbers, but got {label.type} or missing ones.")
    blobs = image.field("bytes")
    if blobs.null_count:
        raise DataError(f"Expected the pictures of {path} in its rows, but {blobs.null_count} rows only name files.")
    pictures = ((f"row {first + row} of {path}", blob.as_py()) for row, blob in enumerate(blobs))
    return Part(decode(pictures, len(batch), spec), torch.tensor(label.to_pylist(), dtype=torch.int64))
