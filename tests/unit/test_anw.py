"""Anti-Neuron Watermarking: is the colour map right, is the signature found, and is the p-value one?"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import binom
from torch import Tensor, nn

from bench.api import YIQ, ImageSet, Rng, Suspect, colour_rotations, pixels, recoloured, replace, rotate_hue
from schemes import _signatures
from schemes._signatures import VIEWS, View, seen
from schemes.anw import AnwBlue, AnwHue, AnwUserLct
from tests.fakes import CLASSES, Answers, Nearest, always, keyed, noise_images, sines, user

KINDS = (AnwHue, AnwBlue, AnwUserLct)


def test_the_map_at_60_degrees() -> None:
    expected = torch.tensor([[0.794, 0.579, -0.373], [-0.135, 0.825, 0.310], [1.233, -0.615, 0.381]])
    (turn,) = colour_rotations(YIQ, torch.tensor([60.0]))
    assert torch.allclose(turn.float(), expected, atol=1e-3)


@pytest.mark.parametrize("degrees", [0, 360])
def test_whole_turns_change_nothing(degrees: float) -> None:
    images = noise_images(5, 3, 12).images
    assert (rotate_hue(images, degrees).int() - images.int()).abs().max() <= 1


def test_two_rotations_add_up() -> None:
    a, b, both = colour_rotations(YIQ, torch.tensor([25.0, 70.0, 95.0]))
    assert torch.allclose(a @ b, both, atol=1e-9)


def test_luma_is_kept_before_clipping_and_grey_stays_grey() -> None:
    turns = colour_rotations(YIQ, torch.arange(30.0, 360, 30))
    luma = YIQ[0]
    assert torch.allclose(luma @ turns, luma.expand(11, 3), atol=1e-9)
    grey = torch.full((3,), 0.37, dtype=torch.float64)
    # The printed coefficients of I and Q sum to zero, so grey is fixed exactly.
    assert torch.allclose(turns @ grey, grey.expand(11, 3), atol=1e-9)


def test_marking_is_clipped_and_rounded() -> None:
    white = torch.full((1, 3, 2, 2), 255, dtype=torch.uint8)
    red = torch.tensor([255, 0, 0], dtype=torch.uint8).view(1, 3, 1, 1)
    assert torch.equal(rotate_hue(white, 60), white)
    assert rotate_hue(red, 60).flatten().tolist() == [round(255 * 0.794), 0, 255]  # -0.135 and 1.233 are clipped


def test_one_map_for_each_image() -> None:
    images = torch.rand(2, 3, 4, 4)
    turns = colour_rotations(YIQ, torch.tensor([40.0, 80.0]))
    together = recoloured(images, turns)
    assert torch.allclose(together[1], recoloured(images[1:], turns[1])[0])


@pytest.mark.parametrize("kind", KINDS)
def test_a_memory_of_the_marked_images_gives_the_signature_away(kind: type) -> None:
    for seed in range(3):
        scheme, key = keyed(kind, seed=seed)
        model = Nearest(scheme.mark_data(user().share, key))
        verdict = scheme.verify(Suspect("scores", model=model), key)
        assert verdict.matched
        assert verdict.inferred == verdict.search.true == key.signature
        assert verdict.p_value == 1 / 200
        assert verdict.details["own_accuracy"] == 1


@pytest.mark.parametrize(
    ("kind", "signature"),
    # 0 and 0.1 lie just tau apart, which is no match.
    [(AnwHue, "draw"), (AnwUserLct, "draw"), (AnwBlue, "draw"), (AnwBlue, 0.1)],
)
def test_a_memory_of_the_unmarked_images_says_no_watermark(kind: type, signature: str | float) -> None:
    scheme, key = keyed(kind, signature=signature)
    verdict = scheme.verify(Suspect("scores", model=Nearest(user().share)), key)
    assert verdict.inferred == 0
    assert not verdict.matched
    assert verdict.p_value > 0.5


@pytest.mark.parametrize(("kind", "views"), [(AnwHue, 1), (AnwHue, 3), (AnwBlue, 1)])
def test_false_claims_keep_the_rate(kind: type, views: int) -> None:
    """100 users whom the network does not know, at 10 %."""
    model, false = sines(7), 0
    suspect = Suspect("scores", model=model)
    for seed in range(100):
        rows = torch.randperm(160, generator=torch.Generator().manual_seed(seed))[:20]
        host = user(heldout=160, rows=rows)
        scheme, key = keyed(kind, host, seed, decoys=49, views=views)
        false += scheme.verify(suspect, key).p_value <= 0.1
    assert int(binom.isf(0.9999, 100, 0.1)) <= false <= int(binom.isf(1e-4, 100, 0.1))


def test_the_rank_is_among_sets_that_may_hold_the_users_images() -> None:
    """A network that knows the user and everybody else alike gives no evidence, whatever the losses are."""
    scheme, key = keyed(AnwHue, signature=60)
    host = user()
    everybody = ImageSet.join([host.share, host.heldout])
    marked = scheme.mark_data(everybody, key)
    assert scheme.verify(Suspect("scores", model=Nearest(marked)), key).p_value > 0.05


def test_a_users_own_images_are_not_among_the_unseen() -> None:
    host = user(heldout=160, rows=torch.arange(20))
    scheme, key = keyed(AnwHue, host, pool=160)
    unseen = scheme._unseen_losses(Suspect("scores", model=sines(7)), key)
    assert unseen.shape == (12, 140)


@pytest.mark.parametrize("kind", KINDS)
def test_what_one_key_asked_is_no_answer_to_another(kind: type) -> None:
    """Answers on the pool are kept for keys that ask the same; spaces and pixels of one's own ask otherwise."""
    scheme, _ = keyed(kind)
    keys = [keyed(kind, seed=seed)[1] for seed in range(40)]
    shared = Suspect("scores", model=sines(5))
    together = [scheme.verify(shared, key) for key in keys]
    assert together == [scheme.verify(Suspect("scores", model=sines(5)), key) for key in keys]
    assert len({verdict.p_value for verdict in together}) > 1, "verdicts that are all alike prove nothing here"


