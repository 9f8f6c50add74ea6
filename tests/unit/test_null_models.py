"""Null models: who shares them, what they learn, and which keys claim them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bench.contract.images import ImageSet
from bench.data import checksum
from bench.plan.matrix import Planned, expand
from bench.plan.profiles import PROFILES
from bench.plan.step import Step
from bench.records.record import OTHER_DATA, OWN_DATA, PERMUTED, RIVAL_DATA
from bench.runner.store import Store
from bench.steps import null_claims as null_claims_module
from bench.steps import null_host
from bench.steps.null_claims import DERIVED, FIXED, null_claims
from bench.steps.nulls import false_claims
from bench.steps.ownership import fresh_keys
from bench.steps.scheme_workspace import SchemeWorkspace
from bench.steps.workspace import Place
from tests.fakes import opened, request

SMOKE = PROFILES["smoke"]
SHORT = replace(SMOKE, owner=300, null_hosts=2, null_keys=3, host={"*": replace(SMOKE.host["*"], epochs=1)})
SUMS = {name: checksum(name) for name in ("digits-m", "photographs")}


def cells(*schemes: str, attacks: tuple[str, ...] = ("none",), null_hosts: int = 2) -> list[Planned]:
    profile = replace(SHORT, null_hosts=null_hosts)
    return expand(request(schemes=schemes, attacks=attacks, profile=profile), SUMS)


def null_hosts(cell: Planned) -> dict[tuple[int, str], Step]:
    return {
        (number, kind): step
        for number in (0, 1)
        for kind, step in cell.steps[f"null_claims_{number}"].inputs.items()
        if step.kind == "null_host"
    }


def test_schemes_of_one_recipe_share_null_models_and_no_two_models_are_one() -> None:
    uchida, zhang = cells("uchida-random", "zhang-content")
    shared = null_hosts(uchida)
    assert {kind for _, kind in shared} == {OWN_DATA, PERMUTED, OTHER_DATA, RIVAL_DATA}
    assert {at: step.key for at, step in shared.items()} == {at: step.key for at, step in null_hosts(zhang).items()}
    assert len({step.key for step in shared.values()}) == len(shared) == 8
    (learner,) = cells("mia-std")
    assert null_hosts(learner).keys() == shared.keys()


def test_nothing_is_trained_unless_null_models_are_asked_for() -> None:
    for profile in ("smoke", "quick", "small"):
        assert PROFILES[profile].null_hosts == 0
    (cell,) = cells("uchida-random", null_hosts=0)
    assert not [name for name in cell.steps if name.startswith("null_claims")]


def test_more_null_models_leave_those_there_were() -> None:
    (few,), (more,) = cells("uchida-random", null_hosts=1), cells("uchida-random", null_hosts=2)
    assert few.steps["null_claims_0"].key == more.steps["null_claims_0"].key


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("null_models"))


def test_no_class_keeps_its_name_under_permuted_labels(store: Store) -> None:
    (cell,) = cells("uchida-random")
    workspace = opened(null_hosts(cell)[0, PERMUTED], store)
    own, moved = workspace.data.owner, null_host._permuted(workspace)
    pairs = set(zip(own.labels.tolist(), moved.labels.tolist(), strict=True))
    assert len(pairs) == len({new for _, new in pairs}) == 10, "one name a class"
    assert all(old != new for old, new in pairs)


def test_permuted_labels_repeat_and_differ_from_model_to_model(store: Store) -> None:
    (cell,) = cells("uchida-random")
    first, second = (opened(null_hosts(cell)[number, PERMUTED], store) for number in (0, 1))
    labels = null_host._permuted(first).labels
    assert torch.equal(labels, null_host._permuted(first).labels), "no generator but the step's own"
    assert not torch.equal(labels, null_host._permuted(second).labels)


def test_the_same_keys_claim_the_clean_host_and_null_models(store: Store) -> None:
    """The clean host in a null model's place gives the p-values that it has in its own."""
    (cell,) = cells("uchida-random")
    workspace = opened(cell.steps["nulls"], store)
    inputs = {**workspace.inputs, OWN_DATA: workspace.inputs["host"]}
    found = null_claims(SchemeWorkspace({**workspace.spec, "index": 0}, inputs, Place(), workspace.checksum))
    claims = {kind: p_values for kind, _, p_values in found.result["claims"]}
    assert claims[OWN_DATA] == false_claims(workspace).result["p_values"]
    assert claims["zeroed weights"] == claims["NaN answers"] == [1.0] * 3
    numbers = {kind: number for kind, number, _ in found.result["claims"]}
    assert {kind for kind, number in numbers.items() if number is None} == set(FIXED)
    assert {number for kind, number in numbers.items() if kind not in FIXED} == {0}


