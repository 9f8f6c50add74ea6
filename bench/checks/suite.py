"""The contract suite behind `bench check`, CI and the contract tests: every declaration proven against behaviour.

Every check is a function that raises `AssertionError` with one sentence. They run a real cell on the embedded data
set in the `smoke` profile, with the card's tiny configuration, so that a declaration is proven against behaviour.
"""

from __future__ import annotations

import re
import tempfile
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property
from math import ceil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.api import AccessError, ImageSet, Key, Verdict, pixels
from bench.plan.applicability import not_applicable
from bench.plan.matrix import Request, expand
from bench.plan.profiles import PROFILES
from bench.plan.selection import checksums
from bench.plan.step import Step
from bench.records.record import OWN_DATA, CellRecord
from bench.registry import RegistryError, attacks, make, schemes
from bench.runner.coordinator import execute
from bench.runner.estimate import Durations
from bench.runner.executors import Settings
from bench.runner.rundir import RunDir
from bench.runner.store import Store
from bench.runner.worker import Task, compute
from bench.steps.judge import examine
from bench.steps.kinds import COMPUTE
from bench.steps.ownership import owner_shares, published_images
from bench.steps.scheme_workspace import SchemeWorkspace, host_for
from bench.steps.workspace import Place

__all__ = ["suite"]

NULL_KEYS, LEFT_OUT, BROKEN_KEYS = 60, 40, 6
FEW = 300  # images of the networks that left-out owners claim, and of the owner whom an attack is tried on
PARTNERS = {"attack": ("pruning",), "scheme": ("uchida-random", "zhang-content", "visible-static", "mia-std")}


def suite(name: str, folder: Path | None = None) -> Iterator[tuple[str, str | None]]:
    """Yield (what was checked, None or what is wrong) for one scheme or attack, up to a failure that explains the rest.

    Args:
        name: of the scheme or attack.
        folder: where to compute; runs that share it share the clean host. A temporary one by default.
    """
    with tempfile.TemporaryDirectory() as temporary:
        part = "scheme" if name in schemes() else "attack"
        trial = _Trial(name, part, RunDir(folder or Path(temporary)))
        torch.set_num_threads(1)  # as the tiny cell is computed: other numbers of threads round differently
        for check in (*CARD, *(SCHEME if part == "scheme" else ATTACK)):
            title = (check.__doc__ or check.__name__).splitlines()[0].rstrip(".")
            failure = _outcome(check, trial)
            yield title, failure
            if failure and check in EXPLAIN:  # what follows would fail for the same reason
                return


def _outcome(check: Callable[[_Trial], None], trial: _Trial) -> str | None:
    try:
        check(trial)
    except AssertionError as error:
        return str(error)
    except Exception as error:  # whatever a submitted file raises is its failure, not the suite's
        return "".join(traceback.format_exception(error))
    return None


class _Trial:
    """One scheme or attack, and what its tiny cell left."""

    def __init__(self, name: str, part: str, run_dir: RunDir) -> None:
        self.name, self.part, self.run_dir = name, part, run_dir
        self.cls: type[Any] = {**schemes(), **attacks()}[name]
        self.card: Any = self.cls.card

    @cached_property
    def request(self) -> Request:
        """The tiny cell: this part and a partner that it makes a cell with."""
        scheme, attack = (self.name, self._partner()) if self.part == "scheme" else (self._partner(), self.name)
        overrides = {scheme: dict(schemes()[scheme].card.tiny), attack: dict(attacks()[attack].card.tiny)}
        smoke = PROFILES["smoke"]
        profile = smoke if self.part == "scheme" else replace(smoke, owner=FEW)
        # What fresh keys claim is a scheme's to prove.
        return Request(
            (scheme,), (attack,), profile.archs, (profile.dataset,), (profile.situation,), profile, (0,),
            null_keys=None if self.part == "scheme" else 0, overrides=overrides,
        )  # fmt: skip

    @cached_property
    def record(self) -> CellRecord:
        """The record of the tiny cell."""
        (planned,) = expand(self.request, checksums(self.request))
        plan, settings = self.run_dir.plan([planned]), Settings(Place(), threads=1)
        durations = Durations(self.run_dir.durations)
        (record,) = execute(plan, self.run_dir, settings, _Silent(), durations).records
        assert record.status == "ok", (
            f"Expected its tiny cell to be ok, but it is {record.status}: {record.traceback or record.reason}"
        )
        return record

    def job(self, kind: str, *, inputs_only: bool = False) -> SchemeWorkspace:
        """The step of this kind, opened again, once the whole cell or only its inputs are finished."""
        if not inputs_only:
            _ = self.record
        (planned,) = expand(self.request, checksums(self.request))
        step = planned.steps[kind]
        for needed in (*step.inputs["mark"].inputs.values(), step.inputs["mark"]) if inputs_only else ():
            compute(Task(needed.kind, needed.key, needed.identity, needed.label), self.run_dir.store.root, Place())
        return _opened(step, self.run_dir.store)

    @cached_property
    def attacked(self) -> tuple[dict[str, Any], list[str]]:
        """The result of the attack on the tiny cell, and the names of the victim's tensors that it changed."""
        job = self.job("attack", inputs_only=True)
        watched = _Watched(job.spec, job.inputs, job.place)
        result = COMPUTE["attack"](watched).result
        before, after = job.model("mark").state_dict(), [model.state_dict() for model in watched.lent]
        return result, [name for name, kept in before.items() if any(not torch.equal(kept, a[name]) for a in after)]

    def stored(self, kind: str) -> dict[str, Any]:
        """The result that the finished step of this kind left."""
        (planned,) = expand(self.request, checksums(self.request))
        return self.run_dir.store.load(planned.steps[kind].key).result

    def memories(self) -> tuple[Verdict, Verdict]:
        """The verdicts on perfect memories of the published and of the clean images: no tiny cell learns so well."""
        job = self.job("mark")
        scheme, keys, clean = job.scheme, job.keys(), job.data.owner
        published = published_images(job, scheme, keys)
        classes = len(job.data.card.classes)
        models = (_Memory(images, classes) for images in (published.images, clean))
        marked, unmarked = (examine(scheme, keys[:1], model=m, images=published.images)[0] for m in models)
        return marked, unmarked

    def _partner(self) -> str:
        if self.part == "scheme":
            names = [name for name, a in attacks().items() if not_applicable(self.card, a.card) is None]
        else:
            names = [name for name, s in schemes().items() if not_applicable(s.card, self.card) is None]
        assert names, f"Expected {self.name} to make a cell with something registered, but it does with nothing."
        wishes = PARTNERS["attack" if self.part == "scheme" else "scheme"]
        return next((wish for wish in wishes if wish in names), names[0])


