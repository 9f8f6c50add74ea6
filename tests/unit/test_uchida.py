"""Uchida et al.: known answers, invariants and a second implementation; no network is trained."""

import inspect

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bench.api import Capacity, Rng, bits_p_value, replace
from schemes.uchida import UchidaPosthoc, UchidaRandom, mean_filter
from tests.unit.uchida_networks import (
    ALL,
    LAYER,
    NO_BATCH,
    TRAINED,
    UchidaDiff,
    UchidaDirect,
    host_of,
    network,
    read_by_hand,
    verdict,
    weight_of,
    with_payload,
)

# --- keys


def test_projection_of_each_key_type():
    host, rng = host_of(), Rng("owner", 0)
    direct = UchidaDirect(bits=144).keygen(host, rng).projection
    assert direct.shape == (144, 144)
    assert torch.equal(direct.sum(0), torch.ones(144))
    assert torch.equal(direct.sum(1), torch.ones(144))
    assert set(direct.unique().tolist()) == {0.0, 1.0}
    diff = UchidaDiff(bits=72).keygen(host, rng).projection
    assert torch.equal(diff.abs().sum(0), torch.ones(144))
    assert torch.equal(diff.max(1).values, torch.ones(72))
    assert torch.equal(diff.min(1).values, -torch.ones(72))
    assert (diff != 0).sum(1).eq(2).all()
    random = UchidaRandom(bits=300).keygen(host, rng).projection
    assert random.shape == (300, 144)
    assert random.dtype == torch.float32
    assert abs(random.mean().item()) < 0.02
    assert abs(random.std().item() - 1) < 0.02


@pytest.mark.parametrize("scheme", ALL)
def test_key_is_a_function_of_its_stream(scheme):
    host, owner = host_of(), scheme(bits=32)
    one, same, other = (owner.keygen(host, Rng("owner", i)) for i in (0, 0, 1))
    for name in ("projection", "payload"):
        assert torch.equal(getattr(one, name), getattr(same, name))
        assert not torch.equal(getattr(one, name), getattr(other, name))
    assert one.payload.dtype == torch.uint8
    assert one.packed()[1] == {"layer": LAYER, "message": None}
    assert one.public == ("layer",), "the secrets stay secret"


def test_payload_bits_are_fair():
    bits = torch.cat([UchidaRandom().keygen(host_of(), Rng(i)).payload for i in range(40)])
    assert len(bits) == 40 * 256
    assert abs(bits.double().mean().item() - 0.5) < 3 * 0.5 / len(bits) ** 0.5


@pytest.mark.parametrize(("scheme", "most"), [(UchidaDirect, 144), (UchidaDiff, 72)])
def test_too_many_bits_for_the_layer(scheme, most):
    scheme(bits=most).keygen(host_of(), Rng(0))
    with pytest.raises(ValueError, match=rf"at most {most} bits .* got {most + 1}.*--set {scheme.card.name}\.bits="):
        scheme(bits=most + 1).keygen(host_of(), Rng(0))


@pytest.mark.parametrize(("channels", "dimension"), [(64, 576), (128, 1152), (256, 2304)])
def test_dimension_and_capacity_of_the_papers_layers(channels, dimension):
    host = host_of(channels, channels)
    assert mean_filter(host.model(), LAYER).shape == (dimension,)
    assert UchidaRandom().capacity(host) == Capacity(256, 2 * dimension)
    assert UchidaPosthoc(bits=64).capacity(host) == Capacity(64, 2 * dimension)
    assert UchidaDirect().capacity(host) == Capacity(256, dimension, most=dimension)
    assert UchidaDiff().capacity(host) == Capacity(256, dimension / 2, most=dimension / 2)


def test_dimension_counts_inputs_not_filters():
    assert mean_filter(network(inputs=8, filters=32), LAYER).shape == (72,)


@pytest.mark.parametrize("scheme", ALL)
def test_cards(scheme):
    card = scheme.card
    assert (card.carrier, card.access, card.payload, card.stand_alone) == ("weights", "white-box", "multi-bit", True)
    assert scheme().params.bits == 256
    assert scheme(**card.tiny).params.bits == 16
    assert not inspect.isabstract(scheme)
    assert (card.situations == ("post-hoc",)) == (scheme is UchidaPosthoc)
    assert scheme().params.strength == (10.0 if scheme is UchidaPosthoc else 0.01)


# --- the embedding loss


