"""Parameters, papers, variants, and the bounded types of stored numbers; needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, create_model
from pydantic_core import CoreSchema, core_schema

__all__ = [
    "JSON", "Configured", "ContractError", "Detail", "Field", "Finite", "Fraction", "Hex", "Name", "Paper", "Params",
    "Scalar", "Seconds", "Share", "Strict", "Text", "Variant", "ladder_of",
]  # fmt: skip

JSON = bool | int | float | str | None | list[Any]


class ContractError(TypeError):
    """A scheme or an attack does not keep the contract; the message says what was expected."""


Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._+@=-]*$")]
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


def ladder_of(
    *rungs: float,
    description: str,
    gt: float | None = None,
    ge: float | None = None,
    lt: float | None = None,
    le: float | None = None,
) -> type[Params]:
    """The parameters of an attack that has its strengths to choose and nothing else.

    Args:
        rungs: the strengths by default, from mild to destructive; whole numbers (pixels) where all are ints.
        description: what a strength is, and its unit.
        gt: every strength, the defaults included, is above it.
        ge: it is at least this.
        lt: it is below it.
        le: it is at most this.
    """
    bounds = Field(gt=gt, ge=ge, lt=lt, le=le)
    whole = all(isinstance(rung, int) for rung in rungs)
    kind: Any = tuple[Annotated[int, bounds], ...] if whole else tuple[Annotated[float, bounds], ...]
    ladder = Field(rungs, description=description, validate_default=True)
    return create_model("Ladder", __base__=Params, __doc__="How strong.", ladder=(kind, ladder))


@dataclass(frozen=True)
class Share:
    """A part of the training set: `all` of it, a fraction (a float between 0 and 1), or a number of images (an int).

    1.0 is refused: it would be all images as a fraction and a single one as a number. As JSON it is the value itself.
    """

    value: float | int | Literal["all"]

    @classmethod
    def parse(cls, value: object) -> Share:
        """A share as it is typed or stored.

        Raises:
            ValueError: it is none of the three.
        """
        if isinstance(value, Share):
            return value
        text = value.strip() if isinstance(value, str) else None
        if text == "all":
            return cls("all")
        if text is not None:
            value = int(text) if text.isdecimal() else float(text)
        if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
            return cls(value)
        if isinstance(value, float) and 0 < value < 1:
            return cls(value)
        raise ValueError("Expected `all`, a fraction between 0 and 1, or a whole number of images from 1 on")

    @property
    def whole(self) -> bool:
        """Whether it is all of the training set."""
        return self.value == "all"

    def count(self, total: int) -> int:
        """How many of `total` images it is; 0 where a fraction of them is less than half an image."""
        if self.value == "all":
            return total
        return self.value if isinstance(self.value, int) else round(self.value * total)

    def __str__(self) -> str:
        return str(self.value)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Parsed by `parse`, written as its value."""
        write = core_schema.plain_serializer_function_ser_schema(lambda share: share.value)
        return core_schema.no_info_plain_validator_function(cls.parse, serialization=write)


@dataclass(frozen=True)
class Paper:
    """Where a method comes from."""

    title: str
    authors: str
    year: int
    link: str
    code: str | None = None


@dataclass(frozen=True)
class Variant:
    """Another name for a class with other defaults; listed, chosen and recorded like a class of its own.

    Attributes:
        presets: parameter -> its default under this name; `--set` overrides it.
        card: fields of the card that differ, by name (`paper`, `extensions`, `tiny`, `scales` ...).
    """

    name: str
    title: str
    presets: Mapping[str, JSON] = field(default_factory=dict)
    card: Mapping[str, Any] = field(default_factory=dict)


class Configured:
    """What schemes and attacks share: a card, validated parameters, and variants of these."""

    card: ClassVar[Any]
    Params: ClassVar[type[Params]] = Params
    variants: ClassVar[tuple[Variant, ...]] = ()

    def __init__(self, **params: Any) -> None:
        self.params: Any = self.Params(**params)
