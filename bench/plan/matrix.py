"""Expands the axes of the matrix into cells, and cells into steps that are shared as far as they can be."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache, cached_property
from itertools import product
from typing import Any, NamedTuple

from bench import archs
from bench.api import Attack, AttackCard, Recipe, Scheme, SchemeCard
from bench.identity import digest
from bench.plan import fingerprint
from bench.plan.applicability import not_applicable
from bench.plan.profiles import Profile
from bench.plan.step import ROOTS, Step, with_inputs
from bench.records.record import OTHER_DATA, OWN_DATA, PERMUTED, RIVAL_DATA, Applied, Cell
from bench.registry import RegistryError, attack_chain, make, params_of
from bench.registry import attacks as all_attacks
from bench.registry import schemes as all_schemes

__all__ = ["Planned", "Request", "auxiliaries", "expand", "steps_of"]

# Embedded data sets: null models of the kind `other data set` learn the first that is not the host's.
EMBEDDED = ("digits-m", "photographs")


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
    attacks: tuple[AttackCard, ...]
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


def expand(request: Request, checksums: Mapping[str, str]) -> list[Planned]:
    """All cells of the request, each with its steps; equal steps are one object.

    Args:
        request: the axes.
        checksums: data set -> checksum; cells whose adversary has another data set that is missing here are not
            applicable.

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


def auxiliaries(request: Request) -> list[str]:
    """The other data sets of the request, by name, sorted: those of its adversaries and of its null models.

    Raises:
        RegistryError: as `expand`.
    """
    builder = _Builder(request, {})
    lent = {name for chain in request.attacks for name in _lent(builder.attacks(chain))}
    nulls = {_other_than(name) for name in request.datasets} if request.profile.null_hosts else set()
    return sorted(lent | nulls)


def _other_than(dataset: str) -> str:
    return next(name for name in EMBEDDED if name != dataset)


def _lent(attacks: Iterable[Attack]) -> list[str]:
    """The data sets that cards' parameters `auxiliary` name."""
    return [getattr(attack.params, attack.card.auxiliary) for attack in attacks if attack.card.auxiliary]


def steps_of(planned: Iterable[Planned]) -> list[Step]:
    """Every step that the cells need, once, inputs before those that read them."""
    return with_inputs(step for cell in planned for step in cell.steps.values())


def _situations(card: SchemeCard, asked: tuple[str, ...]) -> tuple[str, ...]:
    """A scheme that knows one situation has its one row whatever was asked for."""
    return card.situations if len(card.situations) == 1 else asked


@cache
def recipe_spec(recipe: Recipe) -> dict[str, Any]:
    """A recipe as JSON: what a profile may say of it (the hooks are for attacks)."""
    spec = asdict(recipe)
    for hook in ("transforms", "mix", "perturb", "descent"):
        del spec[hook]
    return spec


class _Place(NamedTuple):
    """Where in the matrix a step stands: its cell, the networks' width, who has how many images, scheme and attacks."""

    cell: Cell
    width: float
    owner: int | None
    scheme: Scheme[Any]
    attacks: tuple[Attack, ...]

    @property
    def of_scheme(self) -> dict[str, Any]:
        """What a spec says of the scheme."""
        return {"scheme": self.cell.scheme, "scheme_params": self.cell.scheme_params}

    @property
    def of_attack(self) -> dict[str, Any]:
        """What a spec says of the attacks."""
        return {"attacks": [[attack.card.name, params_of(attack)] for attack in self.attacks]}

    @property
    def modules(self) -> tuple[str, ...]:
        """The modules of the attacks."""
        return tuple(type(attack).__module__ for attack in self.attacks)


def _learns(scheme: Scheme[Any]) -> bool:
    """Whether somebody else trains, on what the scheme's owner published or has."""
    return scheme.card.carrier in ("data", "none")


