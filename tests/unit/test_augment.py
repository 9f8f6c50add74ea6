"""Batch augmentations against one image at a time, and what they must leave alone."""

import numpy as np
import pytest
import torch

from bench.data import AUGMENTATIONS, DATASETS, DataError, augment


def generator(seed: int = 7) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(dtype: torch.dtype = torch.float32, shape: tuple[int, ...] = (40, 3, 32, 32)) -> torch.Tensor:
    return torch.randint(256, shape, generator=generator(1)).to(dtype)


def naive_crop(images: torch.Tensor, draws: torch.Generator) -> torch.Tensor:
    """Every pixel by its definition: what lay `shift` further in the picture, or black beyond its border."""
    count, channels, height, width = images.shape
    tops = torch.randint(2 * (height // 8) + 1, (count,), generator=draws).tolist()
    lefts = torch.randint(2 * (width // 8) + 1, (count,), generator=draws).tolist()
    result = np.zeros((count, channels, height, width), dtype=images.numpy().dtype)
    for n, (top, left) in enumerate(zip(tops, lefts, strict=True)):
        for y in range(height):
            for x in range(width):
                from_y, from_x = y + top - height // 8, x + left - width // 8
                if 0 <= from_y < height and 0 <= from_x < width:
                    result[n, :, y, x] = images[n, :, from_y, from_x]
    return torch.from_numpy(result)


def naive_flip(images: torch.Tensor, draws: torch.Generator) -> torch.Tensor:
    mirrored = torch.randint(2, (len(images), 1, 1, 1), generator=draws, dtype=torch.bool).flatten().tolist()
    rows = [np.fliplr(row.permute(1, 2, 0).numpy()) if m else row.permute(1, 2, 0).numpy()
            for row, m in zip(images, mirrored, strict=True)]  # fmt: skip
    return torch.from_numpy(np.stack(rows)).permute(0, 3, 1, 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
@pytest.mark.parametrize("shape", [(12, 3, 32, 32), (5, 1, 16, 24)])
def test_batches_equal_one_image_at_a_time(dtype, shape):
    images = batch(dtype, shape)
    draws = generator()
    expected = naive_flip(naive_crop(images, draws), draws)
    result = augment(images, ("crop", "flip"), generator())
    assert result.dtype == dtype
    assert torch.equal(result, expected)
    alone = augment(images, ("flip",), generator())
    assert torch.equal(alone, naive_flip(images, generator()))


def test_crop_takes_every_offset_and_flip_half_of_the_rows():
    spot = torch.zeros(4000, 1, 32, 32)
    spot[:, :, 16, 16] = 1
    seen = augment(spot, ("crop",), generator()).nonzero()[:, 2:]
    assert len(seen) == 4000
    offsets = {tuple(row) for row in (seen - 16).tolist()}
    assert offsets == {(y, x) for y in range(-4, 5) for x in range(-4, 5)}
    ramp = torch.arange(32.0).expand(4000, 1, 32, 32)
    mirrored = augment(ramp, ("flip",), generator())[:, 0, 0, 0] == 31
    assert 1850 < int(mirrored.sum()) < 2150


def test_exact_rows_come_back_untouched_and_others_do_not_depend_on_them():
    images = batch()
    exact = torch.arange(40) % 3 == 0
    free = augment(images, ("crop", "flip"), generator())
    result = augment(images, ("crop", "flip"), generator(), exact)
    assert torch.equal(result[exact], images[exact])
    assert torch.equal(result[~exact], free[~exact])
    assert not torch.equal(free[exact], images[exact])


def test_the_generator_decides_and_the_input_is_kept():
    images = batch()
    before = images.clone()
    first = augment(images, ("crop", "flip"), generator(1))
    assert torch.equal(first, augment(images, ("crop", "flip"), generator(1)))
    assert not torch.equal(first, augment(images, ("crop", "flip"), generator(2)))
    torch.manual_seed(0)
    state = torch.get_rng_state()
    augment(images, ("crop", "flip"), generator())
    assert torch.equal(state, torch.get_rng_state()), "drew from the global generator"
    assert torch.equal(images, before)


def test_nothing_reads_a_value_back_from_the_device():
    """Tensors of the meta device hold no values: any synchronisation with the host raises there."""
    images = batch().to("meta")
    result = augment(images, ("crop", "flip"), generator(), torch.zeros(40, dtype=torch.bool, device="meta"))
    assert result.shape == images.shape
    assert result.device.type == "meta"


def test_no_augmentation_changes_nothing():
    images = batch()
    assert augment(images, (), generator()) is images


def test_every_card_names_known_augmentations_and_digits_are_never_mirrored():
    for card in DATASETS.values():
        assert set(card.augment) <= set(AUGMENTATIONS)
        assert ("flip" in card.augment) == (card.content == "objects")


def test_unknown_name_is_refused_with_the_near_one():
    with pytest.raises(DataError, match="did you mean flip"):
        augment(batch(), ("flop",), generator())
