"""Owners' keys: typed dataclasses of tensors and JSON values, packed for storage without pickles."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Self, get_type_hints

import torch
from pydantic import ConfigDict, TypeAdapter, ValidationError
from torch import Tensor

from bench.contract.fields import JSON, ContractError

__all__ = ["Capacity", "Key"]


@dataclass(frozen=True)
class Key:
    """Base of all keys: a frozen dataclass whose fields are the secrets of one owner.

    A field is a tensor, a mapping of names to tensors, a JSON value, or None. Training histories are no part of it:
    see `Host.note`.

    Attributes:
        public: names of the fields that an adversary may be told, if the attack's card asks for them.

    Example:
        >>> @dataclass(frozen=True)
        ... class BitsKey(Key):
        ...     payload: Tensor
        ...     layer: str
        ...     public = ("layer",)
    """

    public: ClassVar[tuple[str, ...]] = ()

    def to(self, device: torch.device | str) -> Self:
        """The same key with its tensors on `device`."""
        moved = {field.name: _moved(getattr(self, field.name), device) for field in fields(self)}
        return replace(self, **moved)

    def packed(self) -> tuple[dict[str, Tensor], dict[str, JSON]]:
        """Tensors by name (`field`, or `field/name` of a mapping), and JSON values by field.

        Raises:
            ContractError: a field holds something else.
        """
        tensors: dict[str, Tensor] = {}
        values: dict[str, JSON] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                tensors[field.name] = value
            elif isinstance(value, Mapping):
                tensors |= {f"{field.name}/{name}": tensor for name, tensor in value.items()}
            elif value is None or isinstance(value, bool | int | float | str | list | tuple):
                values[field.name] = list(value) if isinstance(value, tuple) else value
            else:
                raise ContractError(
                    f"Expected {type(self).__name__}.{field.name} to be a tensor, a mapping of tensors or a JSON "
                    f"value, but got {type(value).__name__}: store numbers as float or int."
                )
        return tensors, values

    @classmethod
    def unpacked(cls, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> Self:
        """The key that `packed` took apart.

        Raises:
            ContractError: a field is missing, unknown, or not of its type.
        """
        hints, found = get_type_hints(cls), dict[str, Any]()
        groups = {name.partition("/")[0] for name in tensors}
        unknown = sorted(({*groups, *values}) - {field.name for field in fields(cls)})
        if unknown:
            raise ContractError(f"Expected fields of {cls.__name__}, but got {', '.join(unknown)}: make the key anew.")
        for field in fields(cls):
            prefix = f"{field.name}/"
            if field.name in tensors:
                value: Any = tensors[field.name]
            elif field.name in values:
                value = values[field.name]
            else:
                value = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
            found[field.name] = _typed(cls, field.name, hints[field.name], value)
        return cls(**found)


@dataclass(frozen=True)
class Capacity:
    """What a mark can say.

    Attributes:
        bits: payload bits carried; for a signature space log2 of its distinguishable keys.
        limit: an upper bound known for this host, or None; with an error-correcting code, of the coded bits.
        most: the payload that no key of this scheme can exceed on this host, or None.
    """

    bits: float
    limit: float | None = None
    most: float | None = None


def _moved(value: Any, device: torch.device | str) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    return {name: tensor.to(device) for name, tensor in value.items()} if isinstance(value, Mapping) else value


def _typed(cls: type, name: str, hint: Any, value: Any) -> Any:
    """The stored value, if it is of the field's type; a list passes as a tuple, a whole number as a float."""
    try:
        if isinstance(value, Tensor | Mapping):
            return TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True)).validate_python(value)
        return TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True)).validate_json(
            json.dumps(value, allow_nan=False), strict=True
        )
    except (ValidationError, ValueError) as error:
        raise ContractError(
            f"Expected {cls.__name__}.{name} to be of its declared type, but got {value!r:.60}: make the key anew."
        ) from error
