"""Image processing: what each does to images worked by hand, the draws, and what must not change."""

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from attacks import _filters
from attacks.images import Blur, Crop, Flip, Jpeg, Median, Noise, Reconstruction, Resize, Rotate, Wavelet
from bench.api import ImageSet
from bench.data.image_quality import psnr_db
from tests.fakes import FakeContext, victim_of

ALL = [Crop, Resize, Rotate, Flip, Jpeg, Blur, Noise, Median, Wavelet]
DRAWS = [Rotate, Noise]


def textures(count=40, channels=3, height=32, width=32, seed=0):
    """Smooth random fields, uint8."""
    coarse = torch.rand(count, channels, 6, 6, generator=torch.Generator().manual_seed(seed))
    smooth = nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")
    return (255 * smooth).to(torch.uint8)


def process(attack, images, seed=0):
    """The claimed images at each rung."""
    victim = victim_of(attack, images=ImageSet(images, torch.arange(len(images))))
    return [claim.images.images for claim in attack.apply(victim, FakeContext(seed))]


@pytest.mark.parametrize("attack", ALL)
@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 20)])
def test_images_keep_their_form_and_labels_and_the_victim_its_own(attack, shape):
    images = textures(9, *shape)
    before, victim = images.clone(), victim_of(attack(), images=ImageSet(images, torch.arange(9)))
    claims = list(attack().apply(victim, FakeContext()))
    assert tuple(claim.strength for claim in claims) == attack().ladder
    for claim in claims:
        assert (claim.images.images.shape, claim.images.images.dtype) == (before.shape, torch.uint8)
        assert claim.images.labels.tolist() == list(range(9))
        assert claim.model is None
        assert not claim.measures
        assert not torch.equal(claim.images.images, before)
    assert torch.equal(images, before)


@pytest.mark.parametrize("attack", [Crop, Resize, Rotate, Jpeg, Blur, Noise, Median, Wavelet])
def test_a_stronger_attack_changes_more(attack):
    images = textures()
    kept_db = [psnr_db(rung, images) for rung in process(attack(), images)]
    assert kept_db == sorted(kept_db, reverse=True)
    assert kept_db[0] > kept_db[-1] + 3


@pytest.mark.parametrize("attack", ALL)
def test_batches_make_no_difference(attack, monkeypatch):
    """Each rung is the same function of an image, whatever batch it is in (draws aside)."""
    images = textures(10)
    whole = process(attack(), images)
    monkeypatch.setattr("attacks.images.CHUNK", 4)
    parts = process(attack(), images)
    if attack not in DRAWS:
        assert all(torch.equal(a, b) for a, b in zip(whole, parts, strict=True))
    assert [len(rung) for rung in parts] == [10] * len(whole)


def test_crop_keeps_the_centre_and_loses_the_border():
    images = torch.full((2, 3, 20, 20), 200, dtype=torch.uint8)
    images[..., :2, :] = images[..., -2:, :] = images[..., :, :2] = images[..., :, -2:] = 0
    (cropped,) = process(Crop(ladder=[10.0]), images)
    assert (cropped == 200).all(), "2 of 20 pixels at each side are the dark frame"
    (less,) = process(Crop(ladder=[5.0]), images)
    assert (less[..., 0, :] < 100).all(), "one pixel of it is left"
    (least,) = process(Crop(ladder=[0.1]), textures(2))
    assert not torch.equal(least, textures(2)), "at least one pixel"
    (most,) = process(Crop(ladder=[49.9]), textures(2, height=9, width=9))
    assert most.shape == (2, 3, 9, 9)


def test_resize_averages_within_the_coarser_pixels():
    """A checkerboard of single pixels is grey at half the size; flat images stay as they are."""
    board = ((torch.arange(32)[:, None] + torch.arange(32)) % 2 * 200).to(torch.uint8).expand(1, 3, 32, 32)
    (small,) = process(Resize(ladder=[50.0]), board)
    assert (small.int() - 100).abs().max() <= 25
    flat = torch.full((1, 3, 32, 32), 77, dtype=torch.uint8)
    assert all(torch.equal(rung, flat) for rung in process(Resize(ladder=[50.0, 99.9]), flat)), "down to 2 x 2 pixels"


