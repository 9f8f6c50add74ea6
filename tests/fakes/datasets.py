"""Data sets as files: pictures, Parquet, folders, and the messages that refuse broken ones."""

import io
import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from bench.data import DataError, catalog, load
from bench.data.source import Part, Source

TRAIN_LABELS = [n % 10 for n in range(120)]
TEST_LABELS = [n % 10 for n in range(40)]


def few_classes(monkeypatch, name: str, *classes: str) -> None:
    """Let a data set have so few classes that a test can write all of it."""
    known = catalog.SPECS[name]
    monkeypatch.setitem(catalog.SPECS, name, replace(known, card=replace(known.card, classes=classes)))


def one_sentence(error: pytest.ExceptionInfo) -> str:
    message = str(error.value)
    assert "\n" not in message
    assert len(message) < 600
    assert message.startswith("Expected"), message
    return message


def grey_level(label: int, number: int) -> int:
    return 20 * label + number % 20


def png(value: int, size: tuple[int, int] = (32, 32), mode: str = "RGB") -> bytes:
    """A picture of one colour; `value` for all of its channels."""
    image = Image.new("L", size, value).convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def picture(path: Path, value: int, size: tuple[int, int] = (8, 8), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(value, size, mode))


def shard(path: Path, labels: list[int], *, image="image", label="label", names=None, blobs=None, side=32) -> None:
    """One Parquet file; picture number n of class c has the grey level 20 c + n mod 20."""
    blobs = blobs or [png(grey_level(c, n), (side, side)) for n, c in enumerate(labels)]
    structs = pa.array(
        [{"bytes": b, "path": None} for b in blobs], pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    )
    table = pa.table({image: structs, label: pa.array(labels, pa.int64())})
    if names:
        info = {"info": {"features": {image: {"_type": "Image"}, label: {"_type": "ClassLabel", "names": names}}}}
        table = table.replace_schema_metadata({b"huggingface": json.dumps(info).encode()})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


def parquet_set(folder: Path, **options) -> Path:
    shard(folder / "train-00000-of-00001.parquet", TRAIN_LABELS, **options)
    shard(folder / "test-00000-of-00001.parquet", TEST_LABELS, **options)
    return folder


def own_folder(base: Path, classes=("a", "b"), count: int = 20, first: int = 0) -> Path:
    """`count` different pictures of each class."""
    for number, name in enumerate(classes):
        for n in range(count):
            picture(base / name / f"{n:02d}.png", first + 40 * number + n)
    return base


def refused(root: Path, message: str, name: str = "cifar10") -> None:
    with pytest.raises(DataError, match=message) as error:
        load(name, data_root=root)
    one_sentence(error)


def labelled(train: int, test: int, classes: int = 10) -> Source:
    def part(count: int) -> Part:
        return Part(torch.zeros(count, 3, 1, 1, dtype=torch.uint8), torch.arange(count) * 7 // 3 % classes)

    return Source(tuple(map(str, range(classes))), part(train), part(test))


def saved(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def two(mode: str, left, right) -> Image.Image:
    """A picture of two pixels."""
    image = Image.new(mode, (2, 1))
    image.putdata([left, right])
    return image
