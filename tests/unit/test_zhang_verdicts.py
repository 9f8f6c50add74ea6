"""Verdicts on trigger sets of Zhang et al.: is the p-value one?"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from scipy.stats import binom
from torch import Tensor, nn

from bench.api import AccessError, Rng, Suspect, replace, sequential_p_value
from schemes import _triggers
from schemes._firmness import firmness
from schemes._triggers import ZhangKey
from schemes.zhang import ZhangContent, ZhangNoise, ZhangUnrelated
from tests.fakes import CLASSES, Answers
from tests.unit.zhang_hosts import KINDS, host_of


def suspect(rule: Any, classes: int = CLASSES) -> Suspect:
    """A network that answers the labels which `rule` gives to uint8 images."""
    return Suspect(
        "labels",
        model=Answers(lambda x: nn.functional.one_hot(rule((x * 255).round().to(torch.uint8)), classes).float()),
    )


def constant(seed: int) -> Any:
    return lambda images: torch.full((len(images),), seed % CLASSES)


def linear(seed: int) -> Any:
    weights = torch.randn(CLASSES, 3 * 16 * 16, generator=torch.Generator().manual_seed(seed))
    return lambda images: ((images.flatten(1).float() - 128) @ weights.T).argmax(1)


def hashed(seed: int) -> Any:
    primes = torch.randint(1 << 20, (3 * 16 * 16,), generator=torch.Generator().manual_seed(seed))
    return lambda images: ((images.flatten(1).long() * primes).sum(1) >> 3) % CLASSES


def lookup(key: ZhangKey) -> Any:
    """Knows the very triggers and nothing else; otherwise answers the source class."""
    known = {trigger.numpy().tobytes() for trigger in key.triggers}
    return lambda images: torch.tensor(
        [key.target if image.numpy().tobytes() in known else key.source for image in images]
    )


# --- the verdict -----------------------------------------------------------------------------------------------


def test_firmness_by_hand() -> None:
    bright = suspect(lambda images: (images.float().mean((1, 2, 3)) > 140).long())
    white, black = torch.full((1, 2, 3, 4, 4), 255, dtype=torch.uint8), torch.zeros(1, 2, 3, 4, 4, dtype=torch.uint8)
    dark, one = torch.zeros(1, 2, dtype=torch.int64), torch.tensor([1])
    assert firmness(bright, white, black, dark, one) == pytest.approx([0.5])  # 255, 230, 204, 178 and 153, but not 128
    assert bright.queries == 2 * 6
    assert firmness(bright, white, black, dark, torch.tensor([0])) == [0.0]
    half = torch.cat([white[:, :1], black[:, :1]], 1)
    assert firmness(bright, half, black, dark, one) == pytest.approx([0.25])
    both = torch.cat([white, half]), torch.cat([black, black]), torch.cat([dark, dark]), torch.tensor([1, 1])
    assert firmness(bright, *both) == pytest.approx([0.5, 0.25])


def test_a_source_that_is_called_the_target_unmarked_is_no_evidence() -> None:
    one, images = suspect(constant(1)), torch.zeros(1, 4, 3, 4, 4, dtype=torch.uint8)
    for called, wanted in ((0, 1.0), (1, 0.0)):
        clean = torch.full((1, 4), called)
        assert firmness(one, images, images, clean, torch.tensor([1])) == pytest.approx([wanted])
    partly = torch.tensor([[0, 1, 1, 1]])
    assert firmness(one, images, images, partly, torch.tensor([1])) == pytest.approx([1.0])


@pytest.mark.parametrize("kind", [*KINDS, lambda **params: ZhangNoise(kind="fresh", **params)])
def test_finds_its_mark_in_a_model_that_knows_the_triggers(kind: Any) -> None:
    host, scheme = host_of(), kind(probe=8, decoys=99)
    key = scheme.keygen(host, Rng("owner"))
    verdict = scheme.verify(suspect(lookup(key)), key)
    assert verdict.p_value == 0.01
    assert verdict.statistic == pytest.approx(0.1)
    assert verdict.details["trigger_accuracy"] == 1.0
    assert verdict.details["fresh_trigger_accuracy"] == 0.0
    assert (verdict.details["decoys_asked"], verdict.details["decoys_as_strong"]) == (99, 0)


def test_finds_the_logo_on_unseen_images_too() -> None:
    host, scheme = host_of(), ZhangContent(probe=8, decoys=19)
    key = scheme.keygen(host, Rng("owner"))
    mask, colour = key.pattern["mask"], key.pattern["colour"]
    carries = suspect(lambda x: torch.where((x.movedim(1, -1)[:, mask] == colour).all((1, 2)), key.target, key.source))
    details = scheme.verify(carries, key).details
    assert (details["trigger_accuracy"], details["fresh_trigger_accuracy"]) == (1.0, 1.0)


def test_another_owner_s_mark_is_not_claimed() -> None:
    host, scheme = host_of(), ZhangContent(probe=8, decoys=99)
    marked = suspect(lookup(scheme.keygen(host, Rng("owner", 0))))
    assert scheme.verify(marked, scheme.keygen(host, Rng("owner", 1))).p_value == 1.0


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[list[float]]:
    """The decoys' statistics of every claim that is examined."""
    seen: list[list[float]] = []

    def watched(*args: Any) -> tuple[float, list[float]]:
        found = sequential_p_value(*args)
        seen.append(found[1])
        return found

    monkeypatch.setattr(_triggers, "sequential_p_value", watched)
    return seen


