"""Axes, cells, steps and keys."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bench.plan.applicability import not_applicable
from bench.plan.matrix import Planned, auxiliaries, expand, steps_of
from bench.plan.profiles import PROFILES
from bench.plan.selection import PIPELINES, cells_of
from bench.plan.step import ROOTS
from bench.registry import RegistryError, attacks, make, schemes
from bench.steps.kinds import COMPUTE
from tests.fakes import CHECKSUMS, request
from tests.fakes import planned as only

ALL = tuple(schemes())


def count(kind: str, planned: list[Planned]) -> int:
    return sum(step.kind == kind for step in steps_of(planned))


def test_every_cell_shares_the_clean_host() -> None:
    planned = expand(request(schemes=ALL, attacks=("pruning", "pruning-random")), CHECKSUMS)
    assert len(planned) == 2 * len(ALL)
    assert count("host", planned) == 1


def test_attacks_branch_from_one_marked_model() -> None:
    planned = expand(request(attacks=("pruning", "pruning-random", "pruning-global")), CHECKSUMS)
    assert (count("mark", planned), count("attack", planned), count("nulls", planned)) == (1, 3, 1)


def test_inputs_come_before_those_that_read_them() -> None:
    seen: set[str] = set()
    for step in steps_of(expand(request(schemes=ALL), CHECKSUMS)):
        assert all(needed.key in seen for needed in step.inputs.values())
        seen.add(step.key)


def test_a_situation_shares_the_null_models() -> None:
    planned = expand(request(situations=("train", "fine-tune", "distill")), CHECKSUMS)
    assert (count("host", planned), count("mark", planned), count("nulls", planned)) == (1, 3, 1)


def test_a_learner_has_images_and_a_recipe_of_its_own() -> None:
    profile = replace(
        PROFILES["smoke"], learner_images=300, learner={"*": replace(PROFILES["smoke"].host["*"], epochs=7)}
    )
    chosen = {"schemes": ("anw-hue", "mia-std", "uchida-random"), "attacks": ("pruning",), "profile": profile}
    steps = steps_of(expand(request(**chosen), CHECKSUMS))
    told = {(step.spec.get("scheme"), step.spec["owner"]) for step in steps if step.kind in ("mark", "attack", "keys")}
    assert told == {("anw-hue", 300), ("mia-std", 300), ("uchida-random", 600)}
    assert {(step.spec["owner"], step.spec["recipe"]["epochs"]) for step in steps if step.kind == "host"} == {
        (300, 7),
        (600, 5),
    }


def test_keys_against_another_architecture_are_those_of_its_own_cell() -> None:
    """Data stamped once for one network, from which others learn: the transfer of DeepStamp, section IV."""
    profile = replace(PROFILES["smoke"], learner_widths={"alexnet": 0.125, "wrn": 0.25})
    fields = {"schemes": ("deepstamp",), "attacks": ("images-flip",), "profile": profile}
    own = only(archs=("alexnet",), **fields).steps
    other = only(archs=("wrn",), overrides={"deepstamp": {"classifier": "alexnet"}}, **fields).steps
    for kind in ("keys", "nulls", "attacked_nulls"):
        assert other[kind].key == own[kind].key
    assert other["mark"].inputs["keys"].key == own["keys"].key
    assert other["keys"].inputs["host"].key == own["host"].key != other["host"].key
    assert [(other[kind].spec["arch"], other[kind].spec["width"]) for kind in ("keys", "mark", "attack")] == [
        ("alexnet", 0.125), ("wrn", 0.25), ("wrn", 0.25),
    ]  # fmt: skip
    assert other["mark"].spec["scheme_params"]["classifier"] == "alexnet"


@pytest.mark.parametrize("name", [*schemes(), *attacks()])
def test_scales_and_the_tiny_configuration_are_valid(name: str) -> None:
    cls = {**schemes(), **attacks()}[name]
    assert set(cls.card.scales) <= set(PROFILES)
    for params in (cls.card.tiny, *cls.card.scales.values()):
        make(cls, params)


@pytest.mark.parametrize("profile", PROFILES)
def test_everything_can_be_planned_in_every_profile(profile: str) -> None:
    wish = request(schemes=ALL, attacks=tuple(attacks()), datasets=("cifar10",), profile=PROFILES[profile])
    planned = expand(wish, {**dict.fromkeys(auxiliaries(wish), "e" * 64), **CHECKSUMS})
    assert len(planned) == len(ALL) * len(attacks())
    assert {p.cell.attacks[0].name for p in planned if p.steps} == set(attacks())


def test_an_unknown_architecture_to_make_keys_against_is_named() -> None:
    with pytest.raises(RegistryError, match=r'deepstamp.classifier: Expected an architecture, but got "vgg61"'):
        only(schemes=("deepstamp",), attacks=("none",), overrides={"deepstamp": {"classifier": "vgg61"}})


def test_a_post_hoc_scheme_has_one_row_whatever_the_situations() -> None:
    planned = expand(request(schemes=("uchida-posthoc",), situations=("train", "distill")), CHECKSUMS)
    assert [p.cell.situation for p in planned] == ["post-hoc"]


@pytest.mark.parametrize(
    "change",
    [
        {"seeds": (1,)},
        {"archs": ("vgg16",)},
        {"datasets": ("cifar10",)},
        {"situations": ("train",)},
        {"overrides": {"uchida-random": {"bits": 16}}},
        {"overrides": {"pruning": {"ladder": [50.0]}}},
        {"profile": PROFILES["quick"]},
        {"profile": replace(PROFILES["smoke"], owner=500)},
    ],
)
def test_whatever_is_asked_differently_has_another_key(change: dict[str, Any]) -> None:
    assert only(**change).key != only().key


def test_the_same_request_has_the_same_key() -> None:
    assert only().key == only().key
    assert only().cell.identity == only().cell.identity


def test_changed_data_change_every_key() -> None:
    (other,) = expand(request(), {**CHECKSUMS, "digits-m": "e" * 64})
    assert not {s.key for s in other.steps.values()} & {s.key for s in only().steps.values()}


def test_an_attacks_parameter_leaves_the_marked_model_cached() -> None:
    changed = only(overrides={"pruning": {"ladder": [50.0]}})
    assert changed.steps["mark"].key == only().steps["mark"].key
    assert changed.steps["attack"].key != only().steps["attack"].key


def test_weight_marks_stand_alone_and_triggers_do_not() -> None:
    assert only(owners=3).cell.owners == 1
    assert only(schemes=("zhang-content",), owners=3).cell.owners == 3


def test_meaningless_cells_say_why() -> None:
    weights, behaviour = schemes()["uchida-random"].card, schemes()["zhang-content"].card
    pruning = attacks()["pruning"].card
    assert not_applicable(weights, pruning) is None
    assert "reads the weights" in (not_applicable(weights, replace(pruning, stage="inference")) or "")
    assert not_applicable(behaviour, replace(pruning, stage="inference")) is None
    assert "published images" in (not_applicable(behaviour, replace(pruning, stage="data")) or "")
    assert not_applicable(replace(behaviour, carrier="data"), replace(pruning, stage="data")) is None
    assert "carried by weights" in (not_applicable(behaviour, attacks()["pruning-embedded"].card) or "")
    on_data = replace(behaviour, carrier="data", access="data set")
    assert "verified on the data set" in (not_applicable(on_data, pruning) or "")


def test_a_meaningless_cell_needs_no_steps() -> None:
    (planned,) = expand(request(schemes=("zhang-content",), attacks=("pruning-embedded",)), CHECKSUMS)
    assert planned.reason
    assert steps_of([planned]) == []


def test_a_step_is_hashed_from_the_module_that_computes_it() -> None:
    assert {kind: compute.__module__ for kind, compute in COMPUTE.items()} == ROOTS


def test_pipelines_are_chains_before_while_and_after_training() -> None:
    cells = cells_of({"scheme": "anw-hue,zhang-content", "attack": "@pipeline", "profile": "smoke"})
    assert len(cells) == 2 * len(PIPELINES)
    meaningful = {(p.cell.scheme, p.cell.attacks[0].name) for p in cells if p.reason is None}
    assert {("anw-hue", "images-jpeg"), ("anw-hue", "images-wavelet")} <= meaningful
    assert {("zhang-content", "pruning"), ("zhang-content", "quantisation")} <= meaningful
    assert ("zhang-content", "images-jpeg") not in meaningful


def test_a_surrogate_s_architecture_is_part_of_the_attack_s_key() -> None:
    (cell,) = cells_of({"scheme": "zhang-content", "attack": "extraction-cross", "profile": "smoke"})
    assert "bench.archs.vgg" in cell.steps["attack"].sources
    assert "bench.archs.vgg" not in cell.steps["mark"].sources


def test_no_fresh_keys_claim_where_a_forger_brings_one() -> None:
    forged, pruned = cells_of({"scheme": "uchida-random", "attack": "forged-seeds,pruning", "profile": "smoke"})
    assert "attacked_nulls" not in forged.steps
    assert "attacked_nulls" in pruned.steps
