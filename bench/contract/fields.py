"""Parameters, keys, papers, and the bounded types that stored numbers have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:  # records are read without torch, which takes seconds to import
    import torch
    from torch import Tensor

__all__ = [
    "JSON",
    "Capacity",
    "Configured",
    "ContractError",
    "Detail",
    "Field",
    "Finite",
    "Fraction",
    "Hex",
    "Key",
    "Name",
    "Paper",
    "Params",
    "Scalar",
    "Seconds",
    "Strict",
    "Text",
]


JSON = bool | int | float | str | None | list[Any]


class ContractError(TypeError):
    """A scheme or an attack does not keep the contract; the message says what was expected."""


Name = Annotated[str, Field(min_length=1, max_length=80, pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._+@-]*$")]
Text = Annotated[str, Field(max_length=20_000)]
Hex = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Seconds = Annotated[float, Field(ge=0.0, lt=1e9)]
Finite = Annotated[float, Field(ge=-1e30, le=1e30)]
Scalar = bool | Annotated[int, Field(ge=-(2**63), lt=2**63)] | Finite | Annotated[str, Field(max_length=2000)] | None
Detail = Scalar | Annotated[list[Scalar], Field(max_length=20_000)]


class Strict(BaseModel):
    """Base of everything stored: no unknown fields, no NaN, frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Params(BaseModel):
    """Hyper-parameters of a scheme or an attack: typed fields whose defaults are the paper's values.

    Give each a bound and a description, `bits: int = Field(256, ge=1, description="payload length")`, and it is
    settable as `--set scheme.bits=128`, shown by `bench show` and part of every record.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


@dataclass(frozen=True)
class Paper:
    """Where a method comes from."""

    title: str
    authors: str
    year: int
    link: str
    code: str | None = None


class Configured:
    """What schemes and attacks share: a card, and validated parameters."""

    card: ClassVar[Any]
    Params: ClassVar[type[Params]] = Params

    def __init__(self, **params: Any) -> None:
        self.params: Any = self.Params(**params)


@dataclass(frozen=True)
class Key:
    """All secrets of one owner; stored as safetensors and JSON, never as a pickle.

    Attributes:
        tensors: for instance the projection matrix, the payload bits or the trigger images.
        values: JSON values, for instance the embedded layer's name or a target class.
        history: no secret: what key generation that trains has to show, by name a number per epoch (`loss of W`).
    """

    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    values: Mapping[str, JSON] = field(default_factory=dict)
    history: Mapping[str, Sequence[float]] = field(default_factory=dict)

    def to(self, device: torch.device | str) -> Key:
        """The same key with its tensors on `device`."""
        return replace(self, tensors={name: tensor.to(device) for name, tensor in self.tensors.items()})


@dataclass(frozen=True)
class Capacity:
    """What a mark can say.

    Attributes:
        bits: payload bits carried; for a signature space log2 of its distinguishable keys.
        limit: an upper bound known for this host, or None.
    """

    bits: float
    limit: float | None = None