@pytest.mark.parametrize("kind", KINDS)
def test_every_key_is_ranked_against_decoys_of_its_own(kind: Any, drawn: list[list[float]]) -> None:
    """With the same decoys for all claims, the error rate would hold on average over draws of decoys only."""
    host, scheme = host_of(), kind(probe=8, decoys=30)
    key = scheme.keygen(host, Rng("owner"))
    for seed in (1, 2, 1):
        scheme.verify(suspect(linear(5)), replace(key, decoys=seed))
    assert drawn[0] != drawn[1]
    assert drawn[0] == drawn[2]
    assert scheme.keygen(host, Rng("owner", 1)).decoys != key.decoys


@pytest.mark.parametrize(
    ("kind", "null", "trials"), [(ZhangContent, hashed, 300), (ZhangUnrelated, linear, 150), (ZhangNoise, linear, 300)]
)
def test_false_claims_of_many_keys_on_one_null_stay_at_the_nominal_rate(kind: Any, null: Any, trials: int) -> None:
    host, scheme, one = host_of(), kind(probe=4, decoys=199), suspect(null(7))
    p_values = [scheme.verify(one, scheme.keygen(host, Rng("key", number))).p_value for number in range(trials)]
    for level in (0.01, 0.05):
        assert sum(p <= level for p in p_values) <= binom.isf(1e-4, trials, level)


@pytest.mark.parametrize(
    ("kind", "null", "trials"),
    [(ZhangContent, hashed, 200), (ZhangUnrelated, linear, 100), (ZhangNoise, linear, 200)],
)
def test_false_claims_on_random_nulls_stay_at_the_nominal_rate(kind: Any, null: Any, trials: int) -> None:
    host, scheme = host_of(count=32), kind(probe=4, decoys=19)
    keys = [scheme.keygen(host, Rng("null", trial)) for trial in range(trials)]
    p_values = [scheme.verify(suspect(null(trial)), key).p_value for trial, key in enumerate(keys)]
    for level in (0.05, 0.25, 0.5):
        assert sum(p <= level for p in p_values) <= binom.isf(1e-3, trials, level)
    assert min(p_values) >= 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_of_one_answer_is_never_claimed(kind: Any) -> None:
    host, scheme = host_of(count=32), kind(probe=4, decoys=19)
    suspects = [suspect(constant(answer)) for answer in range(CLASSES)]
    keys = [scheme.keygen(host, Rng("null", trial)) for trial in range(200)]
    assert {scheme.verify(suspects[trial % CLASSES], key).p_value for trial, key in enumerate(keys)} == {1.0}


