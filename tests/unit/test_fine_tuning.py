"""Fine-tuning: which layers move, by which labels and recipes, and what each rung of one training is."""

import pytest
import torch
from torch import nn

from attacks._tuning import reset_head, visited
from bench.api import AccessError, Adversary, ImageSet, Recipe, Rng, predict, replace
from bench.plan.matrix import expand
from bench.registry import attacks
from tests.fakes import CHECKSUMS, request, victim_of
from tests.fakes.trainers import TrainingContext, small_network, snapshot, tinted

NAMES = ("ftal", "ftll", "rtal", "rtll", "fine-tuning-full", "adversarial-fine-tuning", "regularisation")
FTAL, FTLL, RTAL, RTLL, Full, Adversarial, Regularisation = (attacks()[name] for name in NAMES)
CrossDomain = attacks()["cross-domain"]
HEAD = {"net.head.weight", "net.head.bias"}
FAST = {"lr": 0.05, "batch_size": 16}


class Unlabelled(TrainingContext):
    """Images without labels, as the harness lends them."""

    @property
    def data(self):
        images = super().data
        return ImageSet(images.images, torch.full_like(images.labels, -1))


def context_of(attack, **options):
    labelled = "own" in attack.card.adversary.images
    return (TrainingContext if labelled else Unlabelled)(**options)


def attacked(attack, context=None, model=None):
    """The state of the network at each rung, and the context."""
    context = context or context_of(attack)
    attempts = attack.apply(victim_of(attack, model or small_network()), context)
    return [snapshot(attempt.model) for attempt in attempts], context


def changed(before, after):
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_all_layers_are_trained_and_their_statistics_move():
    (state,), _ = attacked(FTAL(ladder=[1], **FAST))
    assert changed(snapshot(small_network()), state) == set(state)


@pytest.mark.parametrize("attack", [FTLL, RTLL])
def test_the_last_layer_alone_is_trained_at_every_rung_and_statistics_stand_still(attack):
    states, _ = attacked(attack(ladder=[1, 2, 3], **FAST))
    for state in states:
        assert changed(snapshot(small_network()), state) == HEAD
    assert changed(states[0], states[1]) == HEAD
    assert changed(states[1], states[2]) == HEAD


@pytest.mark.parametrize("attack", [FTLL, RTLL])
def test_what_is_yielded_can_be_trained_in_full_by_the_next_attack(attack):
    made = attack(ladder=[1, 2], **FAST)
    for attempt in made.apply(victim_of(made, small_network()), context_of(made)):
        assert all(parameter.requires_grad for parameter in attempt.model.parameters())


def test_a_frozen_victim_is_trained_in_full():
    frozen = small_network().requires_grad_(False)
    (state,), _ = attacked(FTAL(ladder=[1], **FAST), model=frozen)
    assert changed(snapshot(small_network()), state) == set(state)


@pytest.mark.parametrize("attack", [FTAL, FTLL, RTAL, RTLL])
def test_a_rung_is_a_training_of_so_many_epochs(attack):
    """A ladder of one rung ends where the long ladder passes."""
    long, _ = attacked(attack(ladder=[1, 2, 4], **FAST))
    (short,), context = attacked(attack(ladder=[2], **FAST))
    assert changed(long[1], short) == set()
    assert context.epochs_run == 2


@pytest.mark.parametrize("attack", [FTAL, FTLL, RTAL, RTLL])
def test_the_recipe_is_constant_descent_at_the_attackers_rate(attack):
    recipe = Recipe(30, 0.5, 128, optimizer="adam", schedule="onecycle", weight_decay=0.123, warmup=2.0)
    made = attack(ladder=[1, 3], lr=0.02, batch_size=16)
    _, context = attacked(made, context_of(made, recipe=recipe))
    (training,) = context.trainings
    constant = Recipe(3, 0.02, 16, schedule="constant", weight_decay=0.123)
    assert training["recipe"] == replace(constant, augment=recipe.augment)


@pytest.mark.parametrize("attack", [RTAL, RTLL])
def test_retraining_begins_with_a_new_last_layer_and_learns_the_victims_labels(attack):
    _, context = attacked(attack(ladder=[1]))
    (training,) = context.trainings
    assert changed(snapshot(small_network()), training["start"]) == HEAD
    assert training["start"]["net.head.weight"].shape == (3, 10)
    assert training["start"]["net.head.weight"].abs().max() <= 10**-0.5
    said = predict(small_network(), tinted().images).argmax(1)
    assert torch.equal(training["images"].labels, said)
    assert not torch.equal(said, tinted().labels), "this victim must be wrong for the test to tell"


