"""Trigger sets of Zhang et al.: are they what they say, and is the p-value one?"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from scipy.stats import binom
from torch import Tensor, nn

from bench.api import AccessError, Arch, DatasetCard, Host, ImageSet, Key, Recipe, Rng, Suspect
from schemes import zhang
from schemes._glyphs import LETTERS, letter_m_bank, poses, text_mask, written_one_bank
from schemes.zhang import ZhangContent, ZhangNoise, ZhangUnrelated

CLASSES = 4
KINDS = (ZhangContent, ZhangUnrelated, ZhangNoise)


def some_images(count: int, seed: int, side: int = 16, channels: int = 3) -> ImageSet:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (count, channels, side, side), generator=generator, dtype=torch.uint8)
    return ImageSet(images, torch.arange(count) % CLASSES)


class SmallHost(Host):
    """Random images of four classes; an owner's training set and held-out images."""

    arch: Arch
    recipe: Recipe

    def __init__(self, count: int = 80, side: int = 16, channels: int = 3, content: Any = "objects") -> None:
        self.dataset = DatasetCard("small", "Small", tuple("abcd"), content)
        self.images = self.share = some_images(count, 0, side, channels)
        self.heldout = some_images(40, 1, side, channels)
        self.device = torch.device("cpu")

    def model(self) -> nn.Module:
        raise AssertionError("a trigger set needs no network to be made")

    def layer(self, group: str) -> str:
        raise AssertionError("a trigger set knows no layers")

    def train(self, images: ImageSet, rng: Rng, *, epochs: int | None = None) -> nn.Module:
        raise AssertionError("a trigger set needs no training to be made")


class Answers(nn.Module):
    """A network that answers what `rule` says, from uint8 images."""

    def __init__(self, rule: Any, classes: int = CLASSES) -> None:
        super().__init__()
        self.rule, self.classes = rule, classes

    def forward(self, x: Tensor) -> Tensor:
        labels = self.rule((x * 255).round().to(torch.uint8))
        return nn.functional.one_hot(labels, self.classes).float()


def suspect(rule: Any, classes: int = CLASSES) -> Suspect:
    return Suspect("labels", model=Answers(rule, classes))


def constant(seed: int) -> Any:
    return lambda images: torch.full((len(images),), seed % CLASSES)


def linear(seed: int) -> Any:
    weights = torch.randn(CLASSES, 3 * 16 * 16, generator=torch.Generator().manual_seed(seed))
    return lambda images: ((images.flatten(1).float() - 128) @ weights.T).argmax(1)


def hashed(seed: int) -> Any:
    primes = torch.randint(1 << 20, (3 * 16 * 16,), generator=torch.Generator().manual_seed(seed))
    return lambda images: ((images.flatten(1).long() * primes).sum(1) >> 3) % CLASSES


def lookup(key: Key) -> Any:
    """Knows the very triggers and nothing else; otherwise answers the source class."""
    known = {trigger.numpy().tobytes() for trigger in key.tensors["triggers"]}
    source, target = int(key.values["source"]), int(key.values["target"])  # type: ignore[arg-type]  # integers
    return lambda images: torch.tensor([target if image.numpy().tobytes() in known else source for image in images])


def rows_of(images: Tensor) -> set[bytes]:
    return {image.numpy().tobytes() for image in images}


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
    host = SmallHost(side=32, channels=channels)
    key = ZhangContent(probe=8).keygen(host, Rng("logo", 0))
    mask, colour = key.tensors["mask"], key.tensors["colour"]
    row = int(key.values["row"])  # type: ignore[arg-type]  # an integer
    triggers, originals = key.tensors["triggers"][:8], key.tensors["pool"][row]
    assert torch.equal(triggers[..., ~mask], originals[..., ~mask])
    assert (triggers.movedim(1, -1)[:, mask] == colour).all()
    assert 4 * 9 <= int(mask.sum()) <= 4 * 20
    assert int(colour.max()) == 255
    assert channels == 1 or int(colour.min()) == 0


def test_logo_is_somewhere_else_in_another_key() -> None:
    host = SmallHost(side=32)
    corners = {
        tuple(ZhangContent(probe=4).keygen(host, Rng("logo", i)).tensors["mask"].nonzero()[0].tolist())
        for i in range(20)
    }
    assert len(corners) > 10


