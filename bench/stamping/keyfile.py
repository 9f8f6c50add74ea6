"""Key files: an owner's key as one safetensors file with JSON metadata and a checksum of both, no pickle.

What is loaded may come from anybody, so its sizes are bounded and every field is checked before it is used.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import torch
from pydantic import Field, JsonValue, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from bench import __version__
from bench.contract.fields import ContractError, Detail, Hex, Name, Scalar, Strict
from bench.contract.keys import Key
from bench.data import DataError
from bench.data.walking import shown
from bench.identity import canonical
from bench.records.strictjson import parse_strict
from bench.registry import schemes

__all__ = ["About", "KeyFileError", "file_digest", "key_path", "load_key", "save_key"]

FILE_NAME = "key.safetensors"
MAX_FILE, MAX_HEADER, MAX_TENSORS = 1 << 30, 1 << 22, 1000
DTYPES = {
    torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64,
    torch.bfloat16, torch.float16, torch.float32, torch.float64,
}  # fmt: skip


class KeyFileError(DataError):
    """A file is not a key that can be used; one sentence says why and what to do."""


class About(Strict):
    """What a key file says beside the key's tensors.

    Attributes:
        scheme, params: what made the key and what verifies with it.
        values: the key's JSON values.
        size: height and width, in pixels, that the key was made for.
        options: what else was asked for, so that a resumed command can tell whether it is the same one.
        checksum: of all that and the tensors; it tells damage and edits, the file's published digest tells forgeries.
    """

    format: Literal["watermark-bench key"] = "watermark-bench key"
    version: Literal[2] = 2
    bench_version: Name = __version__
    scheme: Name
    params: dict[Name, Detail] = Field(default_factory=dict, max_length=200)
    values: dict[str, JsonValue] = Field(default_factory=dict, max_length=1000)
    size: tuple[Annotated[int, Field(ge=1, le=65_536)], Annotated[int, Field(ge=1, le=65_536)]]
    options: dict[Name, Scalar] = Field(default_factory=dict, max_length=100)
    checksum: Hex | None = None


def key_path(path: Path) -> Path:
    """The key's file: `path` itself if it is called `*.safetensors`, else `key.safetensors` in that folder."""
    return path if path.suffix == ".safetensors" else path / FILE_NAME


def save_key(path: Path, key: Key, about: About) -> Path:
    """Write a key, atomically and readable by its owner alone; returns the file.

    Raises:
        KeyFileError: the file cannot be written.
    """
    target = key_path(path)
    packed, values = key.packed()
    about = about.model_copy(update={"values": values})
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in packed.items()}
    about = about.model_copy(update={"checksum": _checksum(about, tensors)})
    content = save(tensors, {"about": about.model_dump_json()})
    part = target.with_name(f".{target.name}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        part.unlink(missing_ok=True)
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
    except OSError as error:
        raise KeyFileError(f"Expected to write the key to {target}, but cannot ({error}): choose --key.") from error
    return target


def load_key(path: Path) -> tuple[Key, About]:
    """The key in a file that `save_key` wrote, with its tensors on the CPU.

    Raises:
        KeyFileError: the file is missing, too large, damaged, or says something that no key says.
    """
    target = key_path(path)
    _check_sizes(target)
    try:
        with safe_open(target, framework="pt") as file:
            metadata, names = file.metadata() or {}, list(file.keys())
            if set(metadata) != {"about"} or len(names) > MAX_TENSORS:
                _refuse(target, f"{len(names)} tensors and the metadata {sorted(metadata)[:5]}")
            about = About.model_validate(parse_strict(metadata["about"]))
            tensors = {name: file.get_tensor(name) for name in names}
    except ValidationError as error:
        first = error.errors()[0]
        _refuse(target, f"{'.'.join(map(str, first['loc'])) or 'its metadata'}: {first['msg']}")
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        if isinstance(error, KeyFileError):
            raise
        _refuse(target, f"{type(error).__name__}: {str(error)[:200]}")
    if about.checksum != _checksum(about, tensors):
        _refuse(target, "one that was changed since: its checksum is another")
    for name, tensor in tensors.items():
        if tensor.dtype not in DTYPES or not bool(torch.isfinite(tensor).all()):
            _refuse(target, f"tensor {name[:80]!r} of {tensor.dtype} with values that no key has")
    return _unpacked(target, about, tensors), about


def _check_sizes(path: Path) -> None:
    """Refuse, before anything is parsed, what is no regular file of a key's size with a header of a key's size."""
    if not path.is_file():
        raise KeyFileError(
            f"Expected a key in {shown(path)}, but there is none: give the file or folder that `bench stamp` wrote."
        )
    size, head = path.stat().st_size, b""
    with contextlib.suppress(OSError), path.open("rb") as file:
        head = file.read(8)
    header = int.from_bytes(head, "little")
    if len(head) < 8 or size > MAX_FILE or header > min(MAX_HEADER, size - 8):
        _refuse(path, f"{size} bytes with a header of {header}")


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hex: of a key, what is published with the pictures.

    Raises:
        KeyFileError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise KeyFileError(f"Expected to read {shown(path)}, but cannot: {error}.") from error


def _unpacked(path: Path, about: About, tensors: Mapping[str, torch.Tensor]) -> Key:
    """The key of the scheme that the file names."""
    scheme = schemes().get(about.scheme)
    if scheme is None:
        _refuse(path, f"a key of {about.scheme!r}, which is not installed here")
    try:
        return scheme.key_type.unpacked(tensors, about.values)
    except ContractError as error:
        _refuse(path, str(error))


def _checksum(about: About, tensors: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 of everything else in the file, in hex."""
    sha = hashlib.sha256(canonical(about.model_dump(mode="json", exclude={"checksum"})).encode())
    for name, tensor in sorted(tensors.items()):
        sha.update(canonical([name, str(tensor.dtype), list(tensor.shape)]).encode())
        sha.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()


def _refuse(path: Path, got: str) -> NoReturn:
    raise KeyFileError(
        f"Expected {shown(path)} to be a key written by `bench stamp`, but got {got}: restore it from a copy."
    )
