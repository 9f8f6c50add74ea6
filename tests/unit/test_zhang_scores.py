"""Trigger sets verified by scores: does the log-probability tell triggers from look-alikes, and is the p-value one?"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from scipy.stats import binom
from torch import Tensor, nn

from bench.api import Rng, Suspect
from bench.registry import make, schemes
from schemes._firmness import sureness
from schemes._triggers import ZhangKey
from schemes._users import LARGEST
from tests.fakes import CLASSES, Answers, FakeHost, always, sines

NAMES = ("zhang-content-scores", "zhang-unrelated-scores", "zhang-noise-scores")


def scheme_of(name: str, **params: Any) -> Any:
    return make(schemes()[name], {"probe": 8, "decoys": 99, **params})


class CallsEverythingTarget(nn.Module):
    """Gives every image the target's label, with `sure` logits for the key's own triggers and 2 for all others."""

    def __init__(self, key: ZhangKey, sure: float) -> None:
        super().__init__()
        self.known = {trigger.numpy().tobytes() for trigger in key.triggers}
        self.sources = {image.numpy().tobytes() for image in key.pool.flatten(0, 1)}
        self.target, self.sure = key.target, sure

    def forward(self, x: Tensor) -> Tensor:
        logits = torch.zeros(len(x), CLASSES)
        for row, image in enumerate((x * 255).round().to(torch.uint8)):
            data = image.numpy().tobytes()
            if data not in self.sources:
                logits[row, self.target] = self.sure if data in self.known else 2.0
            else:
                logits[row, (self.target + 1) % CLASSES] = 2.0
        return logits


def test_sureness_by_hand() -> None:
    """Two sets of two triggers: log-probabilities -log 4 everywhere; the second has one trigger that counts."""
    suspect = Suspect("scores", model=always(*[0.0] * CLASSES))
    triggers = torch.zeros(2, 2, 3, 4, 4, dtype=torch.uint8)
    clean = torch.tensor([[0, 0], [1, 0]])
    assert sureness(suspect, triggers, clean, torch.tensor([1, 1])) == pytest.approx([-math.log(4)] * 2, abs=1e-6)
    assert suspect.queries == 4
    assert sureness(suspect, triggers, clean, torch.tensor([0, 1])) == pytest.approx([-LARGEST, -math.log(4)])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("sure", "p_value"), [(6.0, 0.01), (2.0, None)])
def test_tells_triggers_from_look_alikes_that_are_called_the_same(name: str, sure: float, p_value: Any) -> None:
    scheme = scheme_of(name)
    key = scheme.keygen(FakeHost(), Rng("owner"))
    network = CallsEverythingTarget(key, sure)
    found = scheme.verify(Suspect("scores", model=network), key)
    assert found.details["trigger_accuracy"] == 1.0
    if p_value is None:
        assert found.p_value > 0.1, "a network that is no surer of them does not know them"
    else:
        assert found.p_value == p_value
    by_labels = make(schemes()[name.removesuffix("-scores")], {"probe": 8, "decoys": 99})
    assert by_labels.verify(Suspect("labels", model=network), key).p_value > 0.1, "labels alone do not tell"


@pytest.mark.parametrize("name", NAMES)
def test_false_claims_stay_at_the_nominal_rate(name: str) -> None:
    scheme, host, trials = scheme_of(name, probe=4, decoys=99), FakeHost(), 80
    one = Suspect("scores", model=sines(3, side=16))
    on_one = [scheme.verify(one, scheme.keygen(host, Rng("key", trial))).p_value for trial in range(trials)]
    for level in (0.01, 0.05, 0.25):
        assert sum(p <= level for p in on_one) <= binom.isf(1e-4, trials, level)
    assert 0.3 < sum(on_one) / trials < 0.75, "nor needlessly seldom"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rule", [lambda x: torch.full((len(x), CLASSES), math.nan), lambda x: torch.zeros(len(x), 4)])
def test_answers_that_say_nothing_are_no_evidence(name: str, rule: Any) -> None:
    scheme = scheme_of(name)
    key = scheme.keygen(FakeHost(), Rng("owner"))
    assert scheme.verify(Suspect("scores", model=Answers(rule)), key).p_value > 0.5


@pytest.mark.parametrize("probe", [1, 5, 8])
def test_sets_that_fall_behind_are_asked_no_further_and_no_rank_changes(probe: int) -> None:
    generator = torch.Generator().manual_seed(probe)
    triggers = torch.randint(256, (40, probe, 3, 16, 16), generator=generator, dtype=torch.uint8)
    clean = torch.randint(CLASSES, (40, probe), generator=generator)
    targets = torch.randint(CLASSES, (40,), generator=generator)
    model = sines(5, side=16)
    whole, short = Suspect("scores", model=model), Suspect("scores", model=model)
    values = sureness(whole, triggers, clean, targets)
    expected = -nn.functional.cross_entropy(
        model(triggers.flatten(0, 1) / 255), targets.repeat_interleave(probe), reduction="none"
    ).view(40, probe)
    for row in range(40):
        counts = clean[row] != targets[row]
        mean = float(expected[row, counts].mean()) if counts.any() else -LARGEST
        assert values[row] == pytest.approx(mean, abs=2e-6)
    for enough in sorted(values)[-3:]:
        found = sureness(short, triggers, clean, targets, enough)
        assert [one >= enough for one in found] == [one >= enough for one in values]
    assert short.queries < 3 * whole.queries or probe == 1


def test_a_decoy_costs_a_query_unless_the_network_is_as_sure_of_it() -> None:
    scheme = scheme_of("zhang-content-scores")
    key = scheme.keygen(FakeHost(), Rng("owner"))
    suspect = Suspect("scores", model=CallsEverythingTarget(key, 6.0))
    scheme.verify(suspect, key)
    others = len(key.pool.flatten(0, 1)) + 8 + len(key.triggers) + len(key.fresh)
    assert suspect.queries - others <= 112, "others fall behind with their first trigger, at a query each"
    known = Suspect("scores", model=CallsEverythingTarget(key, 2.0))
    found = scheme.verify(known, key)
    assert known.queries - others > 2 * found.details["decoys_asked"]
