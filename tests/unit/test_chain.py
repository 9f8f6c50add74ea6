"""Chains of attacks, what serves the answers, and the hooks that only some schemes have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attacks.privacy import LogitNoise
from bench import archs
from bench.api import Attempt, ImageSet, Key, Point, Recipe, Suspect, predict, replace
from bench.contract import attack as contract
from bench.registry import RegistryError, attack_chain, attacks, make, schemes
from bench.runner.store import Store
from bench.steps import attack as attacking
from bench.steps import chain as chains
from bench.steps import training
from bench.steps.chain import AttackContext, _victim, unattacked, walk
from bench.steps.embed import embed
from bench.steps.judge import Judge, State
from bench.steps.ownership import published_images
from bench.steps.scheme_workspace import SchemeWorkspace
from tests.conftest import PLUGINS
from tests.fakes import on_digits, opened, same_key
from tests.unit.chained import ZHANG, equal, judge_of, triggered

NOISE = [["output-noise", {"ladder": [0.5, 2.0]}]]
PRUNED = ["pruning", {"ladder": [50.0]}]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(Path(tmp_path_factory.mktemp("chain")))


@pytest.fixture(scope="module")
def marked(store: Store) -> SchemeWorkspace:
    return triggered(store)


@pytest.fixture(scope="module")
def learnt(store: Store) -> SchemeWorkspace:
    """An attack step on a model that learned from published, marked images."""
    params = {"anw-hue": dict(schemes()["anw-hue"].card.tiny)}
    fields = {"schemes": ("anw-hue",), "attacks": ("cutout",), "situations": ("train",), "overrides": params}
    return opened(on_digits(**fields).steps["attack"], store)


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_PLUGINS", str(PLUGINS))


def chained(workspace: SchemeWorkspace, *chain: Any) -> SchemeWorkspace:
    return SchemeWorkspace({**workspace.spec, "attacks": list(chain)}, workspace.inputs, workspace.place)


def reached(workspace: SchemeWorkspace) -> list[tuple[float, State]]:
    """What the attacker ends with at each rung of the last attack."""
    found: list[tuple[float, State]] = []

    def keep(state: State, strength: float, _: float) -> Point:
        found.append((strength, state))
        return Point(strength=strength)

    keys = workspace.keys()
    published = published_images(workspace, workspace.scheme, keys)
    victim = workspace.model("mark")
    walk(workspace, unattacked(workspace, published, lambda: victim), keys, keep)
    return found


# ---- chains ----------------------------------------------------------------------------------------------------------
def test_pruned_and_then_noisy_is_the_pruned_network_behind_noise(marked: SchemeWorkspace) -> None:
    ((_, pruned),) = reached(chained(marked, PRUNED))
    states = reached(chained(marked, PRUNED, *NOISE))
    assert [strength for strength, _ in states] == [0.5, 2.0]
    images = marked.data.heldout.images[:50]
    clean = predict(pruned.model(), images)
    noise = marked.rng("attack", "output-noise").torch("noise")
    for strength, state in states:
        assert equal(state.model(), pruned.model())
        assert not equal(state.model(), marked.model("mark"))
        expected = clean + strength * torch.randn(50, 10, generator=noise.clone_state())
        assert torch.allclose(predict(state.suspect(), images), expected, atol=1e-5)


def test_who_reads_weights_sees_the_pruned_ones_and_who_asks_hears_the_noise(marked: SchemeWorkspace) -> None:
    ((_, state),) = reached(chained(marked, PRUNED, ["output-noise", {"ladder": [100.0]}]))
    seen: list[nn.Module] = []

    class Reader(type(marked.scheme)):
        card = replace(marked.scheme.card, access="white-box")

        def verify(self, suspect: Any, key: Key) -> Any:
            seen.append(suspect.model)
            return super().verify(suspect, key)

    judge_of(marked, make(Reader, ZHANG["overrides"]["zhang-content"])).verdicts(state, details=False)
    assert seen[0] is state.model()
    quiet = judge_of(marked)(replace(state, servings=()), 1.0, details=False)
    noisy = judge_of(marked)(state, 1.0, details=False)
    assert quiet.test_accuracy is not None
    assert noisy.test_accuracy is not None
    assert noisy.test_accuracy != quiet.test_accuracy, "accuracy is measured through the noise"


def test_processed_images_are_learned_once_by_the_changed_recipe_and_that_network_is_pruned(
    learnt: SchemeWorkspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[tuple[ImageSet, Recipe]] = []
    train = training.train

    def counted(model: nn.Module, images: ImageSet, recipe: Recipe, **options: Any) -> training.Trained:
        trained.append((images, recipe))
        return train(model, images, recipe, **options)

    ((_, jpeg),) = reached(chained(learnt, ["images-jpeg", {"ladder": [55.0]}]))
    monkeypatch.setattr(training, "train", counted)
    chain = (["images-jpeg", {"ladder": [55.0]}], ["cutout", {"ladder": [8]}], ["pruning", {"ladder": [30.0, 60.0]}])
    states = reached(chained(learnt, *chain))
    ((images, recipe),) = trained
    assert torch.equal(images.images, jpeg.images.images)
    published = published_images(learnt, learnt.scheme, learnt.keys()).images
    assert not torch.equal(images.images, published.images)
    (cutout,) = recipe.transforms
    assert cutout.keywords == {"side": 8}
    whole = train(
        learnt.start(), images, recipe, rng=learnt.rng("attack", "cutout").child("learner"), **learnt.training_options
    ).model
    for (_, state), least in zip(states, (0.29, 0.59), strict=True):
        pruned = dict(state.model().named_parameters())
        for name, parameter in whole.named_parameters():
            kept = pruned[name] != 0
            assert torch.equal(pruned[name][kept], parameter[kept])
        zeros = pruned[f"net.{archs.arch(learnt.spec['arch']).head}.weight"] == 0
        assert least < float(zeros.float().mean()) < least + 0.02
    assert all(torch.equal(state.images.images, images.images) for _, state in states)


def test_changes_of_the_recipe_add_up(learnt: SchemeWorkspace) -> None:
    chain = (["label-smoothing", {"ladder": [0.3]}], ["cutout", {"ladder": [8]}], ["gaussian-noise", {"ladder": [0.1]}])
    ((_, state),) = reached(chained(learnt, *chain))
    assert state.recipe.label_smoothing == 0.3
    assert [transform.keywords for transform in state.recipe.transforms] == [{"side": 8}, {"sd": 0.1}]


def test_a_training_is_made_of_the_attacked_images_and_not_of_the_published_ones(learnt: SchemeWorkspace) -> None:
    ((_, state),) = reached(chained(learnt, ["images-flip", {"ladder": [100.0]}]))
    flipped = published_images(learnt, learnt.scheme, learnt.keys()).images.images.flip(3)
    assert torch.equal(state.images.images, flipped)
    rng = learnt.rng("attack", "images-flip").child("learner")
    by_hand = learnt.train(learnt.start(), state.images.with_images(flipped), learnt.recipe, rng).model
    assert equal(state.model(), by_hand)


@pytest.mark.parametrize(
    ("typed", "name", "ladders"),
    [
        ("pruning=50+output-noise", "pruning=50+output-noise", [[50.0], [0.1, 0.3, 1.0]]),
        ("pruning=50.0 + output-noise", "pruning=50+output-noise", [[50.0], [0.1, 0.3, 1.0]]),
        ("pruning+output-noise=2", "pruning=60+output-noise", [[60.0], [2.0]]),
        (
            "output-noise+pruning-global=20+pruning=30",
            "output-noise=0.3+pruning-global=20+pruning",
            [[0.3], [20], [30]],
        ),
    ],
)
def test_a_chain_is_named_in_full_and_takes_the_middle_rung(typed: str, name: str, ladders: list[Any]) -> None:
    cell = on_digits(**{**ZHANG, "attacks": (typed,)}).cell
    assert cell.attack == name
    ladders = [list(attacks()["pruning"]().ladder) if ladder is None else ladder for ladder in ladders]
    assert [applied.params["ladder"] for applied in cell.attacks] == ladders


def test_spellings_of_one_chain_are_one_cell() -> None:
    cells = [on_digits(**{**ZHANG, "attacks": (a,)}) for a in ("pruning=60+output-noise", "pruning+output-noise")]
    assert cells[0].cell.identity == cells[1].cell.identity
    assert cells[0].key == cells[1].key
    name, params = cells[0].steps["attack"].spec["attacks"][0]
    assert (name, params["ladder"], params["scope"]) == ("pruning", [60.0], "layer")


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("pruning=50+ouput-noise", 'Expected an attack, but got "ouput-noise".* Did you mean "output-noise"'),
        ("pruning=lots+output-noise", 'Expected a strength as in "pruning=50", but got "pruning=lots"'),
        ("pruning=150+output-noise", r"Parameter pruning\.ladder\.0: .*less than or equal to 100, but got 150"),
        ("pruning=50+none", "none, which does nothing: leave it out"),
        ("pruning=50+", "Expected an attack"),
    ],
)
def test_a_wrong_chain_is_one_sentence(typed: str, message: str) -> None:
    with pytest.raises(RegistryError, match=message) as caught:
        on_digits(**{**ZHANG, "attacks": (typed,)})
    assert "\n" not in str(caught.value)


def test_a_training_after_a_change_of_the_network_would_lose_it_and_is_refused() -> None:
    for typed in ("pruning=50+cutout", "pruning+images-jpeg"):
        with pytest.raises(RegistryError, match="after pruning, whose network it would replace: change the order"):
            attack_chain(typed)
    assert [name for name, _ in attack_chain("output-noise+cutout+pruning")] == ["output-noise", "cutout", "pruning"]


def test_the_seconds_of_a_rung_are_those_of_all_attacks_so_far_and_of_the_trainings_that_they_asked_for(
    marked: SchemeWorkspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By hand: two attacks of 3 s before, then rungs of 5 s each, the first of which changes the recipe (100 s)."""
    now, told = [0.0], list[float]()
    for module in (chains, contract):
        monkeypatch.setattr(module, "clock_s", lambda device: now[0])

    class Slow(attacks()["output-noise"]):
        def __init__(self, seconds: float, **params: Any) -> None:
            super().__init__(**params)
            self.seconds = seconds

        def apply(self, victim: Any, context: Any) -> Any:
            for strength in self.ladder:
                now[0] += self.seconds
                yield Attempt(strength, recipe=context.recipe if strength == 1.0 else None, serving=pytest.fail)

    class Timed(SchemeWorkspace):
        attacks = [Slow(3.0, ladder=[2.0]), Slow(3.0, ladder=[2.0]), Slow(5.0, ladder=[1.0, 2.0])]

        def train(self, model: nn.Module, *rest: Any, **extra: Any) -> training.Trained:
            now[0] += 100
            return training.Trained(model.eval(), [], 100)

    def judge(state: State, strength: float, trained_s: float) -> Point:
        told.append(trained_s)
        return Point(strength=strength, attack_time_s=trained_s)

    workspace = Timed(marked.spec, marked.inputs, marked.place)
    start = State(marked.data.owner, marked.recipe, lambda: marked.model("mark"))
    points = walk(workspace, start, marked.keys(), judge)
    assert told == [100.0, 0.0]
    assert [point.attack_time_s for point in points] == [2 * 3 + 5 + 100, 2 * 3 + 5 + 100 + 5]


