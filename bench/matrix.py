"""What must be computed? Axes -> cells -> steps (a DAG shared as far as it can be) -> content keys."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from itertools import product
from typing import Any, NamedTuple

from bench import archs, sources
from bench.api import Attack, AttackCard, Recipe, Scheme, SchemeCard
from bench.identity import digest
from bench.profiles import Profile
from bench.records import Cell
from bench.registry import attacks as all_attacks
from bench.registry import make, params_of
from bench.registry import schemes as all_schemes

__all__ = ["Planned", "Request", "Step", "expand", "not_applicable", "steps_of"]


@dataclass(frozen=True, eq=False)
class Step:
    """One computation: a pure function of its spec, its inputs and the source that computes it.

    Attributes:
        kind: which function of `bench.steps` computes it.
        spec: JSON; everything that decides the outcome but code, data and inputs.
        inputs: steps whose results it reads.
        modules: the modules that compute it (with all they import).
        data: checksum of the data set.
        label: for people.
    """

    kind: str
    spec: Mapping[str, Any]
    inputs: Mapping[str, Step]
    modules: tuple[str, ...]
    data: str
    label: str

    @cached_property
    def sources(self) -> dict[str, str]:
        """Module -> hash of the source that computes this step."""
        return sources.closure(self.modules)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Everything that the key covers, as stored beside the result (`bench why` compares it)."""
        return {
            "kind": self.kind,
            "spec": dict(self.spec),
            "inputs": {name: step.key for name, step in self.inputs.items()},
            "sources": self.sources,
            "data": self.data,
        }

    @cached_property
    def key(self) -> str:
        """The content key."""
        return digest(self.identity)


@dataclass(frozen=True)
class Request:
    """What a person asked for: the axes of the matrix.

    Attributes:
        overrides: scheme or attack name -> parameter -> value, from `--set`.
        fpr: the false positive rate at which verdicts are given.
        null_keys: fresh keys that claim each clean host, before and after attacks; None for as many as the profile
            says, 0 for none.
    """

    schemes: tuple[str, ...]
    attacks: tuple[str, ...]
    archs: tuple[str, ...]
    datasets: tuple[str, ...]
    situations: tuple[str, ...]
    profile: Profile
    seeds: tuple[int, ...]
    owners: int = 1
    fpr: float = 0.01
    null_keys: int | None = None
    overrides: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Planned:
    """A cell and what it needs; `reason` says why a cell that has no meaning is not computed."""

    cell: Cell
    scheme: SchemeCard
    attack: AttackCard
    steps: Mapping[str, Step]
    fpr: float
    data: str
    reason: str | None = None

    @cached_property
    def key(self) -> str:
        """The cell's content key."""
        needed = {name: step.key for name, step in self.steps.items()}
        return digest({"cell": self.cell.model_dump(), "fpr": self.fpr, "steps": needed, "reason": self.reason})

    @cached_property
    def source_hash(self) -> str:
        """One hash of all source behind the cell."""
        return digest({name: step.sources for name, step in self.steps.items()})


def not_applicable(scheme: SchemeCard, attack: AttackCard) -> str | None:
    """Why a scheme and an attack make no cell together; None if they do."""
    on_data = scheme.access == "data set"
    if attack.stage in ("data", "training") and scheme.carrier not in ("data", "none"):
        who = "the published images" if attack.stage == "data" else "somebody else's training"
        return f"{attack.name} acts on {who}, but {scheme.name} is embedded by the model's owner while training."
    if attack.stage == "inference" and scheme.access == "white-box":
        return f"{attack.name} acts on queries, but {scheme.name} reads the weights and asks none."
    if attack.stage in ("model", "inference", "training") and on_data:
        return f"{attack.name} acts on a model, but {scheme.name} is verified on the data set."
    if attack.schemes and not any(fnmatchcase(scheme.name, pattern) for pattern in attack.schemes):
        return f"{attack.name} is made for {' and '.join(attack.schemes)}, not for {scheme.name}."
    if scheme.carrier not in attack.carriers:
        return f"{attack.name} needs a mark carried by {' or '.join(attack.carriers)}, not by {scheme.carrier}."
    return None


def expand(request: Request, checksums: Mapping[str, str]) -> list[Planned]:
    """All cells of the request, each with its steps; equal steps are one object.

    Args:
        request: the axes.
        checksums: data set -> checksum.

    Raises:
        RegistryError: an override is not a parameter, or is out of bounds.
    """
    builder = _Builder(request, checksums)
    axes = product(request.archs, request.datasets, request.seeds, request.schemes, request.attacks)
    planned = [
        builder.cell(scheme, attack, arch, dataset, situation, seed)
        for arch, dataset, seed, scheme, attack in axes
        for situation in _situations(all_schemes()[scheme].card, request.situations)
    ]
    return list({p.cell.identity: p for p in planned}.values())


def steps_of(planned: Iterable[Planned]) -> list[Step]:
    """Every step that the cells need, once, inputs before those that read them."""
    ordered: dict[str, Step] = {}

    def visit(step: Step) -> None:
        if step.key not in ordered:
            for needed in step.inputs.values():
                visit(needed)
            ordered[step.key] = step

    for cell in planned:
        for step in cell.steps.values():
            visit(step)
    return list(ordered.values())


def _situations(card: SchemeCard, asked: tuple[str, ...]) -> tuple[str, ...]:
    """A scheme that knows one situation has its one row whatever was asked for."""
    return card.situations if len(card.situations) == 1 else asked


def recipe_spec(recipe: Recipe) -> dict[str, Any]:
    """A recipe as JSON: what a profile may say of it (the hooks are for attacks)."""
    spec = asdict(recipe)
    for hook in ("transforms", "perturb", "privacy"):
        del spec[hook]
    return spec


