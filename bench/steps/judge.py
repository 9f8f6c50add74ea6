"""Judges attempts: test accuracy on the held-out images, and one verdict per owner. Attacks never see it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from bench.contract.attack import Attempt, Serving
from bench.contract.fields import ContractError
from bench.contract.images import ImageSet
from bench.contract.keys import Key
from bench.contract.networks import Recipe, clock_s
from bench.contract.scheme import Scheme
from bench.contract.suspect import Suspect
from bench.contract.verdict import Point, Verdict
from bench.data.image_quality import quality, residual_energy
from bench.steps import training
from bench.steps.ownership import Published
from bench.steps.remedy import restored
from bench.steps.scheme_workspace import SchemeWorkspace

__all__ = ["Judge", "Served", "State", "examine"]


class Served(nn.Module):
    """A network behind what is done to its questions and answers."""

    def __init__(self, model: nn.Module, serving: Serving) -> None:
        super().__init__()
        self.model, self.serving = model, serving

    def forward(self, x: Tensor) -> Tensor:
        """Scores, N x K, of N x C x H x W floats in [0, 1]."""
        return self.serving(self.model, x)


@dataclass
class State:
    """What the attacker has, in the middle of an attack or at its end; the victim's where nothing has changed.

    Attributes:
        images: the training set.
        recipe: of the learner.
        network: gives the network, trained by `recipe` on `images` where that is to be done; called once at most.
        servings: what stands around it, the innermost first.
        key: of a forger; None for the owners' own.
        rival: of a second owner, examined beside the first; None for none.
        measures: costs told so far.
    """

    images: ImageSet
    recipe: Recipe
    network: Callable[[], nn.Module]
    servings: tuple[Serving, ...] = ()
    key: Key | None = None
    rival: Key | None = None
    measures: dict[str, float] = field(default_factory=dict)
    _made: nn.Module | None = None

    def after(self, attempt: Attempt, learn: Callable[[ImageSet, Recipe], nn.Module]) -> State:
        """The state that an attempt makes of this one.

        Args:
            attempt: of the next attack.
            learn: trains the learner's network.
        """
        state = replace(self, measures={**self.measures, **attempt.measures}, key=attempt.key or self.key, _made=None)
        state.rival = attempt.rival or self.rival
        state.network = self.model
        if attempt.images is not None or attempt.recipe is not None:
            images, recipe = attempt.images or self.images, attempt.recipe or self.recipe
            state = replace(state, images=images, recipe=recipe, network=lambda: learn(images, recipe))
        if (model := attempt.model) is not None:
            state.network = lambda: model
        if attempt.serving is not None:
            state.servings = (*self.servings, attempt.serving)
        return state

    def model(self) -> nn.Module:
        """The network itself, in eval mode; the same object each time."""
        if self._made is None:
            self._made = self.network().eval()
        return self._made

    def suspect(self) -> nn.Module:
        """The network as it is served."""
        served = self.model()
        for serving in self.servings:
            served = Served(served, serving)
        return served.eval()


def examine(
    scheme: Scheme[Any],
    keys: Iterable[Key],
    *,
    model: nn.Module | None = None,
    images: ImageSet | None = None,
    details: bool = False,
) -> list[Verdict]:
    """One verdict per key on the same suspect, with the queries that each needed.

    Args:
        scheme: whose claims they are.
        keys: of the claimants.
        model: the suspect network; None where a data set alone is examined.
        images: the suspect data set.
        details: grant what the card asks for beyond its access, which a p-value never needs.

    Raises:
        ContractError: `verify` returns something else than a verdict.
    """
    card = scheme.card
    suspect = Suspect(card.access, model=model, images=images, also=card.also if details else None)
    found = []
    for key in keys:
        before = suspect.queries
        verdict = scheme.verify(suspect, key)
        if not isinstance(verdict, Verdict):
            raise ContractError(f"Expected verify to return a Verdict, but got {verdict!r}.")
        found.append(verdict.model_copy(update={"queries": suspect.queries - before}))
    return found


class Judge:
    """Judges what an attacker ends with against one scheme's marks on one published training set.

    Args:
        reference: the owner's marked network, to which suspects are aligned for a second verdict; None for none.
        all_unseen: measure accuracy on all unseen images besides; worth it where few networks are judged.
    """

    def __init__(
        self,
        workspace: SchemeWorkspace,
        scheme: Scheme[Any],
        keys: Sequence[Key],
        published: Published,
        reference: nn.Module | None = None,
        *,
        all_unseen: bool = False,
    ) -> None:
        self.workspace, self.scheme, self.keys, self.published = workspace, scheme, keys, published
        self.reference, self.all_unseen = reference, all_unseen

    def __call__(self, state: State, strength: float, *, details: bool) -> Point:
        """The rung that a state makes: utility, verdicts, and what the images and the verdicts cost."""
        model = state.suspect().to(self.workspace.device)
        start_s = clock_s(self.workspace.device)
        verdicts = self.verdicts(state, details=details)
        verify_time_s = clock_s(self.workspace.device) - start_s
        second, accuracies = self._rivals_claim(state), self._accuracies(model)
        return Point(
            strength=strength,
            test_accuracy=accuracies["test_accuracy"],
            unseen_accuracy=accuracies.get("unseen_accuracy"),
            verdicts=verdicts,
            measures={**self._image_quality(state.images), **state.measures, **second, **self._remedied(state)},
            verify_time_s=verify_time_s,
        )

    def _accuracies(self, model: nn.Module) -> dict[str, float | None]:
        if self.all_unseen:
            return self.workspace.accuracies(model)
        return {"test_accuracy": training.accuracy(model, self.workspace.data.heldout)}

    def verdicts(self, state: State, *, details: bool) -> list[Verdict]:
        """Of every owner, or of the forger whose key the state holds."""
        return self._examined(state, self.keys, details=details)

    def p_values(self, state: State, keys: Iterable[Key]) -> list[float]:
        """The p-value of each key, or of the one that the state holds."""
        return [verdict.p_value for verdict in self._examined(state, keys, details=False)]

    def _examined(self, state: State, keys: Iterable[Key], *, details: bool) -> list[Verdict]:
        device, access = self.workspace.device, self.scheme.card.access
        keys = keys if state.key is None else [state.key.to(device)]
        # Who reads the weights does so whatever stands around the network.
        read = {"data set": None, "white-box": state.model}.get(access, state.suspect)
        model = None if read is None else read().to(device)
        return examine(self.scheme, keys, model=model, images=state.images.to(device), details=details)

    def _remedied(self, state: State) -> dict[str, float]:
        """The first owner's verdict on the network aligned to the reference, where the key names a layer."""
        layer = getattr(self.keys[0], "layer", None)
        if self.reference is None or self.scheme.card.access != "white-box" or state.key or not isinstance(layer, str):
            return {}
        aligned = restored(state.model(), self.reference, layer).to(self.workspace.device)
        (verdict,) = examine(self.scheme, self.keys[:1], model=aligned)
        found = {"remedied_p_value": verdict.p_value}
        return found if verdict.ber is None else {**found, "remedied_ber": verdict.ber}

    def _rivals_claim(self, state: State) -> dict[str, float]:
        """What the second owner's key says of the same suspect."""
        if state.rival is None:
            return {}
        (verdict,) = self._examined(replace(state, key=state.rival), (), details=False)
        found = {"second_p_value": verdict.p_value, "second_ber": verdict.ber}
        return {name: value for name, value in found.items() if value is not None}

    def _image_quality(self, images: ImageSet) -> dict[str, float]:
        """How near attacked images come to the owner's before the mark, and how much of the mark is left in them."""
        published, originals = self.published.images.images, self.published.originals
        attacked = images.images.to(self.workspace.device)
        if attacked is published or attacked.shape != published.shape or published.shape != originals.shape:
            return {}
        if torch.equal(attacked, published):
            return {}
        found = quality(attacked, originals)
        if not torch.equal(published, originals):
            found["residual_energy"] = residual_energy(originals, published, attacked)
        return found
