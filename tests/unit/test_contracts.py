"""Shares, keys, variants and adversaries: what is declared is what is given, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from bench.api import (
    AccessError,
    Adversary,
    ContractError,
    Field,
    ImageSet,
    Key,
    Paper,
    Params,
    Scheme,
    Share,
    Variant,
    Victim,
    ladder_of,
)
from bench.contract.networks import predict
from bench.registry import RegistryError, attacks, make, schemes
from bench.registry import _variants as variants_of

IMAGES = ImageSet(torch.arange(4 * 12, dtype=torch.uint8).view(4, 3, 2, 2), torch.tensor([0, 1, 2, 0]))


# ---- shares ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("typed", "value", "of_200"),
    [("all", "all", 200), (0.25, 0.25, 50), ("0.25", 0.25, 50), (1, 1, 1), ("7", 7, 7), (0.001, 0.001, 0)],
)
def test_a_share_is_all_a_fraction_or_a_number(typed: Any, value: Any, of_200: int) -> None:
    share = Share.parse(typed)
    assert share == Share(value)
    assert type(share.value) is type(value)
    assert share.whole == (value == "all")
    assert share.count(200) == of_200
    assert str(share) == str(value)


@pytest.mark.parametrize("typed", [1.0, "1.0", 0, 0.0, -3, 1.5, True, None, "some", float("nan"), float("inf")])
def test_what_could_mean_two_shares_is_none(typed: Any) -> None:
    with pytest.raises(ValueError):
        Share.parse(typed)


class Owned(Params):
    """One share."""

    share: Share = Field(Share(0.1), description="the owner's part")


@pytest.mark.parametrize("value", ["all", 0.5, 1, 40])
def test_a_share_goes_through_json_as_its_value(value: Any) -> None:
    stored = Owned(share=value).model_dump_json()
    assert json.loads(stored) == {"share": value}
    assert Owned.model_validate_json(stored).share == Share(value)
    assert Owned.model_validate(json.loads(stored)) == Owned(share=value)


def test_a_share_of_1_0_on_the_command_line_is_refused_with_what_is_expected() -> None:
    with pytest.raises(RegistryError, match=r"anw-hue\.share: .*`all`, a fraction .* or a whole number") as caught:
        make(schemes()["anw-hue"], {"share": "1.0"})
    assert "\n" not in str(caught.value)
    assert make(schemes()["anw-hue"], {"share": "1"}).share == Share(1)


# ---- ladders ---------------------------------------------------------------------------------------------------------
def test_a_ladder_is_numbers_within_bounds_and_pixels_stay_whole() -> None:
    percent = ladder_of(5.0, 10.0, gt=0, lt=50, description="% of each side")
    assert percent().model_dump(mode="json") == {"ladder": [5.0, 10.0]}
    assert percent.model_fields["ladder"].description == "% of each side"
    assert percent(ladder=["2", 49.9]).ladder == (2.0, 49.9)
    side = ladder_of(8, 16, ge=1, le=512, description="pixels")
    assert [type(rung) for rung in side(ladder=[1.0, "512"]).ladder] == [int, int]


@pytest.mark.parametrize("ladder", [[0.0], [50.0], [10.0, -1.0], [float("nan")], ["some"], 10.0])
def test_a_strength_out_of_bounds_is_refused(ladder: Any) -> None:
    with pytest.raises(ValidationError, match="ladder"):
        ladder_of(5.0, gt=0, lt=50, description="%")(ladder=ladder)


@pytest.mark.parametrize("ladder", [[0], [513], [1.5]])
def test_pixels_out_of_bounds_or_in_part_are_refused(ladder: Any) -> None:
    with pytest.raises(ValidationError, match="ladder"):
        ladder_of(8, ge=1, le=512, description="pixels")(ladder=ladder)


def test_defaults_of_a_ladder_keep_its_bounds() -> None:
    with pytest.raises(ValidationError, match="less than 50"):
        ladder_of(5.0, 50.0, gt=0, lt=50, description="%")()


# ---- keys ------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class FullKey(Key):
    """One field of each kind."""

    bits: Tensor
    pattern: Mapping[str, Tensor]
    layer: str
    angle: float
    numbers: tuple[int, ...] = (1, 2)
    space: Tensor | None = None
    public = ("layer", "angle")


def full(**changes: Any) -> FullKey:
    fields = {"bits": torch.tensor([0, 1]), "pattern": {"ink": torch.ones(3)}, "layer": "net.1", "angle": 60.0}
    return FullKey(**{**fields, **changes})


@pytest.mark.parametrize("space", [None, torch.eye(3)])
def test_a_key_comes_back_as_it_was_packed(space: Tensor | None) -> None:
    key = full(space=space, pattern={"ink": torch.ones(3), "paper": torch.zeros(2)}, numbers=(3, 4, 5))
    tensors, values = key.packed()
    assert {"bits", "pattern/ink", "pattern/paper"} <= set(tensors)
    assert values["angle"] == 60.0
    back = FullKey.unpacked(tensors, json.loads(json.dumps(values)))
    assert torch.equal(back.bits, key.bits)
    assert {name: tensor.tolist() for name, tensor in back.pattern.items()} == {"ink": [1.0] * 3, "paper": [0.0] * 2}
    assert (back.layer, back.angle, back.numbers) == ("net.1", 60.0, (3, 4, 5))
    assert back.space is None if space is None else torch.equal(back.space, space)


def test_an_empty_mapping_of_tensors_is_one() -> None:
    assert FullKey.unpacked(*full(pattern={}).packed()).pattern == {}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"layer": 3}, "layer"),
        ({"angle": "60"}, "angle"),
        ({"angle": True}, "angle"),
        ({"numbers": [1.5]}, "numbers"),
        ({"bits": [0, 1]}, "bits"),
        ({"layer": None}, "layer"),
        ({"angle": float("nan")}, "angle"),
    ],
)
def test_a_stored_field_of_another_type_is_named_in_one_sentence(change: dict[str, Any], named: str) -> None:
    tensors, values = full().packed()
    tensors = {name: tensor for name, tensor in tensors.items() if name not in change}
    with pytest.raises(ContractError, match=f"FullKey.{named} to be of its declared type, but got .*make the key anew"):
        FullKey.unpacked(tensors, {**values, **change})


def test_a_missing_or_unknown_field_is_named() -> None:
    tensors, values = full().packed()
    del values["layer"]
    with pytest.raises(ContractError, match=r"FullKey\.layer"):
        FullKey.unpacked(tensors, values)
    with pytest.raises(ContractError, match="Expected fields of FullKey, but got history: make the key anew"):
        FullKey.unpacked(*full().packed()[:1], {**full().packed()[1], "history": [1.0]})


def test_what_is_no_tensor_and_no_json_is_refused_when_packed() -> None:
    with pytest.raises(ContractError, match=r"FullKey\.layer to be a tensor, .* but got Params"):
        full(layer=Params()).packed()


# ---- variants --------------------------------------------------------------------------------------------------------
def test_a_variant_is_its_class_with_other_defaults_which_a_person_may_still_set() -> None:
    diff, random = schemes()["uchida-diff"], schemes()["uchida-random"]
    assert issubclass(diff, random)
    assert (diff().params.key, random().params.key) == ("diff", "random")
    assert make(diff, {"key": "direct"}).params.key == "direct"
    assert make(diff, {"bits": "64"}).params.model_dump() == {**diff().params.model_dump(), "bits": 64}
    assert attacks()["pruning-global"]().params.scope == "global"
    with pytest.raises(RegistryError, match=r"uchida-diff\.key"):
        make(diff, {"key": "other"})


def test_a_variant_says_what_differs_on_its_card_and_keeps_the_rest() -> None:
    embedded, pruning = attacks()["pruning-embedded"].card, attacks()["pruning"].card
    assert embedded.adversary.knows == ("scheme", "layer")
    assert pruning.adversary.knows == ()
    assert (embedded.unit, embedded.stage) == (pruning.unit, pruning.stage)


def test_an_unknown_preset_is_refused_with_what_is_known() -> None:
    base: type[Scheme[Any]] = schemes()["uchida-random"]
    misspelt = type("Misspelt", (base,), {"variants": (Variant("uchida-typo", "Typo", {"bitz": 3}),)})
    with pytest.raises(RegistryError, match=r"expected presets of uchida-typo among bits, .* but got bitz"):
        list(variants_of(misspelt))


def test_a_preset_out_of_bounds_is_refused() -> None:
    base: type[Scheme[Any]] = schemes()["uchida-random"]
    (wrong,) = variants_of(type("Wrong", (base,), {"variants": (Variant("uchida-wrong", "Wrong", {"bits": 0}),)}))
    with pytest.raises(RegistryError, match=r"uchida-wrong\.bits"):
        make(wrong, {})


def test_variants_are_listed_like_classes(capsys: pytest.CaptureFixture[str]) -> None:
    from bench.cli.look import list_

    for what, name in (("schemes", "uchida-diff"), ("attacks", "pruning-random"), ("schemes", "mia-pow-shadow")):
        assert list_.callback is not None
        list_.callback(what, "json")
        assert name in {row["name"] for row in json.loads(capsys.readouterr().out)}


# ---- adversaries -----------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class ToldKey(Key):
    """A layer that may be told, and a secret."""

    layer: str
    angle: float
    secret: Tensor
    public = ("layer", "angle")


KEY = ToldKey("net.1", 60.0, torch.tensor([7]))


class Bright(nn.Module):
    """The logits of an image are its three first pixel values, and a weight that can be spoilt."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        return 10 * x.flatten(1)[:, :3] * self.weight


