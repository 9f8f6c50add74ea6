"""Second marks and colluding copies: what is embedded where, who is examined, and how copies combine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from attacks.overwriting import combined
from bench.api import AccessError, Attempt, Point, Recipe, replace
from bench.registry import RegistryError, attacks, make
from bench.runner.store import Store
from bench.steps.chain import AttackContext, unattacked, walk
from bench.steps.judge import Judge, State, examine
from bench.steps.ownership import published_images
from bench.steps.scheme_workspace import SchemeWorkspace
from bench.steps.workspace import recipe_of
from tests.fakes import FakeContext, on_digits, opened, victim_of


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory) -> SchemeWorkspace:
    """An attack step on a network that Uchida et al.'s scheme marked."""
    fields = {"overrides": {"uchida-random": {"bits": 64, "strength": 0.1}}}
    return opened(on_digits(**fields).steps["attack"], Store(Path(tmp_path_factory.mktemp("overwriting"))))


def attacking(workspace: SchemeWorkspace, name: str, **params: Any) -> SchemeWorkspace:
    spec = {**workspace.spec, "attacks": [[name, {**attacks()[name].card.tiny, **params}]]}
    return SchemeWorkspace(spec, workspace.inputs, workspace.place)


def judged(workspace: SchemeWorkspace) -> tuple[list[State], list[Point]]:
    """What the attacker ends with at each rung, and what the judge says of it."""
    keys, states = workspace.keys(), list[State]()
    published = published_images(workspace, workspace.scheme, keys)
    judge = Judge(workspace, workspace.scheme, keys, published)

    def judged_rung(state: State, strength: float, _: float) -> Point:
        states.append(state)
        return judge(state, strength, details=False)

    model = workspace.model("mark")
    points = walk(workspace, unattacked(workspace, published, lambda: model), keys, judged_rung)
    return states, points


def context(workspace: SchemeWorkspace, name: str) -> AttackContext:
    attack = make(attacks()[name], {})
    start = unattacked(workspace, published_images(workspace, workspace.scheme, []), lambda: workspace.model("host"))
    return AttackContext(workspace, attack, start)


def test_the_second_key_is_read_from_the_overwritten_network(marked: SchemeWorkspace) -> None:
    (state,), (point,) = judged(attacking(marked, "overwriting-strong", ladder=[1.0]))
    assert state.rival is not None
    assert state.key is None, "the verdict is the owner's"
    (second,) = examine(marked.scheme, [state.rival], model=state.model())
    (first,) = examine(marked.scheme, marked.keys(), model=state.model())
    assert point.measures["second_p_value"] == second.p_value < 1e-9
    assert point.measures["second_ber"] == second.ber
    assert point.verdicts[0].p_value == first.p_value
    assert not torch.equal(state.rival.projection, marked.keys()[0].projection)


def test_another_layer_takes_the_second_mark(marked: SchemeWorkspace) -> None:
    (state,), (point,) = judged(attacking(marked, "overwriting-layer", ladder=[1]))
    other = context(marked, "overwriting-layer").layer("conv3")
    assert state.rival is not None
    assert (state.rival.layer, marked.keys()[0].layer) == (other, context(marked, "overwriting").layer("conv2"))
    assert "second_p_value" in point.measures


def test_the_owners_layer_is_no_other_layer(marked: SchemeWorkspace) -> None:
    with pytest.raises(ValueError, match="Expected a layer without the owner's mark, but conv2 has it"):
        judged(attacking(marked, "overwriting-layer", layer="conv2"))


def test_parameters_that_the_scheme_has_not_are_refused(marked: SchemeWorkspace) -> None:
    with pytest.raises(RegistryError, match="strenght"):
        context(marked, "overwriting").keygen(nn.Identity(), strenght=0.1)


def test_a_fresh_key_takes_the_adversarys_parameters(marked: SchemeWorkspace) -> None:
    lent = context(marked, "overwriting")
    model = marked.model("host")
    usual, longer = (lent.keygen(model, **params) for params in ({}, {"bits": 99}))
    assert (len(usual.payload), len(longer.payload)) == (64, 99)
    assert torch.equal(lent.keygen(model).payload, usual.payload)
    assert not torch.equal(lent.keygen(model, "other").payload, usual.payload)


def test_copies_are_marked_as_the_victim_is_with_keys_of_their_own(marked: SchemeWorkspace) -> None:
    workspace = attacking(marked, "collusion-average")
    one, two = (context(workspace, "collusion-average").copies(count) for count in (1, 2))
    host, (copy, other) = marked.model("host"), two
    layer = f"{marked.keys()[0].layer}.weight"
    assert torch.equal(one[0].get_parameter(layer), copy.get_parameter(layer)), "the first ones are the same"
    assert not torch.equal(copy.get_parameter(layer), other.get_parameter(layer))
    assert not torch.equal(copy.get_parameter(layer), host.get_parameter(layer))
    (claim,) = examine(marked.scheme, marked.keys(), model=copy)
    assert claim.p_value > 1e-3, "the owner's first key is not in it"


