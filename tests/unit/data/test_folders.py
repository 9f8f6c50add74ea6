"""Folders of pictures: public layouts, and anybody's own."""

import os
import re

import pytest
import torch

from bench.data import DataError, card, load, loading
from tests.fakes.datasets import few_classes, own_folder, picture, png, refused


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
