"""Who is asked what: forgers' keys, owners' shares, the clean host, null claims. Each was once broken unnoticed."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench.api import Attempt, ContractError, ImageSet, Key, Suspect
from bench.registry import make, schemes
from bench.runner.store import Store
from bench.steps import training
from bench.steps.embed import embed
from bench.steps.judge import Judge, State, examine
from bench.steps.nulls import attacked_false_claims, false_claims
from bench.steps.ownership import Published, fresh_keys, owner_shares, published_images
from bench.steps.scheme_workspace import SchemeWorkspace, host_for
from schemes._firmness import firmness
from schemes._signatures import AntiNeuron, AnwKey
from schemes.anw import AnwHue
from tests.conftest import PLUGINS
from tests.fakes import on_digits, opened


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(Path(tmp_path_factory.mktemp("judging")))


@pytest.fixture(scope="module")
def marking(store: Store) -> SchemeWorkspace:
    """The marking step of a scheme in the weights."""
    overrides = {"uchida-random": dict(schemes()["uchida-random"].card.tiny)}
    return opened(on_digits(overrides=overrides).steps["mark"], store)


# ---- the judge -------------------------------------------------------------------------------------------------------
@pytest.fixture
def stamped(marking: SchemeWorkspace, monkeypatch: pytest.MonkeyPatch) -> tuple[Judge, State, Key]:
    """A judge of images that bear the owner's colour, and somebody else's colour."""
    monkeypatch.setenv("BENCH_PLUGINS", str(PLUGINS))
    scheme = make(schemes()["test-stamp"], {})
    red, green = (scheme.key_type(torch.tensor(colour)) for colour in ([255, 0, 0], [0, 255, 0]))
    images = scheme.mark_data(marking.data.owner, red)
    judge = Judge(marking, scheme, [red], Published(images, marking.data.owner.images))
    return judge, State(images, marking.recipe, lambda: marking.model("host")), green


def test_a_chain_keeps_costs_recipe_and_the_second_owner(marking: SchemeWorkspace) -> None:
    start = State(marking.data.owner, marking.recipe, lambda: marking.model("host"))
    (rival,) = marking.keys()
    recipe = replace(marking.recipe, label_smoothing=0.25)
    first = start.after(Attempt(1.0, rival=rival, measures={"a": 1.0}, recipe=recipe), lambda *_: start.model())
    second = first.after(Attempt(1.0, measures={"b": 2.0}), pytest.fail)
    assert second.measures == {"a": 1.0, "b": 2.0}
    assert second.rival is rival
    assert second.recipe is recipe


def test_a_rung_tells_accuracy_the_time_of_the_verdict_and_details_where_they_are_asked_for(
    marking: SchemeWorkspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []
    examined = Judge._examined

    def watched(self: Judge, state: State, keys: Any, *, details: bool) -> Any:
        asked.append(details)
        return examined(self, state, keys, details=details)

    monkeypatch.setattr(Judge, "_examined", watched)
    published = Published(marking.data.owner, marking.data.owner.images)
    judge = Judge(marking, marking.scheme, marking.keys(), published)
    state = State(marking.data.owner, marking.recipe, lambda: marking.model("host"))
    start = time.perf_counter()
    points = [judge(state, 1.0, details=details) for details in (True, False)]
    spent = time.perf_counter() - start
    judge.p_values(state, marking.keys())
    assert asked == [True, False, False]
    accuracy = training.accuracy(marking.model("host"), marking.data.heldout)
    for point in points:
        assert point.test_accuracy == accuracy
        assert 0 < (point.verify_time_s or 0) < spent


def test_a_forged_claim_is_judged_by_the_forgers_key(stamped: tuple[Judge, State, Key]) -> None:
    judge, state, green = stamped
    assert [verdict.p_value for verdict in judge.verdicts(state, details=False)] == [1e-6]
    forged = state.after(Attempt(1.0, key=green), pytest.fail)
    assert [verdict.p_value for verdict in judge.verdicts(forged, details=False)] == [1.0]
    assert judge.p_values(forged, judge.keys) == [1.0]
    assert judge.p_values(state, [green, *judge.keys]) == [1.0, 1e-6]
    assert [verdict.p_value for verdict in judge(forged, 1.0, details=False).verdicts] == [1.0]
    assert forged.after(Attempt(1.0, measures={"cost": 2.0}), pytest.fail).key is green, "it stays in a chain"


def test_a_forgers_key_that_fits_is_accepted(stamped: tuple[Judge, State, Key]) -> None:
    judge, state, green = stamped
    images = judge.scheme.mark_data(state.images, green)
    both = state.after(Attempt(1.0, images=images), lambda *_: nn.Identity()).after(
        Attempt(1.0, key=green), pytest.fail
    )
    assert [verdict.p_value for verdict in judge.verdicts(both, details=False)] == [1e-6]


def test_attacked_images_and_recipes_are_what_the_learner_learns(marking: SchemeWorkspace) -> None:
    learned: list[tuple[Any, Any]] = []

    def learn(images: ImageSet, recipe: Any) -> nn.Module:
        learned.append((images, recipe))
        return nn.Identity()

    published, recipe = marking.data.owner, marking.recipe
    state = State(published, recipe, pytest.fail)
    attacked, softer = published[:7], replace(recipe, label_smoothing=0.3)
    for attempt, expected in (
        (Attempt(1.0, images=attacked), (attacked, recipe)),
        (Attempt(1.0, recipe=softer), (published, softer)),
    ):
        reached = state.after(attempt, learn)
        assert not learned, "not before the network is asked for"
        assert reached.model() is reached.model()
        (found,) = learned
        assert (found[0] is expected[0], found[1]) == (True, expected[1])
        learned.clear()


def test_what_is_no_verdict_is_refused(marking: SchemeWorkspace, monkeypatch: pytest.MonkeyPatch) -> None:
    scheme = marking.scheme
    monkeypatch.setattr(type(scheme), "verify", lambda self, suspect, key: 0.01)
    with pytest.raises(ContractError, match=r"Expected verify to return a Verdict, but got 0\.01"):
        examine(scheme, marking.keys(), model=marking.model("host"))


# ---- owners and clean hosts ------------------------------------------------------------------------------------------
def test_owners_divide_the_training_set(store: Store) -> None:
    workspace = opened(
        on_digits(schemes=("anw-hue",), owners=3, overrides={"anw-hue": {"share": 40}}).steps["keys"], store
    )
    shares = owner_shares(workspace, workspace.scheme)
    rows = [{row.numpy().tobytes() for row in share.images} for share in shares]
    assert [len(share) for share in shares] == [40, 40, 40]
    assert len(set.union(*rows)) == 120
    keys = [
        workspace.scheme.keygen(host_for(workspace, share), workspace.rng("key", i)) for i, share in enumerate(shares)
    ]
    published = published_images(workspace, workspace.scheme, keys)
    assert len(published.images) == len(workspace.data.owner)
    changed = (published.images.images != published.originals).flatten(1).any(1)
    assert torch.equal(changed.nonzero().flatten(), torch.arange(300 - 120, 300)), "the shares come last"


def test_the_clean_hosts_verdicts_are_those_on_the_clean_host(marking: SchemeWorkspace) -> None:
    output = embed(marking)
    host = examine(marking.scheme, marking.keys(), model=marking.model("host"))
    assert output.result["clean_verdicts"] == [verdict.model_dump(mode="json") for verdict in host]
    model = marking.fresh()
    model.load_state_dict(output.tensors["model"])
    marked = examine(marking.scheme, marking.keys(), model=model.eval())
    assert output.result["point"]["verdicts"] == [verdict.model_dump(mode="json") for verdict in marked]
    assert marked[0].statistic > host[0].statistic
    assert output.result["point"]["unseen_accuracy"] == pytest.approx(training.accuracy(model, marking.data.unseen))


def test_null_claims_after_an_attack_meet_the_attacked_clean_host(store: Store) -> None:
    overrides = {"uchida-random": {"bits": 64}, "pruning": {"ladder": [30.0, 60.0]}}
    workspace = opened(on_digits(overrides=overrides).steps["attacked_nulls"], store)
    found = attacked_false_claims(workspace).result["p_values"]
    keys = list(fresh_keys(workspace, workspace.scheme, workspace.spec["keys"]))
    strength, p_values = found[-1]
    host = workspace.model("host")
    for weight in (parameter.data for parameter in host.parameters() if parameter.ndim > 1):
        kept = torch.ones(weight.numel())
        kept[weight.abs().flatten().argsort(stable=True)[: round(strength / 100 * weight.numel())]] = 0
        weight.mul_(kept.view(weight.shape))
    expected = [verdict.p_value for verdict in examine(workspace.scheme, keys, model=host)]
    untrained = [verdict.p_value for verdict in examine(workspace.scheme, keys, model=workspace.fresh())]
    assert p_values == pytest.approx(expected)
    assert p_values != pytest.approx(untrained)


def test_null_claims_are_asked_of_the_clean_host(store: Store) -> None:
    overrides = {"uchida-random": {"bits": 64}}
    workspace = opened(on_digits(overrides=overrides).steps["nulls"], store)
    keys = list(fresh_keys(workspace, workspace.scheme, workspace.spec["keys"]))
    expected = [verdict.p_value for verdict in examine(workspace.scheme, keys, model=workspace.model("host"))]
    assert false_claims(workspace).result["p_values"] == expected


# ---- schemes ---------------------------------------------------------------------------------------------------------
class Hits(nn.Module):
    """Calls this share of the images class 1, and all others class 0."""

    def __init__(self, hits: float) -> None:
        super().__init__()
        self.hits = hits

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.one_hot((torch.arange(len(x)) < round(self.hits * len(x))).long(), 3).float()


@pytest.mark.parametrize(("hits", "asked", "wanted"), [(0.0, 1, 0.0), (0.4, 1, 0.04), (0.5, 10, 0.5), (1.0, 10, 1.0)])
def test_fading_triggers_are_asked_until_fewer_than_half_of_them_hit(hits: float, asked: int, wanted: float) -> None:
    triggers = torch.full((1, 10, 3, 4, 4), 255, dtype=torch.uint8)
    sources = torch.full_like(triggers, 100)
    suspect = Suspect("labels", model=Hits(hits))
    clean = torch.full((1, 10), 2)
    (found,) = firmness(suspect, triggers, sources, clean, torch.tensor([1]))
    assert suspect.queries == 10 * asked
    assert found == pytest.approx(wanted)


def test_a_signature_that_is_worse_than_none_is_no_evidence_however_bad_the_unseen_images_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The user's own signature comes second to none by a little; on unseen images it does by far."""
    images, pool = (torch.zeros(count, 3, 4, 4, dtype=torch.uint8) for count in (10, 40))
    key = AnwKey(images, torch.zeros(10).long(), pool, torch.zeros(40).long(), torch.ones(40).bool(), 60.0, 1)
    scheme = AnwHue(share=10, decoys=99, starts=0)
    column = scheme.candidates.index(60.0)

    def losses(self: Any, suspect: Suspect, shown: Tensor, labels: Tensor, key: Key) -> tuple[Tensor, Tensor]:
        found = torch.full((len(scheme.candidates), len(shown)), 2.0)
        found[column] = 1.1 if len(shown) == 10 else 5.0
        found[0] = 1.0
        return found, found < 2

    monkeypatch.setattr(AntiNeuron, "grid_search", losses)
    verdict = scheme.verify(Suspect("scores", model=nn.Identity()), key)
    assert verdict.statistic < 0
    assert verdict.p_value == 1.0


def test_the_quality_of_attacked_images_is_told_where_an_attack_changed_them(marking: SchemeWorkspace) -> None:
    originals = torch.full((4, 3, 8, 8), 100, dtype=torch.uint8)
    marked, attacked = originals + 20, originals + 10
    judge = Judge(marking, marking.scheme, [], Published(ImageSet(marked, torch.zeros(4).long()), originals))

    def told(images: Tensor) -> dict[str, float]:
        return judge._image_quality(ImageSet(images, torch.zeros(len(images)).long()))

    found = told(attacked)
    assert found["psnr_db"] == pytest.approx(20 * math.log10(255 / 10), abs=1e-3)
    assert found["residual_energy"] == pytest.approx(0.25), "half of the mark's amplitude is left"
    assert told(marked) == told(marked.clone()) == {}, "nothing was changed"
    assert told(attacked[:2]) == told(attacked[:, :, :4]) == {}, "there is nothing to compare with"
    judge.published = Published(ImageSet(originals, torch.zeros(4).long()), originals)
    assert "residual_energy" not in told(attacked), "there was no mark"
    judge.published = Published(ImageSet(marked, torch.zeros(4).long()), originals[:2])
    assert told(attacked) == {}, "triggers were added, which have no original"
