"""A person's own folder: what is read, where it is written, what each picture gets, whose key is accepted."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from bench import stamping
from bench.api import Host, Key, Rng, replace
from bench.cli import main
from bench.cli.stamp import STAMPING
from bench.plan.profiles import PROFILES
from bench.stamping import StampError, fitted, sample, session, stamp_all, survey, walk, writing
from bench.stamping import host as folder_host
from bench.stamping.host import KeyMaker
from bench.stamping.keyfile import About, KeyFileError, load_key, save_key
from schemes._visible import VisibleKey
from tests.plugins.shapes import Stamp as Toy

SECRET = 77


class Numbered:
    """Writes each picture's place in the folder into its first two pixels, and touches nothing else."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def stamp(self, images: torch.Tensor, key: Key, first: int = 0) -> torch.Tensor:
        self.batches.append(len(images))
        stamped = images.clone()
        places = torch.arange(first, first + len(images))
        stamped[:, 0, 0, 0], stamped[:, 1, 0, 0] = (places % 256).byte(), (places // 256).byte()
        return stamped


def write(path: Path, size: tuple[int, int] = (8, 8), seed: int = 0, **save: object) -> Path:
    """A picture of H x W with a smooth gradient and a seeded colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    y, x = np.mgrid[: size[0], : size[1]]
    base = np.random.default_rng(seed).integers(40, 180, 3)
    rows = base + 40 * np.stack([y / size[0], x / size[1], (x + y) / sum(size)], -1)
    Image.fromarray(rows.astype(np.uint8)).save(path, **save)
    return path


def rows(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.mode == "RGB"
        return np.asarray(image)


def contents(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*.png"))}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """24 pictures of two sizes in three folders, a text file, a broken picture, a hidden file."""
    root = tmp_path / "in"
    for i in range(24):
        write(
            root / ("", "a", "a/b")[i % 3] / f"{i:02d}.{'jpg' if i == 5 else 'png'}",
            (12, 8) if i % 7 == 6 else (8, 8),
            i,
        )
    (root / "notes.txt").write_text("no picture")
    (root / "a" / "10x.png").write_bytes(b"no picture either")
    (root / ".hidden.png").write_bytes(b"")
    return root


def test_files_are_walked_in_sorted_order_and_no_two_share_a_target(tmp_path: Path) -> None:
    for name in ("b.png", "B/z.jpg", "a.jpg", "a.bmp", "a.JPEG", "A/x.tiff", ".h/y.png", "c.webp", "B.bmp", "c.txt"):
        write(tmp_path / "in" / name) if name != "c.txt" else (tmp_path / "in" / name).write_text("x")
    (tmp_path / "in" / "link").symlink_to(tmp_path / "in" / "A")
    others = stamping.Report()
    entries = list(walk(tmp_path / "in", others=others))
    assert [(e.index, e.source, e.target) for e in entries] == [
        (0, "B.bmp", "B.bmp.png"),
        (1, "a.JPEG", "a.png"),
        (2, "a.bmp", "a.bmp.png"),
        (3, "a.jpg", "a.jpg.png"),
        (4, "b.png", "b.png"),
        (5, "c.webp", "c.png"),
        (6, "A/x.tiff", "A/x.png"),
        (7, "B/z.jpg", "B/z.png"),
    ]
    assert (others.skipped, others.named) == (1, ["c.txt"])
    assert [e.target for e in walk(tmp_path / "in", "keep")] == [e.source for e in entries]


@pytest.mark.parametrize("batch", [1, 3, 256])
def test_every_picture_gets_what_its_place_says(folder: Path, tmp_path: Path, batch: int) -> None:
    """Whatever the batch, the neighbours' sizes and the files that are no pictures."""
    scheme, told = Numbered(), []
    report = stamp_all(scheme, Key(), folder, tmp_path / "out", batch=batch, tell=told.append)
    places = {e.index: e for e in walk(folder)}
    assert (len(places), report.stamped, report.skipped, report.kept) == (25, 24, 1, 0)
    assert report.named == ["a/10x.png (cannot be decoded)"]
    assert max(scheme.batches) <= batch
    assert sum(scheme.batches) == 24
    assert told == sorted(told)
    for place, entry in places.items():
        if entry.source == "a/10x.png":
            assert not (tmp_path / "out" / entry.target).exists()
            continue
        written = rows(tmp_path / "out" / entry.target)
        assert written[0, 0, :2].tolist() == [place, 0]
        with Image.open(folder / entry.source) as original:
            assert np.array_equal(written[1:], np.asarray(original)[1:])


def test_resuming_writes_what_is_missing_and_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    stamp_all(Numbered(), Key(), folder, out)
    whole = contents(out)
    for name in list(whole)[::3]:
        (out / name).unlink()
    kept = {path: path.stat().st_mtime_ns for path in out.rglob("*.png")}
    report = stamp_all(Numbered(), Key(), folder, out)
    assert (report.stamped, report.kept) == (8, 16)
    assert contents(out) == whole
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())
    assert stamp_all(Numbered(), Key(), folder, out, overwrite=True).stamped == 24
    assert contents(out) == whole
    assert not list(out.rglob("*.part"))


