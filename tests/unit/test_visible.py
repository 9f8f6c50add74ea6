"""Visible marks: what a stamp does to pixels, what varies from image to image, and what the mark is."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

from bench.api import Rng
from schemes import _visible
from schemes._visible import VisibleKey, draw_mark, smooth, visibility, warp
from schemes.visible import VisibleDisplacement, VisibleOpacity, VisibleStatic, released_offsets
from tests.fakes import cloudy_images as cloudy
from tests.fakes import grey, same_key
from tests.unit.visible_keys import KINDS, TINY, examine, host_of, key_of


def flat_key(alpha: float, colour: float = 1.0, blend: float = 0.5, side: int = 4) -> VisibleKey:
    """A mark of one colour and opacity everywhere."""
    mark = torch.cat([torch.full((3, side, side), colour), torch.full((1, side, side), alpha)])
    return VisibleKey(mark, grey(0, 0, side), torch.zeros(0, dtype=torch.int64), None, blend, seed=3, decoys=4)


# --- what a stamp does to pixels -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("level", "alpha", "colour", "blend", "wanted"),
    [
        (100, 0.8, 1.0, 0.5, 162),  # a = 0.4: 102 + 60
        (100, 0.8, 0.0, 0.5, 60),
        (101, 0.8, 1.0, 0.5, 163),  # 162.6 is rounded, not truncated
        (200, 0.97, 0.2, 1.0, 55),  # 49.47 + 6 = 55.47
        (7, 0.0, 1.0, 1.0, 7),
        (7, 1.0, 1.0, 1.0, 255),
    ],
)
def test_blending_by_hand(level: int, alpha: float, colour: float, blend: float, wanted: int) -> None:
    assert (VisibleStatic().stamp(grey(level), flat_key(alpha, colour, blend)) == wanted).all()


@pytest.mark.parametrize("blend", [0.5, 1.0])
@pytest.mark.parametrize("kind", KINDS)
def test_pixels_without_a_mark_keep_their_bits(kind: Any, blend: float) -> None:
    scheme = kind(blend=blend, **TINY)
    key, images = key_of(scheme), cloudy(20, 5).images
    stamped, alpha = scheme.stamp(images, key), key.mark[3]
    # Displaced by up to one pixel, the mark can reach pixels whose neighbours carry it.
    near = torch.nn.functional.max_pool2d(alpha[None], 5, 1, 2)[0] if kind is VisibleDisplacement else alpha
    assert torch.equal(stamped[..., near == 0], images[..., near == 0])
    assert (stamped[..., alpha > 0.5] != images[..., alpha > 0.5]).float().mean() > 0.9


def test_removal_with_the_true_mark_returns_the_image_within_two_levels() -> None:
    scheme = VisibleStatic(**TINY)
    key, images = key_of(scheme), cloudy(20, 5).images
    mark = key.mark.double()
    a, stamped = 0.5 * mark[3], scheme.stamp(images, key).double()
    restored = ((stamped - 255 * a * mark[:3]) / (1 - a)).round()
    assert (restored - images.double()).abs().max() <= 2
    assert (stamped - images.double()).abs().max() > 50


@pytest.mark.parametrize("cuts", [(1, 5, 14), (20,), (7, 7, 6)])
@pytest.mark.parametrize("kind", KINDS)
def test_chunks_give_the_same_as_the_whole(kind: Any, cuts: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    scheme = kind(**TINY)
    key, images = key_of(scheme), cloudy(20, 5)
    whole = scheme.mark_data(images, key).images
    monkeypatch.setattr("schemes.visible.CHUNK", 6)
    firsts = np.cumsum((0, *cuts))
    chunks = [scheme.stamp(images.images[a:b], key, first=int(a)) for a, b in pairwise(firsts)]
    assert torch.equal(torch.cat(chunks), whole)


@pytest.mark.parametrize("kind", KINDS)
def test_labels_stay_and_the_images_given_are_left_alone(kind: Any) -> None:
    scheme, images = kind(**TINY), cloudy(6, 5)
    before = images.images.clone()
    marked = scheme.mark_data(images, key_of(scheme))
    assert torch.equal(marked.labels, images.labels)
    assert torch.equal(images.images, before)


def test_visibility_by_hand() -> None:
    clean = grey(100, 2)
    stamped = clean.clone()
    stamped[0, 1, 2, 3] = 151
    assert visibility(clean, stamped) == pytest.approx(0.04 / 3)
    stamped[1, :, 0, 0] = 0
    assert visibility(clean, stamped) == pytest.approx((0.04 / 3 + (100 / 255) ** 2) / 2)
    assert visibility(clean, clean) == 0


def test_visibility_grows_with_the_square_of_the_blend_factor() -> None:
    weak, strong = (key_of(VisibleStatic(blend=blend, **TINY)).visibility for blend in (0.5, 1.0))
    assert strong == pytest.approx(4 * weak, rel=0.05)


# --- what varies from image to image ---------------------------------------------------------------------------


def test_opacity_varies_from_image_to_image_within_its_bounds() -> None:
    stamped = VisibleOpacity().stamp(grey(0, 400), flat_key(1.0)).float().div(255)
    assert (stamped == stamped[:, :1, :1, :1]).all(), "one factor an image"
    factors = stamped[:, 0, 0, 0]
    assert abs(float(factors.mean()) - 0.5) < 0.01
    assert float(factors.max()) == pytest.approx(0.5 + 20 / 255, abs=0.006)
    assert float(factors.min()) == pytest.approx(0.5 - 20 / 255, abs=0.006)
    assert float(factors.std()) == pytest.approx(20 / 255 / 3**0.5, rel=0.1)


def test_opacity_above_one_is_opaque() -> None:
    assert (VisibleOpacity(blend=1.0).stamp(grey(0, 100), flat_key(1.0, blend=1.0)).amax() == 255).all()


def test_released_opacity_is_static_to_the_bit() -> None:
    images = cloudy(20, 5).images
    key = key_of(VisibleStatic(**TINY))
    static = VisibleStatic().stamp(images, key)
    assert torch.equal(VisibleOpacity(as_released=True).stamp(images, key), static)
    assert torch.equal(VisibleOpacity(jitter=0).stamp(images, key), static)
    assert not torch.equal(VisibleOpacity().stamp(images, key), static)


def test_displacement_is_smooth_independent_in_x_and_y_and_as_large_as_asked() -> None:
    scheme = VisibleDisplacement(amplitude=1.5)
    offsets = scheme.offsets(flat_key(1.0), 0, 60, (32, 32))
    assert offsets.abs().amax((2, 3)) == pytest.approx(1.5)
    x, y = offsets.flatten(2).movedim(1, 0)
    correlations = [abs(float(np.corrcoef(a, b)[0, 1])) for a, b in zip(x, y, strict=True)]
    assert np.mean(correlations) < 0.2
    assert offsets.diff(dim=3).abs().mean() < 0.4 * offsets.abs().mean()
    spread = offsets.std(0)
    assert spread.min() > 0.6 * spread.mean() > 0.2, "no place is spared"
    assert spread.max() < 1.5 * spread.mean(), "and none is favoured"


def test_released_offsets_are_smoothed_with_the_pair_to_a_twentieth_of_a_pixel() -> None:
    """What is left of them once the grid that shrinks is taken off."""
    draws = torch.rand(60, 32, 32, 2, generator=torch.Generator().manual_seed(0))
    offsets = released_offsets(1.0, draws)
    inner = (offsets - released_offsets(1.0, torch.full((1, 32, 32, 2), 0.5)))[..., 1:-1, 1:-1] * 32 / 31
    assert (inner[:, 0] - inner[:, 1]).abs().mean() < 0.2 * inner.abs().mean()
    theirs = np.stack([gaussian_filter(2 * image[None].numpy() - 1, 2.0)[0] for image in draws])
    assert np.abs(inner.movedim(1, 3).numpy() - theirs[:, 1:-1, 1:-1]).max() < 1e-5
    assert float(inner.std()) == pytest.approx(0.05, abs=0.015)


@pytest.mark.parametrize(
    ("draw", "amplitude", "length", "wanted"),
    [
        (0.5, 1.0, 32, {0: 0, 1: -1 / 32, 16: -0.5, 31: -31 / 32}),  # place i becomes 31 / 32 i
        (1.0, 1.0, 32, {0: 31 / 32, 16: 17 * 31 / 32 - 16, 31: 0}),  # 31 + 1 is the last place
        (0.0, 1.0, 32, {0: 0, 1: -1, 16: 15 * 31 / 32 - 16, 31: 30 * 31 / 32 - 31}),  # 0 - 1 is clamped to place 0
        (0.5, 0.5, 32, {0: 7.75, 8: -0.25, 16: -0.5, 24: -0.75, 31: 23.25 - 31}),  # the outer quarters are clamped
        (0.5, 1.0, 64, {0: 0, 32: -0.5, 63: -63 / 64}),
    ],
)
def test_released_grid_by_hand(draw: float, amplitude: float, length: int, wanted: dict[int, float]) -> None:
    offsets = released_offsets(amplitude, torch.full((1, length, length, 2), draw))[0]
    for place, displacement in wanted.items():
        assert offsets[0, :, place] == pytest.approx(displacement, abs=1e-5)
        assert offsets[1, place, :] == pytest.approx(displacement, abs=1e-5)


def test_released_grid_is_that_of_aligned_corners() -> None:
    """The grid by which PyTorch 1.0 sampled, given to the PyTorch of today with its old convention."""
    layer = torch.rand(1, 4, 32, 32, generator=torch.Generator().manual_seed(1))
    at = torch.arange(32) / 16 - 1
    grid = torch.stack([at.expand(32, 32), at[:, None].expand(32, 32)], -1)[None]
    theirs = torch.nn.functional.grid_sample(layer, grid, align_corners=True)
    ours = warp(layer[0], released_offsets(1.0, torch.full((1, 32, 32, 2), 0.5)))
    assert torch.allclose(ours, theirs, atol=1e-4)


def test_released_displacement_moves_the_mark_by_up_to_a_pixel() -> None:
    images, key = cloudy(60, 5).images, key_of(VisibleStatic(**TINY))
    static = VisibleStatic().stamp(images, key).float()
    released = VisibleDisplacement(as_released=True).stamp(images, key).float()
    assert 2 < float((released - static).abs().mean()) < 7, "levels; by offsets alone it would be a tenth of that"


def test_no_displacement_is_static() -> None:
    images, key = cloudy(6, 5).images, key_of(VisibleStatic(**TINY))
    static, still = VisibleStatic().stamp(images, key), VisibleDisplacement(amplitude=0.0).stamp(images, key)
    assert (static.int() - still.int()).abs().max() <= 1


def test_smoothing_agrees_with_scipy() -> None:
    noise = torch.rand(2, 3, 20, 30, generator=torch.Generator().manual_seed(0))
    theirs = gaussian_filter(noise.numpy(), (0, 0, 2, 2), mode="nearest", truncate=4)
    assert np.abs(smooth(noise, 2.0).numpy() - theirs).max() < 1e-5


def test_warp_by_hand() -> None:
    layer = torch.arange(12.0).view(1, 3, 4)
    right, down, half = (torch.zeros(1, 2, 3, 4) for _ in range(3))
    right[:, 0], down[:, 1], half[:, 0] = 1, 1, 0.5
    assert torch.allclose(warp(layer, torch.zeros(1, 2, 3, 4))[0], layer, atol=1e-5)
    assert warp(layer, right)[0, 0, :, :3] == pytest.approx(layer[0, :, 1:])
    assert warp(layer, down)[0, 0, :2] == pytest.approx(layer[0, 1:])
    assert warp(layer, half)[0, 0, :, :3] == pytest.approx(layer[0, :, :3] + 0.5, abs=1e-4)


# --- the mark itself -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 64), (28, 28), (48, 80), (96, 33)])
def test_drawn_marks_scale_with_the_image(height: int, width: int) -> None:
    for seed in range(5):
        mark = draw_mark(height, width, torch.Generator().manual_seed(seed))
        assert mark.shape == (4, height, width)
        assert 0 <= mark.min() <= mark.max() <= 1
        assert 0.9 < mark[3].max() <= 0.9701
        square = min(height, width) ** 2
        assert 0.12 < float((mark[3] > 0.2).sum()) / square < 0.26
        assert mark[0].min() > mark[1:3].max(), "red"


def test_owners_have_marks_of_their_own() -> None:
    marks = [draw_mark(32, 32, torch.Generator().manual_seed(seed)) for seed in range(30)]
    masks = torch.stack([mark[3] > 0.3 for mark in marks]).flatten(1).float()
    overlap = masks @ masks.T / torch.maximum(masks.sum(1)[:, None], masks.sum(1)[None])
    assert overlap.fill_diagonal_(0).max() < 0.9
    assert overlap.mean() < 0.5


@pytest.fixture
def logo(tmp_path: Path) -> Path:
    """A green square with a transparent surround whose hidden colour is black."""
    rgba = np.zeros((20, 20, 4), dtype=np.uint8)
    rgba[5:15, 5:15] = (0, 120, 0, 200)
    path = tmp_path / "logo.png"
    Image.fromarray(rgba).save(path)
    return path


@pytest.mark.parametrize(("height", "width"), [(32, 32), (24, 40)])
def test_mark_from_a_file_is_pasted_at_a_secret_place(logo: Path, height: int, width: int) -> None:
    scheme = VisibleStatic(watermark=str(logo), **TINY)
    keys = [key_of(scheme, seed, height=height, width=width) for seed in range(4)]
    marks = [key.mark for key in keys]
    assert marks[0].shape == (4, height, width)
    assert len({mark.numpy().tobytes() for mark in marks}) == 4
    for mark in marks:
        shown = mark[3] > 0.1
        assert 0.03 < shown.float().mean() < 0.3
        assert mark[1][shown] == pytest.approx(120 / 255, abs=0.03), "no dark rim"
        assert mark[3].max() == pytest.approx(200 / 255, abs=0.02)
    images = cloudy(40, 5, height, width)
    verdicts = [scheme.verify(examine(scheme.mark_data(images, keys[0])), key) for key in keys]
    assert verdicts[0].p_value == 0.05
    assert min(verdict.p_value for verdict in verdicts[1:]) > 0.05


def test_files_that_hold_no_mark_are_refused(tmp_path: Path, logo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clear = tmp_path / "clear.png"
    Image.new("RGBA", (8, 8)).save(clear)
    text = tmp_path / "text.png"
    text.write_text("no image")
    for path, message in (
        (clear, "transparent everywhere"),
        (text, "RGBA image"),
        (tmp_path / "none.png", "RGBA image"),
    ):
        with pytest.raises(ValueError, match=message):
            key_of(VisibleStatic(watermark=str(path), **TINY))
    monkeypatch.setattr(_visible, "MOST_PIXELS", 100)
    with pytest.raises(ValueError, match="at most 100 pixels"):
        key_of(VisibleStatic(watermark=str(logo), **TINY))


def test_grey_images_are_refused() -> None:
    host = host_of()
    host.images = host.images.with_images(host.images.images[:, :1])
    with pytest.raises(ValueError, match="3 channels"):
        VisibleStatic().keygen(host, Rng("owner"))


def test_keys_follow_their_stream() -> None:
    scheme = VisibleDisplacement(**TINY)
    one, again, other = (key_of(scheme, seed) for seed in (0, 0, 1))
    assert same_key(one, again)
    assert not torch.equal(one.mark, other.mark)
    assert one.seed != other.seed
