"""Sample images of marks: which are kept, how they become pictures, and which pictures are refused."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from bench.api import ImageSet
from bench.records.pictures import PICTURES, PictureRow
from bench.runner.pictures import pictures
from bench.runner.store import Store
from bench.steps import samples
from bench.steps.ownership import Published
from tests.conftest import BenchHere
from tests.fakes import HASH, cell, provenance, record


def noise(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(256, (count, 3, 8, 8), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def images(pixels: torch.Tensor) -> ImageSet:
    return ImageSet(pixels, torch.zeros(len(pixels), dtype=torch.int64))


def test_the_first_images_that_a_mark_changed_are_shown_before_and_after_it() -> None:
    originals = noise(20)
    marked = originals.clone()
    marked[5:15, :, 0, 0] ^= 255
    set_ = Published(images(torch.cat([marked, noise(6, 1)])), originals)
    found = samples.published(set_)
    assert torch.equal(found["before"], originals[5:9])
    assert torch.equal(found["after"], marked[5:9])
    assert torch.equal(found["triggers"], noise(6, 1)[:4])
    left = set_.images.images.clone()
    left[:, :, 7, 7] ^= 1
    assert torch.equal(samples.attacked(set_, images(left))["attacked"], left[5:9])
    assert samples.attacked(set_, set_.images) == {}, "nothing was done to the images"
    assert samples.attacked(set_, images(left[:9])) == {}, "another set has no images that are the same"
    assert samples.published(Published(images(originals), originals)) == {}, "no mark is in the images"


def saved(store: Store, key: str, **tensors: torch.Tensor) -> str:
    store.save(key, {"identity": {}, "label": ""}, {}, {samples.SAMPLES: tensors} if tensors else {})
    return key


def made(seed: int, mark: str, attack: str, **fields: Any) -> Any:
    steps = {"mark": mark, "attack": attack}
    return record(
        cell=cell(seed=seed, attack=fields.pop("attack_name", "removal-matting")), stage=fields.pop("stage", "data"),
        provenance=provenance(steps=steps), **fields,
    )  # fmt: skip


def test_pictures_are_the_samples_beside_one_another_once_for_each_mark(tmp_path: Path) -> None:
    store, shown = Store(tmp_path), noise(4)
    mark = saved(store, HASH, before=shown, after=noise(4, 1))
    attack = saved(store, "b" * 64, attacked=noise(4, 2)[:, :1])
    plain = saved(store, "c" * 64)
    records = [made(1, plain, plain), made(0, mark, attack), made(0, mark, attack, attack_name="ftal", stage="model")]
    found = {row.what: row for row in pictures(records, store, ())}
    assert set(found) == {"before", "after", "removal-matting"}
    decoded = np.asarray(Image.open(io.BytesIO(base64.b64decode(found["before"].png))))
    assert decoded.shape == (8, 32, 3)
    for number in range(4):
        assert np.array_equal(decoded[:, 8 * number : 8 * number + 8].transpose(2, 0, 1), shown[number].numpy())
    assert all(PictureRow.model_validate(row.model_dump()) == row for row in found.values())
    assert [row.what for row in pictures(records, store, {found["before"].about})] == ["after", "removal-matting"]
    assert list(pictures(records, Store(tmp_path / "elsewhere"), ())) == []


def test_what_is_no_small_png_is_refused() -> None:
    file = io.BytesIO()
    Image.new("RGB", (4, 4)).save(file, "PNG")
    png = file.getvalue()
    row = {"scheme": "a", "scheme_params": {}, "dataset": "digits-m", "profile": "smoke", "what": "after", "images": 1}
    PictureRow.model_validate({**row, "png": base64.b64encode(png).decode()})
    huge = png[:16] + (5000).to_bytes(4, "big") + png[20:]
    for content in (huge, b"GIF89a\r\n" + png[8:], b"<svg onload=alert(1)>", png[:10], b""):
        with pytest.raises(ValidationError, match="PNG"):
            PictureRow.model_validate({**row, "png": base64.b64encode(content).decode()})
    for text in ('"><script>', base64.b64encode(png).decode() + '"'):
        with pytest.raises(ValidationError):
            PictureRow.model_validate({**row, "png": text})


def test_a_run_leaves_pictures_of_the_mark_and_of_what_removal_left(tmp_path: Path, bench_here: BenchHere) -> None:
    bench_here("run", "--scheme", "visible-static,zhang-content", "--attack", "none,removal-matting",
               "--profile", "smoke", "--null-keys", 0, "--no-mlflow", "--device", "cpu", "-q",
               "--run-dir", tmp_path)  # fmt: skip
    found = {(row.scheme, row.what): row for row in PICTURES.load(tmp_path)}
    assert set(found) >= {("visible-static", what) for what in ("before", "after", "removal-matting")}
    assert [what for scheme, what in found if scheme == "zhang-content"] == ["triggers"]
    pages = [path.read_bytes() for path in (tmp_path / "site").iterdir()]
    assert pages
    bench_here("leaderboard", "--run-dir", tmp_path)
    assert {(row.scheme, row.what): row for row in PICTURES.load(tmp_path)} == found
