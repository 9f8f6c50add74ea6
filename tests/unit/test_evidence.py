"""Forged keys: what is claimed against which network, and whether the forged part does what it should."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attacks.evidence import readings, towards
from bench.api import AccessError, Attempt, Key, Rng, Suspect, bits_p_value, replace
from bench.registry import attacks, make, schemes
from schemes.uchida import UchidaKey
from schemes.zhang import ZhangContent
from tests.fakes import FakeContext, FakeHost, noise_images, same_key, victim_of

LAYER = "net.0"
OWN = noise_images(80, 5, 16)


def network(seed: int = 0) -> nn.Module:
    """A small convolutional network with weights from this seed."""
    model = nn.Module()
    model.net = nn.Sequential(nn.Conv2d(3, 8, 5, 3), nn.Tanh(), nn.Flatten(), nn.Linear(8 * 16, 4))
    model.forward = model.net.forward
    generator = Rng("network", seed).torch()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3, generator=generator)
    return model.eval()


class Forger(FakeContext):
    """Lends an innocent network, another of the forger's own, and keys of a scheme."""

    def __init__(self, scheme: Any, accused: nn.Module) -> None:
        super().__init__(own=OWN)
        self.scheme, self.accused, self.made = scheme, accused, list[tuple[str, nn.Module]]()

    def innocent(self, name: str = "innocent") -> nn.Module:
        return self.accused if name == "innocent" else network(2)

    def keygen(self, model: nn.Module, name: str = "key", **params: Any) -> Key:
        self.made.append((name, model))
        host = FakeHost(OWN, noise_images(40, 6, 16), model=lambda: model, layers={"conv2": LAYER})
        key: Key = self.scheme.keygen(host, self.rng.child(name))
        return key


def forged(name: str, scheme: Any, **params: Any) -> tuple[list[Attempt], Forger]:
    lent = Forger(scheme, network())
    attack = make(attacks()[name], {**attacks()[name].card.tiny, **params})
    return list(attack.apply(victim_of(attack, network(9)), lent)), lent


def verdict(scheme: Any, attempt: Attempt) -> Any:
    return scheme.verify(Suspect(scheme.card.access, model=attempt.model), attempt.key)


UCHIDA = ("uchida-random", "uchida-direct", "uchida-diff")


# ---- bits and seeds --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", UCHIDA)
@pytest.mark.parametrize("what", ["payload", "rows"])
def test_forged_bits_are_all_right_on_an_innocent_network(name: str, what: str) -> None:
    scheme = make(schemes()[name], {"bits": 32})
    (attempt,), lent = forged("forged-bits", scheme, forged=what)
    found = verdict(scheme, attempt)
    assert attempt.model is lent.accused
    assert (found.ber, found.p_value) == (0.0, bits_p_value(0, 32))
    honest: Any = lent.keygen(lent.accused)
    assert scheme.verify(Suspect("white-box", model=lent.accused), honest).ber > 0
    kept = "projection" if what == "payload" else "payload"
    assert torch.equal(getattr(attempt.key, kept), getattr(honest, kept)), "the rest is as it was drawn"


def test_a_share_of_forged_bits_leaves_the_others_to_chance() -> None:
    scheme = make(schemes()["uchida-random"], {"bits": 40})
    attempts, lent = forged("forged-bits", scheme, ladder=[25, 50, 100])
    honest: Any = lent.keygen(lent.accused)
    wrong = (readings(lent.accused, honest) > 0).to(torch.uint8) != honest.payload
    expected = [float(wrong[round(40 * share) :].sum()) / 40 for share in (0.25, 0.5, 1.0)]
    assert [verdict(scheme, attempt).ber for attempt in attempts] == pytest.approx(expected)


def test_seeds_are_honest_keys_and_the_best_of_more_is_no_worse() -> None:
    scheme = make(schemes()["uchida-random"], {"bits": 16})
    attempts, lent = forged("forged-seeds", scheme, ladder=[1, 10, 100])
    p_values = [verdict(scheme, attempt).p_value for attempt in attempts]
    every = [lent.keygen(lent.accused, f"seed {number}") for number in range(100)]
    least = [
        min(verdict(scheme, replace(attempts[0], key=key)).p_value for key in every[:count]) for count in (1, 10, 100)
    ]
    assert p_values == pytest.approx(least)
    assert p_values[0] > p_values[2]
    assert all(any(same_key(attempt.key, key) for key in every) for attempt in attempts if attempt.key)