def victim(answer: Callable[[Tensor], Tensor] | None = None, **adversary: Any) -> Victim:
    return Victim(Adversary(**adversary), Bright, KEY, IMAGES, answer)


@pytest.mark.parametrize("access", ["scores", "labels", "none"])
def test_the_network_is_for_white_box_adversaries_alone(access: Any) -> None:
    with pytest.raises(AccessError, match=f"Expected a white-box adversary, but its card says '{access}'"):
        victim(access=access).model()


def test_each_network_is_a_fresh_one() -> None:
    asked = victim(access="white-box")
    spoilt = asked.model()
    nn.init.zeros_(spoilt.weight)
    assert torch.equal(asked.model().weight, torch.ones(3))


def test_queries_are_counted_and_labels_are_one_hot() -> None:
    expected = predict(Bright(), IMAGES.images).softmax(1)
    for access in ("white-box", "scores"):
        asked = victim(access=access)
        assert torch.allclose(asked.query(IMAGES.images), expected)
        asked.query(IMAGES.images[:1])
        assert asked.queries == 5
    shown = victim(access="labels").query(IMAGES.images)
    assert torch.equal(shown, nn.functional.one_hot(expected.argmax(1), 3).float())
    with pytest.raises(AccessError, match="with access to the victim"):
        victim().query(IMAGES.images)


