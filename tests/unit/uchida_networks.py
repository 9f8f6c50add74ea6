"""Networks, hosts and verdicts that tests of weight marks share."""

import numpy as np
import torch
from torch import nn

from bench.api import Batch, Rng, Suspect, replace
from bench.registry import schemes
from schemes.uchida import UchidaPosthoc, UchidaRandom
from tests.fakes import FakeHost

LAYER = "net.block.conv"
UchidaDirect, UchidaDiff = schemes()["uchida-direct"], schemes()["uchida-diff"]
TRAINED = [UchidaRandom, UchidaDirect, UchidaDiff]
NO_BATCH = Batch(torch.empty(0), torch.empty(0), torch.empty(0), {})  # the loss depends on the weights alone
ALL = [*TRAINED, UchidaPosthoc]


def network(inputs=16, filters=16, seed=0):
    """A net with the embedded convolution at LAYER, its weights from N(0, 0.1^2)."""
    conv = nn.Conv2d(inputs, filters, 3)
    with torch.no_grad():
        conv.weight.normal_(0, 0.1, generator=Rng("network", seed).torch())
    block = nn.Module()
    block.conv = conv
    net = nn.Module()
    net.block = block
    model = nn.Module()
    model.net = net
    return model


def weight_of(model):
    return model.net.block.conv.weight.data


def host_of(inputs=16, filters=16):
    return FakeHost(model=lambda: network(inputs, filters), layers={"conv2": LAYER})


def verdict(scheme, model, key):
    return scheme.verify(Suspect(scheme.card.access, model=model), key)


def with_payload(key, payload):
    return replace(key, payload=payload.to(torch.uint8))


def read_by_hand(model, key):
    """X.w as one sum over all four axes of the tensor: a second implementation, without flattening."""
    weight = weight_of(model).double().numpy()
    X = key.projection.double().numpy().reshape(-1, *weight.shape[1:])
    return np.einsum("tihw,oihw->t", X, weight) / weight.shape[0]