def _key_cell(cell: Cell, scheme: Scheme[Any]) -> Cell:
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
        attacks = self.attacks(attack_name)
        owners = 1 if scheme.card.stand_alone else self.request.owners
        cell = Cell(
            scheme=scheme_name, attack=chain_name(attacks), arch=arch, dataset=dataset, situation=situation,
            profile=self.request.profile.name, seed=seed, owners=owners,
            scheme_params=params_of(scheme), attacks=[Applied(name=a.card.name, params=params_of(a)) for a in attacks],
        )  # fmt: skip
        cards = tuple(attack.card for attack in attacks)
        reason = not_applicable(scheme.card, *cards)
        if situation not in scheme.card.situations:
            reason = f"{scheme_name} cannot be embedded by {situation}, only by {', '.join(scheme.card.situations)}."
        reason = reason or self._out_of_reach(attacks, dataset)
        steps = {} if reason else self._steps(cell, scheme, attacks)
        return Planned(cell, scheme.card, cards, steps, self.checksums[dataset], reason)

    def _scheme(self, name: str) -> Scheme[Any]:
        return self._made(all_schemes()[name], {})

    def attacks(self, text: str) -> tuple[Attack, ...]:
        """The attacks of a chain such as `pruning=50+output-noise`: all but the last have one rung."""
        *before, last = [(self._made(all_attacks()[name], {}), strength) for name, strength in attack_chain(text)]
        single = [
            self._made(type(attack), {"ladder": [attack.ladder[len(attack.ladder) // 2] if at is None else at]})
            for attack, at in before
        ]
        attack, at = last
        return (*single, attack if at is None else self._made(type(attack), {"ladder": [at]}))

    def _made(self, cls: Any, params: dict[str, Any]) -> Any:
        """With what the profile, the command line and the chain say, the later ones counting."""
        name, profile = cls.card.name, self.request.profile.name
        return make(cls, {**cls.card.scales.get(profile, {}), **self.request.overrides.get(name, {}), **params})

    def _steps(self, cell: Cell, scheme: Scheme[Any], attacks: tuple[Attack, ...]) -> dict[str, Step]:
        at, key_cell = self._place(cell, scheme, attacks), _key_cell(cell, scheme)
        maker = at if key_cell is cell else self._place(key_cell, scheme, attacks)
        host = self._host(at)
        key_host = host if maker is at else self._host(maker)
        keys = self._step("keys", maker, {**maker.of_scheme, "owners": cell.owners}, {"host": key_host})
        learning, marking = self._learning(at), {"host": host, "keys": keys}
        embedding = {**at.of_scheme, **learning, "owners": cell.owners}
        embedding |= {"heldout_users": self._heldout_users(scheme, cell)}
        mark = self._step("mark", at, embedding, marking)
        both = {**at.of_scheme, **at.of_attack, **learning, "owners": cell.owners, **self._auxiliary(attacks)}
        attacked = self._step("attack", at, both, {**marking, "mark": mark})
        steps = {"host": host, "keys": keys, "mark": mark, "attack": attacked}
        if cell.situation in ("fine-tune", "distill"):
            steps["control"] = self._step("control", at, learning, {"host": host})
        return steps | self._false_claims(maker, key_host)

    def _out_of_reach(self, attacks: tuple[Attack, ...], dataset: str) -> str | None:
        """Why an adversary has no data set other than the host's; None if all have what they need."""
        for attack in attacks:
            for name in _lent([attack]):
                parameter = f"{attack.card.name}.{attack.card.auxiliary}"
                if name == dataset:
                    return f"{attack.card.name} needs another data set than the host's {name}: set {parameter}."
                if name not in self.checksums:
                    return (
                        f"{attack.card.name} needs {name}, which cannot be loaded: see --data-root, or set {parameter}."
                    )
        return None

    def _auxiliary(self, attacks: tuple[Attack, ...]) -> dict[str, Any]:
        """The checksums of other data sets that the adversaries have."""
        named = _lent(attacks)
        return {"auxiliary": {name: self.checksums[name] for name in named}} if named else {}

    def _false_claims(self, at: _Place, host: Step) -> dict[str, Step]:
        """Fresh keys' claims on the clean host that keys are made against, before and after the attack."""
        steps: dict[str, Step] = {}
        scheme, last = at.scheme, at.attacks[-1]
        fresh, attacked_fresh = self._null_keys(scheme)
        if fresh:
            steps["nulls"] = self._step("nulls", at, {**at.of_scheme, "keys": fresh}, {"host": host})
        if fresh and _learns(scheme) and not scheme.share.whole:
            steps["left_out_claims"] = self._left_out(at, host, fresh)
        if fresh:
            steps |= self._null_models(at, host, steps["nulls"], fresh)
        # A forger brings a key of its own: fresh keys have nothing to claim.
        if attacked_fresh and last.ladder and last.card.stage != "evidence":
            # Each rung of an attack on images or on the learner is a training of its own: one must do.
            rungs = 1 if last.card.stage in ("data", "training") else self.request.profile.null_rungs
            few = self._made(type(last), {**params_of(last), "ladder": list(last.examined(rungs))})
            fewer = at._replace(attacks=(*at.attacks[:-1], few))
            spec = {**at.of_scheme, **self._learning(at), **fewer.of_attack, "keys": attacked_fresh, "rungs": rungs}
            # Keys that took a training are not made twice: as many claim after the attack as before it.
            made = {"nulls": steps["nulls"]} if scheme.card.keygen_trains and fresh else {}
            spec |= self._auxiliary(at.attacks)
            steps["attacked_nulls"] = self._step("attacked_nulls", at, spec, {"host": host, **made})
        return steps

    def _null_models(self, at: _Place, host: Step, nulls: Step, fresh: int) -> dict[str, Step]:
        """Fresh keys claim null models, of which all schemes of one recipe share each; or null data sets."""
        count = self.request.profile.null_hosts
        on_data = at.scheme.card.access == "data set"
        other = {name: self.checksums[name] for name in (_other_than(at.cell.dataset),) if name in self.checksums}
        made = {"nulls": nulls} if at.scheme.card.keygen_trains else {}
        spec = {**at.of_scheme, "keys": fresh} | ({"auxiliary": other} if on_data and other else {})
        claims = {}
        for number in range(min(count, 1) if on_data else count):
            models = {} if on_data else self._null_hosts(at, number, other)
            inputs = {"host": host, **made, **models}
            claims[f"null_claims_{number}"] = self._step("null_claims", at, {**spec, "index": number}, inputs)
        return claims

    def _null_hosts(self, at: _Place, number: int, other: Mapping[str, str]) -> dict[str, Step]:
        """The trained null models of one number, by what they learn; their keys hold nothing of the scheme."""
        phase = "learner" if _learns(at.scheme) else "host"
        spec = {"recipe": recipe_spec(self.request.profile.recipe(phase, at.cell.arch)), "index": number}
        kinds = {OWN_DATA: spec, PERMUTED: spec, RIVAL_DATA: spec}
        kinds |= {OTHER_DATA: {**spec, "auxiliary": dict(other)}} if other else {}
        return {kind: self._step("null_host", at, {**its, "learns": kind}, {}) for kind, its in kinds.items()}

    def _left_out(self, at: _Place, host: Step, most: int) -> Step:
        """Owners claim a network without their images, which schemes of one share have in common."""
        recipe = recipe_spec(self.request.profile.recipe("learner", at.cell.arch))
        owners = {"share": at.scheme.share.value, "users": self.request.profile.left_out_owners}
        without = self._step("without", at, {"recipe": recipe, **owners}, {})
        spec = {**at.of_scheme, **owners, "claims": min(most, owners["users"])}
        return self._step("left_out_claims", at, spec, {"host": host, "without": without})

    def _place(self, cell: Cell, scheme: Scheme[Any], attacks: tuple[Attack, ...]) -> _Place:
        profile, learner = self.request.profile, _learns(scheme)
        owner = (learner and profile.learner_images) or profile.owner
        return _Place(cell, profile.width(cell.arch, learner=learner), owner, scheme, attacks)

    def _host(self, at: _Place) -> Step:
        phase = "learner" if _learns(at.scheme) else "host"
        return self._step("host", at, {"recipe": recipe_spec(self.request.profile.recipe(phase, at.cell.arch))}, {})

    def _learning(self, at: _Place) -> dict[str, Any]:
        """How the network that is to bear the mark is trained."""
        phase = "embed" if at.cell.situation != "train" else "learner" if _learns(at.scheme) else "host"
        recipe = self.request.profile.recipe(phase, at.cell.arch)
        return {"situation": at.cell.situation, "recipe": recipe_spec(recipe)}

    def _null_keys(self, scheme: Scheme[Any]) -> tuple[int, int]:
        profile, asked = self.request.profile, self.request.null_keys
        caps = [profile.trained_null_keys] if scheme.card.keygen_trains else []
        caps += [] if asked is None else [asked]
        return min([profile.null_keys, *caps]), min([profile.attacked_null_keys, *caps])

    def _heldout_users(self, scheme: Scheme[Any], cell: Cell) -> int:
        """How many users whom the learner does not know are examined: where owners have images of their own."""
        if not _learns(scheme) or scheme.share.whole:
            return 0
        profile = self.request.profile
        wanted = max(cell.owners, profile.heldout_users)
        return min(wanted, profile.trained_null_keys) if scheme.card.keygen_trains else wanted

    def _step(self, kind: str, at: _Place, spec: dict[str, Any], inputs: dict[str, Step]) -> Step:
        profile, cell = self.request.profile, at.cell
        common = {
            "arch": cell.arch, "width": at.width, "dataset": cell.dataset, "seed": cell.seed,
            "owner": at.owner, "adversary": profile.adversary, "heldout": profile.heldout,
            **({} if profile.all_unseen else {"all_unseen": False}),
        }  # fmt: skip
        modules = [ROOTS[kind], archs.module_of(cell.arch)]
        modules += [type(at.scheme).__module__] if "scheme" in spec else []
        modules += at.modules if "attacks" in spec else []
        # A surrogate of another architecture, by the parameter that names it.
        others = (params.get("arch") for _, params in spec.get("attacks", []))
        modules += [archs.module_of(name) for name in others if isinstance(name, str)]
        names = [str(spec[name]) for name in ("scheme", "situation", "learns", "index") if name in spec]
        names += ["+".join(name for name, _ in spec["attacks"])] if "attacks" in spec else []
        label = " ".join([kind.replace("_", " "), *names, cell.arch, cell.dataset, f"seed {cell.seed}"])
        step = Step(kind, {**common, **spec}, inputs, tuple(modules), self.checksums[cell.dataset], label)
        return self.steps.setdefault(step.key, step)


def chain_name(attacks: Sequence[Attack]) -> str:
    """A chain as it is typed in full: `pruning=50+output-noise`; the last one's ladder is whole."""
    *before, last = attacks
    return "+".join([*(f"{attack.card.name}={attack.ladder[0]:g}" for attack in before), last.card.name])
