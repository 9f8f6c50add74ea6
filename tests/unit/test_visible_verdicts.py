"""Visible marks: is one found where it is, is the p-value one, and what do a model's answers add?"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.stats import binom
from torch import Tensor

from bench.api import AccessError, ImageSet, Rng, Suspect, replace
from schemes._visible import draw_mark, match, mean_image, smooth
from schemes.visible import VisibleStatic
from tests.fakes import Answers, always, grey
from tests.fakes import cloudy_images as cloudy
from tests.unit.visible_keys import KINDS, TINY, examine, host_of, key_of

# --- the verdict -----------------------------------------------------------------------------------------------


def test_matched_filter_agrees_with_a_correlation_by_hand() -> None:
    mean = cloudy(1, 3).images[0].float() / 255
    marks = torch.stack([draw_mark(32, 32, torch.Generator().manual_seed(seed)) for seed in range(3)])

    def detail(image: Any) -> Any:
        return image - gaussian_filter(image, (0, 2, 2), mode="nearest", truncate=4)

    wanted = []
    for mark in marks.double().numpy():
        image = mean.double().numpy()
        template = detail(mark[3] * (mark[:3] - image.mean((1, 2), keepdims=True)))
        wanted.append((detail(image) * template).sum() / np.linalg.norm(detail(image)) / np.linalg.norm(template))
    assert match(mean, marks, 0) == pytest.approx(wanted, abs=1e-4)
    assert all(a >= b for a, b in zip(match(mean, marks, 4), wanted, strict=True))


def test_a_shifted_mark_is_found_by_the_search() -> None:
    scheme = VisibleStatic(**TINY)
    key = key_of(scheme)
    mean = mean_image(scheme.stamp(cloudy(50, 5).images, key), 50, (32, 32))
    (still,), (moved,) = (
        match(mean, key.mark[None], 4),
        match(mean.roll((3, -2), (1, 2)), key.mark[None], 4),
    )
    (blind,) = match(mean.roll((3, -2), (1, 2)), key.mark[None], 0)
    assert moved > 0.8 * still > 0.5
    assert blind < 0.5 * moved


@pytest.mark.parametrize("blend", [0.5, 1.0])
@pytest.mark.parametrize("kind", KINDS)
def test_finds_its_mark_through_a_shift_and_noise(kind: Any, blend: float) -> None:
    scheme = kind(blend=blend, probe=4, decoys=99)
    key = key_of(scheme)
    marked = scheme.mark_data(cloudy(100, 5), key).images.roll((2, 1), (2, 3)).float()
    noise = 20 * torch.randn(marked.shape, generator=torch.Generator().manual_seed(0))
    attacked = ImageSet((marked + noise).clamp(0, 255).to(torch.uint8), torch.zeros(100, dtype=torch.int64))
    verdict = scheme.verify(examine(attacked), key)
    assert verdict.p_value == 0.01
    assert verdict.statistic > verdict.details["decoy_max"] + 0.1
    assert verdict.details["visibility"] == key.visibility


def test_finds_its_mark_in_resized_images() -> None:
    scheme = VisibleStatic(probe=4, decoys=99)
    key = key_of(scheme, height=40, width=56)
    marked = scheme.stamp(cloudy(60, 5, 40, 56).images, key).float()
    small = torch.nn.functional.interpolate(marked, size=(30, 50), mode="bilinear").to(torch.uint8)
    assert scheme.verify(examine(ImageSet(small, torch.zeros(60, dtype=torch.int64))), key).p_value == 0.01


def test_every_key_is_ranked_against_decoys_of_its_own() -> None:
    """With the same decoys for all claims, the error rate would hold on average over draws of decoys only."""
    one, again, other = (key_of(VisibleStatic(**TINY), seed) for seed in (0, 0, 1))
    marks = [{key.decoy(number).numpy().tobytes() for number in range(19)} for key in (one, again, other)]
    assert marks[0] == marks[1]
    assert len(marks[0] | marks[2]) == 38
    assert one.mark.numpy().tobytes() not in marks[0]
    scheme, suspect = VisibleStatic(**TINY), examine(cloudy(10, 5))
    best = [scheme.verify(suspect, replace(one, decoys=seed)).details["decoy_max"] for seed in (1, 1, 2)]
    assert best[0] == best[1] != best[2]


def test_false_claims_of_many_keys_on_one_null_stay_at_the_nominal_rate() -> None:
    """Nor are they needlessly rare: the statistic is continuous, so the p-value is exact."""
    scheme, trials, suspect = VisibleStatic(probe=1, decoys=199), 300, examine(cloudy(4, 5, 16, 16))
    key = key_of(scheme, height=16, width=16)
    keys = [replace(key, mark=draw_mark(16, 16, Rng("mark", i).torch()), decoys=i) for i in range(trials)]
    p_values = [scheme.verify(suspect, key).p_value for key in keys]
    for level in (0.01, 0.05):
        claims = sum(p <= level for p in p_values)
        assert binom.ppf(1e-4, trials, level) <= claims <= binom.isf(1e-4, trials, level)


def test_false_claims_on_clean_data_stay_at_the_nominal_rate() -> None:
    scheme, trials = VisibleStatic(**TINY), 150
    p_values = [scheme.verify(examine(cloudy(2, 10 + i)), key_of(scheme, i)).p_value for i in range(trials)]
    for level in (0.05, 0.25, 0.5):
        assert sum(p <= level for p in p_values) <= binom.isf(1e-3, trials, level)
    assert min(p_values) >= 0.05
    assert 0.42 < sum(p_values) / trials < 0.63, "nor are they needlessly large"


def test_another_owner_s_mark_is_not_claimed_more_often_than_chance() -> None:
    scheme, trials = VisibleStatic(**TINY), 60
    images = cloudy(20, 5)
    suspects = [examine(scheme.mark_data(images, key_of(scheme, i))) for i in range(trials)]
    p_values = [scheme.verify(one, key_of(scheme, 1000 + i)).p_value for i, one in enumerate(suspects)]
    for level in (0.05, 0.25):
        assert sum(p <= level for p in p_values) <= binom.isf(1e-3, trials, level)


def test_data_without_any_detail_are_never_claimed() -> None:
    scheme = VisibleStatic(**TINY)
    plain = ImageSet(grey(77, 5, 32), torch.zeros(5, dtype=torch.int64))
    assert {scheme.verify(examine(plain), key_of(scheme, i)).p_value for i in range(5)} == {1.0}


def test_only_so_many_images_are_looked_at_and_only_once() -> None:
    images = torch.cat([grey(10, 5), grey(250, 5)])
    assert mean_image(images, 2, (4, 4)) == pytest.approx(130 / 255)
    assert mean_image(images[:5], 100, (4, 4)) == pytest.approx(10 / 255)
    scheme = VisibleStatic(**TINY)
    suspect = examine(cloudy(10, 5))
    scheme.verify(suspect, key_of(scheme))
    suspect._images = None
    assert scheme.verify(suspect, key_of(scheme, 1)).p_value >= 0.05


# --- what a model's answers add --------------------------------------------------------------------------------


def knows(mark: Tensor) -> Any:
    """Sure of every class where it sees this mark: losses fall with the mark's presence."""
    template = (mark[3:] - smooth(mark[None, 3:])[0]) * torch.tensor([1.0, -1.0, -1.0])[:, None, None]

    def rule(x: Tensor) -> Tensor:
        seen = (x * template).sum((1, 2, 3)) / template.norm()
        shapes = x.flatten(1)[:, :4] * 0
        shapes[torch.arange(len(x)), torch.arange(len(x)) % 4] = seen
        return shapes

    return rule


