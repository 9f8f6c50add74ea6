"""Removal of visible marks: each step on known answers, and whole attacks against marks that were stamped by hand."""

from functools import cache

import numpy as np
import pytest
import torch
from sklearn.datasets import load_sample_images
from torch import nn
from torch.nn.functional import affine_grid, grid_sample

from attacks import _matting
from attacks._matting import Mark
from attacks.removal import Inpainting, Matting, MattingClean, Median
from bench.api import ImageSet, Rng
from bench.data.image_quality import masked_psnr_db, residual_energy
from tests.fakes import FakeContext, victim_of

COUNT, SIDE = 400, 32


@cache
def photographs(count=COUNT, seed=0):
    """Random crops of real photographs, half of them mirrored: N x 3 x 32 x 32 uint8."""
    generator = Rng("crops", seed).torch()
    sources = [torch.from_numpy(np.array(photo)).permute(2, 0, 1)[:, ::2, ::2] for photo in load_sample_images().images]
    which, mirror = (torch.randint(2, (count,), generator=generator).tolist() for _ in range(2))
    top, left = (torch.randint(high - SIDE, (count,), generator=generator).tolist() for high in sources[0].shape[1:])
    crops = [
        sources[w][:, t : t + SIDE, x : x + SIDE].flip([2] if m else [])
        for w, m, t, x in zip(which, mirror, top, left, strict=True)
    ]
    return torch.stack(crops)


def ring():
    """A red mark: a ring and a bar off the centre, with soft edges; 3 x H x W colour and H x W opacity."""
    rows, columns = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    away = ((rows - 11.0) ** 2 + (columns - 10.0) ** 2).sqrt()
    opacity = (2.5 - (away - 6).abs()).clamp(0, 1)
    opacity[24:27, 5:27] = 0.8
    return torch.tensor([0.95, 0.25, 0.2])[:, None, None].expand(3, SIDE, SIDE), opacity * 0.97


def stamp(images, opacity, colour=None):
    """Blend the mark by hand; the opacity is H x W, or N x 1 x H x W where it differs."""
    blended = opacity * (ring()[0] if colour is None else colour) + (1 - opacity) * images.float() / 255
    return (blended * 255).floor().to(torch.uint8)


def displaced(opacity, count=COUNT):
    """Every image's own smooth displacement by up to a pixel."""
    coarse = torch.rand(count, 2, 4, 4, generator=Rng("displacement").torch()) * 2 - 1
    field = nn.functional.interpolate(coarse, size=(SIDE, SIDE), mode="bicubic").clamp(-1, 1)
    grid = affine_grid(torch.eye(2, 3)[None], [1, 1, SIDE, SIDE], align_corners=False)
    moved = grid + field.permute(0, 2, 3, 1) * 2 / SIDE
    return grid_sample(opacity.expand(count, 1, SIDE, SIDE), moved, align_corners=False)


def claimed(attack, marked, clean=None, seed=0):
    victim = victim_of(attack, images=ImageSet(marked, torch.arange(len(marked))))
    own = None if clean is None else ImageSet(clean, torch.zeros(len(clean)).long())
    return list(attack.apply(victim, FakeContext(seed, own=own)))


def after_db(attack, marked):
    """PSNR on the marked pixels after the attack's last rung."""
    images = claimed(attack, marked)[-1].images.images
    return masked_psnr_db(photographs(), images, ring()[1] > 0)


def full(cls, **params):
    """The attack with the whole collection."""
    return cls(ladder=[100.0], **({"refined": 10, "rounds": 1} if issubclass(cls, Matting) else {}), **params)


def test_median_interpolates_within_a_grey_level_by_hand():
    values = torch.tensor([0, 0, 1, 7, 7, 9], dtype=torch.uint8).view(6, 1, 1, 1)
    third, gap = -0.5 + 1.5 / 2, (1.5 + 6.5) / 2
    assert _matting.median(values[:3], lambda x: x) * 255 == pytest.approx(third, abs=1e-4)
    assert _matting.median(values, lambda x: x) * 255 == pytest.approx(gap, abs=1e-4)
    assert _matting.median(values, lambda x: -x) * 255 == pytest.approx(-gap, abs=1e-4)


def test_median_is_the_median_to_half_a_grey_level_whatever_the_chunks(monkeypatch):
    images = photographs()[:101]
    ours = _matting.median(images, _matting._dx)
    expected = np.median(np.diff(images.numpy().astype(int), axis=3), axis=0)
    assert np.abs(ours.numpy() * 255 - expected).max() <= 0.5 + 1e-4
    monkeypatch.setattr(_matting, "CHUNK", 7)
    assert torch.equal(_matting.median(images, _matting._dx), ours)


