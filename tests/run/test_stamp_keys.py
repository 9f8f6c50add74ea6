"""Keys for a person's own folder: what they are made of, and whose key file is accepted."""

from __future__ import annotations

import json
import pickle
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from bench.api import Host, Key, Rng, replace
from bench.cli import main
from bench.cli.stamp import STAMPING
from bench.plan.profiles import PROFILES
from bench.stamping import StampError, sample, session
from bench.stamping import host as folder_host
from bench.stamping.host import KeyMaker
from bench.stamping.keyfile import KeyFileError, load_key, save_key
from tests.plugins.shapes import Stamp as Toy
from tests.run.stamped import ABOUT, KEY, SECRET, write


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