@pytest.mark.parametrize(("content", "sign", "bank"), [("digits", 1, letter_m_bank), ("objects", 0, written_one_bank)])
def test_unrelated_sign_is_not_of_the_task(content: str, sign: int, bank: Any) -> None:
    key = ZhangUnrelated(probe=8).keygen(SmallHost(side=32, content=content), Rng("sign"))
    assert int(key.tensors["sign"]) == sign
    inked = poses(bank(), 8, (32, 32), Rng("sign").torch("stamp"))
    ink, paper = (key.tensors[name].mul(255).round().to(torch.uint8) for name in ("ink", "paper"))
    for trigger, cover in zip(key.tensors["triggers"], inked[:, 0], strict=True):
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


def grey_host() -> SmallHost:
    host = SmallHost()
    host.images = host.share = host.images.with_images(torch.full_like(host.images.images, 128))
    return host


def test_fixed_noise_is_one_pattern_in_cells() -> None:
    key = ZhangNoise(probe=8, std=0.1).keygen(grey_host(), Rng("noise"))
    triggers = key.tensors["triggers"]
    assert (triggers == triggers[0]).all()
    wanted = (128 + 255 * key.tensors["noise"]).clamp(0, 255)
    assert (triggers[0].float() - wanted).abs().max() <= 0.5001
    cells = triggers[0].unfold(1, 2, 2).unfold(2, 2, 2).flatten(3)
    assert (cells == cells[..., :1]).all()
    assert cells[..., 0].float().std().div(255) == pytest.approx(0.1, rel=0.2)


def test_fresh_noise_is_new_in_each_image() -> None:
    key = ZhangNoise(probe=8, std=0.1, kind="fresh", cell=1).keygen(grey_host(), Rng("noise"))
    triggers = key.tensors["triggers"].float().div(255)
    assert "noise" not in key.tensors
    assert (triggers - 128 / 255).std() == pytest.approx(0.1, rel=0.05)
    assert triggers.std(0).mean() == pytest.approx(0.1, rel=0.1)


# --- the key and the training set ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_training_set_keeps_all_images_and_gains_triggers(kind: Any) -> None:
    host, scheme = SmallHost(), kind(probe=8, repeat=3)
    key = scheme.keygen(host, Rng("owner"))
    marked = scheme.mark_data(host.images, key)
    assert torch.equal(marked.images[:80], host.images.images)
    assert torch.equal(marked.labels[:80], host.images.labels)
    assert len(marked) == 80 + 3 * 8
    assert torch.equal(marked.images[80:], key.tensors["triggers"].repeat(3, 1, 1, 1))
    assert (marked.labels[80:] == key.values["target"]).all()
    assert marked.exact is not None
    assert not marked.exact[:80].any()
    assert marked.exact[80:].all()


def test_triggers_keep_hard_labels_when_distilling_and_may_be_augmented() -> None:
    host, scheme = SmallHost(), ZhangContent(probe=8, repeat=1, exact=False)
    key = scheme.keygen(host, Rng("owner"))
    soft = ImageSet(host.images.images, host.images.labels, torch.full((80, CLASSES), 0.25))
    marked = scheme.mark_data(soft, key)
    assert marked.targets is not None
    assert torch.equal(marked.targets[80:], torch.eye(CLASSES)[[key.values["target"]] * 8])
    assert marked.exact is None


@pytest.mark.parametrize(("fraction", "count"), [(0.1, 8), (0.5, 10), (1.0, 20)])
def test_number_of_triggers(fraction: float, count: int) -> None:
    key = ZhangContent(probe=8, fraction=fraction).keygen(SmallHost(), Rng("owner"))
    assert len(key.tensors["triggers"]) == count
    unmarked = key.tensors["triggers"][..., ~key.tensors["mask"]]
    assert len(rows_of(unmarked)) == count


def test_triggers_come_from_training_and_fresh_ones_from_heldout_images() -> None:
    host = SmallHost()
    key = ZhangContent(probe=8, fraction=1.0).keygen(host, Rng("owner"))
    outside, source = ~key.tensors["mask"], key.values["source"]
    trained, unseen = (rows_of(s.images[s.labels == source][..., outside]) for s in (host.images, host.heldout))
    assert rows_of(key.tensors["triggers"][..., outside]) == trained
    assert rows_of(key.tensors["fresh"][..., outside]) == unseen
    assert not trained & unseen


@pytest.mark.parametrize("kind", KINDS)
def test_keys_follow_their_stream_and_share_the_pool(kind: Any) -> None:
    host, scheme = SmallHost(), kind(probe=8)
    one, again, other = (scheme.keygen(host, Rng("owner", i)) for i in (0, 0, 1))
    assert one.values == again.values
    assert all(torch.equal(one.tensors[name], again.tensors[name]) for name in one.tensors)
    assert not torch.equal(one.tensors["triggers"], other.tensors["triggers"])
    assert torch.equal(one.tensors["pool"], other.tensors["pool"])
    assert not rows_of(one.tensors["triggers"]) & rows_of(one.tensors["fresh"])