@pytest.mark.parametrize(
    ("chain", "details", "reference"),
    [
        ((PRUNED,), False, False),
        ((["cutout", {"ladder": [8]}],), True, False),
        ((["images-flip", {"ladder": [100.0]}],), True, False),
        ((["cutout", {"ladder": [8]}], PRUNED), False, False),
        ((["permutation", {"ladder": [100.0]}],), False, True),
        ((["permutation", {"ladder": [100.0]}], PRUNED), False, True),
    ],
)
def test_a_curve_is_judged_in_detail_where_each_rung_is_trained_and_beside_the_owner_s_network_where_a_form_changed(
    marked: SchemeWorkspace, monkeypatch: pytest.MonkeyPatch, chain: Any, details: bool, reference: bool
) -> None:
    seen: list[tuple[Judge, State, bool]] = []

    def judged(judge: Judge, state: State, strength: float, *, details: bool) -> Point:
        seen.append((judge, state, details))
        return Point(strength=strength, test_accuracy=0.25)

    def walked(workspace: Any, start: State, keys: Any, judge: Any) -> list[Point]:
        return [judge(start, 2.0, 7.0)]

    monkeypatch.setattr(Judge, "__call__", judged)
    monkeypatch.setattr(attacking, "walk", walked)
    workspace = chained(marked, *chain)
    ((point,),) = attacking.run_attack(workspace).result.values()
    assert (point["strength"], point["test_accuracy"], point["attack_time_s"]) == (2.0, 0.25, 7.0)
    ((judge, state, asked),) = seen
    assert asked is details
    assert equal(state.model(), marked.model("mark"))
    assert judge.reference is (state.model() if reference else None)
    published = published_images(marked, marked.scheme, marked.keys())
    assert len(published.images) > len(marked.data.owner), "the triggers are published"
    assert torch.equal(state.images.images, published.images.images)
    assert torch.equal(judge.published.images.images, published.images.images)
    (mine,), (owners,) = judge.keys, marked.keys()
    assert same_key(mine, owners)