def test_reconstruction_inverts_gradients():
    colour, opacity = ring()
    matte = colour * opacity
    found = _matting.reconstruct(_matting._dx(matte), _matting._dy(matte))
    assert (found - matte).abs().max() < 1e-5


def test_reconstruction_is_the_least_squares_solution_of_gradients_that_fit_no_image():
    generator = Rng("gradients").torch()
    across, down = torch.randn(1, 5, 5, generator=generator), torch.randn(1, 4, 6, generator=generator)
    basis = torch.eye(30).view(30, 1, 5, 6)
    design = torch.cat([_matting._dx(basis).flatten(1), _matting._dy(basis).flatten(1)], 1).T.double()
    wanted = torch.cat([across.flatten(), down.flatten()]).double()
    expected = torch.linalg.lstsq(design, wanted[:, None], driver="gelsd").solution.view(5, 6)
    found = _matting.reconstruct(across, down)[0].double()
    assert ((found - found.mean()) - (expected - expected.mean())).abs().max() < 1e-5


def test_harmonic_fill_continues_a_ramp_and_agrees_with_relaxation():
    rows, columns = torch.meshgrid(torch.arange(9.0), torch.arange(8.0), indexing="ij")
    ramp = (rows + 2 * columns).expand(2, 3, 9, 8) / 30
    inside = torch.zeros(9, 8, dtype=torch.bool)
    inside[2:6, 3:7] = True
    hole = ramp.masked_fill(inside, -5.0)
    assert (_matting.harmonic_fill(hole, inside) - ramp).abs().max() < 1e-4
    corner = torch.zeros(9, 8, dtype=torch.bool)
    corner[:4, :3] = corner[8, 5:] = True
    relaxed = ramp.masked_fill(corner, 0.0).numpy().copy()
    for _ in range(600):
        for r, c in corner.nonzero().tolist():
            around = [(r + i, c + j) for i, j in ((1, 0), (-1, 0), (0, 1), (0, -1))]
            near = [relaxed[..., y, x] for y, x in around if 0 <= y < 9 and 0 <= x < 8]
            relaxed[..., r, c] = sum(near) / len(near)
    assert np.abs(_matting.harmonic_fill(ramp, corner).numpy() - relaxed).max() < 1e-3


def test_harmonic_fill_at_its_ends():
    images = torch.rand(2, 3, 5, 5, generator=Rng("fill").torch())
    nothing, everything = torch.zeros(5, 5, dtype=torch.bool), torch.ones(5, 5, dtype=torch.bool)
    assert torch.equal(_matting.harmonic_fill(images, nothing), images)
    assert torch.equal(_matting.harmonic_fill(images, everything), torch.zeros_like(images))


def test_conjugate_gradients_solve_a_system():
    basis = torch.randn(12, 8, generator=Rng("system").torch())
    matrix = basis.T @ basis + torch.eye(8)
    right = torch.arange(8.0)
    found = _matting._conjugate_gradients(lambda x: matrix @ x, right, 12)
    assert (found - torch.linalg.solve(matrix, right)).abs().max() < 1e-3
    assert torch.equal(_matting._conjugate_gradients(lambda x: matrix @ x, 0 * right, 5), 0 * right)


def test_the_robust_norm_finds_the_median_and_not_the_mean():
    points = torch.tensor([0.0, 0.1, 0.2, 0.3, 40.0])
    found = _matting._robust(lambda x: (x - points,), (1.0,), torch.zeros(1), 25, 3)
    assert found.item() == pytest.approx(0.2, abs=0.01)
    heavy = _matting._robust(lambda x: (x - points, x - 0.3), (1.0, 10.0), torch.zeros(1), 25, 3)
    assert heavy.item() == pytest.approx(0.3, abs=0.01)


@pytest.mark.parametrize("factor", [0.5, 1.0])
def test_moments_of_clean_images_give_the_mark_in_closed_form(factor):
    """With the scenes' own moments nothing but rounding stands between the estimate and the mark."""
    clean, (colour, opacity) = photographs(), ring()
    marked = stamp(clean, factor * opacity)
    mark = _matting.from_moments(marked, torch.ones(SIDE, SIDE, dtype=torch.bool), clean)
    assert (mark.opacity - factor * opacity).abs().max() < 0.01
    assert (mark.matte - factor * opacity * colour).abs().max() < 0.01
    cleaned = (_matting.subtract(marked.float() / 255, mark) * 255).round().to(torch.uint8)
    assert masked_psnr_db(clean, cleaned, (opacity > 0) & (opacity < 0.9)) > 40


