"""Image sets: layouts on disk, messages for broken ones, the cache, the split, the embedded set."""

import hashlib
import io
import json
import os
import re
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import torchvision.datasets
from PIL import Image

from bench.data import DATASETS, DataError, card, catalog, checksum, digits, load, loading
from bench.data import decode as decoding
from bench.data.source import Part, Source
from bench.data.split import share, stratified

ROOT = os.environ.get("BENCH_DATA_ROOT")


@pytest.fixture(autouse=True)
def _fresh(monkeypatch, tmp_path):
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("BENCH_DATA_ROOT", raising=False)
    loading._dealt.cache_clear()


@pytest.fixture
def root(tmp_path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def few_classes(monkeypatch, name: str, *classes: str) -> None:
    """Let a data set have so few classes that a test can write all of it."""
    known = catalog.SPECS[name]
    monkeypatch.setitem(catalog.SPECS, name, replace(known, card=replace(known.card, classes=classes)))


def one_sentence(error: pytest.ExceptionInfo) -> str:
    message = str(error.value)
    assert "\n" not in message
    assert len(message) < 600
    assert message.startswith("Expected"), message
    return message


def grey_level(label: int, number: int) -> int:
    return 20 * label + number % 20


def png(value: int, size: tuple[int, int] = (32, 32), mode: str = "RGB") -> bytes:
    """A picture of one colour; `value` for all of its channels."""
    image = Image.new("L", size, value).convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def picture(path: Path, value: int, size: tuple[int, int] = (8, 8), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(value, size, mode))


def shard(path: Path, labels: list[int], *, image="image", label="label", names=None, blobs=None, side=32) -> None:
    """One Parquet file; picture number n of class c has the grey level 20 c + n mod 20."""
    blobs = blobs or [png(grey_level(c, n), (side, side)) for n, c in enumerate(labels)]
    structs = pa.array(
        [{"bytes": b, "path": None} for b in blobs], pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    )
    table = pa.table({image: structs, label: pa.array(labels, pa.int64())})
    if names:
        info = {"info": {"features": {image: {"_type": "Image"}, label: {"_type": "ClassLabel", "names": names}}}}
        table = table.replace_schema_metadata({b"huggingface": json.dumps(info).encode()})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


TRAIN_LABELS = [n % 10 for n in range(120)]
TEST_LABELS = [n % 10 for n in range(40)]


def parquet_set(folder: Path, **options) -> Path:
    shard(folder / "train-00000-of-00001.parquet", TRAIN_LABELS, **options)
    shard(folder / "test-00000-of-00001.parquet", TEST_LABELS, **options)
    return folder


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
    assert data.split == {"owner": 898, "adversary": 449, "heldout": 450, "split_seed": data.split["split_seed"]}
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
    part = digits._blend(eights, torch.tensor([8]), rows, photographs, digits.Rng("test"))
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


def labelled(train: int, test: int, classes: int = 10) -> Source:
    def part(count: int) -> Part:
        return Part(torch.zeros(count, 3, 1, 1, dtype=torch.uint8), torch.arange(count) * 7 // 3 % classes)

    return Source(tuple(map(str, range(classes))), part(train), part(test))


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


# --- Parquet -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["cifar10", "cifar10/data", "."])
def test_parquet_is_found_and_decoded(root, place):
    parquet_set(root / place, names=["plane", *"bcdefghij"])
    data = load("cifar10", data_root=root, owner=120)
    assert data.card.classes[0] == "plane"
    assert data.split["owner"] == 120
    assert data.split["heldout"] == 20
    assert data.owner.images.shape == (120, 3, 32, 32)
    expected = {(label, grey_level(label, number)) for number, label in enumerate(TRAIN_LABELS)}
    got = {(int(c), int(image.unique().item())) for image, c in zip(data.owner.images, data.owner.labels, strict=True)}
    assert got == expected


def test_parquet_of_several_shards_and_other_column_names(root):
    names = {"image": "img", "label": "fine_label"}
    for number in range(2):
        shard(root / f"cifar10/train-{number:05d}-of-00002.parquet", TRAIN_LABELS, **names)
    shard(root / "cifar10/validation-00000-of-00001.parquet", TEST_LABELS, **names)
    data = load("cifar10", data_root=root)
    assert data.split["owner"] + data.split["adversary"] == 240
    assert data.card.classes == DATASETS["cifar10"].classes
    (root / "cifar10/train-00001-of-00002.parquet").unlink()
    with pytest.raises(DataError, match=r"Expected 2 train files in .*cifar10, but found 1") as error:
        load("cifar10", data_root=root)
    one_sentence(error)


def test_mnist_is_padded_and_repeated_to_three_channels(root):
    train = [png(100, (28, 28), "L")] * 120
    shard(root / "mnist/train-0.parquet", TRAIN_LABELS, blobs=train)
    shard(root / "mnist/test-0.parquet", TEST_LABELS, blobs=train[:40])
    images = load("mnist", data_root=root).owner.images
    assert images.shape == (80, 3, 32, 32)
    expected = torch.zeros(32, 32, dtype=torch.uint8)
    expected[2:30, 2:30] = 100
    assert (images == expected).all()


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1", "I;16"])
def test_other_colour_modes_become_rgb(mode):
    buffer = io.BytesIO()
    if mode == "I;16":
        Image.fromarray(np.full((32, 32), 255 << 8, np.uint16)).save(buffer, "PNG")
    else:
        Image.new("L", (32, 32), 255).convert(mode).save(buffer, "TIFF")
    images = decoding.decode([("it", buffer.getvalue())], 1, catalog.SPECS["cifar10"])
    assert images.eq(255).all()
    half = io.BytesIO()
    Image.fromarray(np.full((32, 32), 100 << 8, np.uint16)).save(half, "PNG")
    assert decoding.decode([("it", half.getvalue())], 1, catalog.SPECS["cifar10"]).eq(100).all()


# --- the decoder ---------------------------------------------------------------------------------------------------

BLUE, RED, WHITE = (0, 0, 255), (255, 0, 0), (255, 255, 255)


def saved(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels_of(content: bytes) -> list:
    """Rows of RGB."""
    return decoding.read_picture(content).pixels.tolist()


def two(mode: str, left, right) -> Image.Image:
    """A picture of two pixels."""
    image = Image.new(mode, (2, 1))
    image.putdata([left, right])
    return image


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
@pytest.mark.parametrize(
    ("orientation", "corners"),  # values at top left, top right, bottom left of dark, middle, light, grey corners
    [(1, (0, 100, 200)), (2, (100, 0, 250)), (3, (250, 200, 100)), (6, (200, 0, 250)), (8, (100, 250, 0))],
)
def test_pictures_are_turned_as_exif_says(kind, orientation, corners):
    """A landscape picture with the levels 0 100 over 200 250 in its quarters."""
    rows = np.kron(np.array([[0, 100], [200, 250]], np.uint8), np.ones((16, 24), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = saved(
        Image.fromarray(rows).convert("RGB"), kind, exif=exif, **({"quality": 100} if kind != "TIFF" else {})
    )
    picture = decoding.read_picture(content)
    assert picture.size == ((32, 48) if orientation < 5 else (48, 32))
    seen = [int(picture.pixels[y, x, 0]) for y, x in ((2, 2), (2, -3), (-3, 2))]
    assert np.abs(np.array(seen) - corners).max() <= 3
    assert ("turned as EXIF says" in picture.notes) == (orientation != 1)


def test_what_transparency_hides_is_white():
    palette = two("P", 0, 1)
    palette.putpalette([*BLUE, *RED])
    contents = {
        "palette": saved(palette, transparency=1),
        "palette of GIF": saved(palette, "GIF", transparency=1),
        "colour key": saved(two("RGB", BLUE, RED), transparency=RED),
        "alpha": saved(two("RGBA", (*BLUE, 255), (*RED, 0))),
        "half": saved(two("RGBA", (*BLUE, 255), (*RED, 127))),
        "grey key": saved(two("L", 90, 30), transparency=30),
        "grey alpha": saved(two("LA", (90, 255), (30, 0))),
        "16-bit grey key": saved(Image.fromarray(np.array([[90 << 8, 30 << 8]], np.uint16)), transparency=30 << 8),
    }
    found = {name: pixels_of(content)[0] for name, content in contents.items()}
    for name in ("palette", "palette of GIF", "colour key", "alpha"):
        assert found[name] == [list(BLUE), list(WHITE)], name
    assert found["half"] == [list(BLUE), [255, 128, 128]]
    for name in ("grey key", "grey alpha", "16-bit grey key"):
        assert found[name] == [[90] * 3, [255] * 3], name


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def test_a_transparent_colour_of_16_bits_is_refused():
    """Two colours that differ in their lower bits only: of eight bits they are one."""
    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    row = b"\0" + struct.pack(">6H", 0x1234, 0, 0, 0x1235, 0, 0)
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"tRNS", struct.pack(">3H", 0x1235, 0, 0))
    with pytest.raises(DataError, match="16 bits transparent"):
        decoding.read_picture(content + chunk(b"IDAT", zlib.compress(row)) + chunk(b"IEND", b""))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_of_16_bits_the_upper_eight_are_kept(kind):
    values = np.array([[0, 255, 256, 0x8000, 0xFFFF]], np.uint16)
    assert [rgb[0] for rgb in pixels_of(saved(Image.fromarray(values), kind))[0]] == [0, 0, 1, 128, 255]


@pytest.mark.parametrize(
    ("mode", "value", "reason"), [("I", 70_000, "integers of 32 bits"), ("F", 0.5, "floating-point pixels")]
)
def test_pixels_without_a_known_range_are_refused_by_loader_and_stamper(root, mode, value, reason):
    for name in ("a", "b"):
        for n in range(20):
            picture(root / f"own/{name}/{n:02d}.png", n)
    path = root / "own/a/deep.tif"
    Image.new(mode, (8, 8), value).save(path)
    refused(root, f"Expected .*deep.tif to be a picture of own, but it has {reason}.*save it anew", "folder:own")
    with pytest.raises(DataError, match=reason):
        decoding.read_picture(path)


def test_signed_16_bits_are_refused(root):
    Image.fromarray(np.array([[5, 7]], np.uint16)).save(root / "a.tif", tiffinfo={339: 2})
    with Image.open(root / "a.tif") as opened:
        assert opened.mode == "I"
    with pytest.raises(DataError, match="integers of 16 bits, whose range no file tells"):
        decoding.read_picture(root / "a.tif")


def test_loader_and_stamper_see_the_same_pixels(root):
    """Of every kind that both take."""
    from bench.stamping.reading import read_at

    rng, exif = np.random.default_rng(0), Image.Exif()
    exif[0x0112] = 6
    alpha = Image.fromarray(rng.integers(0, 256, (32, 32, 4), dtype=np.uint8))
    for number, (mode, options) in enumerate({"RGBA": {}, "P": {}, "LA": {}, "RGB": {"exif": exif}, "1": {}}.items()):
        path = root / f"{number}.png"
        alpha.convert(mode).save(path, **options)
        (loaded,) = decoding.decode([(str(path), path)], 1, catalog.SPECS["cifar10"])
        assert np.array_equal(loaded.permute(1, 2, 0).numpy(), read_at(path)[0].pixels), mode


def test_formats_that_start_programs_are_not_opened():
    """PostScript is handed to Ghostscript by Pillow; nobody's data set needs it."""
    with pytest.raises(DataError, match="cannot be decoded"):
        decoding.read_picture(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n%%EOF\n")


def refused(root: Path, message: str, name: str = "cifar10") -> None:
    with pytest.raises(DataError, match=message) as error:
        load(name, data_root=root)
    one_sentence(error)


def test_truncated_parquet_is_refused(root):
    path = parquet_set(root / "cifar10") / "train-00000-of-00001.parquet"
    path.write_bytes(path.read_bytes()[:-200])
    refused(root, "Expected whole Parquet files in .*cifar10, but could not read them .*: copy them again")


def test_parquet_that_lost_bytes_in_the_middle_is_refused(root):
    path = parquet_set(root / "cifar10") / "train-00000-of-00001.parquet"
    content = bytearray(path.read_bytes())
    content[500:5000] = bytes(4500)
    path.write_bytes(content)
    refused(root, "Expected .*cifar10")


def test_parquet_without_a_test_part_is_refused(root):
    (parquet_set(root / "cifar10") / "test-00000-of-00001.parquet").unlink()
    refused(root, r"Expected test-\*.parquet beside .*CIFAR-10 in .*cifar10, but found none")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image": "pixels"}, "Expected a column image or img in .*, but got the columns pixels, label"),
        ({"label": "kind"}, "Expected a column fine_label or label or labels in .*, but got the columns image, kind"),
        ({"side": 28}, "Expected row 0 of .* to be 32 x 32 like all pictures of CIFAR-10, but it is 28 x 28"),
        ({"names": ["only", "two"]}, "Expected 10 classes of CIFAR-10 in .*, but found 2"),
        (
            {"blobs": [b"no picture"] * 120},
            "Expected row 0 of .* to be a picture of .*, but it cannot be decoded: copy it",
        ),
    ],
)
def test_wrong_columns_pictures_and_classes_are_refused(root, options, message):
    shard(root / "cifar10/train-0.parquet", TRAIN_LABELS, **options)
    if "blobs" in options:
        options = {}
    shard(root / "cifar10/test-0.parquet", TEST_LABELS, **options)
    refused(root, message)


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        ([*TRAIN_LABELS, 10], TEST_LABELS, r"training labels of CIFAR-10 in .* to be in 0..9, but got 0..10"),
        ([*TRAIN_LABELS, -1], TEST_LABELS, r"but got -1..9"),
        (TRAIN_LABELS, [], "Expected test images of CIFAR-10 in .*, but found none"),
        (TRAIN_LABELS[:99], TEST_LABELS, "at least 10 training images a class .* class truck has 9"),
    ],
)
def test_wrong_labels_and_counts_are_refused(root, train, test, message):
    shard(root / "cifar10/train-0.parquet", train)
    shard(root / "cifar10/test-0.parquet", test)
    refused(root, message)


def test_a_missing_set_says_where_it_was_looked_for_and_what_to_do(root):
    refused(
        root,
        re.escape(f"Expected CIFAR-10 below {root} as cifar10/train-*.parquet, cifar-10-batches-py or")
        + ".*--download",
    )
    refused(root / "nowhere", "below .*nowhere as .*, but there is no such folder: add --download")
    refused(root, "Expected CUB-200-2011 below .* CUB_200_2011 with images.txt .*another --data-root", "cub200")


# --- torchvision's files -------------------------------------------------------------------------------------------


def idx_files(raw: Path, kind: str, labels: list[int]) -> None:
    raw.mkdir(parents=True, exist_ok=True)
    images = np.stack([np.full((28, 28), grey_level(c, n), np.uint8) for n, c in enumerate(labels)])
    header = struct.pack(">iiii", 2051, len(labels), 28, 28)
    (raw / f"{kind}-images-idx3-ubyte").write_bytes(header + images.tobytes())
    (raw / f"{kind}-labels-idx1-ubyte").write_bytes(struct.pack(">ii", 2049, len(labels)) + bytes(labels))


def test_torchvision_mnist_equals_parquet_mnist(root, tmp_path):
    idx_files(root / "MNIST/raw", "train", TRAIN_LABELS)
    idx_files(root / "MNIST/raw", "t10k", TEST_LABELS)
    data = load("mnist", data_root=root)
    assert data.split["owner"] == 80
    parquet_set(tmp_path / "other/mnist", side=28)
    assert data.checksum == checksum("mnist", data_root=tmp_path / "other")
    path = root / "MNIST/raw/train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-1])
    refused(root, "Expected torchvision's files of MNIST in .*raw to be whole, .* add --download", "mnist")


def test_torchvision_cifar_files_that_are_not_the_originals_are_never_unpickled(root):
    (root / "cifar-10-batches-py").mkdir()
    (root / "cifar-10-batches-py/data_batch_1").write_bytes(b"garbage")
    refused(root, "Expected torchvision's files of CIFAR-10 .*corrupted.*--download")


class Fetched:
    """Stands for `torchvision.datasets.CIFAR10`: downloading makes the folder, reading gives arrays."""

    classes = DATASETS["cifar10"].classes

    def __init__(self, root: Path, train: bool = True, download: bool = False):
        if download:
            (Path(root) / "cifar-10-batches-py").mkdir()
        self.targets = TRAIN_LABELS if train else TEST_LABELS
        self.data = np.zeros((len(self.targets), 32, 32, 3), np.uint8)
        self.data[:, 3, 5] = (1, 2, 3)


def test_torchvision_downloads_only_when_asked(root, monkeypatch):
    monkeypatch.setattr(torchvision.datasets, "CIFAR10", Fetched)
    refused(root, "add --download")
    assert not list(root.iterdir())
    images = load("cifar10", data_root=root, download=True).owner.images
    assert images[0, :, 3, 5].tolist() == [1, 2, 3]
    assert images.sum() == 6 * len(images)


def test_a_failed_download_is_one_sentence(root, monkeypatch):
    def unreachable(root, download):
        raise OSError("<urlopen error unreachable>\nmore")

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", unreachable)
    with pytest.raises(DataError, match=r"Expected to download CIFAR-10 into .*unreachable") as error:
        load("cifar10", data_root=root, download=True)
    one_sentence(error)
    with pytest.raises(DataError, match="cannot be downloaded by itself"):
        load("cub200", data_root=root, download=True)


# --- folders -------------------------------------------------------------------------------------------------------


def test_class_folders_of_a_known_set_take_the_cards_numbers(root, monkeypatch):
    few_classes(monkeypatch, "cifar10", "zebra", "ant")
    for part, count in (("train", 12), ("val", 3)):
        for n in range(count):
            picture(root / f"cifar10/{part}/ant/{n}.png", 10, (32, 32))
            picture(root / f"cifar10/{part}/zebra/{n}.jpeg", 200, (32, 32))
    data = load("cifar10", data_root=root, owner=24)
    assert data.card.classes == ("zebra", "ant")
    assert torch.equal(data.owner.labels == 0, data.owner.images[:, 0, 0, 0] == 200)
    assert (data.split["adversary"], data.split["heldout"]) == (3, 3)


def test_tiny_imagenet_layout(root, monkeypatch):
    few_classes(monkeypatch, "tiny-imagenet", "001", "002")
    base = root / "tiny-imagenet-200"
    for label, wnid in enumerate(("n01", "n02")):
        for n in range(12):
            picture(base / f"train/{wnid}/images/{wnid}_{n}.JPEG", 50 + 100 * label, (64, 64), "L")
    rows = []
    for n in range(6):
        picture(base / f"val/images/val_{n}.JPEG", 50 + 100 * (n % 2), (64, 64))
        rows.append(f"val_{n}.JPEG\tn0{n % 2 + 1}\t0\t0\t62\t62")
    (base / "val/val_annotations.txt").write_text("\n".join(rows) + "\n")
    data = load("tiny-imagenet", data_root=root)
    assert data.card.classes == ("n01", "n02")
    assert data.heldout.images.shape == (6, 3, 64, 64)
    for part in (data.owner, data.adversary, data.heldout):
        assert torch.equal(part.labels == 1, part.images[:, 0, 0, 0] == 150)
    (base / "val/images/val_3.JPEG").unlink()
    refused(root, "Expected Tiny ImageNet in .* to be whole, but .*val_3.JPEG is missing", "tiny-imagenet")
    (base / "val/val_annotations.txt").write_text("val_0.JPEG\tn99\n")
    refused(root, "val_annotations.txt to name classes of .*train, but got 'n99'", "tiny-imagenet")


def test_cub_layout(root, monkeypatch):
    few_classes(monkeypatch, "cub200", "001", "002")
    base = root / "cub200/CUB_200_2011"
    lines: dict[str, list[str]] = {"images": [], "image_class_labels": [], "train_test_split": []}
    for number in range(30):
        label = number % 2
        path = f"00{label + 1}.Bird_{label}/{number}.jpg"
        picture(base / "images" / path, 50 + 100 * label, (40, 30))
        lines["images"].append(f"{number + 1} {path}")
        lines["image_class_labels"].append(f"{number + 1} {label + 1}")
        lines["train_test_split"].append(f"{number + 1} {int(number < 24)}")
    lines["classes"] = ["1 001.Bird_0", "2 002.Bird_1"]
    for name, rows in lines.items():
        (base / f"{name}.txt").write_text("\n".join(rows) + "\n")
    data = load("cub200", data_root=root)
    assert data.card.classes == ("001.Bird_0", "002.Bird_1")
    assert data.split["owner"] + data.split["adversary"] == 24
    assert data.heldout.images.shape == (6, 3, 64, 64)
    for part in (data.owner, data.adversary, data.heldout):
        assert torch.equal(part.labels == 1, part.images[:, 0, 9, 9] == 150)
    (base / "image_class_labels.txt").write_text("1 1\n")
    refused(root, "Expected the four tables of CUB-200-2011 in .* to agree", "cub200")


def test_caltech_layout_takes_thirty_for_training_and_at_most_forty_for_testing(root, monkeypatch):
    few_classes(monkeypatch, "caltech101", "001", "002")
    base = root / "caltech101/101_ObjectCategories"
    for name, count, first in (("ants", 33, 0), ("bees", 90, 100), ("BACKGROUND_Google", 5, 250)):
        for n in range(count):
            picture(base / name / f"image_{n:04d}.jpg", first + n, (10, 12))
    data = load("caltech101", data_root=root, owner=60)
    assert data.card.classes == ("ants", "bees")
    assert data.owner.labels.bincount().tolist() == [30, 30]
    held = torch.cat([data.adversary.labels, data.heldout.labels])
    assert held.bincount().tolist() == [3, 40]
    levels = [set(part.images[:, 0, 9, 9].tolist()) for part in (data.owner, data.adversary, data.heldout)]
    assert sum(map(len, levels)) == 103, "a picture lies in two parts"
    for part in (data.owner, data.heldout):
        assert torch.equal(part.labels == 1, part.images[:, 0, 9, 9] >= 100)
    for n in range(5):
        (base / f"ants/image_{n:04d}.jpg").unlink()
    refused(root, "Expected more than 30 pictures a class in .*, but got 28", "caltech101")


def test_anybodys_own_folder_is_split_eighty_to_twenty(root):
    for name, count, first in (("cats", 20, 0), ("dogs", 40, 100)):
        for n in range(count):
            picture(root / f"pets/{name}/{n:02d}.png", first + n, (20, 50), "L")
    (root / "pets/cats/notes.txt").write_text("no picture")
    data = load("folder:pets", data_root=root, owner=48)
    assert data.card.classes == card("folder:pets", data_root=root).classes == ("cats", "dogs")
    assert data.owner.images.shape == (48, 3, 32, 32)
    assert data.owner.labels.bincount().tolist() == [16, 32]
    held = torch.cat([data.adversary.labels, data.heldout.labels])
    assert held.bincount().tolist() == [4, 8]
    again = load("folder@pets", data_root=root, owner=48)
    assert again.card.name == data.card.name == "folder@pets"
    assert torch.equal(again.owner.images, data.owner.images)


def test_anybodys_own_folder_with_a_test_part(root):
    for part, count in (("train", 12), ("test", 5)):
        for name in ("a", "b"):
            for n in range(count):
                picture(root / f"own/{part}/{name}/{n}.png", n + 100 * (part == "test"))
    assert load("folder:own", data_root=root).split["heldout"] == 10
    picture(root / "own/test/c/0.png", 0)
    refused(root, "Expected the class folders of .*train in .*test, but got c", "folder:own")


@pytest.mark.parametrize("name", ["folder:../data", "folder:/etc", "folder:", "folder:a/b"])
def test_own_folders_stay_below_the_data_root(root, name):
    refused(root, "Expected folder:NAME with the plain name of a folder in", name)


def test_own_folders_that_are_missing_or_unsorted_are_refused(root):
    picture(root / "flat/a.png", 1)
    refused(root, "Expected one folder of pictures for each class in .*flat, but found 0", "folder:flat")
    refused(root, "Expected a folder of images in .*pest, but there is none .*flat", "folder:pest")


def test_an_undecodable_picture_is_named(root):
    for name in ("a", "b"):
        for n in range(20):
            picture(root / f"own/{name}/{n:02d}.png", n)
    path = root / "own/b/07.png"
    path.write_bytes(path.read_bytes()[:40])
    refused(
        root,
        "Expected .*b/07.png to be a picture of own, but it cannot be decoded: save it anew",
        "folder:own",
    )


def own_folder(base: Path, classes=("a", "b"), count: int = 20, first: int = 0) -> Path:
    """`count` different pictures of each class."""
    for number, name in enumerate(classes):
        for n in range(count):
            picture(base / name / f"{n:02d}.png", first + 40 * number + n)
    return base


def test_what_no_person_sees_is_no_picture(root):
    own_folder(root / "own")
    before = load("folder:own", data_root=root).checksum
    picture(root / "own/a/.ipynb_checkpoints/00-checkpoint.png", 200)
    (root / "own/__MACOSX/a").mkdir(parents=True)
    for name in ("a/._00.png", "__MACOSX/a/._00.png", ".DS_Store"):
        (root / "own" / name).write_bytes(b"\0\5\x16\7")
    (root / "own/a/album.png").mkdir()
    loading._dealt.cache_clear()
    assert load("folder:own", data_root=root).checksum == before
    (root / "own/b/half.png").write_bytes(b"")
    with pytest.warns(UserWarning, match="1 empty file.*half.png"):
        assert load("folder:own", data_root=root).checksum == before


@pytest.mark.parametrize("names", [("train", "test"), ("Train", "Test"), ("training", "testing"), ("TRAIN", "Val")])
def test_parts_are_told_by_their_names(root, names):
    for name, count, first in zip(names, (12, 5), (0, 100), strict=True):
        own_folder(root / "own" / name, count=count, first=first)
    data = load("folder:own", data_root=root)
    assert data.card.classes == ("a", "b")
    assert data.split["heldout"] == 10
    assert data.split["owner"] + data.split["adversary"] == 24


def test_a_class_may_be_called_train(root):
    own_folder(root / "own", ("bus", "train"))
    assert load("folder:own", data_root=root).card.classes == ("bus", "train")
    own_folder(root / "flat", ("train", "test"))
    refused(root, "Expected one folder of pictures for each class in .*test, but found 0", "folder:flat")
    for name in ("train", "Train"):
        own_folder(root / "double" / name)
    refused(root, "Expected one folder called train in .*double, but got Train and train", "folder:double")


@pytest.mark.parametrize("name", ["Meine Fotos", "猫", "Été", "a.b", "x" * 100])
def test_ordinary_names_of_folders_work(root, name):
    own_folder(root / name)
    data = load(f"folder:{name}", data_root=root)
    assert data.card.title == name
    assert re.fullmatch(r"folder@[A-Za-z0-9][A-Za-z0-9._+-]{0,59}", data.card.name), "records carry no other names"
    loading._dealt.cache_clear()
    assert load(data.card.name, data_root=root).checksum == data.checksum


def test_names_that_differ_only_in_what_ascii_lacks_are_two(root):
    names = [card(f"folder:{own_folder(root / name).name}", data_root=root).name for name in ("猫", "犬", "é", "è")]
    assert len(set(names)) == 4


def test_a_name_that_is_not_utf8_is_read_and_printed_safely(root):
    own_folder(root / "own")
    strange = os.fsencode(root / "own/a") + b"/\xff\x1b.png"
    with open(strange, "wb") as file:  # noqa: PTH123  # a name of bytes
        file.write(png(99))
    assert load("folder:own", data_root=root).split["owner"] > 20
    with open(strange, "wb") as file:  # noqa: PTH123  # a name of bytes
        file.write(b"no picture")
    with pytest.raises(DataError, match=r"\\udcff\\x1b\.png") as error:
        load("folder:own", data_root=root)
    str(error.value).encode("utf-8", "strict")


def test_the_same_picture_in_two_parts_is_named_and_counted(root):
    own_folder(root / "own/train", count=12)
    own_folder(root / "own/val", count=6, first=100)
    for n in range(3):
        picture(root / f"own/val/b/copy{n}.png", 40 + n, (9, 9))
    refused(
        root, "but 3 are there twice, the first as .*train/b/00.png and .*val/b/copy0.png: remove one", "folder:own"
    )


def test_a_poor_class_is_advice_for_the_folders_owner(root):
    own_folder(root / "own", ("a", "b"))
    (root / "own/zebra").mkdir()
    refused(root, "class zebra has 0: add pictures to it, or remove the class", "folder:own")
    own_folder(root / "lacks/train", ("cat", "dog"), 12)
    own_folder(root / "lacks/val", ("cat",), 6, 100)
    refused(root, "at least 1 test image a class of lacks in .*, but class dog has 0: add pictures", "folder:lacks")


# --- further layouts of Parquet ------------------------------------------------------------------------------------


def test_the_hubs_converted_layout(root, tmp_path):
    for part, labels in (("train", TRAIN_LABELS), ("test", TEST_LABELS)):
        shard(root / f"cifar10/default/{part}/0000.parquet", labels)
    parquet_set(tmp_path / "other/cifar10")
    assert checksum("cifar10", data_root=root) == checksum("cifar10", data_root=tmp_path / "other")
    (root / "cifar10/default/train/0000.parquet").rename(root / "cifar10/default/train/0001.parquet")
    refused(root, "Expected 2 train files in .*default, but found 1: copy the others")


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()])
@pytest.mark.parametrize("labels", [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string()), pa.uint8()])
def test_pictures_as_bytes_and_labels_as_names(root, tmp_path, kind, labels):
    for part, numbers in (("train", TRAIN_LABELS), ("test", TEST_LABELS)):
        blobs = pa.array([png(grey_level(c, n)) for n, c in enumerate(numbers)], kind)
        told = numbers if labels == pa.uint8() else [DATASETS["cifar10"].classes[c] for c in numbers]
        (root / "cifar10").mkdir(exist_ok=True)
        table = pa.table({"image": blobs, "label": pa.array(told).cast(labels)})
        pq.write_table(table, root / f"cifar10/{part}-0.parquet")
    parquet_set(tmp_path / "other/cifar10")
    assert checksum("cifar10", data_root=root) == checksum("cifar10", data_root=tmp_path / "other")
    assert load("cifar10", data_root=root).card.classes == DATASETS["cifar10"].classes