def test_rotation_by_a_quarter_goes_both_ways():
    images = textures(60)
    (turned,) = process(Rotate(ladder=[90.0]), images)
    left = (turned == images.rot90(1, (2, 3))).flatten(1).all(1)
    right = (turned == images.rot90(-1, (2, 3))).flatten(1).all(1)
    assert (left ^ right).all()
    assert 15 < left.sum() < 45


def test_rotation_turns_the_same_images_left_at_every_rung():
    images = torch.zeros(30, 1, 31, 31, dtype=torch.uint8)
    images[..., 15, 24] = 255  # right of the centre: left turns lift it
    rungs = process(Rotate(ladder=[20.0, 45.0]), images)
    above = [rung[..., :15, :].flatten(1).sum(1) > rung[..., 16:, :].flatten(1).sum(1) for rung in rungs]
    assert torch.equal(*above)
    assert 0 < above[0].sum() < 30


def test_flip_mirrors_all_or_a_nested_share():
    images = textures(50)
    some, more, everything = process(Flip(ladder=[30.0, 60.0, 100.0]), images)
    assert torch.equal(everything, images.flip(3))
    mirrored = [(rung == images.flip(3)).flatten(1).all(1) for rung in (some, more)]
    assert not (mirrored[0] & ~mirrored[1]).any()
    assert 5 < mirrored[0].sum() < mirrored[1].sum() < 45
    assert torch.equal(some[~mirrored[0]], images[~mirrored[0]])


def test_jpeg_strength_is_a_hundred_minus_the_quality():
    import io

    import numpy as np
    from PIL import Image

    image = textures(1)[0]
    stream = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(stream, "jpeg", quality=65)
    expected = torch.from_numpy(np.array(Image.open(stream))).permute(2, 0, 1).int()
    (ours,) = process(Jpeg(ladder=[35.0]), image[None])
    assert (ours[0].int() - expected).abs().float().mean() < 0.5
    assert (ours[0].int() - image.int()).abs().float().mean() > 0.5


def test_blur_spreads_a_point_as_a_gaussian_does():
    point = torch.zeros(1, 1, 33, 33, dtype=torch.uint8)
    point[..., 16, 16] = 255
    (blurred,) = process(Blur(ladder=[1.0]), point)
    line = torch.exp(-torch.arange(-3.0, 4.0).square() / 2)
    line = line / line.sum()
    expected = (255 * line[:, None] * line).round().to(torch.uint8)
    assert torch.equal(blurred[0, 0, 13:20, 13:20], expected)
    flat = torch.full((1, 3, 9, 9), 140, dtype=torch.uint8)
    assert all(torch.equal(rung, flat) for rung in process(Blur(ladder=[2.0, 10.0]), flat)), "the border stays bright"


def test_noise_has_its_spread_and_grows_along_one_direction():
    grey = torch.full((20, 3, 32, 32), 128, dtype=torch.uint8)
    mild, strong = (rung.float() - 128 for rung in process(Noise(ladder=[0.02, 0.06]), grey))
    assert mild.std() == pytest.approx(0.02 * 255, rel=0.02)
    assert abs(mild.mean()) < 0.1
    assert (strong - 3 * mild).abs().max() <= 2.5
    assert not torch.equal(mild[0], mild[1]), "every image has noise of its own"