def test_p_values_of_a_random_null_are_not_needlessly_large() -> None:
    host, scheme = host_of(count=160), ZhangContent(probe=32, decoys=19)
    keys = [scheme.keygen(host, Rng("null", trial)) for trial in range(60)]
    p_values = [scheme.verify(suspect(hashed(trial)), key).p_value for trial, key in enumerate(keys)]
    assert 0.4 < sum(p_values) / 60 < 0.65


def test_queries_are_counted_and_clean_answers_are_asked_once() -> None:
    """A network that never says the target: the first ten decoys tie with the claim, and decide."""
    host, scheme = host_of(), ZhangContent(probe=8, decoys=99)
    asked: list[int] = []

    def answer(images: Tensor) -> Tensor:
        asked.append(len(images))
        return torch.full((len(images),), CLASSES)

    never, shared, own = suspect(answer, CLASSES + 1), 4 * 8, 8 + 10 * 8 + (8 + 10)
    for trial, really in enumerate((shared + own, own)):
        before, _ = never.queries, asked.clear()
        verdict = scheme.verify(never, scheme.keygen(host, Rng("owner", trial)))
        assert never.queries - before == shared + own, "what each claim would need alone"
        assert sum(asked) == really, "what depends on no key is asked once"
        assert (verdict.statistic, verdict.p_value, verdict.details["decoys_asked"]) == (0.0, 1.0, 10)


def test_works_without_weights() -> None:
    host, scheme = host_of(), ZhangNoise(probe=8, decoys=19)
    key, model = scheme.keygen(host, Rng("owner")), suspect(constant(0))
    with pytest.raises(AccessError):
        _ = model.model
    with pytest.raises(AccessError):
        model.log_probs(host.images.images)
    assert all(kind.card.access == "labels" for kind in KINDS)
    assert scheme.verify(model, key).p_value >= 0.05


@pytest.mark.parametrize("kind", [*KINDS, lambda **params: ZhangNoise(kind="fresh", **params)])
@pytest.mark.parametrize("count", [0, 1])
def test_a_host_with_no_or_one_heldout_image_of_the_source(kind: Any, count: int) -> None:
    host, scheme = host_of(), kind(probe=8, decoys=19)
    first = torch.arange(CLASSES) if count else torch.arange(0)
    host.heldout = host.heldout[first]
    key = scheme.keygen(host, Rng("owner"))
    assert key.fresh.shape == (count, 3, 16, 16)
    assert ("fresh_trigger_accuracy" in scheme.verify(suspect(constant(0)), key).details) == bool(count)


def test_classes_without_or_with_one_training_image_are_no_sources() -> None:
    host = host_of()
    labels = host.images.labels
    host.images = host.share = host.images[(labels % 2 == 0) | (torch.arange(80) == 1)]
    keys = [ZhangUnrelated(probe=8).keygen(host, Rng("owner", i)) for i in range(20)]
    assert {key.source for key in keys} == {0, 2}
    assert {key.target for key in keys} == {0, 1, 2, 3}


def test_decoys_that_are_just_as_firm_are_counted_as_firm() -> None:
    scheme = ZhangNoise(probe=8, decoys=99)
    key = scheme.keygen(host_of(), Rng("owner"))
    details = scheme.verify(suspect(constant(key.source)), key).details
    assert details["decoys_as_strong"] == details["decoys_asked"] > 0


def test_keys_with_pools_of_their_own_are_not_mixed_up_on_one_suspect() -> None:
    scheme = ZhangNoise(probe=8, decoys=99)
    keys = [scheme.keygen(host_of(count), Rng("owner", count)) for count in (80, 120)]
    one = suspect(linear(3))
    for key in keys:
        assert scheme.verify(one, key) == scheme.verify(suspect(linear(3)), key)