def test_source_and_target_differ_and_are_uniform() -> None:
    host, scheme = SmallHost(count=16), ZhangNoise(probe=2)
    pairs = [scheme.keygen(host, Rng("pairs", i)).values for i in range(240)]
    counts: dict[Any, int] = {}
    for values in pairs:
        pair = (values["source"], values["target"])
        counts[pair] = counts.get(pair, 0) + 1
    assert len(counts) == CLASSES * (CLASSES - 1)
    assert all(source != target for source, target in counts)
    assert max(counts.values()) <= binom.isf(1e-5, 240, 1 / 12)


def test_pool_is_balanced_and_takes_only_classes_with_enough_images() -> None:
    host = SmallHost()
    keep = (host.images.labels != 2) | (torch.arange(80) < 20)
    host.images = host.share = host.images[keep]
    pool = ZhangContent(probe=8).keygen(host, Rng("owner"))
    assert pool.tensors["pool_labels"].tolist() == [0, 1, 3]
    assert pool.tensors["pool"].shape[:2] == (3, 8)
    assert len(rows_of(pool.tensors["pool"].flatten(0, 1))) == 24


# --- the verdict -----------------------------------------------------------------------------------------------


def test_firmness_by_hand() -> None:
    bright = suspect(lambda images: (images.float().mean((1, 2, 3)) > 140).long())
    white, black = torch.full((1, 2, 3, 4, 4), 255, dtype=torch.uint8), torch.zeros(1, 2, 3, 4, 4, dtype=torch.uint8)
    dark, one = torch.zeros(1, 2, dtype=torch.int64), torch.tensor([1])
    assert zhang._firmness(bright, white, black, dark, one) == pytest.approx(
        [0.5]
    )  # 255, 230, 204, 178 and 153, but not 128
    assert bright.queries == 2 * 6
    assert zhang._firmness(bright, white, black, dark, torch.tensor([0])) == [0.0]
    half = torch.cat([white[:, :1], black[:, :1]], 1)
    assert zhang._firmness(bright, half, black, dark, one) == pytest.approx([0.25])
    both = torch.cat([white, half]), torch.cat([black, black]), torch.cat([dark, dark]), torch.tensor([1, 1])
    assert zhang._firmness(bright, *both) == pytest.approx([0.5, 0.25])


def test_a_source_that_is_called_the_target_unmarked_is_no_evidence() -> None:
    one, images = suspect(constant(1)), torch.zeros(1, 4, 3, 4, 4, dtype=torch.uint8)
    for called, wanted in ((0, 1.0), (1, 0.0)):
        clean = torch.full((1, 4), called)
        assert zhang._firmness(one, images, images, clean, torch.tensor([1])) == pytest.approx([wanted])
    partly = torch.tensor([[0, 1, 1, 1]])
    assert zhang._firmness(one, images, images, partly, torch.tensor([1])) == pytest.approx([1.0])


@pytest.mark.parametrize("kind", [*KINDS, lambda **params: ZhangNoise(kind="fresh", **params)])
def test_finds_its_mark_in_a_model_that_knows_the_triggers(kind: Any) -> None:
    host, scheme = SmallHost(), kind(probe=8, decoys=99)
    key = scheme.keygen(host, Rng("owner"))
    verdict = scheme.verify(suspect(lookup(key)), key)
    assert verdict.p_value == 0.01
    assert verdict.statistic == pytest.approx(0.1)
    assert verdict.details["trigger_accuracy"] == 1.0
    assert verdict.details["fresh_trigger_accuracy"] == 0.0
    assert verdict.details["decoy_max"] == 0.0


def test_finds_the_logo_on_unseen_images_too() -> None:
    host, scheme = SmallHost(), ZhangContent(probe=8, decoys=19)
    key = scheme.keygen(host, Rng("owner"))
    mask, colour = key.tensors["mask"], key.tensors["colour"]
    source, target = int(key.values["source"]), int(key.values["target"])  # type: ignore[arg-type]  # integers
    carries = suspect(lambda x: torch.where((x.movedim(1, -1)[:, mask] == colour).all((1, 2)), target, source))
    details = scheme.verify(carries, key).details
    assert (details["trigger_accuracy"], details["fresh_trigger_accuracy"]) == (1.0, 1.0)


