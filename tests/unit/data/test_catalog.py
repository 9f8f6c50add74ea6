"""Names of data sets, the embedded ones, and the split."""

import numpy as np
import pytest
import torch

from bench.data import DATASETS, DataError, card, checksum, digits, load
from bench.data.split import share, stratified
from tests.fakes.datasets import labelled, one_sentence

# --- names ---------------------------------------------------------------------------------------------------------


def test_cards_are_known_without_loading():
    counts = {name: len(card.classes) for name, card in DATASETS.items()}
    assert counts == {
        "digits-m": 10,
        "photographs": 10,
        "cifar10": 10,
        "cifar100": 100,
        "mnist": 10,
        "caltech101": 101,
        "tiny-imagenet": 200,
        "cub200": 200,
    }
    assert all(len(set(card.classes)) == len(card.classes) for card in DATASETS.values())
    assert card("cifar10").classes[3] == "cat"
    assert card("cifar100").classes[99] == "worm"


def test_a_typo_is_answered_with_near_names():
    with pytest.raises(DataError, match=r'got "cifar01"\. Did you mean "cifar10"') as error:
        load("cifar01")
    one_sentence(error)
    with pytest.raises(DataError, match=r'Did you mean "tiny-imagenet"'):
        card("tinyimagenet")


# --- the embedded set ----------------------------------------------------------------------------------------------


def test_digits_m_has_the_promised_shapes_and_is_balanced():
    data = load("digits-m")
    sizes = {name: count for name, count in data.split.items() if name != "split_seed"}
    assert sizes == {"owner": 898, "adversary": 449, "heldout": 450, "unseen": 450}
    for part in (data.owner, data.adversary, data.heldout):
        assert part.images.shape[1:] == (3, 32, 32)
        assert part.images.dtype == torch.uint8
        counts = part.labels.bincount(minlength=10)
        assert counts.min() > 0.08 * len(part)
    assert len(data.owner.images.flatten(1).unique(dim=0)) == 898, "two images are the same"


def test_digits_m_deals_out_by_source_digit(monkeypatch):
    """Over black photographs an image is its digit, so that the digits of each share can be compared."""
    monkeypatch.setattr(digits, "sample_photographs", lambda: torch.zeros(2, 3, 427, 640, dtype=torch.uint8))
    source = digits.digits_m.__wrapped__()
    owner, adversary = source.train.images[: source.owner_rows], source.train.images[source.owner_rows :]

    def faces(images: torch.Tensor) -> set[bytes]:
        return {image.numpy().tobytes() for image in images}

    shares = [faces(owner), faces(adversary), faces(source.test.images)]
    assert [len(share) for share in shares] == [898, 449, 450]
    assert not shares[0] & shares[1] | shares[0] & shares[2] | shares[1] & shares[2]
    assert [len(owner), len(adversary), len(source.test.images)] == [898, 449, 450], "every digit is shown once"


def test_digits_m_reads_what_scikit_learn_ships():
    from sklearn.datasets import load_digits, load_sample_image

    pictures, labels = digits._digits()
    bunch = load_digits()
    assert np.array_equal(pictures.numpy(), bunch.images)
    assert np.array_equal(labels.numpy(), bunch.target)
    for number, name in enumerate(("china.jpg", "flower.jpg")):
        shipped = torch.from_numpy(load_sample_image(name).copy()).permute(2, 0, 1)
        assert torch.equal(digits.sample_photographs()[number], shipped)