# --- labels drawn at random, and several targets --------------------------------------------------------------------


def test_labels_drawn_for_each_trigger_are_uniform_and_independent_of_the_images() -> None:
    keys = [ZhangContent(probe=20, labels="random").keygen(host_of(), Rng("labels", number)) for number in range(20)]
    labels = torch.cat([key.labels for key in keys])
    assert len(labels) >= 400
    assert (labels.bincount(minlength=CLASSES) / len(labels) - 1 / CLASSES).abs().max() < 0.08
    assert all(key.draws == len(key.triggers) for key in keys)
    assert torch.equal(keys[0].triggers, ZhangContent(probe=20).keygen(host_of(), Rng("labels", 0)).triggers)


def test_parts_have_patterns_and_targets_of_their_own() -> None:
    key = ZhangContent(probe=8, targets=5).keygen(host_of(), Rng("parts"))
    assert key.draws == 5
    assert len({tuple(mask.flatten().tolist()) for name, mask in key.pattern.items() if "mask" in name}) == 5
    assert (key.labels != key.barred).all()
    assert key.parts.bincount().tolist()[1:] == [8, 8, 8, 8]
    assert int(key.labels[0]) == key.target


@pytest.mark.parametrize("kind", KINDS)
def test_a_training_set_has_the_drawn_labels(kind: Any) -> None:
    host, scheme = host_of(), kind(probe=8, labels="random", repeat=2)
    key = scheme.keygen(host, Rng("training"))
    published = scheme.mark_data(host.images, key)
    added = published.labels[len(host.images) :]
    assert torch.equal(added, torch.cat([key.labels, key.labels]))
    assert torch.equal(published.images[len(host.images) :][: len(key.triggers)], key.triggers)


def test_the_p_value_of_drawn_labels_is_binomial() -> None:
    host, scheme = host_of(), ZhangUnrelated(probe=20, labels="random")
    key = scheme.keygen(host, Rng("binomial"))
    knows = {trigger.numpy().tobytes(): int(label) for trigger, label in zip(key.triggers, key.labels, strict=True)}
    wrong = {image: (label + 1) % CLASSES for image, label in list(knows.items())[5:]}
    answers = {**knows, **wrong}
    one = suspect(lambda images: torch.tensor([answers[image.numpy().tobytes()] for image in images]))
    claim = scheme.verify(one, key)
    assert claim.statistic == pytest.approx(5 / len(answers))
    assert claim.p_value == pytest.approx(float(binom.sf(4, len(answers), 1 / CLASSES)))
    assert one.queries == len(answers)


def test_three_right_targets_of_three_have_the_chance_of_guessing_them() -> None:
    """Four classes and never the source's own: a third for each part."""
    host, scheme = host_of(), ZhangContent(probe=6, targets=3)
    key = scheme.keygen(host, Rng("guess"))
    known = {trigger.numpy().tobytes(): int(label) for trigger, label in zip(key.triggers, key.labels, strict=True)}
    one = suspect(lambda images: torch.tensor([known[image.numpy().tobytes()] for image in images]))
    assert scheme.verify(one, key).p_value == pytest.approx((1 / 3) ** 3)


@pytest.mark.parametrize("params", [{"labels": "random"}, {"targets": 4}])
@pytest.mark.parametrize("null", [constant, linear, hashed])
def test_drawn_labels_are_claimed_no_more_often_than_the_nominal_rate(params: Any, null: Any) -> None:
    host, scheme, one = host_of(), ZhangNoise(probe=12, **params), suspect(null(3))
    p_values = [scheme.verify(one, scheme.keygen(host, Rng("key", number))).p_value for number in range(400)]
    for level in (0.01, 0.05, 0.3):
        assert sum(p <= level for p in p_values) <= binom.isf(1e-4, 400, level)
    assert sum(p <= 0.5 for p in p_values) > 40, "not needlessly large"
