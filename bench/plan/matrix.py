"""Expands the axes of the matrix into cells, and cells into steps that are shared as far as they can be."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from itertools import product
from typing import Any, NamedTuple

from bench import archs
from bench.api import Attack, AttackCard, Recipe, Scheme, SchemeCard
from bench.identity import digest
from bench.plan import fingerprint
from bench.plan.profiles import Profile
from bench.records.record import Cell
from bench.registry import RegistryError, make, params_of
from bench.registry import attacks as all_attacks
from bench.registry import schemes as all_schemes

__all__ = ["ROOTS", "Planned", "Request", "Step", "expand", "not_applicable", "steps_of"]

# The module whose function computes a kind of step: with all that it imports, the source that its key covers.
ROOTS = {
    "host": "bench.steps.host",
    "keys": "bench.steps.embed",
    "mark": "bench.steps.embed",
    "attack": "bench.steps.attack",
    "nulls": "bench.steps.nulls",
    "attacked_nulls": "bench.steps.nulls",
}


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
    def sources(self) -> Mapping[str, str]:
        """Module -> hash of the source that computes this step."""
        return fingerprint.closure(self.modules)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Everything that the key covers, as stored beside the result (`bench why` compares it)."""
        return {
            "kind": self.kind,
            "spec": dict(self.spec),
            "inputs": {name: step.key for name, step in self.inputs.items()},
            "sources": dict(self.sources),
            "data": self.data,
        }

    @cached_property
    def key(self) -> str:
        """The content key."""
        return digest({**self.identity, "sources": fingerprint.closure_digest(self.modules)})


@dataclass(frozen=True)
class Request:
    """What a person asked for: the axes of the matrix.

    Attributes:
        overrides: scheme or attack name -> parameter -> value, from `--set`.
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
    null_keys: int | None = None
    overrides: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Planned:
    """A cell and what it needs; `reason` says why a cell that has no meaning is not computed."""

    cell: Cell
    scheme: SchemeCard
    attack: AttackCard
    steps: Mapping[str, Step]
    data: str
    reason: str | None = None

    @cached_property
    def key(self) -> str:
        """The cell's content key."""
        needed = {name: step.key for name, step in self.steps.items()}
        return digest({"cell": self.cell.model_dump(), "steps": needed, "reason": self.reason})

    @cached_property
    def source_hash(self) -> str:
        """One hash of all source behind the cell."""
        return digest({name: fingerprint.closure_digest(step.modules) for name, step in self.steps.items()})


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

    @property
    def of_scheme(self) -> dict[str, Any]:
        """What a spec says of the scheme."""
        return {"scheme": self.cell.scheme, "scheme_params": self.cell.scheme_params}

    @property
    def of_attack(self) -> dict[str, Any]:
        """What a spec says of the attack."""
        return {"attack": self.cell.attack, "attack_params": self.cell.attack_params}


def _learns(scheme: Scheme) -> bool:
    """Whether somebody else trains, on what the scheme's owner published or has."""
    return scheme.card.carrier in ("data", "none")


