"""Names, digests and random streams."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bench.identity import Rng, canonical, digest

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=5), JSON, min_size=1, max_size=5))
def test_digest_ignores_the_order_of_fields(fields: dict) -> None:
    shuffled = list(fields.items())
    random.Random(0).shuffle(shuffled)
    assert digest(dict(shuffled)) == digest(fields)


@given(st.dictionaries(st.text(max_size=5), JSON, min_size=1, max_size=5), st.data())
def test_changing_any_field_changes_the_digest(fields: dict, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(fields)))
    assert digest({**fields, name: [fields[name], "changed"]}) != digest(fields)


def test_nan_is_refused() -> None:
    with pytest.raises(ValueError):
        canonical({"x": float("nan")})


def test_streams_are_named_not_ordered() -> None:
    first = torch.rand(3, generator=Rng("a", 0).torch("payload"))
    Rng("a", 0).torch("projection")
    assert torch.equal(first, torch.rand(3, generator=Rng("a").child(0, "payload").torch()))
    assert not torch.equal(first, torch.rand(3, generator=Rng("a", 1).torch("payload")))


def test_numbers_and_their_texts_are_different_names() -> None:
    assert Rng("seed", 1).seed != Rng("seed", "1").seed


def test_a_known_seed_never_moves() -> None:
    """If this changes, no stored record can be rebuilt any more."""
    assert Rng("uchida-random", 0, "payload").seed == 8121653527984297827
    expected = "c987ffa2d30c971dc497669112f77ecb5f56fb3fa25d1643ff3f8d61cce41d1e"
    assert digest({"b": 1, "a": [1.5, None, True]}) == expected


def test_global_generators_are_left_alone() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    torch.rand(5, generator=Rng("x").torch())
    assert torch.equal(before, torch.get_rng_state())
