"""A person's own folder: what is read, where it is written, what each picture gets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bench import stamping
from bench.api import Key, Rng, replace
from bench.stamping import StampError, fitted, sample, stamp_all, survey, walk, writing
from tests.run.stamped import KEY, Numbered, contents, rows, write


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


def test_a_survey_counts_before_anything_is_written(folder: Path, tmp_path: Path) -> None:
    looked = survey(folder, tmp_path / "out")
    assert (looked.total, looked.written, looked.others.named) == (25, 0, ["notes.txt"])
    stamp_all(Numbered(), Key(), folder, tmp_path / "out")
    assert survey(folder, tmp_path / "out").written == 24
    assert survey(folder).digest == looked.digest
    (folder / "00.png").rename(folder / "000.png")
    assert survey(folder).digest != looked.digest
