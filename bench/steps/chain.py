"""Walks a chain of attacks: what one ends with is the victim of the next; the last one's ladder is judged."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from typing import Any

from torch import Tensor, nn

from bench import archs
from bench.contract.attack import Answer, Attack, Attempt, Context, Victim
from bench.contract.images import ImageSet
from bench.contract.keys import Key
from bench.contract.networks import Recipe, clock_s, predict
from bench.contract.scheme import Scheme
from bench.contract.suspect import AccessError
from bench.contract.verdict import Point
from bench.identity import Rng
from bench.steps import training
from bench.steps.embedding import embedded
from bench.steps.judge import State
from bench.steps.ownership import Published, owner_shares, published_images
from bench.steps.scheme_workspace import HostView, SchemeWorkspace, host_for
from bench.steps.workspace import recipe_of

__all__ = ["AttackContext", "unattacked", "walk"]


def unattacked(workspace: SchemeWorkspace, published: Published, network: Callable[[], nn.Module]) -> State:
    """The state before any attack: the network, and the training set as it was published."""
    return State(published.images, workspace.recipe, network)


def walk(
    workspace: SchemeWorkspace,
    start: State,
    keys: Sequence[Key],
    judge: Callable[[State, float, float], Point],
) -> list[Point]:
    """Apply all attacks but the last at their one strength, then have every rung of the last judged.

    Args:
        workspace: of the step; its attacks are the chain.
        start: the victim.
        keys: the owners'; an adversary may be told public fields of the first.
        judge: of a state, at a strength, that cost so many seconds of training.
    """
    state, spent_s = start, 0.0
    *before, last = workspace.attacks
    for attack in before:
        (state, spent_s) = _single(workspace, attack, state, keys, spent_s)
    learner = _Learner(workspace, last)

    def judged(attempt: Attempt) -> Point:
        reached = state.after(attempt, learner)
        started_s = clock_s(workspace.device)
        if attempt.recipe is not None:
            reached.model()
        return judge(reached, attempt.strength, clock_s(workspace.device) - started_s)

    points = last.run(_victim(workspace, last, state, keys), AttackContext(workspace, last, state), judged)
    return [p.model_copy(update={"attack_time_s": p.attack_time_s + spent_s}) for p in points]


def _single(
    workspace: SchemeWorkspace, attack: Attack, state: State, keys: Sequence[Key], spent_s: float
) -> tuple[State, float]:
    """The state after an attack of one rung, and the seconds spent so far."""
    reached: list[State] = []

    def keep(attempt: Attempt) -> Point:
        # What goes on after this rung must not change under the next attack's hands.
        reached.append(state.after(attempt, _Learner(workspace, attack)))
        return Point(strength=attempt.strength)

    points = attack.run(_victim(workspace, attack, state, keys), AttackContext(workspace, attack, state), keep)
    return reached[-1], spent_s + points[-1].attack_time_s


class _Learner:
    """The learner of this cell: trains on what it finds, on the streams of the attack that it follows."""

    def __init__(self, workspace: SchemeWorkspace, attack: Attack) -> None:
        self.workspace, self.name = workspace, attack.card.name

    def __call__(self, images: ImageSet, recipe: Recipe) -> nn.Module:
        workspace = self.workspace
        rng = workspace.rng("attack", self.name).child("learner")
        return workspace.train(workspace.start(), images.to(workspace.device), recipe, rng).model


def _victim(workspace: SchemeWorkspace, attack: Attack, state: State, keys: Sequence[Key]) -> Victim:
    def copy() -> nn.Module:
        return deepcopy(state.model()).eval()

    return Victim(attack.card.adversary, copy, keys[0], state.images, _answer(workspace.scheme, state, keys))


def _answer(scheme: Scheme[Any], state: State, keys: Sequence[Key]) -> Answer:
    """The victim's probabilities, as its owner serves them."""

    def answer(images: Tensor) -> Tensor:
        probabilities = predict(state.suspect(), images).softmax(1)
        for key in keys:
            probabilities = scheme.serve(probabilities, images, key)
        return probabilities

    return answer