def test_class_names_in_another_order_are_brought_into_the_training_parts(root):
    shard(root / "cifar10/train-0.parquet", TRAIN_LABELS, names=list("abcdefghij"))
    shard(root / "cifar10/test-0.parquet", TEST_LABELS, names=list("jihgfedcba"))
    heldout = load("cifar10", data_root=root).heldout
    assert torch.equal(heldout.images[:, 0, 0, 0] // 20, 9 - heldout.labels), "grey level 20 c is told as class c"
    shard(root / "cifar10/test-0.parquet", TEST_LABELS, names=list("abcdefghiX"))
    refused(root, "Expected the class names of .*test-0.parquet to be those of the training part, but X is in one")


def test_pictures_that_stand_elsewhere_are_refused(root):
    for part, numbers in (("train", TRAIN_LABELS), ("test", TEST_LABELS)):
        (root / "cifar10").mkdir(exist_ok=True)
        pq.write_table(
            pa.table({"image": ["x.png"] * len(numbers), "label": numbers}), root / f"cifar10/{part}-0.parquet"
        )
    refused(
        root, "Expected the image column of .* to be struct<bytes, path> or bytes, but got string: write the pictures"
    )


# --- the cache and the checksum ------------------------------------------------------------------------------------


@pytest.fixture
def decodings(monkeypatch) -> list[int]:
    """Counts decoded pictures in its only element."""
    counter, one = [0], decoding._one

    def counting(*arguments):
        counter[0] += 1
        return one(*arguments)

    monkeypatch.setattr(decoding, "_one", counting)
    return counter


def reload(root: Path):
    loading._dealt.cache_clear()
    return load("cifar10", data_root=root)


def test_a_second_load_decodes_nothing(root, decodings, tmp_path):
    parquet_set(root / "cifar10", names=list("abcdefghij"))
    first = load("cifar10", data_root=root)
    assert decodings == [160]
    second = reload(root)
    assert decodings == [160]
    assert second is not first
    assert torch.equal(first.owner.images, second.owner.images)
    assert torch.equal(first.heldout.labels, second.heldout.labels)
    assert (first.card, first.checksum, first.split) == (second.card, second.checksum, second.split)
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".safetensors"]


