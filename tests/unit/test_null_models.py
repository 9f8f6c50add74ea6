"""Null models: who shares them, what they learn, and which keys claim them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bench.data import checksum
from bench.plan.matrix import Planned, Step, expand
from bench.plan.profiles import PROFILES
from bench.records.record import OTHER_DATA, OWN_DATA, PERMUTED, RIVAL_DATA
from bench.runner.store import Store
from bench.steps import null_host
from bench.steps.null_claims import DERIVED, FIXED, null_claims
from bench.steps.nulls import false_claims
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


def test_the_same_keys_claim_the_clean_host_and_null_models(store: Store) -> None:
    """The clean host in a null model's place gives the p-values that it has in its own."""
    (cell,) = cells("uchida-random")
    workspace = opened(cell.steps["nulls"], store)
    inputs = {**workspace.inputs, OWN_DATA: workspace.inputs["host"]}
    found = null_claims(SchemeWorkspace({**workspace.spec, "index": 0}, inputs, Place(), workspace.checksum))
    claims = {kind: p_values for kind, _, p_values in found.result["claims"]}
    assert claims[OWN_DATA] == false_claims(workspace).result["p_values"]
    assert claims["zeroed weights"] == claims["NaN answers"] == [1.0] * 3


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