def test_loss_is_lambda_times_the_sum_over_bits():
    scheme, model = UchidaRandom(), network()
    key = scheme.keygen(host_of(), Rng(0))
    y, b = read_by_hand(model, key), key.payload.double().numpy()
    p = 1 / (1 + np.exp(-y))
    expected = -0.01 * np.sum(b * np.log(p) + (1 - b) * np.log(1 - p))
    assert scheme.embedding_loss(model, key, NO_BATCH).item() == pytest.approx(expected, rel=1e-5)
    assert verdict(scheme, model, key).details["embedding_loss"] == pytest.approx(expected / 2.56, rel=1e-5)


@pytest.mark.parametrize("scheme", TRAINED)
def test_gradient_is_the_papers_for_every_filter(scheme):
    owner, model = scheme(bits=48, strength=0.3), network(16, 10)
    key = owner.keygen(host_of(16, 10), Rng(0))
    owner.embedding_loss(model, key, NO_BATCH).backward()
    y, b = read_by_hand(model, key), key.payload.double().numpy()
    X = key.projection.double().numpy()
    expected = torch.from_numpy(0.3 / 10 * X.T @ (1 / (1 + np.exp(-y)) - b)).float()
    gradient = model.net.block.conv.weight.grad.flatten(1)
    assert gradient.shape == (10, 144)
    for row in gradient:
        torch.testing.assert_close(row, expected, rtol=1e-4, atol=1e-7)


def test_loss_follows_the_weights_and_the_parameter_that_bears_the_name():
    scheme, model = UchidaRandom(bits=32), network()
    key = scheme.keygen(host_of(), Rng(0))
    before = scheme.embedding_loss(model, key, NO_BATCH).item()
    model.net.block.conv = nn.Conv2d(16, 16, 3)
    nn.init.zeros_(model.net.block.conv.weight)
    after = scheme.embedding_loss(model, key, NO_BATCH)
    assert before != pytest.approx(after.item())
    assert after.item() == pytest.approx(0.01 * 32 * np.log(2), rel=1e-6)
    after.backward()
    assert model.net.block.conv.weight.grad is not None


def test_loss_keeps_float32_under_autocast():
    scheme, model = UchidaRandom(), network()
    key = scheme.keygen(host_of(), Rng(0))
    plain = scheme.embedding_loss(model, key, NO_BATCH)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = scheme.embedding_loss(model, key, NO_BATCH)
    assert mixed.dtype == torch.float32
    assert mixed.item() == plain.item()


@pytest.mark.parametrize("scheme", TRAINED)
def test_decay_spares_the_embedded_tensor_unless_asked(scheme):
    key = scheme(bits=16).keygen(host_of(), Rng(0))
    (name,) = scheme(bits=16).undecayed(key)
    assert name in dict(network().named_parameters())
    assert scheme(bits=16, decay=True).undecayed(key) == ()


@pytest.mark.parametrize("scheme", TRAINED)
def test_embedding_dynamics_reach_ber_0(scheme):
    """With the paper's lambda and optimiser, on the convolution alone, and on no other key."""
    owner, model = scheme(bits=64), network()
    key, other = (owner.keygen(host_of(), Rng("owner", i)) for i in range(2))
    assert 0.25 < verdict(owner, model, key).ber < 0.75
    sgd = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True)
    for _ in range(1000 if scheme is not UchidaRandom else 200):
        sgd.zero_grad()
        owner.embedding_loss(model, key, NO_BATCH).backward()
        sgd.step()
    found = verdict(owner, model, key)
    assert found.ber == 0
    assert found.statistic == 1
    assert found.p_value == pytest.approx(2**-63)
    assert found.payload == "".join(map(str, key.payload.tolist()))
    assert found.details["erased_bits"] == 0
    assert found.details["margin_mean"] > 0
    assert found.queries == 0
    assert verdict(owner, model, other).p_value > 0.01


# --- Eq. 6


def post_hoc(strength, draws=3):
    """Half squared distance, mean loss and BER for ||w0|| = 2, M = 576, T = 256, averaged over draws."""
    scheme, host = UchidaPosthoc(strength=strength), host_of(64, 64)
    rows = []
    for draw in range(draws):
        model = network(64, 64, seed=draw)
        w0 = torch.randn(576, generator=Rng("w0", draw).torch())
        w0 *= 2 / w0.norm()
        weight_of(model).add_((w0 - mean_filter(model, LAYER)).view(64, 3, 3))
        key = scheme.keygen(host, Rng("owner", draw))
        assert scheme.mark_model(model, key, host) is model
        found = verdict(scheme, model, key)
        distance = (mean_filter(model, LAYER) - w0).square().sum().item() / 2
        rows.append((distance, found.details["embedding_loss"], found.ber))
    return np.mean(rows, axis=0)