@pytest.mark.parametrize("attack", DRAWS)
def test_draws_follow_the_seed(attack):
    images = textures()
    one, same, other = (process(attack(), images, seed) for seed in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(one, same, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize(
    ("attack", "strength"),
    [(Crop, 50), (Resize, 100), (Rotate, 181), (Flip, 101), (Jpeg, 100), (Blur, 11), (Noise, 1.5), (Crop, 0)],
)
def test_strengths_have_bounds(attack, strength):
    with pytest.raises(ValidationError):
        attack(ladder=[strength])


def test_haar_is_orthonormal_and_inverts():
    images = textures(3).float() / 255
    averages, details = _filters.haar(images)
    assert averages.shape == (3, 3, 16, 16)
    assert details.shape == (3, 3, 3, 16, 16)
    energy = averages.square().sum() + details.square().sum()
    assert energy.item() == pytest.approx(images.square().sum().item(), rel=1e-5)
    assert torch.allclose(_filters.haar_inverse(averages, details), images, atol=1e-6)
    block = torch.tensor([[1.0, 2.0], [3.0, 6.0]]).view(1, 1, 2, 2)
    averages, details = _filters.haar(block)
    assert averages.item() == 6.0
    assert details.flatten().tolist() == [-3.0, -2.0, 1.0]


def test_wavelet_shrinkage_takes_small_details_and_keeps_large_ones():
    """A step of 0.8 between aligned halves stays but for the threshold; a ripple of 0.02 goes."""
    step = torch.zeros(1, 1, 8, 8)
    step[..., 4:] = 0.8
    assert torch.allclose(_filters.wavelet_denoised(step, 0.1), step, atol=1e-6), "no detail of 4 x 4 blocks"
    ripple = 0.5 + 0.01 * torch.tensor([1.0, -1.0]).repeat(4).view(1, 1, 1, 8).expand(1, 1, 8, 8)
    assert torch.allclose(_filters.wavelet_denoised(ripple, 0.1), torch.full_like(ripple, 0.5), atol=1e-6)
    # One level: averages 2 x 0.5, details of columns 2 x 0.2; the limit is a tenth of 1, so that 0.4 becomes 0.3.
    stripes = torch.tensor([0.7, 0.3]).repeat(2).view(1, 1, 1, 4).expand(1, 1, 4, 4)
    wanted = torch.tensor([0.65, 0.35]).repeat(2).view(1, 1, 1, 4).expand(1, 1, 4, 4)
    assert torch.allclose(_filters.wavelet_denoised(stripes, 0.1, levels=1), wanted, atol=1e-6)


def test_wavelet_lowers_noise():
    clean = textures(20)
    noisy = (clean.float() + 12 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))).clamp(0, 255)
    noisy = noisy.to(torch.uint8)
    best = max(psnr_db(rung, clean) for rung in process(Wavelet(), noisy))
    assert best > psnr_db(noisy, clean) + 0.5


def test_median_removes_single_pixels():
    images = torch.full((2, 3, 12, 12), 90, dtype=torch.uint8)
    images[:, :, 3, 4] = 255
    images[:, :, 8, 0] = 0
    (cleaned, _) = process(Median(), images)
    assert (cleaned == 90).all()


def test_the_auto_encoder_learns_from_own_images_alone():
    images, own = textures(12, seed=2), ImageSet(textures(64, seed=3), torch.zeros(64, dtype=torch.long))
    attack = Reconstruction(ladder=[3.0, 48.0], epochs=15)
    victim = victim_of(attack, images=ImageSet(images, torch.arange(12)))
    near, far = (claim.images.images for claim in attack.apply(victim, FakeContext(own=own)))
    again = next(iter(attack.apply(victim, FakeContext(own=own)))).images.images
    assert torch.equal(near, again)
    assert psnr_db(near, images) > psnr_db(far, images)
    assert psnr_db(near, images) > psnr_db(images.flip(0), images) + 2, "its own image, not any"
    others = ImageSet(textures(12, seed=5), torch.arange(12))
    first = torch.cat([images[:1], others.images[1:]])
    alone = next(iter(attack.apply(victim_of(attack, images=ImageSet(first, torch.arange(12))), FakeContext(own=own))))
    assert torch.equal(alone.images.images[0], near[0]), "whatever else was published"