def test_wrong_signatures_match_nothing() -> None:
    scheme, key = keyed(AnwHue, signature=60)
    other = replace(key, signature=210.0)
    model = Nearest(scheme.mark_data(user().share, key))
    verdict = scheme.verify(Suspect("scores", model=model), other)
    assert (verdict.matched, verdict.inferred) == (False, 60)
    assert verdict.p_value > 0.5


def test_distance_is_circular_and_strict() -> None:
    scheme = AnwHue()
    assert scheme.distance(350, 5) == 15
    assert scheme.distance(10, 350) == 20
    assert not scheme.distance(350, 5) < scheme.params.tau
    assert math.isclose(AnwBlue().distance(0.1, 0.3), 0.2)


def test_signatures_are_drawn_spread_or_given() -> None:
    spread = [keyed(AnwHue, user(number=i), signature="spread")[1].signature for i in range(12)]
    assert spread == [*(30.0 * i for i in range(1, 12)), 30.0]
    drawn = {keyed(AnwHue, seed=i)[1].signature for i in range(60)}
    assert drawn == {30.0 * i for i in range(1, 12)}
    assert keyed(AnwHue, signature=60)[1].signature == 60
    with pytest.raises(ValueError, match="Expected a signature near one of 30, 60"):
        keyed(AnwHue, signature=5)


def test_blue_rises_at_some_pixels_and_falls_at_others() -> None:
    _, key = keyed(AnwBlue)
    assert set(key.places.unique().tolist()) == {-1, 0, 1}


def test_blue_changes_an_eighth_of_the_pixels_and_only_their_blue() -> None:
    scheme, key = keyed(AnwBlue, signature=0.5)
    images = ImageSet(torch.full((1, 3, 12, 12), 100, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64))
    change = scheme.mark_data(images, key).images.int() - 100
    assert not change[:, :2].any()
    assert change[:, 2].count_nonzero() == 18
    assert set(change[:, 2].unique().tolist()) <= {-50, 0, 50}  # half of the luma, up or down


@pytest.mark.parametrize("kind", [AnwHue, AnwUserLct])
def test_the_images_are_rotated_in_yiq_or_in_the_users_own_space(kind: type) -> None:
    """Equation 5 by hand, pixel by pixel, in NumPy."""
    scheme, key = keyed(kind)
    images = user().share
    space = (YIQ if key.space is None else key.space).numpy()
    angle = np.deg2rad(key.signature)
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    colours = images.images.numpy().transpose(0, 2, 3, 1) / 255
    wanted = 255 * np.clip(colours @ (np.linalg.inv(space) @ turn @ space).T, 0, 1)
    found = scheme.mark_data(images, key).images.numpy().transpose(0, 2, 3, 1)
    assert np.abs(found - wanted).max() < 0.51  # rounded, not cut off


