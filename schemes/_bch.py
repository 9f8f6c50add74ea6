"""Binary BCH codes: messages that survive errors of the bits that carry them.

Bose and Ray-Chaudhuri 1960, https://doi.org/10.1016/S0019-9958(60)90287-4; Hocquenghem 1959. A binary BCH code of
designed distance 2 t + 1 is what a Reed-Solomon code over GF(2^m) with the roots a, a^2, ..., a^(2t) holds of words of
zeros and ones, so `reedsolo`'s decoder decodes it. Bits that err independently of each other are its case: with half
of 255 bits for parity and a failure of 1 %, it stands 4.1 % of errors, 32 Reed-Solomon symbols of eight bits 1.6 %.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from reedsolo import RSCodec

__all__ = ["Block", "Code"]

LONGEST = 255  # bits of a block: the library decodes in Python, with a cost of n t
SMALLEST_FIELD = 3  # m


@dataclass(frozen=True)
class Block:
    """A BCH code of n bits, shortened from 2^m - 1, that corrects t errors; t = 0 is no code.

    Attributes:
        n: bits of a word, 1 to 255: first the message, then the parity.
        t: errors that are corrected.
    """

    n: int
    t: int

    @property
    def parity(self) -> int:
        """Bits of a word that are no message: the degree of the generator polynomial."""
        return generator(_field(self.n), self.t).bit_length() - 1

    @property
    def k(self) -> int:
        """Bits of a message."""
        return self.n - self.parity

    def encode(self, message: np.ndarray) -> np.ndarray:
        """The word (n, uint8) of a message (k, uint8): the message, then its remainder."""
        shifted = int("".join(map(str, message)), 2) << self.parity
        rest = _remainder(shifted, generator(_field(self.n), self.t))
        tail = np.array([rest >> place & 1 for place in reversed(range(self.parity))], dtype=np.uint8)
        return np.concatenate([message.astype(np.uint8), tail])

    def decode(self, word: np.ndarray, erased: np.ndarray) -> np.ndarray | None:
        """The message (k, uint8) of the only word that is near enough; None if there is none.

        Near enough: 2 * errors + erasures <= 2 t.

        Args:
            word: n, uint8.
            erased: n, bool: bits that were not read.
        """
        if not self.t:
            return None if erased.any() else word.astype(np.uint8)
        from reedsolo import ReedSolomonError

        places = np.flatnonzero(erased).tolist()
        try:
            _, whole, _ = _codec(_field(self.n), self.t).decode(bytes(word.tolist()), erase_pos=places)
        except ReedSolomonError:
            return None
        found = np.frombuffer(bytes(whole), dtype=np.uint8)
        # Where bits are erased, the library finds words of other symbols than bits, and some that are farther off.
        distance = 2 * int((found != word)[~erased].sum()) + len(places)
        return found[: self.k].copy() if found.max() <= 1 and distance <= 2 * self.t else None


@dataclass(frozen=True)
class Code:
    """How messages stand in a payload: blocks of equal length, up to one bit, each with a code of its own.

    Attributes:
        bits: length of the payload.
        redundancy: the share of a block that its parity may take; it corrects what that pays for.
    """

    bits: int
    redundancy: float

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """As few as hold the payload."""
        count = -(-self.bits // LONGEST)
        lengths = [self.bits // count + (number < self.bits % count) for number in range(count)]
        return tuple(Block(n, strength(n, self.redundancy)) for n in lengths)

    @property
    def k(self) -> int:
        """Bits of the message."""
        return sum(block.k for block in self.blocks)

    def encode(self, message: np.ndarray) -> np.ndarray:
        """The word (`bits`, uint8) of a message (k, uint8)."""
        parts = np.split(message, np.cumsum([block.k for block in self.blocks])[:-1])
        return np.concatenate([block.encode(part) for block, part in zip(self.blocks, parts, strict=True)])

    def decode(self, word: np.ndarray, erased: np.ndarray) -> list[np.ndarray | None]:
        """The message of each block in order (k of the block, uint8); None where too many bits are wrong.

        Args:
            word: `bits`, uint8.
            erased: `bits`, bool: bits that were not read.
        """
        ends = np.cumsum([block.n for block in self.blocks])[:-1]
        parts: Sequence[tuple[np.ndarray, np.ndarray]] = list(
            zip(np.split(word, ends), np.split(erased, ends), strict=True)
        )
        return [block.decode(*part) for block, part in zip(self.blocks, parts, strict=True)]


@cache
def strength(n: int, redundancy: float) -> int:
    """The most errors t that a block of n bits corrects with at most n * redundancy bits of parity."""
    t = 0
    while (parity := generator(_field(n), t + 1).bit_length() - 1) <= n * redundancy and parity < n:
        t += 1
    return t


@cache
def generator(m: int, t: int) -> int:
    """The product of the minimal polynomials of a, a^3, ..., a^(2t - 1) over GF(2), its coefficients as bits.

    a is the library's primitive element of GF(2^m).
    """
    codec, order = _codec(m, 1), 2**m - 1
    roots = {root * 2**power % order for root in range(1, 2 * t, 2) for power in range(m)}
    coefficients = [1]  # of x^0, x^1, ...
    for root in sorted(roots):
        scaled = [codec.gf_exp[(codec.gf_log[c] + root) % order] if c else 0 for c in coefficients]
        coefficients = [low ^ high for low, high in zip([*scaled, 0], [0, *coefficients], strict=True)]
    return sum(bit << place for place, bit in enumerate(coefficients))


@cache
def _codec(m: int, t: int) -> RSCodec:
    from reedsolo import RSCodec

    return RSCodec(2 * t, nsize=2**m - 1, fcr=1, c_exp=m)


def _field(n: int) -> int:
    """The smallest m whose words of 2^m - 1 bits hold n."""
    return max(SMALLEST_FIELD, n.bit_length())


def _remainder(dividend: int, divisor: int) -> int:
    """Of polynomials over GF(2) whose coefficients are bits."""
    length = divisor.bit_length()
    while (excess := dividend.bit_length() - length) >= 0:
        dividend ^= divisor << excess
    return dividend