def test_moments_are_those_of_numpy_whatever_the_chunks(monkeypatch):
    images = photographs()[:50]
    monkeypatch.setattr(_matting, "CHUNK", 7)
    mean, variance = _matting._moments(images)
    values = images.numpy() / 255
    assert np.abs(mean.numpy() - values.mean(0)).max() < 1e-6
    assert np.abs(variance.numpy() - values.var(0, ddof=1)).max() < 1e-6


def test_the_terms_of_the_objective_by_hand():
    """Two pixels side by side: opacity 0 and 0.25, so that the root of its step is 0.5."""
    opacity, region = torch.tensor([[0.0, 0.25]]), torch.ones(1, 2, dtype=torch.bool)
    shown, matte, colour = torch.tensor([[[[0.3, 0.4]]]]), torch.tensor([[[0.0, 0.1]]]), torch.tensor([[[0.8, 0.8]]])
    scene, own = torch.tensor([[[[0.2, 0.6]]]]), torch.tensor([[[[0.5, 0.9]]]])
    residuals, weights = _matting._scene_terms(shown, opacity, colour, matte)
    values = residuals(torch.stack([scene, own]))
    expected = [[-0.1, 0.275], [0.2], [], [0.2], [], [0.125], [], [-0.3, 0.1]]
    assert [value.flatten().tolist() for value in values] == [pytest.approx(row, abs=1e-6) for row in expected]
    assert len(weights) == len(expected)
    residuals, weights = _matting._opacity_terms(shown, scene, colour, Mark(matte, opacity, region))
    expected = [[-0.1, 0.25], [0.25], [], [0.1], []]
    assert [v.flatten().tolist() for v in residuals(opacity)] == [pytest.approx(row, abs=1e-6) for row in expected]
    assert len(weights) == len(expected)


def test_the_region_is_where_the_mark_is():
    opacity = ring()[1]
    region = _matting.find_region(stamp(photographs(), 0.5 * opacity), 0.2)
    assert region[opacity > 0.1].all()
    assert region.sum() < 2.2 * (opacity > 0).sum(), "a margin of a pixel around thin strokes, and not everything"
    wider = _matting.find_region(stamp(photographs(), 0.5 * opacity), 0.2, margin=3)
    assert torch.equal(wider, _matting.dilate(region, 2))


def test_dilation_by_hand():
    point = torch.zeros(5, 6, dtype=torch.bool)
    point[1, 4] = True
    expected = torch.zeros(5, 6, dtype=torch.bool)
    expected[0:3, 3:6] = True
    assert torch.equal(_matting.dilate(point, 1), expected)
    assert torch.equal(_matting.dilate(point, 0), point)


def test_matting_recovers_the_mark_and_the_scenes():
    clean, (colour, opacity) = photographs(), ring()
    marked = stamp(clean, 0.5 * opacity)
    start = _matting.from_moments(marked, _matting.find_region(marked, 0.2))
    mark = _matting.refine(marked[:20], start, 2)
    where = opacity > 0
    assert (mark.matte - 0.5 * opacity * colour)[:, where].abs().mean() < 0.02
    assert (mark.opacity - 0.5 * opacity)[where].abs().mean() < 0.025
    assert (mark.opacity[~mark.region] == 0).all()
    before_db = masked_psnr_db(clean, marked, where)
    cleaned = claimed(full(Matting), marked)[0].images.images
    assert masked_psnr_db(clean, cleaned, where) > before_db + 12
    assert residual_energy(clean, marked, cleaned) < 0.05


def test_refinement_mends_what_moments_of_few_images_get_wrong():
    colour, opacity = ring()[0], 0.5 * ring()[1]
    marked = stamp(photographs(), opacity)
    start = _matting.from_moments(marked[:40], _matting.find_region(marked, 0.2))
    found, where = _matting.refine(marked[:40], start, 2), opacity > 0
    opacities = [(mark.opacity - opacity)[where].abs().mean() for mark in (start, found)]
    mattes = [(mark.matte - opacity * colour)[:, where].abs().mean() for mark in (start, found)]
    assert opacities[1] < 0.95 * opacities[0]
    assert mattes[1] < 0.98 * mattes[0]


def test_the_larger_the_collection_the_cleaner_the_images():
    clean, opacity = photographs(), 0.5 * ring()[1]
    claims = claimed(Matting(ladder=[3.0, 20.0, 100.0], refined=10, rounds=1), stamp(clean, opacity))
    kept_db = [masked_psnr_db(clean, claim.images.images, opacity > 0) for claim in claims]
    assert kept_db[0] + 2 < kept_db[1]
    assert kept_db[1] + 2 < kept_db[2]
    assert [claim.measures["estimated_from_images"] for claim in claims] == [12, 80, 400]