def test_nobody_else_is_lent_copies(marked: SchemeWorkspace) -> None:
    with pytest.raises(AccessError, match="other customers' copies"):
        context(marked, "overwriting").copies(1)


def test_colluders_average_the_very_copies(marked: SchemeWorkspace) -> None:
    workspace = attacking(marked, "collusion-average")
    (state,), _ = judged(workspace)
    victim, (copy,) = marked.model("mark"), context(workspace, "collusion-average").copies(1)
    for name, tensor in state.model().state_dict().items():
        if tensor.is_floating_point():
            middle = (victim.state_dict()[name] + copy.state_dict()[name]) / 2
            torch.testing.assert_close(tensor, middle, msg=name)


def holding(*values: float) -> nn.Module:
    """A network of these weights, with batch statistics."""
    model = nn.BatchNorm1d(len(values))
    with torch.no_grad():
        model.weight.copy_(torch.tensor(values))
    assert model.running_mean is not None
    model.running_mean.copy_(torch.tensor(values))
    return model


@pytest.mark.parametrize(
    ("rule", "of_three", "of_four"),
    [("average", [4.0, 0.0], [3.5, 0.5]), ("median", [2.0, -1.0], [2.0, 0.5]), ("minmax", [5.0, 0.5], [5.0, 0.5])],
)
def test_rules_by_hand(rule: Any, of_three: list[float], of_four: list[float]) -> None:
    copies = [(1.0, -3.0), (9.0, -1.0), (2.0, 4.0), (2.0, 2.0)]
    for count, expected in ((3, of_three), (4, of_four)):
        model: Any = combined([holding(*values) for values in copies[:count]], rule)
        assert model.weight.tolist() == pytest.approx(expected)
        assert model.running_mean.tolist() == pytest.approx(expected), "batch statistics too"


def test_other_networks_are_not_combined() -> None:
    with pytest.raises(ValueError, match="one architecture"):
        combined([nn.Linear(2, 2), nn.BatchNorm1d(2)], "average")


class Lends(FakeContext):
    """Embeds by adding 1 to the only weight; the key is the name of the stream."""

    def __init__(self) -> None:
        super().__init__()
        self.recipes: list[Recipe] = []

    def embed(self, model: Any, recipe: Recipe, name: str = "embedding", **params: Any) -> Any:
        self.recipes.append(recipe)
        with torch.no_grad():
            model.weight.add_(1.0)
        return model, name


def ended_with(name: str, lent: Lends, **params: Any) -> list[tuple[float, Any]]:
    """The weight and the rival's key at each rung; the victim's weight is 0."""
    victim = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(victim.weight)
    attack = make(attacks()[name], params)
    made: Any = attack.apply(victim_of(attack, victim), lent)
    return [(float(attempt.model.weight.detach()), attempt.rival) for attempt in made]


def test_each_overwriting_embeds_over_the_last() -> None:
    assert ended_with("overwriting", Lends(), ladder=[1, 3]) == [(1.0, "key 0"), (3.0, "key 2")]


def test_ambiguity_embeds_gently_into_the_victim_itself() -> None:
    lent = Lends()
    found = ended_with("ambiguity", lent, ladder=[2, 5], lr=0.5)
    assert found == [(1.0, "embedding")] * 2
    assert lent.recipes == [replace(lent.recipe, epochs=epochs, lr=0.05) for epochs in (2, 5)]


def test_a_rival_stays_in_a_chain() -> None:
    start = State(None, None, nn.Identity)
    rival: Any = object()
    reached = start.after(Attempt(1.0, rival=rival), pytest.fail).after(Attempt(1.0), pytest.fail)
    assert reached.rival is rival


def test_an_innocent_network_is_trained_as_the_host_was_and_once_a_name(marked: SchemeWorkspace) -> None:
    lent = context(marked, "overwriting")
    one, other = lent.innocent(), lent.innocent("own")
    assert lent.innocent() is one
    recipe = recipe_of(marked.inputs["host"].meta["identity"]["spec"])
    assert recipe.epochs != lent.recipe.epochs, "the embedding is shorter"
    expected = lent.train(lent.data, recipe, model=lent.fresh("innocent"), name="innocent")
    layer = f"{marked.keys()[0].layer}.weight"
    assert torch.equal(one.get_parameter(layer), expected.get_parameter(layer))
    assert not torch.equal(one.get_parameter(layer), other.get_parameter(layer))
