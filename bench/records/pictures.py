"""Sample pictures of marks and of what attacks left of them: the rows of `pictures.json` in a run directory."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated

from pydantic import AfterValidator, Field, TypeAdapter

from bench.contract.fields import Name, Strict
from bench.records.record import AttackName, Params
from bench.records.rowfile import RowFile

__all__ = ["PICTURES", "PictureRow"]

MAGIC = b"\x89PNG\r\n\x1a\n"
MOST_PIXELS = 4096  # of a side


def _png(text: str) -> str:
    """A small PNG file in base64.

    Raises:
        ValueError: it is none.
    """
    try:
        content = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError("Expected base64.") from error
    sides = [int.from_bytes(content[at : at + 4], "big") for at in (16, 20)]
    if not (content.startswith(MAGIC) and content[12:16] == b"IHDR" and all(1 <= s <= MOST_PIXELS for s in sides)):
        raise ValueError(f"Expected a PNG of at most {MOST_PIXELS} pixels a side.")
    return text


class PictureRow(Strict):
    """A few images beside one another.

    Attributes:
        what: `before` and `after` the mark, `triggers`, or the name of the attack that left them so.
        images: how many.
        png: the picture, PNG in base64.
    """

    scheme: Name
    scheme_params: Params
    dataset: Name
    profile: Name
    what: AttackName
    images: Annotated[int, Field(ge=1, le=100)]
    png: Annotated[str, Field(max_length=400_000), AfterValidator(_png)]

    @property
    def about(self) -> str:
        """What is shown: a later picture of the same takes this one's place."""
        return self.model_dump_json(exclude={"images", "png"})


PICTURES: RowFile[PictureRow] = RowFile(
    "pictures.json", "bench run", TypeAdapter(list[PictureRow]), lambda row: row.about
)