def test_only_a_few_pictures_are_read_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory must not grow with the folder: when the first run is stamped, most files have not been opened."""
    for i in range(80):
        write(tmp_path / "in" / f"{i:03d}.bmp", seed=i)
    opened: list[Path] = []
    read = writing.read_at
    monkeypatch.setattr(writing, "read_at", lambda path, size=None: opened.append(path) or read(path, size))
    seen: list[int] = []

    class Watching(Numbered):
        def stamp(self, images: torch.Tensor, key: Key, first: int = 0) -> torch.Tensor:
            seen.append(len(opened) - first - len(images))
            return super().stamp(images, key, first)

    stamp_all(Watching(), Key(), tmp_path / "in", tmp_path / "out", batch=4)
    assert len(seen) == 20
    assert max(seen) <= writing.workers() + 2


def test_large_pictures_are_stamped_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "BATCH_PIXELS", 130)
    for i in range(6):
        write(tmp_path / "in" / f"{i}.png", (8, 8))
        write(tmp_path / "in" / "large" / f"{i}.png", (16, 16))
    scheme = Numbered()
    stamp_all(scheme, Key(), tmp_path / "in", tmp_path / "out")
    assert scheme.batches == [2, 2, 2, 1, 1, 1, 1, 1, 1]


def test_pictures_of_every_kind_become_upright_opaque_rgb(tmp_path: Path) -> None:
    root = tmp_path / "in"
    root.mkdir()
    half = np.zeros((2, 3, 4), np.uint8)
    half[0], half[1] = (10, 200, 30, 0), (10, 200, 30, 255)
    Image.fromarray(half).save(root / "alpha.png")
    Image.fromarray(np.array([[0, 65535], [256, 32768]], np.uint16)).save(root / "deep.png")
    Image.fromarray(np.array([[0, 255]], np.uint8)).save(root / "grey.bmp")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.array([[[255, 0, 0], [0, 0, 255]]], np.uint8)).save(root / "turned.png", exif=exif)
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    frames[0].save(root / "moving.webp", save_all=True, append_images=frames[1:], lossless=True)
    Image.new("CMYK", (2, 2), (0, 0, 0, 255)).save(root / "ink.jpg")
    report = stamp_all(Plain(), Key(), root, tmp_path / "out")
    read = {path.stem: rows(path).tolist() for path in (tmp_path / "out").iterdir()}
    assert read["alpha"] == [[[255, 255, 255]] * 3, [[10, 200, 30]] * 3]
    assert read["deep"] == [[[0] * 3, [255] * 3], [[1] * 3, [128] * 3]]
    assert read["grey"] == [[[0] * 3, [255] * 3]]
    assert read["turned"] == [[[255, 0, 0]], [[0, 0, 255]]], "turned clockwise: two rows, one column"
    assert read["moving"] == [[[255, 0, 0]] * 4] * 4
    assert np.max(read["ink"]) < 5
    assert report.converted == {
        "transparency laid over white": 1,
        "16 bits reduced to 8": 1,
        "grey made RGB": 2,
        "turned as EXIF says": 1,
        "only the first frame": 1,
        "CMYK made RGB": 1,
    }


class Plain:
    def stamp(self, images: torch.Tensor, key: Key, first: int = 0) -> torch.Tensor:
        return images


def test_formats_are_kept_where_asked(tmp_path: Path) -> None:
    names = {"a.png": "PNG", "b.jpg": "JPEG", "c.JPEG": "JPEG", "d.webp": "WEBP", "e.bmp": "BMP", "f.tif": "TIFF"}
    for i, name in enumerate(names):
        write(tmp_path / "in" / name, (16, 16), i)
    stamp_all(Plain(), Key(), tmp_path / "in", tmp_path / "out", form="keep")
    for name, kind in names.items():
        with Image.open(tmp_path / "out" / name) as image, Image.open(tmp_path / "in" / name) as original:
            assert image.format == kind
            worst = np.abs(np.asarray(image.convert("RGB")).astype(int) - np.asarray(original.convert("RGB"))).max()
            assert worst <= (3 if kind == "JPEG" else 0), name


def test_a_size_resizes_first(tmp_path: Path) -> None:
    write(tmp_path / "in" / "a.png", (20, 10))
    stamp_all(Numbered(), Key(), tmp_path / "in", tmp_path / "out", side=16)
    assert rows(tmp_path / "out" / "a.png").shape == (16, 16, 3)


@pytest.mark.parametrize("out", ["in", "in/out", ".", "in/../in/x"])
def test_no_folder_may_hold_the_other(folder: Path, tmp_path: Path, out: str) -> None:
    before = contents(folder)
    with pytest.raises(StampError, match="Expected --out to lie apart"):
        stamp_all(Numbered(), Key(), folder, tmp_path / out, overwrite=True)
    assert contents(folder) == before


def test_a_link_back_into_the_inputs_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a").symlink_to(folder / "a")
    before = contents(folder)
    with pytest.raises(StampError, match="is a link into it"):
        stamp_all(Numbered(), Key(), folder, tmp_path / "out", overwrite=True)
    assert contents(folder) == before


def test_a_scheme_that_changes_shapes_is_refused(folder: Path, tmp_path: Path) -> None:
    class Shrinking:
        def stamp(self, images: torch.Tensor, key: Key, first: int = 0) -> torch.Tensor:
            return images[..., 1:]

    with pytest.raises(TypeError, match="Expected stamp to return uint8 images"):
        stamp_all(Shrinking(), Key(), folder, tmp_path / "out")


def test_a_mark_is_resized_by_what_is_visible_of_it() -> None:
    """Red on the left half, transparent green on the right: no green may appear at the edge."""
    mark = torch.zeros(4, 8, 8)
    mark[0, :, :4], mark[1, :, 4:], mark[3, :, :4] = 1.0, 1.0, 0.8
    key = replace(KEY, mark=mark)
    assert fitted(key, (8, 8)) is key
    large = fitted(key, (32, 16)).mark
    assert large.shape == (4, 32, 16)
    assert large[3, :, :6].allclose(torch.tensor(0.8))
    assert large[3, :, 10:].abs().max() == 0
    assert large[1].max() == 0
    assert large[0][large[3] > 1e-4].allclose(torch.tensor(1.0), atol=1e-3)
    assert fitted(Key(), (3, 3)) == Key()


def test_a_sample_is_drawn_by_its_seed_and_brought_to_one_size(folder: Path) -> None:
    pictures, names, resized = sample(folder, 25, 100, Rng(1), (8, 8))
    assert pictures.shape == (24, 3, 8, 8)
    assert resized == 3
    assert names == [e.source for e in walk(folder) if e.source != "a/10x.png"]
    draws = [sample(folder, 25, 8, Rng(seed), (8, 8))[1] for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]
    assert stamping.key_size(folder, 25, Rng(0)) == (8, 8)
    write(folder / "big.png", (1000, 500))
    for entry in list(walk(folder)):
        if entry.source != "big.png":
            (folder / entry.source).unlink()
    assert stamping.key_size(folder, 1, Rng(0)) == (256, 128)
    assert stamping.key_size(folder, 1, Rng(0), 4096) == (256, 256)
    assert stamping.key_size(folder, 1, Rng(0), 64) == (64, 64)


@dataclass(frozen=True)
class LearntKey(Key):
    """What a key maker saw of a folder."""

    labels: Tensor
    sizes: Tensor
    classes: tuple[str, ...]
    outputs: int
    other: str


class Learning(Toy):
    """Asks for a classifier of the folder."""

    key_type = LearntKey

    card = replace(Toy.card, name="test-learning", keygen_trains=True)

    def keygen(self, host: Host, rng: Rng) -> Key:
        images = host.images
        logits = host.model()(images.images.float() / 255)
        other = host.train(images, rng.child("other"), epochs=1)
        return LearntKey(
            images.labels, torch.tensor(images.images.shape), tuple(host.dataset.classes), logits.shape[1],
            type(other).__name__,
        )  # fmt: skip


def maker(folder: Path, total: int, said: list[str]) -> KeyMaker:
    return KeyMaker(folder, total, (8, 8), "wrn-10-1", PROFILES["smoke"], Rng(SECRET), "cpu", said.append)


def test_class_folders_are_labels_below_the_names_of_splits(tmp_path: Path) -> None:
    for i in range(24):
        write(tmp_path / ("train/cat", "train/dog", "val/cat")[i % 3] / f"{i}.png", seed=i)
    said: list[str] = []
    key = maker(tmp_path, 24, said).make(Learning())
    assert key.classes == ("cat", "dog")
    assert key.outputs == 2
    assert key.sizes.tolist() == [19, 3, 32, 32]
    assert said[0] == "Labels: 2 class folders."
    assert "wrn-10-1, 2 classes" in said[1]
    assert torch.equal(maker(tmp_path, 24, said).make(Learning()).labels, key.labels)


def test_without_class_folders_colours_are_the_classes(tmp_path: Path) -> None:
    """Twenty dark and twenty light pictures: no cluster holds both."""
    shades = []
    for i in range(40):
        dark = i % 2 == 0
        Image.new("RGB", (8, 8), (i, i, 20) if dark else (250 - i, 250, 200)).save(tmp_path / f"{i:02d}.png")
        shades.append(dark)
    pictures, names, _ = sample(tmp_path, 40, 100, Rng(0), (32, 32))
    labels, classes, how = folder_host._labels(pictures, names, Rng(0))
    assert len(classes) == 10
    assert "clusters of coarse colours" in how
    assert not set(labels[torch.tensor(shades)].tolist()) & set(labels[~torch.tensor(shades)].tolist())
    with pytest.raises(StampError, match="at least 20 pictures"):
        folder_host._labels(pictures[:19], names[:19], Rng(0))


ABOUT = About(scheme="visible-static", params={"blend": 0.5, "watermark": None}, size=(8, 9), options={"seed": 3})
KEY = VisibleKey(
    mark=torch.rand(4, 8, 9), probe=torch.zeros(3, 3, 8, 9, dtype=torch.uint8), probe_labels=torch.arange(3), base=None,
    blend=0.5, seed=2**62, decoys=7,
)  # fmt: skip
TENSORS, VALUES = KEY.packed()


@pytest.mark.parametrize("name", ["key.safetensors", "folder"])
def test_a_key_comes_back_as_it_was(tmp_path: Path, name: str) -> None:
    written = save_key(tmp_path / name, KEY, ABOUT)
    assert written == (tmp_path / name if name.endswith("s") else tmp_path / name / "key.safetensors")
    assert stat.S_IMODE(written.stat().st_mode) == 0o600
    for path in (tmp_path / name, written):
        key, about = load_key(path)
        tensors, values = key.packed()
        assert values == VALUES
        assert tensors.keys() == TENSORS.keys()
        assert all(torch.equal(tensors[name], tensor) for name, tensor in TENSORS.items())
        assert about.checksum is not None
        assert about == ABOUT.model_copy(update={"values": VALUES, "checksum": about.checksum})


def _metadata(**changes: object) -> dict[str, str]:
    return {"about": json.dumps({**ABOUT.model_dump(), **changes})}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "0 bytes"),
        (b"\xff" * 64, "header of"),
        (pickle.dumps({"mark": 1}) * 10, "header of"),
        ((2**21).to_bytes(8, "little") + b" " * 100, "header of"),
        ({}, "metadata \\[\\]"),
        ({"about": "{"}, "not JSON"),
        ({"about": "[" * 100_000}, "nested too deep|header"),
        (_metadata(extra=1), "extra"),
        (_metadata(version=1), "version"),
        (_metadata(format="other"), "format"),
        (_metadata(size=[0, 8]), "size"),
        (_metadata(size=[8]), "size"),
        (_metadata(scheme="../x"), "scheme"),
        (_metadata(params={"blend": {"a": 1}}), "params"),
        ({**_metadata(), "more": "x"}, "metadata"),
        ({"about": json.dumps(ABOUT.model_dump()).replace("0.5", "NaN")}, "NaN is no number"),
        ({"about": json.dumps(ABOUT.model_dump())[:-1] + ', "scheme": "other"}'}, "'scheme' twice"),
    ],
)
def test_what_is_no_key_is_refused_in_one_sentence(tmp_path: Path, content: object, reason: str) -> None:
    path = tmp_path / "key.safetensors"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        save_file(TENSORS, path, content)
    with pytest.raises(KeyFileError, match=reason) as caught:
        load_key(path)
    assert str(caught.value).startswith("Expected ")
    assert "\n" not in str(caught.value)


def test_a_key_with_values_that_are_no_numbers_or_cut_short_is_refused(tmp_path: Path) -> None:
    path = save_key(tmp_path, replace(KEY, mark=torch.tensor([1.0, float("nan")])), ABOUT)
    with pytest.raises(KeyFileError, match="'mark'"):
        load_key(path)
    path = save_key(tmp_path, KEY, ABOUT)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(KeyFileError, match="SafetensorError"):
        load_key(path)
    with pytest.raises(KeyFileError, match="there is none"):
        load_key(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "edit",
    [
        lambda tensors, about: tensors["mark"].mul_(0.5),
        lambda tensors, about: tensors.update(probe_labels=tensors["probe_labels"].float()),
        lambda tensors, about: tensors.update(probe_labels=tensors["probe_labels"][None]),
        lambda tensors, about: tensors.update(more=torch.zeros(1)),
        lambda tensors, about: about["params"].update(blend=0.6),
        lambda tensors, about: about["values"].update(seed=1),
        lambda tensors, about: about.update(scheme="visible-opacity"),
        lambda tensors, about: about.update(checksum=None),
        lambda tensors, about: about.update(checksum="0" * 64),
    ],
)
def test_an_edited_key_is_refused(tmp_path: Path, edit: Callable[[dict, dict], object]) -> None:
    path = save_key(tmp_path, KEY, ABOUT)
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is no mapping
        about = json.loads(file.metadata()["about"])
    save_file(tensors, path, {"about": json.dumps(about)})
    load_key(path)
    edit(tensors, about)
    save_file(tensors, path, {"about": json.dumps(about)})
    with pytest.raises(KeyFileError, match="changed since: its checksum"):
        load_key(path)


def test_a_key_that_says_something_twice_is_refused(tmp_path: Path) -> None:
    text = json.dumps(ABOUT.model_dump()).replace('"scheme":', '"scheme": "deepstamp", "scheme":')
    save_file(TENSORS, tmp_path / "key.safetensors", {"about": text})
    with pytest.raises(KeyFileError, match="twice"):
        load_key(tmp_path)


def test_only_schemes_that_can_stamp_are_offered() -> None:
    """`zhang-content` has a method of that name, which draws triggers."""
    assert tuple(session.able()) == STAMPING
    (option,) = (param for param in main.commands["stamp"].params if param.name == "name")
    assert ", ".join(STAMPING) in option.help


def bench(*words: str | Path, check: int = 0) -> str:
    done = CliRunner().invoke(main, [*map(str, words)])
    assert done.exit_code == check, f"exit {done.exit_code}\n{done.output}\n{done.exception!r}"
    return " ".join(done.output.replace("│", " ").split())


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """48 pictures of 32 x 32 with the structure of noise, half in each of two folders; four of 64 x 48."""
    generator = np.random.default_rng(5)
    for i in range(52):
        side = (64, 48) if i > 47 else (32, 32)
        path = tmp_path / "in" / ("a", "b")[i % 2] / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (*side, 3), dtype=np.uint8)).save(path)
    return tmp_path / "in"


@pytest.mark.parametrize("scheme", ["visible-static", "visible-opacity", "visible-displacement"])
def test_a_folder_is_stamped_resumed_and_recognised(photos: Path, tmp_path: Path, scheme: str) -> None:
    out, before = tmp_path / "out", contents(photos)
    # One of 200 unguessable keys claims the clean pictures too, as its p-value says: this one is known.
    words = (
        "stamp",
        "--scheme",
        scheme,
        "--images",
        photos,
        "--out",
        out,
        "--blend",
        "0.6",
        "--seed",
        "1",
        "--batch",
        "7",
    )
    said = bench(*words)
    assert "52 pictures stamped" in said
    assert "Keep this secret" in said
    assert (tmp_path / "out.key" / "key.safetensors").exists()
    assert "before you publish" not in said
    whole = contents(out)
    assert whole.keys() == before.keys()
    for name in list(whole)[5:20:2]:
        (out / name).unlink()
    assert "8 pictures stamped" in bench(*words[:-1], "100")
    assert contents(out) == whole
    bench(*words, "--overwrite")
    assert contents(out) == whole
    assert contents(photos) == before

    answer = json.loads(bench("verify-images", "--key", out.with_name("out.key"), "--images", out, "--format", "json"))
    assert answer["detected"] is True
    assert answer["p_value"] == pytest.approx(1 / 200)
    assert (answer["images"], answer["resized"], answer["scheme"]) == (52, 4, scheme)
    assert "DETECTED" in bench("verify-images", "--key", out.with_name("out.key"), "--images", out)
    clean = bench("verify-images", "--key", out.with_name("out.key"), "--images", photos, "--format", "json", check=1)
    assert json.loads(clean)["detected"] is False
    if scheme != "visible-static":
        return
    strict = ("verify-images", "--key", out.with_name("out.key"), "--images", out, "--fpr", "0.001")
    assert "not detected" in bench(*strict, check=1), "199 decoys cannot give a p-value below 1 / 200"
    bench(*strict, "--set", f"{scheme}.decoys=1999")


def test_keys_are_unguessable_unless_a_seed_is_given(photos: Path, tmp_path: Path) -> None:
    words = ("stamp", "--images", photos, "--key")
    seeds = {"one": (), "two": (), "three": ("--seed", "4"), "four": ("--seed", "4"), "five": ("--seed", "5")}
    for name, seed in seeds.items():
        bench(*words, tmp_path / name, "--out", tmp_path / f"out-{name}", *seed)
    marks = {name: load_key(tmp_path / name)[0].mark for name in seeds}
    assert not torch.equal(marks["one"], marks["two"])
    assert torch.equal(marks["three"], marks["four"])
    assert contents(tmp_path / "out-three") == contents(tmp_path / "out-four")
    other = ("verify-images", "--key", tmp_path / "five", "--images", tmp_path / "out-three", "--format", "json")
    assert json.loads(bench(*other, check=1))["p_value"] > 0.01


def test_the_keys_place_is_said_first_and_its_digest_ties_the_key_to_the_pictures(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "two"):
        bench("stamp", "--images", photos, "--out", tmp_path / name, "--seed", "1" if name == "one" else "2")
    digest = hashlib.sha256((tmp_path / "one.key/key.safetensors").read_bytes()).hexdigest()
    said = bench("stamp", "--images", photos, "--out", tmp_path / "one", "--seed", "1")
    assert f"Digest to publish with the pictures: {digest}" in said
    verify = ("verify-images", "--format", "json", "--images", tmp_path / "one", "--key", tmp_path / "one.key")
    answer = json.loads(bench(*verify, "--digest", digest.upper()))
    assert (answer["key_digest"], answer["published_key"]) == (digest, True)
    assert "it is another" in bench(*verify, "--digest", "0" * 64, check=2)
    other = ("verify-images", "--format", "json", "--images", tmp_path / "one", "--key", tmp_path / "two.key")
    assert json.loads(bench(*other, check=1))["published_key"] is False
    unmarked = ("verify-images", "--format", "json", "--images", photos, "--key", tmp_path / "one.key")
    assert json.loads(bench(*unmarked, check=1))["published_key"] is None

    monkeypatch.setattr(stamping, "stamp_all", lambda *words, **how: 1 / 0)
    done = CliRunner().invoke(main, ["stamp", "--images", str(photos), "--out", str(tmp_path / "three")])
    assert isinstance(done.exception, ZeroDivisionError)
    assert "three.key/key.safetensors" in done.output.replace("\n", "")


def test_names_that_are_not_utf8_are_stamped_and_named(photos: Path, tmp_path: Path) -> None:
    with open(os.fsencode(photos) + b"/\xff.png", "wb") as file:  # noqa: PTH123  # a name of bytes
        file.write(b"no picture")
    with open(os.fsencode(photos) + b"/\xfe.png", "wb") as file:  # noqa: PTH123  # a name of bytes
        file.write((photos / "a/00.png").read_bytes())
    (photos / "empty.png").write_bytes(b"")
    command = [sys.executable, "-m", "bench.cli", "stamp", "--images", photos, "--out", tmp_path / "out", "--seed", "1"]
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert "53 pictures stamped" in done.stdout
    assert "\\udcff.png (cannot be decoded)" in done.stdout
    assert "empty.png (empty)" in done.stdout
    assert os.path.exists(os.fsencode(tmp_path / "out") + b"/\xfe.png")  # noqa: PTH110  # a name of bytes


def test_a_mark_of_ones_own(photos: Path, tmp_path: Path) -> None:
    logo = np.zeros((40, 40, 4), np.uint8)
    logo[8:32, 14:26] = (20, 40, 250, 255)
    Image.fromarray(logo).save(tmp_path / "logo.png")
    words = ("stamp", "--images", photos, "--out", tmp_path / "out", "--watermark", tmp_path / "logo.png")
    bench(*words)
    bench("verify-images", "--key", tmp_path / "out.key", "--images", tmp_path / "out")
    logo[8:32, 14:26] = (250, 40, 20, 255)
    Image.fromarray(logo).save(tmp_path / "logo.png")
    assert "watermark" in bench(*words, check=2), "the file's content counts, not its name"
    (tmp_path / "logo.png").write_text("no image")
    assert "Expected an RGBA image" in bench(*words, "--key", tmp_path / "k", "--overwrite", check=2)


def test_mistakes_end_with_one_sentence_and_status_2(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ("stamp", "--images", photos, "--out", out)
    assert "lie apart" in bench("stamp", "--images", photos, "--out", photos / "x", check=2)
    for scheme in ("uchida-random", "zhang-content"):
        said = bench(*words, "--scheme", scheme, check=2)
        assert "Expected a scheme that stamps" in said
        assert "Known: deepstamp, visible-displacement, visible-opacity, visible-static" in said
    assert "blendd" in bench(*words, "--set", "visible-static.blendd=1", check=2)
    assert "finite number" in bench(*words, "--blend", "nan", check=2)
    assert "8 to 8192" in bench(*words, "--size", "7", check=2)
    assert "Expected a device" in bench(*words, "--device", "gpu9", check=2)
    (tmp_path / "empty").mkdir()
    assert "found none" in bench("stamp", "--images", tmp_path / "empty", "--out", out, check=2)
    bench(*words)
    assert "made with blend 0.7" in bench(*words, "--blend", "0.7", check=2)
    assert "are of another" in bench(*words, "--key", tmp_path / "other", check=2)
    write(photos / "new.png", (32, 32))
    assert "are of another" in bench(*words, check=2), "another list of files gives each picture another place"
    bench(*words, "--overwrite")
    verify = ("verify-images", "--images", out, "--key")
    assert "finite number" in bench(*verify, tmp_path / "out.key", "--fpr", "nan", check=2)
    assert "of this run" in bench(*verify, tmp_path / "out.key", "--set", "deepstamp.decoys=5", check=2)
    assert "there is none" in bench(*verify, tmp_path / "no", check=2)
    (tmp_path / "key.safetensors").write_bytes(b"x" * 100)
    assert "to be a key" in bench(*verify, tmp_path / "key.safetensors", check=2)
    save_key(tmp_path / "strange", replace(KEY, mark=torch.rand(2, 8, 9)), ABOUT)
    assert "could not be examined" in bench(*verify, tmp_path / "strange", check=2)
    save_key(tmp_path / "unknown", KEY, ABOUT.model_copy(update={"scheme": "no-such"}))
    assert "no-such" in bench(*verify, tmp_path / "unknown", check=2)
    foreign = tmp_path / "foreign"
    write(foreign / "a" / "00.png")
    assert "are of another" in bench("stamp", "--images", photos, "--out", foreign, check=2)
    assert not foreign.with_name(f"{foreign.name}.key").exists(), "no key is made in vain"
    assert "Expected a profile" in bench(*words, "--profile", "fast", check=2)


def test_a_learned_mark_is_drawn_at_the_pictures_size(photos: Path, tmp_path: Path) -> None:
    for path in photos.rglob("*.png"):
        with Image.open(path) as image:
            image.resize((40, 48), Image.Resampling.NEAREST).save(path)
    settings = ("--set", "deepstamp.epochs=1", "--set", "deepstamp.images=32", "--set", "deepstamp.batch_size=8")
    words = ("stamp", "--scheme", "deepstamp", "--profile", "smoke", "--images", photos, "--out", tmp_path / "out")
    said = bench(*words, *settings)
    assert "Labels: 2 class folders" in said
    key, about = load_key(tmp_path / "out.key")
    assert about.size == (48, 40)
    assert key.mark.shape == (4, 48, 40)
    assert key.W, "the network that draws it is part of the key"
    assert rows(tmp_path / "out" / "a" / "00.png").shape == (48, 40, 3)
    done = CliRunner().invoke(
        main, ["verify-images", "--key", f"{tmp_path}/out.key", "--images", f"{tmp_path}/out", "--format", "json"]
    )
    assert done.exit_code == (0 if json.loads(done.output)["detected"] else 1)
    assert json.loads(done.output)["images"] == 52


def test_a_survey_counts_before_anything_is_written(folder: Path, tmp_path: Path) -> None:
    looked = survey(folder, tmp_path / "out")
    assert (looked.total, looked.written, looked.others.named) == (25, 0, ["notes.txt"])
    stamp_all(Numbered(), Key(), folder, tmp_path / "out")
    assert survey(folder, tmp_path / "out").written == 24
    assert survey(folder).digest == looked.digest
    (folder / "00.png").rename(folder / "000.png")
    assert survey(folder).digest != looked.digest