def _key_cell(cell: Cell, scheme: Scheme) -> Cell:
    """The cell whose keys these are: that of another architecture, where a parameter of the scheme names one."""
    name = scheme.card.key_arch
    arch = cell.scheme_params.get(name) if name else None
    if not isinstance(arch, str):
        return cell
    try:
        archs.arch(arch)
    except ValueError as error:
        raise RegistryError(f"Parameter {cell.scheme}.{name}: {error}") from error
    return cell.model_copy(update={"arch": arch, "scheme_params": {**cell.scheme_params, name: None}})


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
        return Planned(cell, scheme.card, attack.card, steps, self.checksums[dataset], reason)

    def _scheme(self, name: str) -> Scheme:
        overrides = {**self.request.profile.scheme_params(name), **self.request.overrides.get(name, {})}
        return make(all_schemes()[name], overrides)

    def _attack(self, name: str) -> Attack:
        return make(all_attacks()[name], self.request.overrides.get(name, {}))

    def _steps(self, cell: Cell, scheme: Scheme, attack: Attack) -> dict[str, Step]:
        at, maker = self._place(cell, scheme, attack), self._place(_key_cell(cell, scheme), scheme, attack)
        host, key_host = self._host(at, scheme), self._host(maker, scheme)
        keys = self._step("keys", maker, {**maker.of_scheme, "owners": cell.owners}, {"host": key_host}, at.scheme)
        learning, marking = self._learning(at, scheme), {"host": host, "keys": keys}
        embedding = {**at.of_scheme, **learning, "owners": cell.owners}
        embedding |= {"heldout_users": self._heldout_users(scheme, cell)}
        mark = self._step("mark", at, embedding, marking, at.scheme)
        both = {**at.of_scheme, **at.of_attack, **learning, "owners": cell.owners}
        attacked = self._step("attack", at, both, {**marking, "mark": mark}, at.scheme, at.attack)
        steps = {"host": host, "keys": keys, "mark": mark, "attack": attacked}
        return steps | self._false_claims(maker, key_host, scheme, attack)

    def _false_claims(self, at: _Place, host: Step, scheme: Scheme, attack: Attack) -> dict[str, Step]:
        """Fresh keys' claims on the clean host that keys are made against, before and after the attack."""
        steps: dict[str, Step] = {}
        fresh, attacked_fresh = self._null_keys(scheme)
        if fresh:
            steps["nulls"] = self._step("nulls", at, {**at.of_scheme, "keys": fresh}, {"host": host}, at.scheme)
        if attacked_fresh and attack.ladder:
            # Each rung of an attack on images or on the learner is a training of its own: one must do.
            rungs = 1 if attack.card.stage in ("data", "training") else self.request.profile.null_rungs
            few = {**at.cell.attack_params, "ladder": list(attack.examined(rungs))}
            params = few if "ladder" in at.cell.attack_params else at.cell.attack_params
            spec = {**at.of_scheme, **self._learning(at, scheme), "attack": at.cell.attack, "attack_params": params}
            spec |= {"keys": attacked_fresh, "rungs": rungs}
            # Keys that took a training are not made twice: as many claim after the attack as before it.
            made = {"nulls": steps["nulls"]} if scheme.card.keygen_trains and fresh else {}
            inputs = {"host": host, **made}
            steps["attacked_nulls"] = self._step("attacked_nulls", at, spec, inputs, at.scheme, at.attack)
        return steps

    def _place(self, cell: Cell, scheme: Scheme, attack: Attack) -> _Place:
        width = self.request.profile.width(cell.arch, learner=_learns(scheme))
        return _Place(cell, width, type(scheme).__module__, type(attack).__module__)

    def _host(self, at: _Place, scheme: Scheme) -> Step:
        phase = "learner" if _learns(scheme) else "host"
        return self._step("host", at, {"recipe": recipe_spec(self.request.profile.recipe(phase, at.cell.arch))}, {})

    def _learning(self, at: _Place, scheme: Scheme) -> dict[str, Any]:
        """How the network that is to bear the mark is trained."""
        phase = "embed" if at.cell.situation != "train" else "learner" if _learns(scheme) else "host"
        recipe = self.request.profile.recipe(phase, at.cell.arch)
        return {"situation": at.cell.situation, "recipe": recipe_spec(recipe)}

    def _null_keys(self, scheme: Scheme) -> tuple[int, int]:
        profile, asked = self.request.profile, self.request.null_keys
        caps = [profile.trained_null_keys] if scheme.card.keygen_trains else []
        caps += [] if asked is None else [asked]
        return min([profile.null_keys, *caps]), min([profile.attacked_null_keys, *caps])

    def _heldout_users(self, scheme: Scheme, cell: Cell) -> int:
        """How many users whom the learner does not know are examined: where owners have images of their own."""
        if not _learns(scheme) or scheme.owns_all:
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
        roots = (ROOTS[kind], archs.module_of(cell.arch), *modules)
        names = [str(spec[name]) for name in ("scheme", "attack", "situation") if name in spec]
        label = " ".join([kind.replace("_", " "), *names, cell.arch, cell.dataset, f"seed {cell.seed}"])
        step = Step(kind, {**common, **spec}, inputs, roots, self.checksums[cell.dataset], label)
        return self.steps.setdefault(step.key, step)
