"""Clean twins of marked networks: which steps leave them, what is done to them, and what is read of them."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.api import ImageSet
from bench.data import checksum
from bench.plan.matrix import Planned, expand
from bench.plan.plan import Plan
from bench.plan.profiles import PROFILES
from bench.plan.twins import clean_twins
from bench.records.detectability import DETECTABILITY, DetectabilityRow
from bench.records.record import OWN_DATA, RecordError
from bench.runner.coordinator import execute
from bench.runner.detect import pools_of, rows, steps_of
from bench.runner.estimate import Durations
from bench.runner.executors import Settings
from bench.runner.rundir import RunDir
from bench.runner.store import Store
from bench.steps import training
from bench.steps.null_control import train_null_control
from bench.steps.workspace import Place
from tests.fakes import opened, request

SMOKE = PROFILES["smoke"]
ONE = {"*": replace(SMOKE.host["*"], epochs=1)}
SHORT = replace(SMOKE, owner=300, null_hosts=2, host=ONE, embed=ONE)
SUMS = {name: checksum(name) for name in ("digits-m", "photographs")}


def cells(*schemes: str, situation: str = "fine-tune", seeds: int = 1) -> list[Planned]:
    fields: dict[str, Any] = {"schemes": schemes, "attacks": ("none",), "situations": (situation,)}
    return expand(request(**fields, seeds=tuple(range(seeds)), profile=SHORT), SUMS)


def test_twins_go_the_way_of_the_marked_network() -> None:
    """Trained from scratch they are null models; fine-tuned and distilled each of these is trained further."""
    (scratch,), (tuned,) = cells("uchida-random", situation="train"), cells("uchida-random")
    (distilled,), (posthoc,) = cells("uchida-random", situation="distill"), cells("uchida-posthoc")
    hosts = [scratch.steps[f"null_claims_{n}"].inputs[OWN_DATA].key for n in (0, 1)]
    assert [step.key for step in clean_twins(scratch)] == [step.key for step in clean_twins(posthoc)] == hosts
    for cell in (tuned, distilled):
        twins = clean_twins(cell)
        assert [step.inputs["host"].key for step in twins] == hosts
        for number, step in enumerate(twins):
            marking = {name: cell.steps["mark"].spec[name] for name in ("recipe", "situation", "width", "seed")}
            assert {name: step.spec[name] for name in marking} == marking
            assert (step.kind, step.spec["index"]) == ("null_control", number)
    keys = [step.key for cell in (scratch, tuned, distilled) for step in clean_twins(cell)]
    assert len(set(keys)) == 6, "no two twins are one network"


def test_schemes_share_twins_and_data_marks_have_none() -> None:
    uchida, zhang = pools_of(cells("uchida-random", "zhang-content"))
    assert [step.key for step in uchida.twins] == [step.key for step in zhang.twins]
    assert uchida.marked.key != zhang.marked.key
    assert pools_of(cells("visible-static", "mia-std", "radioactive")) == []


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("twins"))


def test_a_twin_starts_from_its_null_model_and_is_trained(store: Store) -> None:
    (cell,) = cells("uchida-random")
    first, second = (opened(step, store) for step in clean_twins(cell))
    weights = [train_null_control(workspace).tensors["model"] for workspace in (first, second, first)]
    name = next(name for name in weights[0] if name.endswith("conv1.weight"))
    start = first.model("host").state_dict()[name]
    distances = [(each[name] - start).norm().item() for each in weights]
    assert 0 < distances[0] < 0.7 * distances[1], "it is nearer to its own start than another is"
    assert torch.equal(weights[0][name], weights[2][name])


def test_a_distilled_twin_learns_the_answers_of_its_null_model(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    (cell,) = cells("uchida-random", situation="distill")
    workspace = opened(clean_twins(cell)[0], store)
    seen: list[ImageSet] = []

    def train(model: object, images: ImageSet, recipe: object, rng: object) -> None:
        seen.append(images)
        raise InterruptedError

    monkeypatch.setattr(workspace, "train", train)
    with pytest.raises(InterruptedError):
        train_null_control(workspace)
    answers = training.soft_targets(workspace.model("host"), workspace.data.owner)
    assert seen[0].targets is not None
    assert torch.allclose(seen[0].targets, answers)


def test_rows_are_of_the_seeds_that_have_all_networks(tmp_path: Path) -> None:
    class Watch:
        def started(self, step: object) -> None: ...
        def finished(self, step: object, outcome: object) -> None: ...
        def settled(self, record: object) -> None: ...

    run_dir, pools = RunDir(tmp_path), pools_of(cells("uchida-random", seeds=2))
    assert [row.reason for row in rows(pools, run_dir.store)] == ["no seed has all its networks"] * 3
    some = Plan.of_steps(pools[0].twins[0].inputs.values(), run_dir.store.has)
    plan = Plan.of_steps(steps_of(pools), run_dir.store.has)
    for number, make in enumerate((lambda: some, lambda: Plan.of_steps(steps_of(pools), run_dir.store.has))):
        summary = execute(make(), run_dir, Settings(Place(), threads=1), Watch(), Durations(run_dir.durations))
        assert summary.computed == (1, len(plan.steps) - 1)[number], "what is stored is not computed again"
        assert (summary.records, summary.failures, summary.stopped) == ([], {}, False)
    ks, variance, inferred = rows(pools, run_dir.store)
    assert (ks.seeds, ks.clean, ks.least_p_value) == (2, 4, pytest.approx(1 / 9))
    assert ks.p_value == pytest.approx(round(9 * (ks.p_value or 0)) / 9)
    assert variance.part in load_names(run_dir.store, pools[0].marked.key)
    assert (inferred.reason, inferred.auc) == ("it takes 4 seeds", None)
    whole = next(rows(pools[:1], run_dir.store))
    assert (whole.seeds, whole.networks != ks.networks) == (1, True)
    DETECTABILITY.merge([ks, variance, inferred], tmp_path)
    DETECTABILITY.merge([whole], tmp_path)
    assert DETECTABILITY.load(tmp_path) == [whole, variance, inferred]
    shutil.rmtree(run_dir.store.folder(pools[1].marked.key))
    assert next(rows(pools, run_dir.store)) == whole


def load_names(store: Store, key: str) -> set[str]:
    layers = {name.removesuffix(".weight") for name in store.load(key).tensors("model")}
    return layers | {f"{layer} (mean filter)" for layer in layers}


def row(**fields: Any) -> DetectabilityRow:
    base: dict[str, Any] = {
        "scheme": "uchida-random", "scheme_params": {"bits": 32}, "arch": "wrn", "dataset": "digits-m",
        "situation": "fine-tune", "profile": "smoke", "owners": 1, "test": "ks", "seeds": 5, "clean": 25,
        "networks": "0" * 64,
    }  # fmt: skip
    return DetectabilityRow(**{**base, **fields})


def test_a_row_takes_the_place_of_one_about_the_same(tmp_path: Path) -> None:
    DETECTABILITY.merge([row(auc=0.5), row(test="variance")], tmp_path)
    DETECTABILITY.merge([row(auc=1.0, seeds=9), row(scheme_params={"bits": 64})], tmp_path)
    assert [(r.auc, r.test, r.scheme_params["bits"]) for r in DETECTABILITY.load(tmp_path)] == [
        (1.0, "ks", 32), (None, "variance", 32), (None, "ks", 64)
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["", "{}", '[{"scheme": "x"}]', "[1"])
def test_a_file_that_holds_no_rows_is_named_and_kept(tmp_path: Path, text: str) -> None:
    (tmp_path / DETECTABILITY.name).write_text(text)
    with pytest.raises(RecordError, match=DETECTABILITY.name):
        DETECTABILITY.merge([row()], tmp_path)
    assert (tmp_path / DETECTABILITY.name).read_text() == text
    assert DETECTABILITY.load(tmp_path / "elsewhere") == []