def test_a_model_that_prefers_the_mark_is_noticed() -> None:
    scheme = VisibleStatic(probe=4, decoys=19, model_decoys=19)
    key, data = key_of(scheme), cloudy(10, 5)
    assert key.probe_labels.tolist() == [0, 2, 0, 2]
    key = replace(key, probe_labels=torch.arange(4))
    suspect = Suspect("data set", model=Answers(knows(key.mark)), images=data, also="scores")
    details = scheme.verify(suspect, key).details
    assert details["model_p_value"] == 0.05
    assert details["model_statistic"] > details["model_decoy_max"]
    assert suspect.queries == 4 * (1 + 1 + 19), "the probe clean, with the mark, with nineteen others"


def test_a_model_is_not_asked_without_the_right_to() -> None:
    scheme = VisibleStatic(**TINY)
    suspect = Suspect("data set", model=Answers(lambda x: x.flatten(1)[:, :4]), images=cloudy(10, 5))
    verdict = scheme.verify(suspect, key_of(scheme))
    assert "model_p_value" not in verdict.details
    assert suspect.queries == 0
    with pytest.raises(AccessError):
        suspect.log_probs(cloudy(1, 1).images)


def test_models_that_never_saw_a_mark_are_accused_at_the_nominal_rate() -> None:
    scheme, trials, data = VisibleStatic(probe=4, decoys=1, model_decoys=9), 100, cloudy(4, 5)
    p_values = []
    for trial in range(trials):
        weights = torch.randn(3 * 32 * 32, 4, generator=torch.Generator().manual_seed(trial))
        model = Answers(lambda x, weights=weights: x.flatten(1) @ weights)
        details = scheme.verify(
            Suspect("data set", model=model, images=data, also="scores"), key_of(scheme, trial)
        ).details
        p_values.append(float(str(details["model_p_value"])))
    for level in (0.1, 0.3, 0.5):
        assert sum(p <= level for p in p_values) <= binom.isf(1e-3, trials, level)
    assert 0.45 < sum(p_values) / trials < 0.65


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_answers_that_are_not_finite_are_no_evidence(value: float) -> None:
    scheme = VisibleStatic(**TINY)
    suspect = Suspect("data set", model=always(value, 0.0, 0.0, 0.0), images=cloudy(10, 5), also="scores")
    assert scheme.verify(suspect, key_of(scheme)).details["model_p_value"] == 1.0


