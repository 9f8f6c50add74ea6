"""Fidelity: values worked by hand, a second implementation of SSIM, chunks, and what errors say."""

import numpy as np
import pytest
import torch

from bench.data import image_quality
from bench.data.image_quality import marked_pixels, masked_psnr_db, psnr_db, residual_energy, ssim


def noise(count, *shape, seed=0):
    return torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def stamped(clean):
    """The left column 60 darker or brighter."""
    marked = clean.clone()
    column = clean[..., 0].int()
    marked[..., 0] = torch.where(column < 128, column + 60, column - 60).to(torch.uint8)
    return marked


def slow_ssim(a, b):
    """Two H x W arrays, window by window, in float64, with two-pass variances."""
    line = np.exp(-(np.arange(-5, 6) ** 2) / 4.5)
    window = np.outer(line, line) / np.outer(line, line).sum()
    values = []
    for top in range(a.shape[0] - 10):
        for left in range(a.shape[1] - 10):
            x, y = (plane[top : top + 11, left : left + 11].astype(float) for plane in (a, b))
            mx, my = (window * x).sum(), (window * y).sum()
            vx, vy, cov = (
                (window * p * q).sum() for p, q in ((x - mx, x - mx), (y - my, y - my), (x - mx, y - my))
            )  # fmt: skip
            light = (2 * mx * my + 6.5025) / (mx**2 + my**2 + 6.5025)
            values.append(light * (2 * cov + 58.5225) / (vx + vy + 58.5225))
    return np.mean(values)


def test_psnr_by_hand():
    black, grey = torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.full((2, 3, 4, 4), 51, dtype=torch.uint8)
    assert psnr_db(black, grey) == pytest.approx(20 * np.log10(5), abs=1e-4)
    assert psnr_db(black, black) == 100.0
    grey[1] = 0
    assert psnr_db(black, grey) == pytest.approx((20 * np.log10(5) + 100) / 2, abs=1e-4)


def test_masked_psnr_sees_the_marked_pixels_alone():
    clean = noise(3, 3, 4, 8)
    marked = stamped(clean)
    mask = torch.zeros(4, 8, dtype=torch.bool)
    mask[:, 0] = True
    expected = 20 * np.log10(255 / 60)
    assert masked_psnr_db(clean, marked, mask) == pytest.approx(expected, abs=1e-4)
    assert masked_psnr_db(clean, marked, marked_pixels(clean, marked)) == pytest.approx(expected, abs=1e-4)
    assert masked_psnr_db(clean, marked, ~mask) == 100.0
    assert psnr_db(marked, clean) == pytest.approx(expected + 10 * np.log10(8), abs=1e-4)


def test_masked_psnr_leaves_images_without_a_marked_pixel_out():
    clean = noise(3, 3, 4, 8)
    marked = stamped(clean)
    marked[1] = clean[1]
    mask = marked_pixels(clean, marked)
    assert mask.shape == (3, 1, 4, 8)
    assert mask.sum((1, 2, 3)).tolist() == [4, 0, 4]
    assert masked_psnr_db(clean, marked, mask) == pytest.approx(20 * np.log10(255 / 60), abs=1e-4)
    with pytest.raises(ValueError, match="at least one pixel"):
        masked_psnr_db(clean, clean, marked_pixels(clean, clean))


def test_residual_energy_by_hand():
    clean = noise(5, 3, 4, 8)
    marked = stamped(clean)
    assert residual_energy(clean, marked, clean) == 0.0
    assert residual_energy(clean, marked, marked) == 1.0
    half = ((clean.int() + marked.int()) // 2).to(torch.uint8)
    assert residual_energy(clean, marked, half) == pytest.approx(0.25)
    elsewhere = clean.clone()
    elsewhere[..., 1:] = 0
    assert residual_energy(clean, marked, elsewhere) == 0.0, "only marked pixels count"
    opposite = (2 * clean.int() - marked.int()).clamp(0, 255).to(torch.uint8)
    dark = torch.zeros(1, 1, 2, 2, dtype=torch.uint8)
    assert residual_energy(clean, marked, opposite) > 0.5
    assert residual_energy(dark, dark + 1, dark + 3) == pytest.approx(9.0)
    with pytest.raises(ValueError, match="is there a mark"):
        residual_energy(clean, clean, marked)


def test_ssim_agrees_with_a_second_implementation():
    a = noise(2, 3, 14, 16)
    b = (0.7 * a.float() + 0.3 * noise(2, 3, 14, 16, seed=1).float()).to(torch.uint8)
    expected = np.mean([slow_ssim(x, y) for x, y in zip(a.flatten(0, 1).numpy(), b.flatten(0, 1).numpy(), strict=True)])
    assert 0.5 < expected < 0.95
    assert ssim(a, b) == pytest.approx(expected, abs=1e-5)


def test_ssim_at_its_ends():
    a = noise(2, 1, 12, 12)
    assert ssim(a, a) == pytest.approx(1.0, abs=1e-6)
    assert ssim(a, 255 - a) < -0.5
    dark, bright = (torch.full((1, 3, 11, 11), value, dtype=torch.uint8) for value in (10, 250))
    flat = (2 * 10 * 250 + 6.5025) / (10**2 + 250**2 + 6.5025)
    assert ssim(dark, bright) == pytest.approx(flat, abs=1e-5), "flat images differ in luminance alone"


def test_chunks_make_no_difference(monkeypatch):
    clean = noise(7, 3, 12, 12)
    marked, other = stamped(clean), noise(7, 3, 12, 12, seed=2)
    mask = marked_pixels(clean, marked)

    def measured():
        return (
            psnr_db(clean, marked), ssim(clean, other), residual_energy(clean, marked, other),
            masked_psnr_db(clean, other, mask),
        )  # fmt: skip

    whole = measured()
    monkeypatch.setattr(image_quality, "CHUNK", 3)
    assert measured() == pytest.approx(whole, rel=1e-6)


@pytest.mark.parametrize("measure", [psnr_db, ssim, lambda a, b: residual_energy(a, b, b)])
def test_shapes_must_agree(measure):
    with pytest.raises(ValueError, match="Expected images of"):
        measure(noise(2, 3, 12, 12), noise(3, 3, 12, 12))


def test_ssim_needs_room_for_its_window():
    with pytest.raises(ValueError, match="at least 11 x 11"):
        ssim(noise(1, 3, 8, 32), noise(1, 3, 8, 32))