def test_one_rung_alone_is_judged_on_all_unseen_images(marked: SchemeWorkspace) -> None:
    workspace = chained(marked, ["pruning", {"ladder": [50.0]}])
    (point,) = attacking.run_attack(workspace).result["points"]
    ((_, state),) = reached(workspace)
    assert len(marked.data.unseen) > len(marked.data.heldout)
    assert point["unseen_accuracy"] == pytest.approx(training.accuracy(state.model(), marked.data.unseen))
    assert point["test_accuracy"] == pytest.approx(training.accuracy(state.model(), marked.data.heldout))


def test_a_stored_curve_is_what_the_attacked_networks_answer_to_the_owner(marked: SchemeWorkspace) -> None:
    workspace = chained(marked, ["pruning", {"ladder": [10.0, 95.0]}])
    stored = attacking.run_attack(workspace).result["points"]
    (key,) = marked.keys()
    states = reached(workspace)
    assert [point["strength"] for point in stored] == [strength for strength, _ in states] == [10.0, 95.0]
    for point, (_, state) in zip(stored, states, strict=True):
        assert point["test_accuracy"] == training.accuracy(state.model(), marked.data.heldout)
        honest = marked.scheme.verify(Suspect("labels", model=state.model()), key)
        assert point["verdicts"][0]["statistic"] == honest.statistic
    assert stored[0]["test_accuracy"] != stored[1]["test_accuracy"]
    assert [point["unseen_accuracy"] for point in stored] == [None, None], "a ladder is judged on the held-out images"
    assert json.loads(json.dumps(stored)) == stored, "plain JSON values"