def test_posthoc_gives_table_7():
    distance, loss, ber = post_hoc(1.0)
    assert distance == pytest.approx(0.19, abs=0.02)
    assert loss == pytest.approx(0.57, abs=0.05)
    assert ber == pytest.approx(0.28, abs=0.05)
    distance, loss, ber = post_hoc(10.0)
    assert distance == pytest.approx(1.6, abs=0.1)
    assert loss == pytest.approx(0.14, abs=0.02)
    assert ber == 0
    distance, loss, ber = post_hoc(0.0)
    assert distance < 1e-9
    assert loss == pytest.approx(1.07, abs=0.1)
    assert ber == pytest.approx(0.5, abs=0.06)


def test_posthoc_is_the_minimum_and_moves_every_filter_alike():
    """The objective is strongly convex: where its gradient vanishes is its only minimum."""
    scheme, model = UchidaPosthoc(bits=32, strength=5.0), network(filters=12)
    key = scheme.keygen(host_of(), Rng(0))
    before, w0 = weight_of(model).clone(), mean_filter(model, LAYER).detach()
    scheme.mark_model(model, key, host_of())
    change = (weight_of(model) - before).flatten(1)
    assert change.abs().max() > 1e-3
    torch.testing.assert_close(change, change[:1].expand_as(change), rtol=0, atol=1e-6)
    w = mean_filter(model, LAYER).detach().requires_grad_()
    y = key.projection @ w
    loss = F.binary_cross_entropy_with_logits(y, key.payload.float())
    ((w - w0).square().sum() / 2 + 5.0 * loss).backward()
    assert w.grad.norm() < 1e-4


def test_posthoc_adds_nothing_while_training():
    scheme, model = UchidaPosthoc(bits=16), network()
    key = scheme.keygen(host_of(), Rng(0))
    assert scheme.embedding_loss(model, key, NO_BATCH) is None


# --- reading


@pytest.mark.parametrize("scheme", ALL)
def test_verdict_agrees_with_a_second_implementation(scheme):
    owner, model = scheme(bits=48), network(16, 10, seed=5)
    key = owner.keygen(host_of(16, 10), Rng(0))
    y, b = read_by_hand(model, key), key.payload.numpy()
    errors = int(((y > 0) != b).sum())
    found = verdict(owner, model, key)
    assert found.payload == "".join("1" if value > 0 else "0" for value in y)
    assert found.ber == errors / 48
    assert found.statistic == pytest.approx(abs(1 - 2 * errors / 48))
    assert found.p_value == bits_p_value(errors, 48)
    assert found.details["margin_mean"] == pytest.approx(np.mean((2.0 * b - 1) * y), rel=1e-4)


def test_order_of_filters_does_not_matter_and_order_of_inputs_does():
    """On marked models: BER 0 stays 0 under the former, and becomes chance over 100 keys under the latter."""
    scheme, host = UchidaPosthoc(bits=64), host_of()
    bers = []
    for i in range(100):
        model, key = network(seed=i), scheme.keygen(host, Rng("owner", i))
        scheme.mark_model(model, key, host)
        marked = verdict(scheme, model, key)
        assert marked.ber == 0
        shuffle = Rng("shuffle", i).torch()
        weight_of(model).copy_(weight_of(model)[torch.randperm(16, generator=shuffle)])
        assert verdict(scheme, model, key).payload == marked.payload
        shift = int(torch.randint(1, 16, (1,), generator=shuffle))
        weight_of(model).copy_(weight_of(model).roll(shift, 1))
        bers.append(verdict(scheme, model, key).ber)
    assert np.mean(bers) == pytest.approx(0.5, abs=0.02)
    assert np.std(bers) == pytest.approx(0.5 / 64**0.5, rel=0.25)


