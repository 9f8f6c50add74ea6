"""Trigger sets of Zhang et al.: are they what they say?"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from scipy.stats import binom

from bench.api import ImageSet, Rng
from schemes._glyphs import LETTERS, letter_m_bank, poses, text_mask, written_one_bank
from schemes.zhang import ZhangContent, ZhangNoise, ZhangUnrelated
from tests.fakes import CLASSES, FakeHost, rows_of, same_key
from tests.unit.zhang_hosts import KINDS, host_of

# --- what the triggers look like -------------------------------------------------------------------------------


def test_text_is_drawn_letter_by_letter() -> None:
    drawn = ["".join(".#"[int(dot)] for dot in row) for row in text_mask("TEST", 32, 32)]
    assert drawn == [
        "#####.#####..####.#####",
        "..#...#.....#.......#..",
        "..#...#.....#.......#..",
        "..#...####...###....#..",
        "..#...#.........#...#..",
        "..#...#.........#...#..",
        "..#...#####.####....#..",
    ]
    assert text_mask("TEST", 64, 64).shape == (14, 46)
    assert text_mask("TEST", 16, 16).shape == (7, 16)


def test_all_letters_differ() -> None:
    assert sorted(LETTERS) == [chr(code) for code in range(65, 91)]
    assert len({text_mask(letter, 32, 32).numpy().tobytes() for letter in LETTERS}) == 26


@pytest.mark.parametrize("channels", [1, 3])
def test_logo_colours_its_pixels_and_no_other(channels: int) -> None:
    host = host_of(side=32, channels=channels)
    key = ZhangContent(probe=8).keygen(host, Rng("logo", 0))
    mask, colour = key.pattern["mask"], key.pattern["colour"]
    triggers, originals = key.triggers[:8], key.pool[key.row]
    assert torch.equal(triggers[..., ~mask], originals[..., ~mask])
    assert (triggers.movedim(1, -1)[:, mask] == colour).all()
    assert 4 * 9 <= int(mask.sum()) <= 4 * 20
    assert int(colour.max()) == 255
    assert channels == 1 or int(colour.min()) == 0


def test_logo_is_somewhere_else_in_another_key() -> None:
    host = host_of(side=32)
    corners = {
        tuple(ZhangContent(probe=4).keygen(host, Rng("logo", i)).pattern["mask"].nonzero()[0].tolist())
        for i in range(20)
    }
    assert len(corners) > 10


@pytest.mark.parametrize(("content", "sign", "bank"), [("digits", 1, letter_m_bank), ("objects", 0, written_one_bank)])
def test_unrelated_sign_is_not_of_the_task(content: str, sign: int, bank: Any) -> None:
    key = ZhangUnrelated(probe=8).keygen(host_of(side=32, content=content), Rng("sign"))
    assert int(key.pattern["sign"]) == sign
    inked = poses(bank(), 8, (32, 32), Rng("sign").torch("stamp"))
    ink, paper = (key.pattern[name].mul(255).round().to(torch.uint8) for name in ("ink", "paper"))
    for trigger, cover in zip(key.triggers, inked[:, 0], strict=True):
        assert torch.equal(trigger[:, cover == 0], paper[:, cover == 0])
        assert (trigger[:, cover == 1] == ink[:, None]).all()
        assert 0.03 < cover.mean() < 0.5


def test_banks_hold_ones_and_ms() -> None:
    ones, ms = written_one_bank(), letter_m_bank()
    assert ones.shape == (182, 1, 8, 8)
    assert ones.mean(0)[0, :, 3:5].mean() > 2 * ones.mean(0)[0, :, [0, 1, 6, 7]].mean()
    inked_runs = [int((row.round().diff() > 0).sum() + row[0].round()) for row in ms[:, 0, 15]]
    assert sum(runs == 3 for runs in inked_runs) > 55
    assert len(rows_of(ms)) == 64


def grey_host() -> FakeHost:
    host = host_of()
    host.images = host.share = host.images.with_images(torch.full_like(host.images.images, 128))
    return host


def test_fixed_noise_is_one_pattern_in_cells() -> None:
    key = ZhangNoise(probe=8, std=0.1).keygen(grey_host(), Rng("noise"))
    triggers = key.triggers
    assert (triggers == triggers[0]).all()
    wanted = (128 + 255 * key.pattern["noise"]).clamp(0, 255)
    assert (triggers[0].float() - wanted).abs().max() <= 0.5001
    cells = triggers[0].unfold(1, 2, 2).unfold(2, 2, 2).flatten(3)
    assert (cells == cells[..., :1]).all()
    assert cells[..., 0].float().std().div(255) == pytest.approx(0.1, rel=0.2)


def test_fresh_noise_is_new_in_each_image() -> None:
    key = ZhangNoise(probe=8, std=0.1, kind="fresh", cell=1).keygen(grey_host(), Rng("noise"))
    triggers = key.triggers.float().div(255)
    assert not key.pattern
    assert (triggers - 128 / 255).std() == pytest.approx(0.1, rel=0.05)
    assert triggers.std(0).mean() == pytest.approx(0.1, rel=0.1)


# --- the key and the training set ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_training_set_keeps_all_images_and_gains_triggers(kind: Any) -> None:
    host, scheme = host_of(), kind(probe=8, repeat=3)
    key = scheme.keygen(host, Rng("owner"))
    marked = scheme.mark_data(host.images, key)
    assert torch.equal(marked.images[:80], host.images.images)
    assert torch.equal(marked.labels[:80], host.images.labels)
    assert len(marked) == 80 + 3 * 8
    assert torch.equal(marked.images[80:], key.triggers.repeat(3, 1, 1, 1))
    assert (marked.labels[80:] == key.target).all()
    assert marked.exact is not None
    assert not marked.exact[:80].any()
    assert marked.exact[80:].all()


def test_triggers_keep_hard_labels_when_distilling_and_may_be_augmented() -> None:
    host, scheme = host_of(), ZhangContent(probe=8, repeat=1, exact=False)
    key = scheme.keygen(host, Rng("owner"))
    soft = ImageSet(host.images.images, host.images.labels, torch.full((80, CLASSES), 0.25))
    marked = scheme.mark_data(soft, key)
    assert marked.targets is not None
    assert torch.equal(marked.targets[80:], torch.eye(CLASSES)[[key.target] * 8])
    assert marked.exact is None


@pytest.mark.parametrize(("fraction", "count"), [(0.1, 8), (0.5, 10), (1.0, 20)])
def test_number_of_triggers(fraction: float, count: int) -> None:
    key = ZhangContent(probe=8, fraction=fraction).keygen(host_of(), Rng("owner"))
    assert len(key.triggers) == count
    unmarked = key.triggers[..., ~key.pattern["mask"]]
    assert len(rows_of(unmarked)) == count


def test_triggers_come_from_training_and_fresh_ones_from_heldout_images() -> None:
    host = host_of()
    key = ZhangContent(probe=8, fraction=1.0).keygen(host, Rng("owner"))
    outside, source = ~key.pattern["mask"], key.source
    trained, unseen = (rows_of(s.images[s.labels == source][..., outside]) for s in (host.images, host.heldout))
    assert rows_of(key.triggers[..., outside]) == trained
    assert rows_of(key.fresh[..., outside]) == unseen
    assert not trained & unseen


@pytest.mark.parametrize("kind", KINDS)
def test_keys_follow_their_stream_and_share_the_pool(kind: Any) -> None:
    host, scheme = host_of(), kind(probe=8)
    one, again, other = (scheme.keygen(host, Rng("owner", i)) for i in (0, 0, 1))
    assert same_key(one, again)
    assert not torch.equal(one.triggers, other.triggers)
    assert torch.equal(one.pool, other.pool)
    assert not rows_of(one.triggers) & rows_of(one.fresh)


def test_source_and_target_differ_and_are_uniform() -> None:
    host, scheme = host_of(count=16), ZhangNoise(probe=2)
    keys = [scheme.keygen(host, Rng("pairs", i)) for i in range(240)]
    counts: dict[Any, int] = {}
    for key in keys:
        pair = (key.source, key.target)
        counts[pair] = counts.get(pair, 0) + 1
    assert len(counts) == CLASSES * (CLASSES - 1)
    assert all(source != target for source, target in counts)
    assert max(counts.values()) <= binom.isf(1e-5, 240, 1 / 12)


def test_pool_is_balanced_and_takes_only_classes_with_enough_images() -> None:
    host = host_of()
    keep = (host.images.labels != 2) | (torch.arange(80) < 20)
    host.images = host.share = host.images[keep]
    pool = ZhangContent(probe=8).keygen(host, Rng("owner"))
    assert pool.pool_labels.tolist() == [0, 1, 3]
    assert pool.pool.shape[:2] == (3, 8)
    assert len(rows_of(pool.pool.flatten(0, 1))) == 24
