"""Keeps decoded images between runs: one safetensors file for each state of a data set's files."""

from __future__ import annotations

import contextlib
import json
import os
import warnings
from pathlib import Path

from bench.data.source import Part, Source

__all__ = ["read", "stored_checksum", "write"]

PARTS = ("train_images", "train_labels", "test_images", "test_labels")


def stored_checksum(path: Path) -> str | None:
    """The checksum of the data set in a cache file, from its header alone; None if it is missing or broken."""
    return _metadata(path).get("checksum")


def read(path: Path) -> tuple[Source, str] | None:
    """The data set and its checksum from a cache file; None if it is missing, truncated or of another make."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    metadata = _metadata(path)
    try:
        tensors = load_file(path)
        train_images, train_labels, test_images, test_labels = (tensors[name] for name in PARTS)
        classes = tuple(json.loads(metadata["classes"]))
        source = Source(classes, Part(train_images, train_labels), Part(test_images, test_labels))
        return source, metadata["checksum"]
    except (SafetensorError, OSError, KeyError, ValueError):
        return None


def write(path: Path, source: Source, checksum: str) -> None:
    """Write a cache file under a temporary name, then rename it; only warn where the disk does not let us."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    tensors = (source.train.images, source.train.labels, source.test.images, source.test.labels)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    metadata = {"checksum": checksum, "classes": json.dumps(source.classes)}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(dict(zip(PARTS, tensors, strict=True)), temporary, metadata)
        temporary.replace(path)
    except (SafetensorError, OSError) as error:
        warnings.warn(f"Could not keep decoded images in {path.parent} ({error}): set BENCH_CACHE.", stacklevel=2)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _metadata(path: Path) -> dict[str, str]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except (SafetensorError, OSError):
        return {}