class _Watched(SchemeWorkspace):
    """Keeps the marked networks that it lends."""

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self.lent: list[nn.Module] = []

    def model(self, step: str) -> nn.Module:
        """The network that an input step left, kept for who looks afterwards."""
        model = super().model(step)
        self.lent += [model] if step == "mark" else []
        return model


class _Memory(nn.Module):
    """Answers the label of the nearest image that it knows, the surer the nearer."""

    def __init__(self, known: ImageSet, classes: int) -> None:
        super().__init__()
        self.images, self.labels, self.classes = pixels(known.images).flatten(1), known.labels, classes

    def forward(self, x: Tensor) -> Tensor:
        distance, nearest = torch.cdist(x.flatten(1), self.images).min(1)
        return nn.functional.one_hot(self.labels[nearest], self.classes) * (4 * torch.exp(-distance))[:, None]


class _Silent:
    """Watches and says nothing."""

    def started(self, step: Any) -> None: ...
    def finished(self, step: Any, outcome: Any) -> None: ...
    def settled(self, record: Any) -> None: ...


def _opened(step: Step, store: Store) -> SchemeWorkspace:
    return SchemeWorkspace(step.spec, {name: store.load(s.key) for name, s in step.inputs.items()}, Place())


def card_is_complete(trial: _Trial) -> None:
    """The card names its paper and every parameter says what it means."""
    card = trial.card
    assert re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", card.name), (
        f"Expected a lower-case name, but got {card.name!r}."
    )
    assert all((card.title, card.paper.title, card.paper.authors)), "Expected title and authors, but one is empty."
    assert card.paper.link.startswith("https://"), f"Expected an https link, but got {card.paper.link!r}."
    for name, field in trial.cls.Params.model_fields.items():
        assert field.description, f"Expected parameter {name} to have a description, but it has none."
    assert trial.cls.__doc__, "Expected the class to have a docstring, but it has none."


def tiny_is_valid(trial: _Trial) -> None:
    """The tiny configuration and that of every profile consist of parameters within their bounds."""
    strange = sorted(set(trial.card.scales) - set(PROFILES))
    assert not strange, f"Expected scales of {', '.join(PROFILES)}, but got {', '.join(strange)}."
    for name, params in {"tiny": trial.card.tiny, **trial.card.scales}.items():
        try:
            make(trial.cls, params)
        except RegistryError as error:
            raise AssertionError(f"Expected a valid configuration {name}, but got: {error}") from error


