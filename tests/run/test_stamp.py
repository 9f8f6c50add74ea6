"""`bench stamp` and `bench verify-images`: a folder is stamped, resumed, recognised."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from bench import stamping
from bench.api import replace
from bench.cli import main
from bench.stamping.keyfile import load_key, save_key
from tests.run.stamped import ABOUT, KEY, contents, rows, write


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