def test_what_is_forged_bits_needs_the_network_and_seeds_do_not() -> None:
    kinds = {name: attacks()[name].card.committed for name in attacks() if attacks()[name].card.stage == "evidence"}
    assert {name for name, committed in kinds.items() if committed} >= {"forged-seeds", "forged-triggers-transfer"}
    late = {"forged-bits", "forged-triggers-pgd", "forged-triggers-fgsm", "forged-triggers-universal", "replayed"}
    assert late | {"lct-forged", "lct-optimised", "model-inversion"} <= {
        n for n, committed in kinds.items() if not committed
    }


# ---- triggers --------------------------------------------------------------------------------------------------------
def all_of(label: int, images: Tensor) -> Tensor:
    return torch.full((len(images),), label)


def test_one_change_for_all_images_is_one_change() -> None:
    model, images = network(), torch.rand(5, 3, 16, 16, generator=Rng("grey").torch()) * 0.4 + 0.3
    found = towards(model, images, all_of(1, images), 0.1, 0.02, 20, shared=True) - images
    torch.testing.assert_close(found, found[:1].expand_as(found))
    assert 0 < float(found.abs().max()) <= 0.1 + 1e-6


def test_a_loss_over_fading_keeps_the_target_longer() -> None:
    model, images = network(), OWN.images[:20].float() / 255
    faded, wanted = [], torch.full((20,), 3)
    for fades in ((1.0,), (1.0, 0.5, 0.25)):
        found = towards(model, images, all_of(3, images), 0.2, 0.02, 30, fades)
        faded.append(F.cross_entropy(model(images + 0.25 * (found - images)), wanted).item())
    assert faded[1] < faded[0]


@pytest.mark.parametrize("name", ["fgsm", "pgd", "universal", "transfer"])
def test_triggers_stay_near_their_sources_and_are_claimed_against_the_accused(name: str) -> None:
    scheme = ZhangContent(probe=8, decoys=19)
    attempts, lent = forged(f"forged-triggers-{name}", scheme, ladder=[0.02, 0.5])
    honest: Any = lent.keygen(lent.accused)
    for eps, attempt in zip((0.02, 0.5), attempts, strict=True):
        key: Any = attempt.key
        change = key.triggers.float() - honest.pool[honest.row].float()
        assert attempt.model is lent.accused
        assert 0 < float(change.abs().max()) <= 255 * eps + 0.51
        assert (key.source, key.target) == (honest.source, honest.target)
    weak, strong = (verdict(scheme, attempt) for attempt in attempts)
    honestly = scheme.verify(Suspect("labels", model=lent.accused), honest)
    assert strong.statistic >= weak.statistic
    if name != "transfer":
        assert strong.p_value == 0.05 < honestly.p_value, "1 / (decoys + 1) is the least there is"


def test_transferred_triggers_are_those_of_another_network() -> None:
    scheme = ZhangContent(probe=8, decoys=19)
    (transferred,), lent = forged("forged-triggers-transfer", scheme, ladder=[0.1])
    sources = lent.keygen(lent.accused).pool[transferred.key.row].float() / 255
    target = transferred.key.target
    on_own = towards(network(2), sources, all_of(target, sources), 0.1, 0.01, 40, (1.0, 0.5, 0.25))
    assert torch.equal(transferred.key.triggers, on_own.mul(255).round().to(torch.uint8))


# ---- replayed keys ---------------------------------------------------------------------------------------------------
def test_a_replayed_key_is_the_owners_and_the_network_stays() -> None:
    attack = attacks()["replayed"]()
    owner = UchidaKey(torch.ones(2, 3), torch.ones(2, dtype=torch.uint8), LAYER)
    (attempt,) = attack.apply(victim_of(attack, network(), owner), FakeContext())
    assert attempt.model is None
    assert attempt.key is not None
    assert same_key(attempt.key, owner)


def test_only_whoever_was_shown_the_key_knows_its_secrets() -> None:
    owner = UchidaKey(torch.ones(2, 3), torch.ones(2, dtype=torch.uint8), LAYER)
    stranger = victim_of(attacks()["forged-bits"](), network(), owner)
    with pytest.raises(AccessError, match="projection"):
        stranger.forge()


@pytest.mark.parametrize("params", [{"labels": "random"}, {"targets": 3}])
def test_drawn_labels_are_forged_one_by_one(params: dict[str, Any]) -> None:
    """Whoever has the network finds images that it gives any labels, so that only a commitment helps."""
    scheme = make(schemes()["zhang-content"], {"probe": 8, **params})
    (attempt,), _ = forged("forged-triggers-pgd", scheme, ladder=[1.0], iterations=40)
    claim = verdict(scheme, attempt)
    assert claim.details["trigger_accuracy"] > 0.9
    assert claim.p_value < (1e-3 if params.get("labels") else 0.1)