# ---- serving ---------------------------------------------------------------------------------------------------------
def test_what_serves_the_answers_is_between_the_network_and_all_who_ask(marked: SchemeWorkspace) -> None:
    """Everything is called class 3: so accuracy is its share, and every trigger of another target misses."""
    three = nn.functional.one_hot(torch.tensor(3), 10).float()
    start = State(marked.data.owner, marked.recipe, lambda: marked.model("mark"))
    state = start.after(Attempt(1.0, serving=lambda answer, images: three.expand(len(images), 10)), pytest.fail)
    point = judge_of(marked)(state, 1.0, details=False)
    assert point.test_accuracy == pytest.approx(float((marked.data.heldout.labels == 3).float().mean()))
    target = marked.keys()[0].target
    assert point.verdicts[0].details["trigger_accuracy"] == float(target == 3)
    once = judge_of(marked)(start, 1.0, details=False)
    assert once.test_accuracy != point.test_accuracy


def test_servings_stand_around_each_other_the_first_innermost(marked: SchemeWorkspace) -> None:
    state = State(marked.data.owner, marked.recipe, nn.Flatten)
    state = state.after(Attempt(1.0, serving=lambda answer, images: answer(images) + 1), pytest.fail)
    state = state.after(Attempt(1.0, serving=lambda answer, images: 10 * answer(images / 2)), pytest.fail)
    assert state.suspect()(torch.full((1, 1), 4.0)).item() == 10 * (4 / 2 + 1)
    assert LogitNoise(0.0, torch.Generator())(lambda images: images, torch.ones(1, 2)).tolist() == [[1.0, 1.0]]


