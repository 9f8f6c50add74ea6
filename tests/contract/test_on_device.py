"""Keys, marks, attacks and verdicts of everything that is registered stay on the device; on a simulated one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench import data
from bench.api import Recipe
from bench.plan.applicability import not_applicable
from bench.plan.matrix import Planned, expand
from bench.plan.profiles import PROFILES
from bench.plan.step import with_inputs
from bench.registry import attacks, schemes
from bench.runner.store import Store
from bench.runner.worker import Task, compute
from bench.steps.workspace import Place
from tests.fakes import request
from tests.fakes.device import simulated_gpu

FEW = replace(
    PROFILES["smoke"], owner=160, adversary=80, heldout=60, null_keys=2, heldout_users=1, left_out_owners=1,
    host={"*": Recipe(1, 0.05, 32)}, embed={"*": Recipe(1, 0.05, 32)}, learner={"*": Recipe(1, 0.05, 32)},
)  # fmt: skip


def cell(scheme: str, attack: str) -> Planned:
    """A cell of the smallest networks, at the parameters with which authors' contracts are checked."""
    tiny = {name: cls.card.tiny for name, cls in ((scheme, schemes()[scheme]), (attack, attacks()[attack]))}
    situation = schemes()[scheme].card.situations
    wish = request(
        schemes=(scheme,), attacks=(attack,), profile=FEW, overrides=tiny,
        situations=("fine-tune",) if "fine-tune" in situation else situation[:1],
    )  # fmt: skip
    (found,) = expand(wish, {name: data.checksum(name) for name in ("digits-m", "photographs")})
    assert found.reason is None, found.reason
    return found


def computed(planned: Planned, kinds: tuple[str, ...], store: Store) -> None:
    """Compute these steps, and what they read, on the device."""
    for step in with_inputs(planned.steps[kind] for kind in kinds):
        done = compute(Task(step.kind, step.key, step.identity, step.label), store.root, Place("cuda"))
        assert done.error is None, done.error


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("store"))


@pytest.mark.parametrize("name", schemes())
def test_keys_marks_and_verdicts_stay_on_the_device(name: str, store: Store) -> None:
    """Key generation, embedding, verdicts on marked and clean networks: nothing mixes devices."""
    with simulated_gpu() as gpu:
        planned = cell(name, "none")
        computed(planned, ("mark", "nulls"), store)
        assert gpu.sent > 0
    where = store.load(planned.steps["mark"].key).meta["where"]
    assert where["arithmetic"] == "bfloat16 training, TF32 convolutions, float32 products, deterministic"


# Opacus copies the network by pickling it, and a simulated device does not survive that.
PICKLED = "dp-sgd"


def pairs() -> list[tuple[str, str]]:
    """Every attack but variants, against the first scheme that it has a meaning for."""
    found, classes = {}, dict[type, str]()
    for attack, cls in attacks().items():
        if classes.setdefault(_class(cls), attack) != attack or attack == PICKLED:
            continue
        for scheme, its in schemes().items():
            if not_applicable(its.card, cls.card) is None and its.card.situations != ("post-hoc",):
                found[attack] = scheme
                break
    return [(scheme, attack) for attack, scheme in found.items()]


def _class(cls: type) -> type:
    """The class that holds the code: a variant's own class only sets parameters."""
    return next(each for each in cls.__mro__ if "apply" in vars(each) or "_changed" in vars(each))


@pytest.mark.parametrize(("scheme", "attack"), pairs())
def test_attacks_and_their_judging_stay_on_the_device(scheme: str, attack: str, store: Store) -> None:
    with simulated_gpu() as gpu:
        computed(cell(scheme, attack), ("attack",), store)
        assert gpu.sent > 0