def test_matting_beats_the_baselines():
    clean, opacity = photographs(), 0.5 * ring()[1]
    marked = stamp(clean, opacity)
    before = masked_psnr_db(clean, marked, opacity > 0)
    matting, median = (after_db(full(cls), marked) for cls in (Matting, Median))
    assert before + 2 < median < matting - 5
    assert after_db(Inpainting(ladder=[1]), marked) < matting - 5


def test_marks_that_differ_between_images_are_harder():
    """The order that the defence's papers claim: static, then each image's opacity, then its displacement."""
    opacity = 0.5 * ring()[1]
    factors = 1 + (torch.rand(COUNT, 1, 1, 1, generator=Rng("factors").torch()) - 0.5) * 80 / 255
    static, varied, moved = (
        after_db(full(Matting), stamp(photographs(), each)) for each in (opacity, factors * opacity, displaced(opacity))
    )
    assert static > varied + 1
    assert varied > moved + 2


def test_clean_images_undo_a_mark_that_touches_every_pixel():
    opacity = 0.15 + 0.4 * ring()[1]
    marked = stamp(photographs(), opacity)
    other = photographs(COUNT, seed=1)
    cleaned = [claimed(full(cls), marked, other)[0].images.images for cls in (Matting, MattingClean)]
    left = [residual_energy(photographs(), marked, images) for images in cleaned]
    assert left[1] < left[0] / 2


def test_nearly_opaque_pixels_are_blended_from_their_neighbours():
    colour, opacity = ring()
    mark = Mark(colour * opacity, opacity, opacity > 0)
    scene = torch.full((1, 3, SIDE, SIDE), 0.6)
    shown = ((opacity * colour + (1 - opacity) * scene) * 255).floor() / 255
    errors = [
        (full(Matting, blend=blend)._unblend(shown, mark) - scene)[..., opacity > 0.96].abs().mean().item()
        for blend in (0.5, 0.989)
    ]
    assert errors[0] < errors[1] / 2


def test_inpainting_replaces_the_region_and_nothing_else():
    clean, opacity = photographs(), ring()[1]
    marked = stamp(clean, opacity)
    region = _matting.find_region(marked, 0.2)
    claims = claimed(Inpainting(), marked)
    for claim in claims:
        changed = (claim.images.images != marked).flatten(0, 1).any(0)
        assert torch.equal(changed, _matting.dilate(region, int(claim.strength) - 1)), "all of it, and nothing else"
    assert masked_psnr_db(clean, claims[0].images.images, opacity > 0) > masked_psnr_db(clean, marked, opacity > 0) + 3
    other = stamp(clean, opacity, colour=torch.tensor([0.0, 1.0, 0.0])[:, None, None])
    same = _matting.harmonic_fill(other.float(), region) - _matting.harmonic_fill(marked.float(), region)
    assert same.abs().max() < 3, "what is under the region does not count"


@pytest.mark.parametrize("cls", [Median, Matting, MattingClean, Inpainting])
def test_claims_keep_the_contract(cls, monkeypatch):
    marked = stamp(photographs(), 0.5 * ring()[1])[:60]
    before = marked.clone()
    attack = cls(**cls.card.tiny)
    clean = photographs(COUNT, seed=1)[:50]
    (claim,) = claimed(attack, marked, clean)
    assert torch.equal(marked, before)
    assert claim.strength == attack.ladder[0]
    assert (claim.images.images.dtype, claim.images.images.shape) == (torch.uint8, marked.shape)
    assert claim.images.labels.tolist() == list(range(60))
    monkeypatch.setattr("attacks.removal.CHUNK", 7)
    assert (claimed(attack, marked, clean)[0].images.images.int() - claim.images.images.int()).abs().max() <= 1


@pytest.mark.parametrize("cls", [Median, Matting])
def test_the_sample_follows_the_seed(cls):
    marked = stamp(photographs(), 0.5 * ring()[1])[:60]
    attack = cls(**{**cls.card.tiny, "ladder": [30.0]})
    one, same, other = (claimed(attack, marked, seed=seed)[0].images.images for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("cls", [Median, Matting, MattingClean, Inpainting])
def test_grey_flat_and_tiny_collections_do_no_harm(cls):
    flat = torch.full((4, 1, 9, 12), 90, dtype=torch.uint8)
    (claim,) = claimed(cls(**cls.card.tiny), flat, flat)
    assert (claim.images.images == 90).all()
    (alone,) = claimed(cls(**cls.card.tiny), photographs()[:1], photographs()[:1])
    assert alone.images.images.shape == (1, 3, SIDE, SIDE)