@pytest.mark.parametrize("attack", [FTAL, FTLL])
def test_fine_tuning_learns_the_true_labels_from_the_victims_weights(attack):
    _, context = attacked(attack(ladder=[1]))
    (training,) = context.trainings
    assert changed(snapshot(small_network()), training["start"]) == set()
    assert torch.equal(training["images"].labels, tinted().labels)


def test_fine_tuning_learns_the_task():
    states, context = attacked(FTAL(ladder=[10], **FAST))
    model = small_network()
    before = (predict(model, context.own.images).argmax(1) == context.own.labels).float().mean()
    model.load_state_dict(states[-1])
    after = (predict(model, context.own.images).argmax(1) == context.own.labels).float().mean()
    assert before < 0.6 < 0.9 < after


def test_another_seed_gives_another_last_layer_and_another_order():
    one, other = (attacked(RTAL(ladder=[1], **FAST), Unlabelled(seed))[0][0] for seed in (0, 1))
    again = attacked(RTAL(ladder=[1], **FAST), Unlabelled(0))[0][0]
    assert changed(one, again) == set()
    assert "net.head.weight" in changed(one, other)


def test_the_victim_is_left_alone():
    for name in (*NAMES, "cross-domain"):
        model = small_network()
        attacked(attacks()[name](**attacks()[name].card.tiny), model=model)
        assert changed(snapshot(small_network()), snapshot(model)) == set(), name


# --- a whole second training ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("epochs", "visits"), [(8, [2, 4, 6, 8]), (2, [1, 1, 2, 2]), (5, [2, 3, 4, 5])])
def test_a_full_training_is_the_ordinary_recipe_visited_on_the_way(epochs, visits):
    recipe = Recipe(epochs, 0.05, 16)
    attack, context, seen = Full(), TrainingContext(recipe=recipe), []
    for _ in attack.apply(victim_of(attack, small_network()), context):
        seen.append(context.epochs_run)
    assert seen == visits
    (training,) = context.trainings
    assert training["recipe"] is recipe


def test_a_shorter_ladder_passes_the_same_networks_and_ends_earlier():
    """The schedule is that of the whole recipe, whatever the last rung."""
    long, _ = attacked(Full(ladder=[50.0, 100.0]))
    (half,), context = attacked(Full(ladder=[50.0]))
    assert changed(long[0], half) == set()
    assert context.epochs_run == 2


def test_rungs_are_visited_without_training_ahead():
    networks = iter(range(1, 10))
    assert list(visited(networks, [(0.5, 2), (1.0, 2), (2.0, 5)])) == [(0.5, 2), (1.0, 2), (2.0, 5)]
    assert next(networks) == 6


# --- adversarial, regularisation -----------------------------------------------------------------------------------


def test_adversarial_images_keep_to_each_rungs_eps():
    _, context = attacked(Adversarial(ladder=[0.02, 0.2], step=0.05, iterations=3, epochs=1, **FAST))
    images, labels = tinted().images.float() / 255, tinted().labels
    for eps, training in zip((0.02, 0.2), context.trainings, strict=True):
        assert changed(snapshot(small_network()), training["start"]) == set()
        moved = training["recipe"].perturb(small_network(), images, labels) - images
        assert moved.abs().max() == pytest.approx(eps, abs=1e-6)
    assert context.trainings[0]["recipe"].epochs == 1


def test_adversarial_fine_tuning_hardens_the_network():
    """Under the same perturbation the loss is lower than after fine-tuning on clean images alone."""
    from attacks._perturbation import Perturbation

    steps = {"epochs": 12, "lr": 0.05, "batch_size": 16}
    context = Unlabelled()
    said = predict(small_network(), context.own.images).argmax(1)
    (hard,), _ = attacked(Adversarial(ladder=[0.1], step=0.05, iterations=3, **steps), context)
    plain = TrainingContext(own=ImageSet(context.own.images, said))
    (soft,), _ = attacked(FTAL(ladder=[12], **FAST), plain)
    losses = []
    for state in (hard, soft):
        model = small_network()
        model.load_state_dict(state)
        images = Perturbation(0.1, 0.05, 3)(model.eval(), context.own.images.float() / 255, said)
        losses.append(nn.functional.cross_entropy(predict(model, images), said).item())
    assert losses[0] < losses[1]


