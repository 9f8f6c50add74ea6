"""Parquet and torchvision's files: layouts, and messages for broken ones."""

import io
import re
import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import torchvision.datasets
from PIL import Image

from bench.data import DATASETS, DataError, catalog, checksum, load
from bench.data import decode as decoding
from tests.fakes.datasets import TEST_LABELS, TRAIN_LABELS, grey_level, one_sentence, parquet_set, png, refused, shard

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