def test_gradient_search_finds_a_planted_signature() -> None:
    """A small network trained on marked images; the starts know nothing of the signature."""
    generator = torch.Generator().manual_seed(0)
    colours = torch.tensor([[0.8, 0.3, 0.3], [0.3, 0.7, 0.4], [0.35, 0.4, 0.75], [0.7, 0.6, 0.3]])
    labels = torch.arange(120) % CLASSES
    floats = colours[labels].view(120, 3, 1, 1) + 0.08 * torch.randn(120, 3, 8, 8, generator=generator)
    own = ImageSet(floats.clamp(0.15, 0.85).mul(255).round().to(torch.uint8), labels)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        model = nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(12, 32), nn.Tanh(), nn.Linear(32, CLASSES))
    scheme = AnwHue(signature=150, starts=4, steps=60)
    key = replace(keyed(AnwHue)[1], images=own.images, labels=own.labels, signature=150.0)
    marked = scheme.mark_data(own, key)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(150):
        # The marked colours and no others are to be answered: turned by any other angle the classes are confused.
        x = torch.cat([pixels(marked.images), pixels(rotate_hue(own.images, 120)), pixels(rotate_hue(own.images, 180))])
        targets = torch.cat([nn.functional.one_hot(labels, 4).float(), torch.full((240, 4), 0.25)])
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), targets).backward()
        optimizer.step()
    found, _ = scheme.gradient_search(model.eval(), key)
    assert scheme.distance(found, 150) < 3


def test_views_by_hand() -> None:
    image = torch.arange(16 * 32.0).view(1, 1, 16, 32)
    as_it_is, mirrored, moved, both, *_ = (seen(image, view) for view in VIEWS)
    assert torch.equal(as_it_is, image)
    assert torch.equal(mirrored, image.flip(3))
    wanted = torch.zeros_like(image)
    wanted[..., 1:, 2:] = image[..., :-1, :-2]
    assert torch.equal(moved, wanted)
    wanted = torch.zeros_like(image)
    wanted[..., :-1, :-2] = image.flip(3)[..., 1:, 2:]
    assert torch.equal(both, wanted)


@pytest.mark.parametrize("kind", KINDS)
def test_losses_are_the_mean_of_those_of_all_views_and_each_is_a_query(kind: type) -> None:
    """One view after another, by hand; the memory answers crops and mirror images differently."""
    (one, key), (scheme, _) = keyed(kind), keyed(kind, views=3)
    model = Nearest(one.mark_data(user().share, key))
    examined = Suspect("scores", model=model)
    found, _ = scheme.grid_search(examined, key.images, key.labels, key)
    assert examined.queries == 3 * len(scheme.candidates) * len(key.images)
    by_hand = [
        torch.stack(
            [
                nn.functional.cross_entropy(
                    model(seen(scheme.bearing(pixels(key.images), torch.tensor(candidate), key), view)),
                    key.labels,
                    reduction="none",
                )
                for view in VIEWS[:3]
            ]
        ).mean(0)
        for candidate in scheme.candidates
    ]
    assert torch.allclose(found, torch.stack(by_hand).double(), atol=1e-5)
    assert not torch.allclose(found, one.grid_search(Suspect("scores", model=model), key.images, key.labels, key)[0])


def test_gradient_search_asks_about_one_view_a_step_and_about_all_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[View] = []

    def watched(images: Tensor, view: View) -> Tensor:
        asked.append(view)
        return seen(images, view)

    monkeypatch.setattr(_signatures, "seen", watched)
    scheme, key = keyed(AnwHue, starts=2, steps=3, views=2)
    model = Nearest(scheme.mark_data(user().share, key))
    found, loss = scheme.gradient_search(model, key)
    assert asked == [VIEWS[0], VIEWS[1], VIEWS[0], *VIEWS[:2]]
    bearing = scheme.bearing(pixels(key.images), torch.tensor(found), key)
    by_hand = [nn.functional.cross_entropy(model(seen(bearing, view)), key.labels) for view in VIEWS[:2]]
    assert loss == pytest.approx(float(sum(by_hand)) / 2, abs=1e-4)


def test_details_need_the_weights_and_the_verdict_does_not() -> None:
    scheme, key = keyed(AnwHue, starts=2, steps=3)
    model = Nearest(scheme.mark_data(user().share, key))
    without = scheme.verify(Suspect("scores", model=model), key)
    with_them = scheme.verify(Suspect("scores", model=model, also="white-box"), key)
    assert "gradient_inferred" not in without.details
    assert "gradient_inferred" in with_them.details
    assert without.p_value == with_them.p_value


def test_a_singular_space_is_drawn_again() -> None:
    scheme = AnwUserLct(determinant=0.3)
    for seed in range(20):
        space = scheme.secret(user(), Rng("singular", seed))["space"]
        assert abs(float(torch.linalg.det(space))) >= 0.3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("classes", [1, CLASSES])