def test_regularisation_is_a_burst_of_decay_and_then_the_ordinary_one():
    _, context = attacked(Regularisation(ladder=[0.1, 1.0], decayed=2, epochs=3, **FAST))
    told = [(t["name"], t["recipe"].epochs, t["recipe"].weight_decay) for t in context.trainings]
    assert told == [("decay", 2, 0.1), ("tuning", 3, 5e-4), ("decay", 2, 1.0), ("tuning", 3, 5e-4)]
    first, tuned_1, second, tuned_2 = (t["start"] for t in context.trainings)
    assert changed(first, second) == set()
    assert changed(first, snapshot(small_network())) == set()
    norms = [state["net.conv2.weight"].norm().item() for state in (first, tuned_1, tuned_2)]
    assert norms[0] > 1.02 * norms[1] > 1.1 * norms[2]


# --- another task --------------------------------------------------------------------------------------------------


def test_cross_domain_learns_the_new_task_with_a_new_last_layer():
    attack, context = CrossDomain(ladder=[50.0, 100.0]), TrainingContext(recipe=Recipe(10, 0.1, 16))
    attempts = []
    for attempt in attack.apply(victim_of(attack, small_network()), context):
        attempts.append((snapshot(attempt.model), attempt.measures["new_task_accuracy"]))
    (training,) = context.trainings
    assert changed(snapshot(small_network()), training["start"]) >= HEAD
    assert training["start"]["net.head.weight"].shape == (5, 10)
    body = {n: t for n, t in training["start"].items() if n not in HEAD}
    assert changed({n: t for n, t in snapshot(small_network()).items() if n not in HEAD}, body) == set()
    assert len(training["images"]) == 48, "four fifths are trained on"
    kept = [i for i in range(60) if not (context.other.images[i] == training["images"].images).all((1, 2, 3)).any()]
    assert len(kept) == 12
    model = small_network()
    reset_head(model, Rng("any").torch(), 5)
    model.load_state_dict(attempts[-1][0])
    right = predict(model, context.other.images[kept]).argmax(1) == context.other.labels[kept]
    assert attempts[-1][1] == pytest.approx(right.float().mean().item())


def test_cross_domain_is_about_marks_in_weights_alone():
    planned = expand(request(schemes=("uchida-random", "zhang-content"), attacks=("cross-domain",)), CHECKSUMS)
    reasons = {p.cell.scheme: p.reason for p in planned}
    assert "needs a mark carried by weights" in reasons["zhang-content"]


def test_a_new_last_layer_is_uniform_and_replaces_linear_layers_only():
    model = nn.Module()
    model.net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Linear(400, 50))
    new = reset_head(model, Rng("head").torch())
    assert model.net[1] is new
    assert new.weight.shape == (50, 400)
    assert new.weight.abs().max() <= 0.05
    assert new.weight.std().item() == pytest.approx(0.05 / 3**0.5, rel=0.02)
    assert all(parameter.requires_grad for parameter in new.parameters())
    with pytest.raises(ValueError, match="Expected a network with a linear layer, but it has none"):
        reset_head(model.net[0], Rng("head").torch())


def test_who_has_what():
    own, unlabelled = (Adversary("white-box", images=(kind,)) for kind in ("own", "own unlabelled"))
    found = {name: attacks()[name].card.adversary for name in NAMES}
    assert found == {
        "ftal": own, "ftll": own, "fine-tuning-full": own,
        "rtal": unlabelled, "rtll": unlabelled, "adversarial-fine-tuning": unlabelled, "regularisation": unlabelled,
    }  # fmt: skip
    assert {attacks()[name].card.stage for name in NAMES} == {"model"}
    assert RTLL().ladder == (2, 4, 6, 8, 10)
    assert FTAL().ladder == (1, 2, 3, 4, 5)
    assert FTAL().params.lr == 0.001


def test_all_images_of_the_adversary_come_from_the_context():
    made = FTAL(ladder=[1])
    blind = replace(made.card, adversary=Adversary("scores", images=("own",)))
    victim = victim_of(made, small_network())
    victim.adversary = blind.adversary
    with pytest.raises(AccessError, match="Expected a white-box adversary"):
        list(made.apply(victim, TrainingContext()))
