"""Image sets in Parquet, as they are laid out on the Hugging Face hub.

Either `train-*.parquet` beside `test-*.parquet` (or `validation-*`, `valid-*`, `val-*`), or, as the hub converts data
sets, `train/0000.parquet` beside `test/0000.parquet`. A column `image` or `img` of `struct<bytes, path>` or of bytes; a
column of class numbers, whose names stand in the schema's metadata under `huggingface`, or of class names.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from bench.data.catalog import Spec
from bench.data.decode import decode
from bench.data.errors import DataError
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
    if not found:
        found = sorted((place / name).glob("[!.]*.parquet"))
    for path in found:
        told = re.search(r"-of-(\d+)\.parquet$", path.name)
        count = int(told[1]) if told else _converted(path) + 1
        if count > len(found) or (told and count != len(found)):
            raise DataError(f"Expected {count} {name} files in {place}, but found {len(found)}: copy the others.")
    return found


def _converted(path: Path) -> int:
    """The number that the hub's conversion gives a file, which counts from 0; -1 where it is named otherwise."""
    return int(path.stem) if re.fullmatch(r"\d{4}", path.stem) else -1


def _read(spec: Spec, train: Sequence[Path], test: Sequence[Path]) -> Source:
    import pyarrow as pa

    try:
        classes = _classes(train[0]) or _named_in_rows(train, spec) or spec.card.classes
        return Source(classes, _part(train, spec, classes), _part(test, spec, classes))
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


def _named_in_rows(paths: Sequence[Path], spec: Spec) -> tuple[str, ...] | None:
    """Class names that stand in the rows instead of numbers: in the card's order where they are the card's."""
    import pyarrow.parquet as pq

    names: set[str] = set()
    for path in paths:
        column = _column(path, pq.read_schema(path).names, LABEL_COLUMNS)
        labels = _plain(pq.read_table(path, columns=[column]).column(0))
        if not _is_text(labels.type):
            return None
        names |= set(filter(None, labels.unique().to_pylist()))
    return spec.card.classes if names <= set(spec.card.classes) else tuple(sorted(names))


def _plain(column: Any) -> Any:
    """A column without dictionary encoding."""
    import pyarrow as pa

    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _column(path: Path, names: Sequence[str], wanted: Sequence[str]) -> str:
    for name in wanted:
        if name in names:
            return name
    raise DataError(
        f"Expected a column {' or '.join(wanted)} in {path}, but got the columns {', '.join(names)}: "
        "rename it, or see whether this is an image set."
    )


def _part(paths: Sequence[Path], spec: Spec, classes: tuple[str, ...]) -> Part:
    parts = [
        _batch(path, number, batch, spec, numbers)
        for path in paths
        for numbers in [_numbers(path, classes)]
        for number, batch in _batches(path)
    ]
    if not parts:
        return Part(torch.empty(0, 3, spec.size, spec.size, dtype=torch.uint8), torch.empty(0, dtype=torch.int64))
    return Part(torch.cat([part.images for part in parts]), torch.cat([part.labels for part in parts]))


def _numbers(path: Path, classes: tuple[str, ...]) -> dict[Any, int]:
    """The class number of each label of a file: of a name, or of a number in the order that this file tells.

    Raises:
        DataError: its class names are others than the first file's.
    """
    told = _classes(path) or classes
    if set(told) != set(classes):
        strange = sorted(set(told) ^ set(classes))[0]
        raise DataError(
            f"Expected the class names of {path} to be those of the training part, but {strange} is in one of them "
            "only: see whether both are of one data set."
        )
    number = {name: label for label, name in enumerate(classes)}
    return number | {label: number[name] for label, name in enumerate(told)}


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


def _batch(path: Path, first: int, batch: Any, spec: Spec, numbers: Mapping[Any, int]) -> Part:
    import pyarrow as pa

    label = _plain(batch.column("label"))
    if not (pa.types.is_integer(label.type) or _is_text(label.type)) or label.null_count:
        raise DataError(
            f"Expected the labels of {path} to be class numbers or names, but got {label.type} or missing ones."
        )
    named = _is_text(label.type)
    # A number that no class has goes on as it is: the check of the whole data set names the bounds.
    labels = [numbers.get(told, -1 if named else told) for told in label.to_pylist()]
    blobs = _blobs(path, batch.column("image"))
    pictures = ((f"row {first + row} of {path}", blob.as_py()) for row, blob in enumerate(blobs))
    return Part(decode(pictures, len(batch), spec), torch.tensor(labels, dtype=torch.int64))


def _blobs(path: Path, image: Any) -> Any:
    """The encoded pictures of a column.

    Raises:
        DataError: they are not in the file.
    """
    import pyarrow as pa

    blobs = image
    if pa.types.is_struct(image.type) and image.type.get_field_index("bytes") >= 0:
        blobs = image.field("bytes")
    if not (pa.types.is_binary(blobs.type) or pa.types.is_large_binary(blobs.type)):
        raise DataError(
            f"Expected the image column of {path} to be struct<bytes, path> or bytes, but got {image.type}: write the "
            "pictures into the file, not their names."
        )
    if blobs.null_count:
        raise DataError(f"Expected the pictures of {path} in its rows, but {blobs.null_count} rows only name files.")
    return blobs