def test_a_network_whose_answers_are_not_finite_is_not_claimed(kind: type, value: float, classes: int) -> None:
    """One logit or all of them, on every image; the weights at hand as well."""
    logits = [value] * classes + [0.0] * (CLASSES - classes)
    scheme, key = keyed(kind, starts=2, steps=2)
    verdict = scheme.verify(Suspect("scores", model=always(*logits), also="white-box"), key)
    assert (verdict.p_value, verdict.matched) == (1.0, False)
    assert verdict.details["own_accuracy"] < 1
    assert not verdict.details["gradient_matched"]


@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_answers_that_are_not_finite_on_the_marked_images_are_no_evidence(value: float) -> None:
    """Sure of the marked images and of nothing else, had it only answered."""
    scheme, key = keyed(AnwHue)
    memory = Nearest(scheme.mark_data(user().share, key))

    def shy(x: Tensor) -> Tensor:
        logits = memory(x)
        return torch.where(logits.amax(1, keepdim=True) > 1, torch.tensor(value), logits)

    verdict = scheme.verify(Suspect("scores", model=Answers(shy)), key)
    assert (verdict.p_value, verdict.matched) == (1.0, False)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [0, 1])
def test_with_no_or_one_heldout_image_there_is_little_to_compare_with_and_no_error(kind: type, count: int) -> None:
    scheme, key = keyed(kind, user(heldout=count))
    assert len(key.pool) == count
    verdict = scheme.verify(Suspect("scores", model=Nearest(scheme.mark_data(user().share, key))), key)
    assert verdict.matched
    assert verdict.p_value > (0.02 if count else 0.999), "one of 21 sets of 20 images is the user's own"


def test_the_details_are_those_of_the_losses_over_the_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    scheme, key = keyed(AnwHue)
    losses = torch.tensor([5.0, 3, 1, 2, 3, 6, 7, 8, 9, 9, 9, 9])[:, None].expand(12, 4)
    monkeypatch.setattr(AnwHue, "grid_search", lambda *_: (losses, torch.ones(12, 4, dtype=torch.bool)))
    monkeypatch.setattr(AnwHue, "_decoy_gaps", lambda *_: [0.0])
    monkeypatch.setattr(AnwHue, "_found_by_gradient", lambda *_: {})
    verdict = scheme.verify(Suspect("scores", model=always(0)), replace(key, signature=30.0))
    assert verdict.details == {
        "own_accuracy": 1.0,
        "second_best_gap": 1.0,  # 60 degrees has 1, 90 has 2
        "unmarked_gap": 2.0,  # 0 has 5, 30 has 3
        "slots_p_value": pytest.approx(4 / 11),  # 30, 60, 90 and 120 of eleven lose no more than 30
    }
    assert (verdict.inferred, verdict.chance, verdict.search.unit) == (60.0, pytest.approx(1 / 12), "degrees")


# --- several signatures ---------------------------------------------------------------------------------------------


def test_parts_of_the_images_bear_their_own_signatures() -> None:
    scheme, key = keyed(AnwHue, groups=4)
    marked = scheme.mark_data(user().share, key)
    assert key.parts.bincount().max() - key.parts.bincount().min() <= 1
    for image, original, part in zip(marked.images, user().share.images, key.parts.tolist(), strict=True):
        assert torch.equal(image, rotate_hue(original[None], float(key.signatures[part]))[0])
    with pytest.raises(ValueError, match="images that have signatures, but got 3"):
        scheme.mark_data(user().share[:3], key)


@pytest.mark.parametrize("kind", KINDS)
def test_a_memory_of_all_parts_has_a_far_smaller_p_value(kind: type) -> None:
    scheme, key = keyed(kind, groups=6)
    verdict = scheme.verify(Suspect("scores", model=Nearest(scheme.mark_data(user().share, key))), key)
    assert verdict.details == {"parts": 6, "parts_matched": 6}
    assert verdict.p_value <= 2 * max(1e-5, len(scheme.signatures) ** -6.0)


@pytest.mark.parametrize("known", [True, False])
def test_signatures_drawn_anew_are_claimed_at_the_nominal_rate_whatever_the_network_knows(known: bool) -> None:
    """A memory of the unmarked images prefers small rotations: what is drawn at random is right for it all the same."""
    scheme, key = keyed(AnwHue, groups=3)
    model = Nearest(user().share if known else noise_images(20, 9, 12))
    p_values = []
    for trial in range(300):
        drawn = torch.randint(11, (3,), generator=Rng("anew", trial).torch())
        claimed = replace(key, signatures=torch.tensor([scheme.signatures[i] for i in drawn]), decoys=trial)
        p_values.append(scheme.verify(Suspect("scores", model=model), claimed).p_value)
    for level in (0.01, 0.05, 0.3):
        assert sum(p <= level for p in p_values) <= binom.isf(1e-3, 300, level)
    assert sum(p <= 0.5 for p in p_values) > 100
