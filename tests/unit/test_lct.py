"""Claims with another colour space: what reaches the judge, and what it says of a network that knows the images."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from attacks.lct import ArbitraryLct, ForgedLct, OptimisedLct, _advantages, _gaps, _random_space
from bench.api import YIQ, Attempt, ImageSet, Key, Rng, Suspect, Victim
from bench.plan.applicability import not_applicable
from bench.registry import attacks, schemes
from schemes.anw import AnwHue, AnwUserLct
from tests.fakes import Answers, Nearest, keyed, noise_images, sines, user


def own() -> ImageSet:
    """The forger's images."""
    return noise_images(30, 9, 12)


def attempts(attack: Any, key: Key, model: Any) -> list[Attempt]:
    context: Any = SimpleNamespace(rng=Rng("lct"), data=own(), device=torch.device("cpu"))
    return list(attack.apply(Victim(attack.card.adversary, lambda: model, key), context))


def test_each_rung_is_another_matrix_for_the_owners_images() -> None:
    scheme, key = keyed(AnwUserLct)
    made = attempts(ArbitraryLct(ladder=(1, 2, 3)), key, Nearest(scheme.mark_data(user().share, key)))
    spaces = [attempt.key.space for attempt in made if attempt.key is not None]
    assert len({tuple(space.flatten().tolist()) for space in [*spaces, key.space]}) == 4
    assert all(torch.equal(attempt.key.images, key.images) for attempt in made if attempt.key)


def test_the_owners_space_finds_the_signature_and_others_do_not() -> None:
    scheme, key = keyed(AnwUserLct)
    model = Nearest(scheme.mark_data(user().share, key))
    assert scheme.verify(Suspect("scores", model=model), key).matched
    made = attempts(ArbitraryLct(), key, model)
    matched = [scheme.verify(Suspect("scores", model=model), attempt.key).matched for attempt in made]
    assert len(matched) == 12
    assert sum(matched) <= 4  # one in twelve by chance: five or more in 1 of 400 cases


def test_more_matrices_never_look_worse() -> None:
    scheme, key = keyed(AnwHue)
    model = sines(3)
    made = attempts(ForgedLct(ladder=(1, 5, 40), images=30), key, model)
    statistics = [scheme.verify(Suspect("scores", model=model), attempt.key).statistic for attempt in made]
    assert statistics == sorted(statistics)
    assert statistics[-1] > statistics[0]
    assert made[-1].key is not None
    assert torch.equal(made[-1].key.images, own().images)


def test_matrices_are_drawn_as_users_draw_theirs() -> None:
    _, key = keyed(AnwHue)
    made = attempts(ArbitraryLct(ladder=tuple(range(1, 41))), key, sines(3))
    entries = torch.cat([attempt.key.space.flatten() for attempt in made if attempt.key])
    assert entries.min() < -0.9
    assert entries.max() > 0.9
    assert abs(float(entries.mean())) < 4 * 3**-0.5 * len(entries) ** -0.5  # U(-1, 1): mean 0, deviation 3 ** -0.5


def test_a_forger_claims_the_signature_of_least_loss_on_images_of_his_own_and_never_none() -> None:
    """The network knows his images unmarked, so that no watermark is the likeliest slot."""
    scheme, key = keyed(AnwHue)
    model = Nearest(own())
    (made,) = attempts(ForgedLct(ladder=(6,), images=10), key, model)
    assert made.key is not None
    assert torch.equal(made.key.images, own().images[:10])
    search = scheme.verify(Suspect("scores", model=model), made.key).search
    assert search is not None
    assert search.best == 0
    marked = dict(zip(search.candidates[1:], search.losses[1:], strict=True))
    assert made.key.signature == min(marked, key=lambda signature: marked[signature])


def test_they_are_made_for_hue_signatures() -> None:
    made_for = {
        name
        for name, scheme in schemes().items()
        if not_applicable(scheme.card, attacks()["lct-arbitrary"].card) is None
    }
    assert made_for == {"anw-hue", "anw-user-lct"}


def linear(seed: int) -> Any:
    """A network that is smooth in the colours, and was trained on nothing."""
    weight = torch.randn(3 * 144, 4, generator=torch.Generator().manual_seed(seed))
    return Answers(lambda x: 0.1 * x.flatten(1) @ weight)


def test_a_small_step_on_the_matrix_favours_the_forgers_images() -> None:
    """As many unseen images as own ones: each step sees all of them."""
    _, key = keyed(AnwHue, pool=10)
    model, pool = linear(3), ImageSet(key.pool, key.pool_labels)
    start = _random_space(Rng("lct").torch("space", 0))
    (made,) = attempts(OptimisedLct(ladder=(1,), images=10, starts=1, lr=1e-3), key, model)
    assert made.key is not None
    before, after = (_advantages(model, own()[:10], pool, space) for space in (start, made.key.space))
    assert 0 < float((made.key.space - start).abs().max()) < 2e-3
    assert float(after[before.argmax()]) > float(before.max())


def test_a_long_descent_looks_better_than_a_short_one_and_claims_the_forgers_images() -> None:
    _, key = keyed(AnwHue)
    model, pool = linear(3), ImageSet(key.pool, key.pool_labels)
    made = attempts(OptimisedLct(ladder=(1, 60), images=10, starts=1), key, model)
    gains = []
    for attempt in made:
        assert attempt.key is not None
        gains.append(float(_advantages(model, own()[:10], pool, attempt.key.space).max()))
        assert torch.equal(attempt.key.images, own().images[:10])
    assert gains[1] > gains[0] + 0.01


def test_gaps_are_those_that_the_scheme_ranks() -> None:
    scheme, key = keyed(AnwHue)
    model = sines(3)
    verdict = scheme.verify(Suspect("scores", model=model), key)
    images = ImageSet(key.images, key.labels)
    gaps = _gaps(model, images, YIQ)
    assert float(gaps[round(key.signature / 30) - 1]) == pytest.approx(verdict.statistic, abs=1e-4)