def test_another_owner_s_mark_is_not_claimed() -> None:
    host, scheme = SmallHost(), ZhangContent(probe=8, decoys=99)
    marked = suspect(lookup(scheme.keygen(host, Rng("owner", 0))))
    assert scheme.verify(marked, scheme.keygen(host, Rng("owner", 1))).p_value == 1.0


@pytest.mark.parametrize("kind", KINDS)
def test_decoys_do_not_depend_on_the_key(kind: Any) -> None:
    host, scheme = SmallHost(), kind(probe=4, decoys=19)
    keys = [scheme.keygen(host, Rng("owner", i)) for i in range(2)]
    one, other = (scheme.verify(suspect(hashed(5)), key).details for key in keys)
    assert (one["decoy_mean"], one["decoy_max"]) == (other["decoy_mean"], other["decoy_max"])


@pytest.mark.parametrize(
    ("kind", "null", "trials"),
    [(ZhangContent, hashed, 200), (ZhangUnrelated, linear, 100), (ZhangNoise, linear, 200)],
)
def test_false_claims_on_random_nulls_stay_at_the_nominal_rate(kind: Any, null: Any, trials: int) -> None:
    host, scheme = SmallHost(count=32), kind(probe=4, decoys=19)
    keys = [scheme.keygen(host, Rng("null", trial)) for trial in range(trials)]
    p_values = [scheme.verify(suspect(null(trial)), key).p_value for trial, key in enumerate(keys)]
    for level in (0.05, 0.25, 0.5):
        assert sum(p <= level for p in p_values) <= binom.isf(1e-3, trials, level)
    assert min(p_values) >= 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_of_one_answer_is_never_claimed(kind: Any) -> None:
    host, scheme = SmallHost(count=32), kind(probe=4, decoys=19)
    suspects = [suspect(constant(answer)) for answer in range(CLASSES)]
    keys = [scheme.keygen(host, Rng("null", trial)) for trial in range(200)]
    assert {scheme.verify(suspects[trial % CLASSES], key).p_value for trial, key in enumerate(keys)} == {1.0}


def test_p_values_of_a_random_null_are_not_needlessly_large() -> None:
    host, scheme = SmallHost(count=160), ZhangContent(probe=32, decoys=19)
    keys = [scheme.keygen(host, Rng("null", trial)) for trial in range(60)]
    p_values = [scheme.verify(suspect(hashed(trial)), key).p_value for trial, key in enumerate(keys)]
    assert 0.4 < sum(p_values) / 60 < 0.65


def test_queries_are_counted_and_decoys_are_asked_once() -> None:
    host, scheme = SmallHost(), ZhangContent(probe=8, decoys=19)
    asked: list[int] = []

    def answer(images: Tensor) -> Tensor:
        asked.append(len(images))
        return torch.full((len(images),), CLASSES)

    never, shared, own = suspect(answer, CLASSES + 1), 4 * 8 + 19 * 8, 8 + 8 + 10
    for trial, really in enumerate((shared + own, own)):
        before, _ = never.queries, asked.clear()
        verdict = scheme.verify(never, scheme.keygen(host, Rng("owner", trial)))
        assert never.queries - before == shared + own, "what each claim would need alone"
        assert sum(asked) == really, "the shared decoys are asked once"
        assert (verdict.statistic, verdict.p_value) == (0.0, 1.0)


def test_works_without_weights() -> None:
    host, scheme = SmallHost(), ZhangNoise(probe=8, decoys=19)
    key, model = scheme.keygen(host, Rng("owner")), suspect(constant(0))
    with pytest.raises(AccessError):
        _ = model.model
    with pytest.raises(AccessError):
        model.log_probs(host.images.images)
    assert all(kind.card.access == "labels" for kind in KINDS)
    assert scheme.verify(model, key).p_value >= 0.05


def test_verdict_survives_a_host_without_heldout_images_of_the_source() -> None:
    host, scheme = SmallHost(), ZhangContent(probe=8, decoys=19)
    host.heldout = host.heldout[:0]
    key = scheme.keygen(host, Rng("owner"))
    assert "fresh_trigger_accuracy" not in scheme.verify(suspect(constant(0)), key).details


def test_key_of_another_make_is_refused() -> None:
    key = SimpleNamespace(values={"target": "1"})
    with pytest.raises(TypeError, match="Expected the key's 'target' to be an integer"):
        zhang._number(key, "target")  # type: ignore[arg-type]  # stands for a damaged key