def test_the_victim_of_a_chain_answers_as_it_is_served(marked: SchemeWorkspace) -> None:
    asked: list[Tensor] = []
    images = marked.data.heldout.images[:20]

    class Asking(attacks()["output-noise"]):
        def apply(self, victim: Any, context: Any) -> Any:
            asked.append(victim.query(images))
            yield from super().apply(victim, context)

    workspace = chained(marked, PRUNED, *NOISE)
    ((_, pruned),) = reached(chained(marked, PRUNED))
    Asking(ladder=[0.5]).run(
        _victim(workspace, Asking(ladder=[0.5]), pruned, workspace.keys()),
        AttackContext(workspace, Asking(ladder=[0.5]), pruned),
        lambda attempt: Point(strength=attempt.strength),
    )
    assert torch.allclose(asked[0], predict(pruned.model(), images).softmax(1), atol=1e-6)


# ---- hooks -----------------------------------------------------------------------------------------------------------
def test_answers_that_the_owner_changes_are_what_the_victim_answers(store: Store, toys: None) -> None:
    workspace = opened(on_digits(schemes=("test-dawn",), attacks=("output-noise",)).steps["attack"], store)
    (attack,), state = workspace.attacks, State(workspace.data.owner, workspace.recipe, lambda: workspace.model("mark"))
    images = workspace.data.heldout.images[:20]
    own = predict(workspace.model("mark"), images).softmax(1)
    answer = _victim(workspace, attack, state, workspace.keys()).query(images)
    assert torch.allclose(answer, own.roll(1, 1), atol=1e-6)
    assert not torch.allclose(answer, own, atol=1e-3)
    twice = _victim(workspace, attack, state, workspace.keys() * 2).query(images)
    assert torch.allclose(twice, own.roll(2, 1), atol=1e-6), "every owner serves"


def test_owners_serve_by_their_own_keys_and_see_what_they_are_asked(
    marked: SchemeWorkspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def serve(scheme: Any, answers: Tensor, images: Tensor, key: Key) -> Tensor:
        seen.append((images, key))
        return answers

    monkeypatch.setattr(type(marked.scheme), "serve", serve)
    images, keys = marked.data.heldout.images[:2], [*marked.keys(), *marked.keys()]
    state = State(marked.data.owner, marked.recipe, lambda: marked.model("mark"))
    _victim(marked, attacks()["output-noise"](), state, keys).query(images)
    assert [(asked is images, key is own) for (asked, key), own in zip(seen, keys, strict=True)] == [(True, True)] * 2


def test_a_key_that_changes_is_stored_as_embedding_left_it(
    store: Store, toys: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = on_digits(schemes=("test-moving",), situations=("train",), attacks=("pruning",))
    marking = opened(planned.steps["mark"], store)
    (fresh,) = marking.keys()
    assert fresh == schemes()["test-moving"].key_type(0)
    seen: list[int] = []
    take = training._Steps.take

    def watched(self: Any, x: Tensor, labels: Tensor, targets: Tensor) -> None:
        seen.append(sum(bool(torch.isclose(image, torch.tensor(10 / 255)).all()) for image in x))
        take(self, x, labels, targets)

    monkeypatch.setattr(training._Steps, "take", watched)
    output = embed(marking)
    epochs = marking.recipe.epochs
    per_epoch = len(seen) // epochs
    assert sum(seen[:per_epoch]) == 0, "the first epoch's triggers are as old as the key was"
    assert sum(seen[per_epoch : 2 * per_epoch]) >= 1, "the set of the second epoch is marked by the second key"
    assert output.result["point"]["verdicts"][0]["statistic"] == epochs
    monkeypatch.undo()
    monkeypatch.setenv("BENCH_PLUGINS", str(PLUGINS))
    attacking = opened(planned.steps["attack"], store)
    assert attacking.keys() == [replace(fresh, epoch=epochs)]


def test_watched_activations_reach_the_embedding_loss(store: Store, toys: None) -> None:
    result = embed(opened(on_digits(schemes=("test-watching",)).steps["mark"], store)).result
    assert [epoch["extra_loss"] for epoch in result["history"]] == pytest.approx([1.0, 1.0]), (
        "the head's output is the logits"
    )
