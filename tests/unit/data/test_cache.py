"""What was decoded is kept, and told by a checksum; real data."""

import hashlib
import io
import os
from pathlib import Path

import pytest
import torch
from PIL import Image

from bench.data import DATASETS, checksum, load, loading
from bench.data import decode as decoding
from tests.fakes.datasets import TEST_LABELS, grey_level, labelled, parquet_set, png, shard

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


ROOT = os.environ.get("BENCH_DATA_ROOT")


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
