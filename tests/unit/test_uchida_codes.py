"""Messages in error-correcting codes: what is corrected, what is erased, and what a code word proves."""

import numpy as np
import pytest
import torch

from bench.api import Capacity, Rng, bits_p_value
from schemes.uchida import UchidaRandom
from tests.unit.uchida_networks import UchidaDirect, host_of, network, verdict, weight_of


def errors_at(key, places):
    """The projection of a marked network (of ones, one weight a bit) with errors at these bits, erasures at -1 - i."""
    signs = 2.0 * key.payload.float() - 1
    for place in places:
        if place >= 0:
            signs[place] *= -1
        else:
            signs[-1 - place] = 0
    return signs


def coded(bits=64, seed=0, **params):
    """A direct key of so many bits with a code, a network, and what writes signs to its bits."""
    owner, model = UchidaDirect(bits=bits, code="bch", **params), network()
    key = owner.keygen(host_of(), Rng("owner", seed))

    def write(signs):
        w = key.projection.T @ signs
        weight_of(model).copy_(w.view(1, 16, 3, 3).expand_as(weight_of(model)))

    return owner, key, model, write


def test_a_message_survives_as_many_errors_as_the_code_corrects():
    owner, key, model, write = coded()
    (block,) = owner.code.blocks
    assert (block.n, block.k, block.t) == (64, 36, 4)
    assert key.message.shape == (36,)
    for places in ([], [0, 9, 40, 63], [0, 9, -41, -42, -43, -44], [-1 - i for i in range(8)]):
        write(errors_at(key, places))
        found = verdict(owner, model, key)
        assert found.ber == 0, places
        assert found.payload == "".join(map(str, key.message.tolist()))
        assert found.details["raw_ber"] == sum(1.0 if place >= 0 else 0.5 for place in places) / 64
        assert (found.details["blocks"], found.details["undecoded"]) == (1, 0)


def test_erased_bits_are_not_read_as_the_owners():
    owner, key, model, write = coded()
    write(errors_at(key, [-1 - i for i in range(9)]))
    found = verdict(owner, model, key)
    assert (found.ber, found.details["undecoded"]) == (0.5, 1)


def test_a_block_that_cannot_be_decoded_is_no_message():
    owner, key, model, write = coded(bits=128, redundancy=0.4)
    write(errors_at(key, range(0, 128, 6)))
    found = verdict(owner, model, key)
    assert found.payload == "?" * owner.code.k
    assert found.ber == 0.5
    assert found.details["undecoded"] == 1
    assert found.p_value == bits_p_value(22, 128), "the raw bits are evidence still"
    assert found.statistic == pytest.approx(1 - 2 * 22 / 128)


def test_what_no_code_decodes_reads_as_it_did():
    """The payload and its p-value are those of the same key without a code."""
    owner, key, model, write = coded()
    plain = UchidaDirect(bits=64).keygen(host_of(), Rng("owner", 0))
    assert torch.equal(plain.payload, key.payload)
    assert torch.equal(plain.projection, key.projection)
    assert plain.message is None
    write(errors_at(key, [1, 2, 3]))
    one, other = verdict(owner, model, key), verdict(UchidaDirect(bits=64), model, plain)
    assert (one.p_value, one.statistic) == (other.p_value, other.statistic)
    assert (one.ber, other.ber) == (0.0, 3 / 64)
    assert owner.capacity(host_of()) == Capacity(36, 144, 144)


def test_message_and_payload_say_nothing_of_each_other():
    keys = [UchidaRandom(bits=32, code="bch").keygen(host_of(), Rng(i)) for i in range(400)]
    payloads = torch.stack([key.payload for key in keys]).double()
    messages = torch.stack([key.message for key in keys]).double()
    assert messages.shape == (400, 20)
    table = torch.corrcoef(torch.cat([payloads, messages], 1).T)
    assert table.fill_diagonal_(0).abs().max() < 4.5 / 400**0.5


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_network_that_reads_as_a_code_word_is_no_owner(sign):
    """All ones and all zeros are words of a code: without a mask they would match a payload far too often."""
    claims, decoded = [], 0
    for i in range(300):
        owner, key, model, write = coded(bits=15, seed=i, redundancy=0.7)
        write(sign * torch.ones(15))
        found = verdict(owner, model, key)
        claims.append(found.p_value)
        decoded += found.ber == 0
    assert owner.code.k == 5
    for level in (0.05, 0.1, 0.3):
        attainable = max([p for p in (bits_p_value(e, 15) for e in range(8)) if p <= level])
        sd = (attainable * (1 - attainable) / 300) ** 0.5
        assert np.mean(np.array(claims) <= level) == pytest.approx(attainable, abs=3.5 * sd)
    assert decoded / 300 == pytest.approx(576 / 2**15, abs=3.5 * (576 / 2**15 / 300) ** 0.5), "the ball of radius 3"


@pytest.mark.parametrize("bits", [7, 15, 31, 64, 255, 256, 510, 1000])
@pytest.mark.parametrize("redundancy", [0.2, 0.5, 0.8])
def test_the_payloads_p_value_is_never_above_the_chance_of_guessing_the_message(bits, redundancy):
    """With as many errors as the decoder corrects, or fewer."""
    code = UchidaRandom(bits=bits, code="bch", redundancy=redundancy).code
    errors = sum(block.t for block in code.blocks)
    assert bits_p_value(errors, bits, two_sided=False) <= 2.0**-code.k