def test_results_are_kept_within_a_process(root):
    parquet_set(root / "cifar10")
    assert load("cifar10", data_root=root) is load("cifar10", data_root=root)
    assert load("cifar10", data_root=root) is not load("cifar10", data_root=root, owner=20)
    assert load("digits-m", owner=10) is load("digits-m", owner=10)


@pytest.mark.parametrize(
    "damage", [lambda b: b[: len(b) // 2], lambda b: b[:5], lambda b: b"", lambda b: b"x" * len(b)]
)
def test_a_broken_cache_file_is_rebuilt(root, decodings, tmp_path, damage):
    parquet_set(root / "cifar10")
    first = load("cifar10", data_root=root)
    (path,) = (tmp_path / "cache").iterdir()
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    second = reload(root)
    assert decodings == [320]
    assert torch.equal(first.owner.images, second.owner.images)
    assert path.stat().st_size == len(whole)
    path.write_bytes(damage(whole))
    assert checksum("cifar10", data_root=root) == first.checksum


def test_checksum_is_loads_and_reads_only_the_header(root, decodings, monkeypatch):
    parquet_set(root / "cifar10")
    first = checksum("cifar10", data_root=root)
    assert decodings == [160]
    monkeypatch.setattr(loading.kept, "read", lambda path: pytest.fail("read all of the cache"))
    assert checksum("cifar10", data_root=root) == first
    monkeypatch.undo()
    assert first == load("cifar10", data_root=root, owner=20).checksum


def test_checksum_is_sha256_of_pixels_and_labels(root, monkeypatch):
    source = labelled(3, 2)
    sha = hashlib.sha256()
    for part, count in ((source.train, 3), (source.test, 2)):
        sha.update(f"({count}, 3, 1, 1)torch.uint8".encode() + bytes(3 * count))
        sha.update(f"({count},)torch.int64".encode() + part.labels.numpy().tobytes())
    assert source.checksum() == sha.hexdigest()


def test_a_changed_pixel_or_label_changes_the_checksum_and_is_not_served_from_the_cache(root):
    parquet_set(root / "cifar10")
    seen = {load("cifar10", data_root=root).checksum}
    blobs = [png(grey_level(c, n)) for n, c in enumerate(TEST_LABELS)]
    buffer = io.BytesIO()
    image = Image.open(io.BytesIO(blobs[-1])).copy()
    image.putpixel((31, 31), (1, 2, 3))
    image.save(buffer, "PNG")
    shard(root / "cifar10/test-00000-of-00001.parquet", TEST_LABELS, blobs=[*blobs[:-1], buffer.getvalue()])
    seen.add(load("cifar10", data_root=root).checksum)
    shard(root / "cifar10/test-00000-of-00001.parquet", [*TEST_LABELS[:-1], 0], blobs=blobs)
    seen.add(load("cifar10", data_root=root).checksum)
    assert len(seen) == 3


def test_a_cache_that_cannot_be_written_only_warns(root, tmp_path):
    parquet_set(root / "cifar10")
    (tmp_path / "file").write_text("in the way")
    with pytest.warns(UserWarning, match="Could not keep decoded images .*BENCH_CACHE"):
        data = load("cifar10", data_root=root, cache=tmp_path / "file" / "below")
    assert data.checksum == checksum("cifar10", data_root=root)


def test_the_data_root_can_come_from_the_environment(root, monkeypatch):
    parquet_set(root / "cifar10")
    monkeypatch.setenv("BENCH_DATA_ROOT", str(root))
    assert load("cifar10").split["owner"] == 80


# --- real data -----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not ROOT, reason="BENCH_DATA_ROOT is not set: no real CIFAR-10 to read")
def test_real_cifar10(tmp_path):
    data = load("cifar10", data_root=Path(str(ROOT)), cache=tmp_path / "cache")
    assert data.card.classes == DATASETS["cifar10"].classes
    assert data.split["owner"] + data.split["adversary"] == 50_000
    assert data.heldout.labels.bincount().tolist() == [1000] * 10
    mean = data.owner.images.double().mean((0, 2, 3)) / 255
    assert torch.allclose(mean, torch.tensor([0.4914, 0.4822, 0.4465]).double(), atol=0.005)
    assert checksum("cifar10", data_root=Path(str(ROOT)), cache=tmp_path / "cache") == data.checksum