def imports_the_api_only(trial: _Trial) -> None:
    """The file imports nothing of the harness but bench.api."""
    import ast
    import inspect

    tree = ast.parse(Path(inspect.getfile(trial.cls)).read_text(encoding="utf-8"))
    found = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module}
    found |= {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    wrong = sorted(m for m in found if m.split(".")[0] in ("bench", "leaderboard", "pickle") and m != "bench.api")
    assert not wrong, f"Expected imports of bench.api only, but it imports {', '.join(wrong)}."


def runs_through(trial: _Trial) -> None:
    """Its tiny cell ends with status ok."""
    assert trial.record.curve or trial.record.stage == "none", "Expected at least one rung, but there is none."


def keys_follow_the_rng(trial: _Trial) -> None:
    """The same stream gives the same key, another stream another."""
    job = trial.job("keys")
    scheme = job.scheme
    host = host_for(job, owner_shares(job, scheme)[0])
    first, again, other = (scheme.keygen(host, job.rng("trial", i)) for i in (0, 0, 1))
    assert _same(first, again), "Expected keygen to give the same key for the same rng, but the keys differ."
    if trial.card.carrier != "none":  # a baseline's key may be the owner's images and nothing else
        assert not _same(first, other), "Expected keygen to give another key for another rng, but they are equal."


def payload_has_its_size(trial: _Trial) -> None:
    """The parameters that the card names exist, and its payload has as many bits as they say."""
    card, known = trial.card, trial.cls.Params.model_fields
    named = [card.key_arch, card.payload_parameter, card.layer_parameter]
    strange = sorted({name for name in named if name} - set(known))
    assert not strange, f"Expected parameters among {', '.join(known)}, but the card names {', '.join(strange)}."
    if card.payload_parameter is None:
        return
    asked = trial.record.cell.scheme_params[card.payload_parameter]
    found = trial.record.measures.get("capacity_bits")
    assert found == asked, f"Expected a capacity of {asked} bits ({card.payload_parameter}), but got {found}."
    bers = [verdict.ber for verdict in trial.record.marked.verdicts] if trial.record.marked else []
    assert None not in bers, "Expected a bit error rate from a scheme with a payload size, but got none."


def marks_as_declared(trial: _Trial) -> None:
    """The carrier on the card is what carries the mark."""
    job = trial.job("mark")
    scheme, (key, *_), (share, *_) = job.scheme, job.keys(), owner_shares(job, job.scheme)
    marked, carrier = scheme.mark_data(share, key), trial.card.carrier
    kept = torch.equal(marked.images[: len(share)], share.images) and torch.equal(
        marked.labels[: len(share)], share.labels
    )
    if carrier in ("weights", "none"):
        assert kept, f"Expected a scheme with carrier {carrier!r} to leave the images alone, but it changes some."
        assert len(marked) == len(share), f"Expected a scheme with carrier {carrier!r} to add no images."
    elif carrier == "behaviour":
        assert kept, "Expected carrier 'behaviour' to keep all images as they are, but it changes some."
        assert len(marked) > len(share), "Expected carrier 'behaviour' to add triggers, but it adds none."
    else:
        assert not kept, "Expected carrier 'data' to change images, but it leaves them alone."


def finds_its_mark(trial: _Trial) -> None:
    """The marked model gives stronger evidence than the clean one."""
    if trial.card.carrier == "none":
        return
    record = trial.record
    assert record.marked is not None
    marked, clean = record.marked.verdicts[0], record.clean_verdicts[0]
    if trial.card.carrier == "data" and trial.card.access in ("scores", "labels"):
        marked, clean = trial.memories()
    stronger = marked.p_value < clean.p_value or marked.statistic > clean.statistic
    values = f"p={marked.p_value:.3g} against {clean.p_value:.3g} on the clean one"
    assert stronger, f"Expected stronger evidence on the marked model, but got {values}."


def keeps_the_error_rate(trial: _Trial) -> None:
    """Fresh keys claim the clean host at 10 % no more often than chance allows (one in ten thousand)."""
    from scipy.stats import binom

    job = trial.job("nulls")
    wanted = len(trial.stored("nulls")["p_values"]) if trial.card.keygen_trains else NULL_KEYS
    job = SchemeWorkspace({**job.spec, "keys": wanted}, job.inputs, job.place)
    p_values = COMPUTE["nulls"](job).result["p_values"]
    false = sum(p <= 0.1 for p in p_values)
    limit = int(binom.isf(1e-4, len(p_values), 0.1))
    assert false <= limit, f"Expected at most {limit} false claims of {len(p_values)} keys at 10 %, but got {false}."


def withstands_broken_models(trial: _Trial) -> None:
    """Suspects that are no network any more (constant, zeroed, NaN) are claimed no more often than chance allows."""
    from bench.metrics.calibration import Trial, too_many

    job = trial.job("nulls")
    inputs = {**job.inputs, OWN_DATA: job.inputs["host"]}
    if trial.card.keygen_trains:
        (planned,) = expand(trial.request, checksums(trial.request))
        inputs["nulls"] = trial.run_dir.store.load(planned.steps["nulls"].key)
    job = SchemeWorkspace({**job.spec, "keys": BROKEN_KEYS, "index": 0}, inputs, job.place)
    for kind, _, p_values in COMPUTE["null_claims"](job).result["claims"]:
        claims = [Trial(p_value, None, number) for number, p_value in enumerate(p_values)]
        assert not too_many(claims, 0.1), (
            f"Expected false claims at 10 % on {kind!r}, but {sum(p <= 0.1 for p in p_values)} of {len(p_values)} "
            "fresh keys are accepted."
        )


def claims_no_left_out_user(trial: _Trial) -> None:
    """Left-out owners are claimed at 10 % no more often than chance allows (one in ten thousand).

    Not asked of schemes whose every key takes a training: `tools/left_out.py` counts for those.
    """
    from scipy.stats import binom

    tiny = dict(trial.card.tiny)
    if "share" in trial.cls.Params.model_fields:
        tiny["share"] = 0.05  # one for all, so that the networks are the same
    share = make(trial.cls, tiny).share
    if trial.card.carrier not in ("data", "none") or share.whole or trial.card.keygen_trains:
        return
    users = max(1, min(10, FEW // 2 // share.count(FEW)))
    # Networks that remember what they are shown: where nothing is learned, nothing can be claimed wrongly.
    asked = replace(
        PROFILES["smoke"], owner=FEW, learner=PROFILES["quick"].learner,
        left_out_owners=users, null_keys=users,
    )  # fmt: skip
    request = replace(
        trial.request, attacks=("none",), profile=asked, seeds=tuple(range(ceil(LEFT_OUT / users))),
        overrides={trial.name: tiny},
    )  # fmt: skip
    p_values = [p for step in _claims(request) for p in _finished(step, trial.run_dir.store)["p_values"]]
    false = sum(p <= 0.1 for p in p_values)
    limit = int(binom.isf(1e-4, len(p_values), 0.1))
    assert false <= limit, (
        f"Expected at most {limit} claims of {len(p_values)} left-out owners at 10 %, but got {false}."
    )


def _claims(request: Request) -> list[Step]:
    planned = expand(request, checksums(request))
    return [cell.steps["left_out_claims"] for cell in planned]


def _finished(step: Step, store: Store) -> dict[str, Any]:
    """The result of a step, computed with its inputs where it is not there."""
    for needed in (*step.inputs.values(), step):
        outcome = compute(Task(needed.kind, needed.key, needed.identity, needed.label), store.root, Place())
        assert outcome.error is None, f"Expected {needed.label} to succeed, but got: {outcome.error}"
    return store.load(step.key).result


def keeps_to_its_adversary(trial: _Trial) -> None:
    """The attack asks for no more than its card's adversary has."""
    try:
        _ = trial.attacked
    except AccessError as error:
        raise AssertionError(str(error)) from error


def victim_is_left_alone(trial: _Trial) -> None:
    """The attack changes copies, never the victim itself, and its ladder is walked in order."""
    result, changed = trial.attacked
    assert not changed, f"Expected the attack to change copies of the victim, but it changed {', '.join(changed)}."
    (attack,) = trial.job("attack").attacks
    strengths = [point["strength"] for point in result["points"]]
    assert strengths == list(attack.ladder), "Expected every strength of the ladder."


def same_again(trial: _Trial) -> None:
    """A scheme's keys and mark, or an attack, computed again give the same results, bit for bit."""
    for kind in ("keys", "mark") if trial.part == "scheme" else ("attack",):
        again = COMPUTE[kind](trial.job(kind)).result if trial.part == "scheme" else trial.attacked[0]
        assert _without_times(again) == _without_times(trial.stored(kind)), f"Expected {kind!r} to give the same twice."


CARD: tuple[Callable[[_Trial], None], ...] = (card_is_complete, tiny_is_valid, imports_the_api_only)
SCHEME: tuple[Callable[[_Trial], None], ...] = (
    runs_through, payload_has_its_size, keys_follow_the_rng, marks_as_declared, finds_its_mark, keeps_the_error_rate,
    withstands_broken_models, claims_no_left_out_user, same_again,
)  # fmt: skip
ATTACK: tuple[Callable[[_Trial], None], ...] = (
    keeps_to_its_adversary, runs_through, victim_is_left_alone, same_again,
)  # fmt: skip
EXPLAIN = (tiny_is_valid, keeps_to_its_adversary, runs_through)


def _same(a: Key, b: Key) -> bool:
    (tensors, values), (others, other_values) = a.packed(), b.packed()
    if values != other_values or tensors.keys() != others.keys():
        return False
    return all(torch.equal(tensor, others[name]) for name, tensor in tensors.items())


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {n: _without_times(v) for n, v in value.items() if not n.endswith("_s") and n != "seconds"}
    if isinstance(value, list):
        return [_without_times(v) for v in value]
    return value