def test_digits_m_blends_by_absolute_difference():
    photographs = torch.randint(256, (2, 3, 60, 50), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    eights = torch.full((1, 8, 8), 6.0)  # an even grey of 6 / 16: round(95.6) = 96 after enlarging
    rows = torch.zeros(300, dtype=torch.int64)
    part = digits._blend(digits._enlarge(eights), torch.tensor([8]), rows, photographs, digits.Rng("test"))
    for image in part.images[:20].int():
        crops = [(96 - photographs[p, :, y : y + 32, x : x + 32].int()).abs()
                 for p in range(2) for y in range(29) for x in range(19)]  # fmt: skip
        assert any(torch.equal(image, crop) for crop in crops)
    assert len(part.images.flatten(1).unique(dim=0)) > 200
    assert part.labels.eq(8).all()


def test_digits_m_is_the_same_each_time():
    first, second = digits.digits_m.__wrapped__(), digits.digits_m.__wrapped__()
    assert torch.equal(first.train.images, second.train.images)
    assert first.checksum() == second.checksum() == checksum("digits-m") == load("digits-m").checksum


def test_digits_m_takes_prefixes_and_refuses_more_than_there_are():
    large, small = load("digits-m", owner=800, heldout=300), load("digits-m", owner=500, adversary=50)
    assert torch.equal(large.owner.images[:500], small.owner.images)
    assert torch.equal(large.heldout.images, small.heldout.images[:300])
    assert torch.equal(large.unseen.images, small.heldout.images)
    assert small.split["adversary"] == 50
    assert large.checksum == small.checksum
    with pytest.raises(DataError, match="owner's share of digits-m to be between 1 and 898 images, but got 899"):
        load("digits-m", owner=899)


def test_photographs_are_tiles_that_are_told_apart_by_their_strip():
    data = load("photographs")
    assert {name: data.split[name] for name in ("owner", "adversary", "heldout")} == {
        "owner": 260, "adversary": 130, "heldout": 130,
    }  # fmt: skip
    pictures = digits.sample_photographs()
    found = set()
    for part in (data.owner, data.adversary, data.heldout):
        assert part.labels.bincount(minlength=10).min() >= 0.08 * len(part)
        for tile, label in zip(part.images, part.labels.tolist(), strict=True):
            picture, left = pictures[label // 5], label % 5 * 128
            places = [(y, x) for y in range(0, 416, 32) for x in range(left, left + 128, 32)
                      if torch.equal(picture[:, y : y + 32, x : x + 32], tile)]  # fmt: skip
            assert places, "no such tile in the strip of its class"
            found |= {(label, *place) for place in places}
    assert len(found) == 520, "a tile is missing, or two shares have the same"
    assert data.checksum == checksum("photographs") != checksum("digits-m")


# --- the split -----------------------------------------------------------------------------------------------------


def test_two_thirds_for_the_owner_the_rest_for_the_adversary():
    source = labelled(900, 100)
    shares = share("x", source)
    assert sorted([*shares.owner.tolist(), *shares.adversary.tolist()]) == list(range(900))
    assert (len(shares.owner), len(shares.heldout)) == (600, 100)
    assert shares.adversary_part is source.train
    assert shares.owner.tolist() != sorted(shares.owner.tolist())


@pytest.mark.parametrize(("owner", "adversary", "expected"), [(30, None, 300), (700, None, 200), (30, 870, 870)])
def test_shares_stay_disjoint_prefixes_at_every_size(owner, adversary, expected):
    source = labelled(900, 100)
    whole, shares = share("x", source), share("x", source, owner, adversary, 40)
    assert len(shares.adversary) == expected
    assert not set(shares.owner.tolist()) & set(shares.adversary.tolist())
    shorter = min(len(shares.owner), len(whole.owner))
    assert torch.equal(shares.owner[:shorter], whole.owner[:shorter])
    shorter = min(len(shares.adversary), len(whole.adversary))
    assert torch.equal(shares.adversary[:shorter], whole.adversary[:shorter])
    assert torch.equal(shares.heldout, whole.heldout[:40])
    assert torch.equal(shares.unseen, whole.heldout)


def test_an_owner_of_the_whole_training_part_halves_the_test_part():
    source = labelled(900, 101)
    shares = share("x", source, owner=900)
    assert shares.adversary_part is source.test
    assert sorted([*shares.adversary.tolist(), *shares.heldout.tolist()]) == list(range(101))
    assert torch.equal(share("x", source, owner=900, heldout=10).unseen, shares.heldout)
    assert len(shares.adversary) == 50


@pytest.mark.parametrize(
    "sizes",
    [{"owner": 901}, {"owner": 0}, {"owner": 800, "adversary": 101}, {"heldout": 101}, {"owner": 900, "heldout": 51}],
)
def test_more_than_there_is_is_refused(sizes):
    with pytest.raises(DataError, match="share of x to be between 1 and") as error:
        share("x", labelled(900, 100), **sizes)
    one_sentence(error)


def test_names_split_differently():
    source = labelled(900, 100)
    assert not torch.equal(share("x", source).owner, share("y", source).owner)
    assert torch.equal(share("x", source).owner, share("x", source).owner)


def test_every_prefix_and_suffix_is_balanced():
    labels = torch.cat([torch.zeros(100), torch.ones(200), torch.full((100,), 2)]).long()
    order = stratified(labels, torch.Generator().manual_seed(3))
    assert sorted(order.tolist()) == list(range(400))
    for rows in (order, order.flip(0)):
        for count in range(1, 400):
            seen = labels[rows[:count]].bincount(minlength=3)
            assert (seen - count * torch.tensor([0.25, 0.5, 0.25])).abs().max() <= 2
    assert not torch.equal(order, stratified(labels, torch.Generator().manual_seed(4)))
