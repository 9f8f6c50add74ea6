"""BCH codes: the textbook's tables, an exhaustive decoder as a second implementation, properties."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemes._bch import Block, Code, generator, strength

always_the_same = settings(deadline=None, derandomize=True, max_examples=150)
SEEDS = st.integers(0, 2**32)


def bits(rng: np.random.Generator, count: int) -> np.ndarray:
    return rng.integers(0, 2, count, dtype=np.uint8)


def flipped(rng: np.random.Generator, word: np.ndarray, count: int) -> np.ndarray:
    wrong = word.copy()
    wrong[rng.permutation(len(word))[:count]] ^= 1
    return wrong


# ---- known answers ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("m", "t", "octal"),
    [(3, 1, "13"), (4, 1, "23"), (4, 2, "721"), (4, 3, "2467"), (5, 1, "45"), (5, 2, "3551"), (5, 3, "107657"),
     (6, 2, "12471"), (8, 1, "435"), (8, 2, "267543")],
)  # fmt: skip
def test_generator_polynomials_are_those_of_the_textbook(m: int, t: int, octal: str) -> None:
    """Lin and Costello, Error Control Coding, 2nd edition, Appendix C, in octal."""
    assert generator(m, t) == int(octal, 8)


@pytest.mark.parametrize(
    ("n", "table"),
    [
        (15, {1: 11, 2: 7, 3: 5}),
        (31, {1: 26, 2: 21, 3: 16, 5: 11, 7: 6}),
        (63, {1: 57, 2: 51, 3: 45, 4: 39, 5: 36, 6: 30, 7: 24, 10: 18, 11: 16, 13: 10, 15: 7}),
        (255, {1: 247, 2: 239, 8: 191, 9: 187, 13: 155, 15: 139, 18: 131, 19: 123, 21: 115, 25: 91, 31: 55, 42: 47}),
    ],
)
def test_messages_are_as_long_as_in_the_textbook(n: int, table: dict[int, int]) -> None:
    """Lin and Costello, Table 6.1."""
    assert {t: Block(n, t).k for t in table} == table


# ---- one block -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("n", "t"), [(15, 2), (15, 3), (12, 2), (7, 1), (5, 1)])
def test_a_block_decodes_a_word_to_the_only_code_word_near_enough_or_to_none(n: int, t: int) -> None:
    """Any word, with any erasures, against the distances to all code words."""
    rng, block = np.random.default_rng(n), Block(n, t)
    messages = np.array(list(product([0, 1], repeat=block.k)), dtype=np.uint8)
    words = np.array([block.encode(message) for message in messages])
    distances = (words[:, None] != words).sum(2) + 99 * np.eye(len(words))
    assert distances.min() >= 2 * t + 1
    outcomes = []
    for _ in range(800):
        word, erased = bits(rng, n), np.zeros(n, bool)
        erased[rng.permutation(n)[: rng.integers(0, 2 * t + 2)]] = True
        far = 2 * (words[:, ~erased] != word[~erased]).sum(1) + erased.sum()
        found = block.decode(word, erased)
        outcomes.append(found is not None)
        if far.min() <= 2 * t:
            assert found is not None
            assert np.array_equal(found, messages[far.argmin()])
        else:
            assert found is None
    assert any(outcomes)
    assert not all(outcomes)


@always_the_same
@given(st.integers(1, 255), st.floats(0.05, 0.9, allow_subnormal=False), SEEDS)
def test_t_errors_and_erasures_for_two_are_corrected(n: int, redundancy: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    block = Block(n, strength(n, redundancy))
    message = bits(rng, block.k)
    errors = int(rng.integers(0, block.t + 1))
    places = rng.permutation(n)
    word, erased = block.encode(message), np.zeros(n, bool)
    assert np.array_equal(word[: block.k], message)
    word[places[:errors]] ^= 1
    erased[places[errors : errors + 2 * (block.t - errors)]] = True
    word[erased] = bits(rng, int(erased.sum()))
    found = block.decode(word, erased)
    assert found is not None
    assert np.array_equal(found, message)


@always_the_same
@given(st.integers(16, 255), SEEDS)
def test_what_is_decoded_is_a_word_within_t_errors_of_what_was_read(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    block = Block(n, strength(n, 0.5))
    word = flipped(rng, block.encode(bits(rng, block.k)), block.t + 1 + int(rng.integers(0, 3)))
    found = block.decode(word, np.zeros(n, bool))
    assert found is None or (block.encode(found) != word).sum() <= block.t


def test_more_erasures_than_parity_stands_are_no_message() -> None:
    block, erased = Block(31, 3), np.arange(31) < 7
    word = block.encode(np.zeros(16, np.uint8))
    assert block.decode(word, erased) is None
    assert block.decode(word, np.arange(31) < 6) is not None
    assert Block(5, 0).decode(word[:5], np.arange(5) < 1) is None, "without a code an erased bit is lost"


# ---- whole payloads --------------------------------------------------------------------------------------------------
@always_the_same
@given(st.integers(1, 1500), st.floats(0.05, 0.9, allow_subnormal=False), SEEDS)
def test_decoding_undoes_encoding_with_t_errors_in_every_block(length: int, redundancy: float, seed: int) -> None:
    rng, code = np.random.default_rng(seed), Code(length, redundancy)
    message = bits(rng, code.k)
    word = code.encode(message)
    assert len(word) == length == sum(block.n for block in code.blocks)
    starts = np.cumsum([0, *(block.n for block in code.blocks)])
    for block, start in zip(code.blocks, starts, strict=False):
        word[start : start + block.n] = flipped(rng, word[start : start + block.n], block.t)
    parts = code.decode(word, np.zeros(length, bool))
    assert np.array_equal(np.concatenate([part for part in parts if part is not None]), message)


@always_the_same
@given(st.integers(1, 1500), st.floats(0.05, 0.9, allow_subnormal=False))
def test_a_code_corrects_all_that_its_share_of_parity_pays_for(length: int, redundancy: float) -> None:
    code = Code(length, redundancy)
    lengths = {block.n for block in code.blocks}
    assert max(lengths) - min(lengths) <= 1
    assert max(lengths) <= 255
    for block in set(code.blocks):
        assert block.parity <= redundancy * block.n
        more = generator(max(3, block.n.bit_length()), block.t + 1).bit_length() - 1
        assert more > redundancy * block.n or more >= block.n
    assert 1 <= code.k <= length


def test_a_block_that_fails_leaves_the_others_their_messages() -> None:
    rng, code = np.random.default_rng(0), Code(510, 0.5)
    message = bits(rng, code.k)
    word = code.encode(message)
    word[:255] = bits(rng, 255)
    first, second = code.decode(word, np.zeros(510, bool))
    assert first is None
    assert second is not None
    assert np.array_equal(second, message[131:])