def test_networks_that_are_always_the_same_are_claimed_once(store: Store) -> None:
    (cell,) = cells("uchida-random")
    workspace = opened(cell.steps["nulls"], store)
    inputs = {OWN_DATA: workspace.inputs["host"], "host": workspace.inputs["host"]}
    found = null_claims(SchemeWorkspace({**workspace.spec, "index": 1}, inputs, Place(), workspace.checksum))
    assert [(kind, number) for kind, number, _ in found.result["claims"]] == [
        (kind, 1) for kind in (OWN_DATA, *DERIVED)
    ]


def test_keys_whose_making_took_a_training_are_used_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    (cell,) = cells("uchida-random")
    nulls = opened(cell.steps["nulls"], store)
    made = {"nulls": list(fresh_keys(nulls, nulls.scheme, 3))}
    monkeypatch.setattr(null_claims_module, "fresh_keys", lambda *_: pytest.fail("these keys exist"))
    monkeypatch.setattr(SchemeWorkspace, "keys", lambda self, name: made[name])
    host = nulls.inputs["host"]
    inputs = {"nulls": host, "host": host, OWN_DATA: host}
    found = null_claims(SchemeWorkspace({**nulls.spec, "index": 1, "keys": 2}, inputs, Place(), nulls.checksum))
    claims = {kind: p_values for kind, _, p_values in found.result["claims"]}
    assert claims[OWN_DATA] == false_claims(nulls).result["p_values"][:2]


def test_two_bits_are_the_nearest_of_four_levels_and_biases_stay() -> None:
    layer = torch.nn.Linear(5, 1)
    weights, bias = torch.tensor([[-2.0, -0.8, 0.1, 1.3, 1.4]]), torch.tensor([0.7])
    layer.weight.data, layer.bias.data = weights, bias.clone()
    with torch.no_grad():
        DERIVED["quantised to 2 bits"](layer, 0)
    torch.testing.assert_close(layer.weight.data, torch.tensor([[-2.0, -2 / 3, 2 / 3, 2 / 3, 2.0]]))
    assert torch.equal(layer.bias.data, bias)


def test_constant_layers_keep_their_mean_and_their_biases() -> None:
    layer = torch.nn.Linear(3, 2)
    mean, bias = layer.weight.mean().item(), layer.bias.detach().clone()
    with torch.no_grad():
        DERIVED["constant layers"](layer, 0)
    torch.testing.assert_close(layer.weight.data, torch.full((2, 3), mean))
    assert torch.equal(layer.bias.data, bias)


def test_networks_without_a_training_are_what_they_are_called(store: Store) -> None:
    (cell,) = cells("uchida-random")
    workspace = opened(cell.steps["nulls"], store)
    images = workspace.data.heldout.images[:50].float() / 255
    answers = {}
    for name, change in {**DERIVED, **FIXED}.items():
        model = workspace.model("host")
        with torch.no_grad():
            change(model, 3)
            answers[name] = model(images)
        if name == "quantised to 2 bits":
            assert max(len(w.unique()) for w in model.parameters() if w.dim() > 1) <= 4
        if name == "constant layers":
            assert {len(w.unique()) for w in model.parameters() if w.dim() > 1} == {1}
    assert answers["constant answers"].argmax(1).unique().tolist() == [3]
    assert answers["NaN answers"].isnan().all()
    assert answers["zeroed weights"].unique().tolist() == [0.0]


def test_a_data_set_is_claimed_where_a_scheme_reads_one(tmp_path: Path) -> None:
    (cell,) = cells("visible-static")
    names = [name for name in cell.steps if name.startswith("null_claims")]
    assert names == ["null_claims_0"]
    assert set(cell.steps["null_claims_0"].inputs) == {"host"}


def test_null_data_sets_are_the_adversarys_another_one_and_constant_ones(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    (cell,) = cells("visible-static")
    workspace = opened(cell.steps["null_claims_0"], store)
    seen: list[ImageSet] = []
    monkeypatch.setattr(null_claims_module, "_p_values", lambda s, k, m, images: seen.append(images) or [1.0])
    found = null_claims(workspace).result["claims"]
    assert found == [[kind, None, [1.0]] for kind in (RIVAL_DATA, OTHER_DATA, "constant images")]
    assert torch.equal(seen[0].images, workspace.data.adversary.images)
    assert torch.equal(seen[1].images, null_host.other_images(workspace).images)
    assert len(seen[2].images.unique()) == 1
    assert len(seen[2]) == len(workspace.data.owner)