class AttackContext(Context):
    """What an attack is lent; see `Context`."""

    def __init__(self, workspace: SchemeWorkspace, attack: Attack, state: State) -> None:
        self.rng = workspace.rng("attack", attack.card.name)
        self.recipe = state.recipe
        self.arch = archs.arch(workspace.spec["arch"])
        self.device = workspace.device
        self._workspace, self._attack, self._adversary = workspace, attack, attack.card.adversary
        self._copies: list[nn.Module] = []
        self._innocents: dict[str, nn.Module] = {}

    @property
    def data(self) -> ImageSet:
        """The adversary's own images; see `Context.data`."""
        images = self._workspace.data.adversary
        if "own" in self._adversary.images:
            return images
        if "own unlabelled" in self._adversary.images:
            return ImageSet(images.images, images.labels.new_full(images.labels.shape, -1))
        raise AccessError(
            "Expected an adversary with images of its own, but its card declares "
            f"{' and '.join(self._adversary.images) or 'none'}: add 'own' or 'own unlabelled'."
        )

    def auxiliary(self, name: str) -> ImageSet:
        """Another data set; see `Context.auxiliary`."""
        known = self._workspace.spec.get("auxiliary", {})
        if "out of domain" not in self._adversary.images or name not in known:
            raise AccessError(
                f"Expected an adversary with out-of-domain images of {name}, but its card grants "
                f"{', '.join(known) or 'no other data set'}: declare 'out of domain' and the parameter `auxiliary`."
            )
        images = self._workspace.load(name, known[name]).owner
        size = self._workspace.data.owner.images.shape[2:]
        if images.images.shape[2:] == size:
            return images
        resized = nn.functional.interpolate(images.images.float(), size=size, mode="bilinear", antialias=True)
        return images.with_images(resized.round().clamp(0, 255).to(images.images.dtype))

    def fresh(self, name: str = "surrogate", arch: str | None = None) -> nn.Module:
        """An untrained network; see `Context.fresh`."""
        return self._workspace.build(self.rng.child("init", name), arch)

    def epochs(
        self, images: ImageSet, recipe: Recipe, *, model: nn.Module | None = None, name: str = "training"
    ) -> Iterator[nn.Module]:
        """One training, an epoch at a time; see `Context.epochs`."""
        model = self._workspace.start() if model is None else model.to(self.device)
        options = self._workspace.training_options
        for _ in training.train_epochs(model, images.to(self.device), recipe, rng=self.rng.child(name), **options):
            yield model

    def embed(self, model: nn.Module, recipe: Recipe, name: str = "embedding", **params: Any) -> tuple[nn.Module, Key]:
        """A fresh key of the same scheme in `model`; see `Context.embed`."""
        workspace, host, rng = self._as_owner(model, recipe, name, params)
        scheme = workspace.scheme
        key = scheme.keygen(host, rng.child("key")).to(self.device)

        def publish(keys: Sequence[Key]) -> ImageSet:
            return scheme.mark_data(host.images, keys[0]).to(self.device)

        trained = None if scheme.card.situations == ("post-hoc",) else recipe
        found = embedded(workspace, model, [key], [host], publish, trained, rng.child("training"))
        return found.model, found.keys[0]

    def keygen(self, model: nn.Module, name: str = "key", **params: Any) -> Key:
        """A fresh key of the same scheme; see `Context.keygen`."""
        workspace, host, rng = self._as_owner(model, self.recipe, name, params)
        key: Key = workspace.scheme.keygen(host, rng.child("key"))
        return key.to(self.device)

    def _as_owner(
        self, model: nn.Module, recipe: Recipe, name: str, params: Mapping[str, Any]
    ) -> tuple[SchemeWorkspace, HostView, Rng]:
        """What the adversary works with who marks `model` as an owner does, with parameters of his own."""
        workspace, own = self._workspace, self.data
        spec = {**workspace.spec, "scheme_params": {**workspace.spec["scheme_params"], **params}}
        workspace = SchemeWorkspace(spec, workspace.inputs, workspace.place, workspace.checksum)
        host = HostView(workspace, own, own, 0, lambda: deepcopy(model).eval(), recipe)
        return workspace, host, self.rng.child("embed", name)

    def copies(self, count: int) -> list[nn.Module]:
        """Other customers' copies; see `Context.copies`."""
        if not self._adversary.copies:
            raise AccessError(
                "Expected an adversary with other customers' copies, but its card declares none: set `copies=True`."
            )
        self._copies += [self._copy(number) for number in range(len(self._copies), count)]
        return [deepcopy(model).eval() for model in self._copies[:count]]

    def _copy(self, number: int) -> nn.Module:
        """What the owner sells to another customer: embedded as the victim is, with key and training of its own."""
        spec = {**self._workspace.spec, "owners": 1}
        workspace = SchemeWorkspace(spec, self._workspace.inputs, self._workspace.place, self._workspace.checksum)
        scheme, rng = workspace.scheme, self.rng.child("copy", number)
        (share,) = owner_shares(workspace, scheme)
        host = host_for(workspace, share)
        key = scheme.keygen(host, rng.child("key")).to(self.device)

        def publish(keys: Sequence[Key]) -> ImageSet:
            return published_images(workspace, scheme, keys).images

        recipe = None if spec["situation"] == "post-hoc" else workspace.recipe
        return embedded(workspace, workspace.start(), [key], [host], publish, recipe, rng.child("training")).model

    def innocent(self, name: str = "innocent") -> nn.Module:
        """A network that never saw the owner's key; see `Context.innocent`."""
        if name not in self._innocents:
            recipe = recipe_of(self._workspace.inputs["host"].meta["identity"]["spec"])
            self._innocents[name] = self.train(self.data, recipe, model=self.fresh(name), name=name)
        return self._innocents[name]

    def layer(self, group: str) -> str:
        """The path of a layer group; see `Context.layer`."""
        return archs.layer_path(self._workspace.spec["arch"], group)