@pytest.mark.parametrize("count", [0, 1])
@pytest.mark.parametrize("kind", KINDS)
def test_a_host_with_no_or_one_heldout_image(kind: Any, count: int) -> None:
    host, scheme, data = host_of(), kind(**TINY), cloudy(40, 5)
    host.heldout = host.heldout[:count]
    key = scheme.keygen(host, Rng("owner"))
    assert (key.visibility > 0) == bool(count)
    suspect = Suspect("data set", model=always(0.0, 1.0), images=scheme.mark_data(data, key), also="scores")
    verdict = scheme.verify(suspect, key)
    assert verdict.p_value == 0.05
    assert ("model_p_value" in verdict.details) == bool(count)


def test_a_data_set_without_images_is_not_claimed() -> None:
    scheme = VisibleStatic(**TINY)
    assert scheme.verify(examine(cloudy(10, 5)[:0]), key_of(scheme)).p_value == 1.0


def test_marks_of_two_sizes_are_not_mixed_up_on_one_suspect_and_details_are_kept_beside_the_models() -> None:
    scheme = VisibleStatic(**TINY)
    keys = [key_of(scheme, height=side, width=side) for side in (32, 24)]
    images = scheme.mark_data(host_of(40).images, keys[0])

    def both() -> Suspect:
        return Suspect("data set", images=images, model=always(0))

    one = both()
    for key in keys:
        verdict = scheme.verify(one, key)
        assert verdict == scheme.verify(both(), key)
        assert verdict.details["visibility"] == key.visibility
        assert 0 < verdict.details["decoys_asked"] <= 19