class _Place(NamedTuple):
    """Where in the matrix a step stands: its cell, the networks' width, the modules of scheme and attack."""

    cell: Cell
    width: float
    scheme: str
    attack: str


class _Builder:
    """Builds steps and keeps each once."""

    def __init__(self, request: Request, checksums: Mapping[str, str]) -> None:
        self.request = request
        self.checksums = checksums
        self.steps: dict[str, Step] = {}

    def cell(self, scheme_name: str, attack_name: str, arch: str, dataset: str, situation: str, seed: int) -> Planned:
        scheme = self._scheme(scheme_name)
        attack = self._attack(attack_name)
        owners = 1 if scheme.card.stand_alone else self.request.owners
        cell = Cell(
            scheme=scheme_name, attack=attack_name, arch=arch, dataset=dataset, situation=situation,
            profile=self.request.profile.name, seed=seed, owners=owners,
            scheme_params=params_of(scheme), attack_params=params_of(attack),
        )  # fmt: skip
        reason = not_applicable(scheme.card, attack.card)
        if situation not in scheme.card.situations:
            reason = f"{scheme_name} cannot be embedded by {situation}, only by {', '.join(scheme.card.situations)}."
        steps = {} if reason else self._steps(cell, scheme, attack)
        return Planned(cell, scheme.card, attack.card, steps, self.request.fpr, self.checksums[dataset], reason)

    def _scheme(self, name: str) -> Scheme:
        overrides = {**self.request.profile.scheme_params(name), **self.request.overrides.get(name, {})}
        return make(all_schemes()[name], overrides)

    def _attack(self, name: str) -> Attack:
        return make(all_attacks()[name], self.request.overrides.get(name, {}))

    def _steps(self, cell: Cell, scheme: Scheme, attack: Attack) -> dict[str, Step]:
        profile = self.request.profile
        learner = scheme.card.carrier in ("data", "none")
        of_scheme = {"scheme": cell.scheme, "scheme_params": cell.scheme_params}
        of_attack = {"attack": cell.attack, "attack_params": cell.attack_params}
        at = _Place(cell, profile.width(cell.arch, learner=learner), type(scheme).__module__, type(attack).__module__)
        first = "learner" if learner else "host"
        host = self._step("host", at, {"recipe": recipe_spec(profile.recipe(first, cell.arch))}, {})
        keys = self._step("keys", at, {**of_scheme, "owners": cell.owners}, {"host": host}, at.scheme)
        phase = first if cell.situation == "train" else "embed"
        learning = {"situation": cell.situation, "recipe": recipe_spec(profile.recipe(phase, cell.arch))}
        marking = {"host": host, "keys": keys}
        embedding = {**of_scheme, **learning, "owners": cell.owners, "heldout_users": self._heldout_users(scheme, cell)}
        mark = self._step("mark", at, embedding, marking, at.scheme)
        both = {**of_scheme, **of_attack, **learning, "owners": cell.owners}
        attacked = self._step("attack", at, both, {**marking, "mark": mark}, at.scheme, at.attack)
        steps = {"host": host, "keys": keys, "mark": mark, "attack": attacked}
        fresh, attacked_fresh = self._null_keys(scheme)
        if fresh:
            steps["nulls"] = self._step("nulls", at, {**of_scheme, "keys": fresh}, {"host": host}, at.scheme)
        if attacked_fresh and attack.ladder:
            # Each rung of an attack on images or on the learner is a training of its own: one must do.
            rungs = 1 if attack.card.stage in ("data", "training") else profile.null_rungs
            few = {**cell.attack_params, "ladder": list(attack.examined(rungs))}
            params = few if "ladder" in cell.attack_params else cell.attack_params
            spec: dict[str, Any] = {**of_scheme, **learning, "attack": cell.attack, "attack_params": params}
            spec |= {"keys": attacked_fresh, "rungs": rungs}
            # Keys that took a training are not made twice: as many claim after the attack as before it.
            made = {"nulls": steps["nulls"]} if scheme.card.keygen_trains and fresh else {}
            steps["attacked_nulls"] = self._step(
                "attacked_nulls", at, spec, {"host": host, **made}, at.scheme, at.attack
            )
        return steps

    def _null_keys(self, scheme: Scheme) -> tuple[int, int]:
        profile, asked = self.request.profile, self.request.null_keys
        caps = [profile.trained_null_keys] if scheme.card.keygen_trains else []
        caps += [] if asked is None else [asked]
        return min([profile.null_keys, *caps]), min([profile.attacked_null_keys, *caps])

    def _heldout_users(self, scheme: Scheme, cell: Cell) -> int:
        """How many users whom the learner does not know are examined: where owners have images of their own."""
        if scheme.card.carrier not in ("data", "none") or scheme.owns_all:
            return 0
        profile = self.request.profile
        wanted = max(cell.owners, profile.heldout_users)
        return min(wanted, profile.trained_null_keys) if scheme.card.keygen_trains else wanted

    def _step(self, kind: str, at: _Place, spec: dict[str, Any], inputs: dict[str, Step], *modules: str) -> Step:
        profile, cell = self.request.profile, at.cell
        common = {
            "arch": cell.arch, "width": at.width, "dataset": cell.dataset, "seed": cell.seed,
            "owner": profile.owner, "adversary": profile.adversary, "heldout": profile.heldout,
        }  # fmt: skip
        roots = ("bench.steps", archs.module_of(cell.arch), *modules)
        names = [str(spec[name]) for name in ("scheme", "attack", "situation") if name in spec]
        label = " ".join([kind.replace("_", " "), *names, cell.arch, cell.dataset, f"seed {cell.seed}"])
        step = Step(kind, {**common, **spec}, inputs, roots, self.checksums[cell.dataset], label)
        return self.steps.setdefault(step.key, step)