def test_the_query_budget_is_kept() -> None:
    asked = victim(access="scores", queries=5)
    asked.query(IMAGES.images)
    with pytest.raises(AccessError, match="Expected at most 5 queries, as the card says, but got 8"):
        asked.query(IMAGES.images)


def test_queries_are_answered_as_the_owner_serves_them() -> None:
    served = victim(lambda images: torch.tensor([[0.1, 0.2, 0.7]]).expand(len(images), 3), access="labels")
    assert served.query(IMAGES.images).argmax(1).tolist() == [2] * 4


def test_a_field_of_the_key_is_told_if_it_is_public_and_declared() -> None:
    assert victim(knows=("layer",)).key.layer == "net.1"
    for knows, name in (((), "layer"), (("angle",), "layer"), (("secret",), "secret"), (("scheme",), "scheme")):
        with pytest.raises(AccessError, match=f"Expected an adversary who knows the key's '{name}'") as caught:
            getattr(victim(knows=knows).key, name)
        assert "\n" not in str(caught.value)
        assert str(caught.value).count(". ") == 0, "one sentence"


def test_a_forged_key_needs_all_other_fields_to_be_known() -> None:
    secret = torch.tensor([9])
    forged = victim(knows=("layer", "angle")).forge(secret=secret)
    assert isinstance(forged, ToldKey)
    assert (forged.layer, forged.angle, forged.secret) == ("net.1", 60.0, secret)
    with pytest.raises(AccessError, match="knows the key's 'angle'"):
        victim(knows=("layer",)).forge(secret=secret)
    with pytest.raises(AccessError, match="knows the key's 'secret'"):
        victim(knows=("layer", "angle")).forge()


def test_the_owners_images_are_for_those_who_declare_them() -> None:
    assert victim(images=("the owner's",)).images is IMAGES
    with pytest.raises(AccessError, match="with the owner's images, but its card declares own"):
        _ = victim(images=("own",)).images


def test_an_adversary_is_told_to_people() -> None:
    told = Adversary("white-box", ("own", "the owner's"), ("scheme", "layer"), 1000)
    assert str(told) == "white-box access; own and the owner's images; knows scheme, layer; 1,000 queries"
    assert str(replace(told, images=(), knows=(), queries=None)) == "white-box access; no images"
    assert Paper("A", "B", 2026, "https://example.org").code is None