@pytest.mark.parametrize("scheme", TRAINED)
@pytest.mark.parametrize("bias", [0.0, 0.5])
def test_p_values_of_fresh_keys_are_valid(scheme, bias):
    """On one unmarked model, even if nearly all its weights have one sign (so that `direct` reads all ones)."""
    owner, host, model = scheme(bits=64), host_of(), network()
    weight_of(model).add_(bias)
    found = [verdict(owner, model, owner.keygen(host, Rng("owner", i))) for i in range(300)]
    errors = np.array([round(v.ber * 64) for v in found])
    assert errors.mean() == pytest.approx(32, abs=4 * 4 / 300**0.5)
    assert errors.std() == pytest.approx(4, rel=0.15)
    p_values = np.array([v.p_value for v in found])
    for level in (0.01, 0.05, 0.1, 0.2, 0.5):
        attainable = max(p for p in (bits_p_value(e, 64) for e in range(33)) if p <= level)
        sd = (attainable * (1 - attainable) / 300) ** 0.5
        assert (p_values <= level).mean() == pytest.approx(attainable, abs=3.5 * sd)


def test_inverted_payload_is_detected():
    scheme, host, model = UchidaPosthoc(bits=64), host_of(), network()
    key = scheme.keygen(host, Rng(0))
    scheme.mark_model(model, key, host)
    weight_of(model).sub_(1.5 * weight_of(model).mean(0))
    found = verdict(scheme, model, key)
    assert found.ber == 1
    assert found.statistic == 1
    assert found.p_value == pytest.approx(2**-63)
    assert found.details["margin_mean"] < 0


def test_forged_rows_give_ber_0_and_a_committed_key_does_not():
    scheme, host, model = UchidaRandom(), host_of(), network()
    keys = [scheme.keygen(host, Rng("owner", i)) for i in range(100)]
    X = keys[0].projection
    signs = torch.from_numpy(np.sign(read_by_hand(model, keys[0]))).float()
    forged = with_payload(replace(keys[0], projection=X * signs[:, None]), torch.ones(256))
    assert verdict(scheme, model, forged).ber == 0
    committed = [verdict(scheme, model, key).ber for key in keys]
    assert np.mean(committed) == pytest.approx(0.5, abs=4 * 0.5 / (256 * 100) ** 0.5)
    assert min(committed) > 0.35


@pytest.mark.parametrize("scheme", TRAINED)
@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_destroyed_tensor_is_erased_not_read(scheme, value):
    owner, model = scheme(bits=64), network()
    key = with_payload(owner.keygen(host_of(), Rng(0)), torch.ones(64))
    weight_of(model).fill_(value)
    found = verdict(owner, model, key)
    assert (found.ber, found.p_value, found.statistic) == (0.5, 1.0, 0.0)
    assert found.payload == "?" * 64
    assert found.details["erased_bits"] == 64
    assert found.details["embedding_loss"] == pytest.approx(np.log(2))


def test_half_erased_key_is_judged_by_the_other_half():
    scheme, model = UchidaDirect(bits=40), network()
    key = scheme.keygen(host_of(), Rng(0))
    columns = key.projection.argmax(1)
    target = torch.zeros(144)
    target[columns] = 2.0 * key.payload.float() - 1
    target[columns[:20]] = 0
    weight_of(model).copy_(target.view(16, 3, 3).expand(16, 16, 3, 3))
    found = verdict(scheme, model, key)
    assert found.details["erased_bits"] == 20
    assert found.ber == 10 / 40
    assert found.statistic == 0.5
    assert found.p_value == pytest.approx(2**-19)
    assert found.payload.startswith("?" * 20)


def test_huge_weights_still_give_a_verdict():
    scheme, model = UchidaRandom(bits=32), network()
    weight_of(model).mul_(1e36)
    assert 0 < verdict(scheme, model, scheme.keygen(host_of(), Rng(0))).p_value <= 1


@pytest.mark.parametrize("change", ["wider input", "renamed", "no weight"])
def test_morphed_network_is_unreadable_not_an_error(change):
    scheme, model = UchidaRandom(bits=32), network()
    key = scheme.keygen(host_of(), Rng(0))
    if change == "wider input":
        model = network(inputs=20)
    elif change == "renamed":
        model.net.block.other = model.net.block.conv
        del model.net.block.conv
    else:
        model.net.block.conv = nn.Identity()
    found = verdict(scheme, model, key)
    assert (found.p_value, found.statistic, found.ber) == (1.0, 0.0, 0.5)
    assert found.details == {"unreadable": True}


def test_wider_output_is_still_read():
    """Doubling every filter leaves the mean filter as it was."""
    scheme, model, wide = UchidaRandom(bits=32), network(), network(filters=32)
    key = scheme.keygen(host_of(), Rng(0))
    weight_of(wide).copy_(weight_of(model).repeat(2, 1, 1, 1))
    assert verdict(scheme, wide, key).payload == verdict(scheme, model, key).payload
