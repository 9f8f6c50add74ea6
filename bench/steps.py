"""What does one step compute? Train a host, make keys, embed, attack, test false claims: pure functions.

Each takes a `Job` (spec, inputs from the store, where to compute) and returns an `Output`. Nothing here knows of
profiles, records, processes or time limits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench import archs, data, training
from bench.api import (
    Attack,
    Claim,
    Context,
    ContractError,
    Host,
    ImageSet,
    Key,
    Point,
    Recipe,
    Rng,
    Scheme,
    Suspect,
    Verdict,
    Victim,
)  # fmt: skip
from bench.metrics.fidelity import psnr_db
from bench.parts import clock_s
from bench.registry import attacks, make, schemes
from bench.store import Stored

__all__ = [
    "COMPUTE",
    "AttackContext",
    "Job",
    "Output",
    "Place",
    "attackers_view",
    "host_for",
    "owner_shares",
    "published_images",
]


@dataclass(frozen=True)
class Place:
    """Where to compute: of no influence on what is computed.

    Attributes:
        data_root, download, cache: where data sets are found, and whether they may be fetched.
    """

    device: str = "cpu"
    data_root: Path | None = None
    download: bool = False
    cache: Path | None = None


@dataclass(frozen=True)
class Output:
    """What a step leaves: JSON, and tensors by group and name."""

    result: dict[str, Any]
    tensors: dict[str, dict[str, Tensor]] = field(default_factory=dict)


class Job:
    """A step about to be computed: typed access to its spec and inputs."""

    def __init__(
        self, spec: Mapping[str, Any], inputs: Mapping[str, Stored], place: Place, checksum: str | None = None
    ) -> None:
        self.spec = spec
        self.inputs = inputs
        self.place = place
        self.checksum = checksum
        self.device = torch.device(place.device)

    @property
    def data(self) -> data.Data:
        """The data set, split.

        Raises:
            DataError: its checksum is not the one that the plan was made with.
        """
        sizes = {part: self.spec[part] for part in ("owner", "adversary", "heldout")}
        place = self.place
        loaded = data.load(
            self.spec["dataset"],
            data_root=place.data_root, download=place.download, cache=place.cache, device=self.device, **sizes,
        )  # fmt: skip
        if self.checksum not in (None, loaded.checksum):
            raise data.DataError(
                f"Expected {self.spec['dataset']} with checksum {self.checksum}, but found {loaded.checksum}: the data "
                "changed since the run was planned; give the same command again."
            )
        return loaded

    def rng(self, *names: str | int) -> Rng:
        """The stream of something within this host: named, and the same for every step that names it."""
        return Rng(self.spec["dataset"], self.spec["arch"], self.spec["seed"], *names)

    @property
    def scheme(self) -> Scheme:
        """The scheme with its parameters."""
        return make(schemes()[self.spec["scheme"]], self.spec["scheme_params"])

    @property
    def attack(self) -> Attack:
        """The attack with its parameters."""
        return make(attacks()[self.spec["attack"]], self.spec["attack_params"])

    @property
    def recipe(self) -> Recipe:
        """The recipe in the spec."""
        return _recipe(self.spec)

    def build(self, rng: Rng) -> nn.Module:
        """An untrained network with weights from this stream."""
        classes = len(self.data.card.classes)
        return archs.build(self.spec["arch"], classes, width=self.spec["width"], rng=rng, device=self.device)

    def fresh(self) -> nn.Module:
        """The untrained host; the same initial weights for clean host and marked model (paired seeds)."""
        return self.build(self.rng("init"))

    def model(self, step: str) -> nn.Module:
        """A copy of the network that an input step left, in eval mode."""
        model = self.fresh()
        model.load_state_dict({name: t.to(self.device) for name, t in self.inputs[step].tensors("model").items()})
        return model.eval()

    def keys(self) -> list[Key]:
        """The owners' keys, on the device."""
        stored = self.inputs["keys"]
        return [
            Key(stored.tensors(f"key{i}") if named else {}, values).to(self.device)
            for i, (values, named) in enumerate(stored.result["keys"])
        ]

    def train(self, model: nn.Module, images: ImageSet, recipe: Recipe, rng: Rng, **extra: Any) -> training.Trained:
        """Train by the one loop, with what the data set and the device ask for."""
        mixed = self.device.type == "cuda"
        augment = self.data.card.augment
        return training.train(model, images, recipe, rng=rng, augment=augment, mixed_precision=mixed, **extra)


class _Host(Host):
    """The clean host as keygen sees it."""

    def __init__(self, job: Job, share: ImageSet, model: Callable[[], nn.Module], recipe: Recipe) -> None:
        self.arch = archs.arch(job.spec["arch"])
        self.dataset = job.data.card
        self.images = job.data.owner
        self.heldout = job.data.heldout
        self.share = share
        self.device = job.device
        self._job, self._model, self._recipe = job, model, recipe

    def model(self) -> nn.Module:
        return self._model()

    def layer(self, group: str) -> str:
        return archs.layer_path(self._job.spec["arch"], group)

    def train(self, images: ImageSet, rng: Rng, *, epochs: int | None = None) -> nn.Module:
        recipe = self._recipe if epochs is None else replace(self._recipe, epochs=epochs)
        model = self._job.build(rng.child("init"))
        return self._job.train(model, images.to(self.device), recipe, rng.child("training")).model


class AttackContext(Context):
    """What an attack may use."""

    def __init__(self, job: Job) -> None:
        self.data = job.data.adversary
        self.rng = job.rng("attack", job.spec["attack"])
        self.recipe = job.recipe
        self.arch = archs.arch(job.spec["arch"])
        self.device = job.device
        self._job = job

    def fresh(self, name: str = "surrogate") -> nn.Module:
        """An untrained network; see `Context.fresh`."""
        return self._job.build(self.rng.child("init", name))

    def epochs(
        self, images: ImageSet, recipe: Recipe, *, model: nn.Module | None = None, name: str = "training"
    ) -> Iterator[nn.Module]:
        """One training, an epoch at a time; see `Context.epochs`."""
        model = _start(self._job) if model is None else model.to(self.device)
        images, rng = images.to(self.device), self.rng.child(name)
        mixed, augment = self.device.type == "cuda", self._job.data.card.augment
        for _ in training.train_epochs(model, images, recipe, rng=rng, augment=augment, mixed_precision=mixed):
            yield model


class _Filtered(nn.Module):
    """A network behind a transform of its inputs."""

    def __init__(self, transform: Callable[[Tensor], Tensor], model: nn.Module) -> None:
        super().__init__()
        self.transform, self.model = transform, model

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.model(self.transform(x))
        return answer


def train_host(job: Job) -> Output:
    """The clean host: one per architecture, data set, recipe and seed."""
    images = job.data
    trained = job.train(job.fresh(), images.owner, job.recipe, job.rng("host training"))
    result = {
        "test_accuracy": training.accuracy(trained.model, images.heldout),
        "train_accuracy": training.accuracy(trained.model, images.owner),
        "history": [_epoch(epoch) for epoch in trained.history],
        "time_s": trained.time_s,
        "split": images.split,
    }
    return Output(result, {"model": dict(trained.model.state_dict())})


def make_keys(job: Job) -> Output:
    """One key per owner."""
    scheme, start_s = job.scheme, clock_s(job.device)
    hosts = [host_for(job, share) for share in owner_shares(job, scheme)]
    keys = [scheme.keygen(host, job.rng("key", job.spec["scheme"], i)) for i, host in enumerate(hosts)]
    for key in keys:
        if not isinstance(key, Key):
            raise ContractError(f"Expected keygen to return a Key, but got {type(key).__name__}.")
    capacity = scheme.capacity(hosts[0])
    return Output(
        {
            "keys": [[dict(key.values), bool(key.tensors)] for key in keys],
            "capacity_bits": capacity and capacity.bits,
            "capacity_limit": capacity and capacity.limit,
            "time_s": clock_s(job.device) - start_s,
        },
        {f"key{i}": dict(key.tensors) for i, key in enumerate(keys) if key.tensors},
    )


def embed(job: Job) -> Output:
    """The marked model: marked data, the embedding loss, and what the scheme writes afterwards."""
    scheme, keys = job.scheme, job.keys()
    start_s = clock_s(job.device)
    marked_images, measures = published_images(job, scheme, keys)
    model, history = _start(job), []
    if job.spec["situation"] != "post-hoc":
        extra = {"extra_loss": _embedding_loss(scheme, keys), "undecayed": _undecayed(scheme, keys)}
        trained = job.train(model, marked_images, job.recipe, job.rng("embedding", job.spec["scheme"]), **extra)
        model, history = trained.model, trained.history
    for key, share in zip(keys, owner_shares(job, scheme), strict=True):
        model = scheme.mark_model(model, key, host_for(job, share)).to(job.device)
    seconds = clock_s(job.device) - start_s
    judge = _Judge(job, scheme, keys, marked_images)
    result = {
        "point": _dump(judge(Claim(0.0, model=model))),
        "clean_verdicts": [_dump(verdict) for verdict in judge.verdicts(job.model("host"), job.data.owner, keys)],
        "history": [_epoch(epoch) for epoch in history],
        "measures": measures,
        "time_s": seconds,
    }
    return Output(result, {"model": dict(model.state_dict())})


def run_attack(job: Job) -> Output:
    """The attack's ladder against the marked model, each rung judged."""
    scheme, keys = job.scheme, job.keys()
    images, _ = published_images(job, scheme, keys)
    victim = Victim(job.model("mark"), keys[0], attackers_view(job, images))
    points = job.attack.run(victim, AttackContext(job), _Judge(job, scheme, keys, images))
    return Output({"points": [_dump(point) for point in points]})


def false_claims(job: Job) -> Output:
    """Fresh keys, which no model has seen, claim the clean host: their p-values."""
    scheme = job.scheme
    judge = _Judge(job, scheme, [], job.data.owner)
    return Output({"p_values": judge.p_values(job.model("host"), job.data.owner, _fresh_keys(job, scheme))})


def attacked_false_claims(job: Job) -> Output:
    """Fresh keys claim the clean host after the attack: p-values per rung, none at rungs that are not examined."""
    scheme = job.scheme
    keys = list(_fresh_keys(job, scheme))
    images, _ = published_images(job, scheme, [])
    judge = _Judge(job, scheme, keys, images)
    attack = job.attack
    examined = _spread(attack.ladder, job.spec["rungs"])
    rungs: list[list[float]] = []

    def claim_all(claim: Claim) -> Point:
        if claim.strength not in examined:
            rungs.append([])
            return Point(strength=claim.strength)
        suspect, published = judge.suspect(claim)
        claimed = keys if claim.key is None else [claim.key.to(job.device)]
        rungs.append(judge.p_values(suspect, published, claimed))
        return Point(strength=claim.strength)

    victim = Victim(job.model("host"), keys[0], attackers_view(job, images))
    attack.run(victim, AttackContext(job), claim_all)
    return Output({"p_values": rungs})


COMPUTE: dict[str, Callable[[Job], Output]] = {
    "host": train_host,
    "keys": make_keys,
    "mark": embed,
    "attack": run_attack,
    "nulls": false_claims,
    "attacked_nulls": attacked_false_claims,
}


class _Judge:
    """Judges claims: utility on the held-out images, and one verdict per owner. Attacks never see it."""

    def __init__(self, job: Job, scheme: Scheme, keys: Sequence[Key], published: ImageSet) -> None:
        self.job, self.scheme, self.keys, self.published = job, scheme, keys, published

    def __call__(self, claim: Claim) -> Point:
        model, images = self.suspect(claim)
        keys = self.keys if claim.key is None else [claim.key.to(self.job.device)]
        start_s = clock_s(self.job.device)
        verdicts = self.verdicts(model, images, keys)
        verify_time_s = clock_s(self.job.device) - start_s
        return Point(
            strength=claim.strength,
            test_accuracy=training.accuracy(model, self.job.data.heldout),
            verdicts=verdicts,
            measures=dict(claim.measures),
            verify_time_s=verify_time_s,
        )

    def suspect(self, claim: Claim) -> tuple[nn.Module, ImageSet]:
        """The network and the data set that a claim puts before the judge; what it leaves alone is the victim's."""
        model = claim.model
        if model is None and claim.images is not None:
            job = self.job
            rng = job.rng("learner", job.spec["attack"])
            model = job.train(_start(job), claim.images.to(job.device), job.recipe, rng).model
        if model is None:
            model = self.job.model("mark" if "mark" in self.job.inputs else "host")
        if claim.transform is not None:
            model = _Filtered(claim.transform, model)
        images = self.published if claim.images is None else claim.images.to(self.job.device)
        return model.to(self.job.device).eval(), images

    def verdicts(self, model: nn.Module, images: ImageSet, keys: Iterable[Key]) -> list[Verdict]:
        """One verdict per key on the same suspect, with the queries that each needed."""
        suspect = Suspect(self.scheme.card.access, model=model, images=images)
        found = []
        for key in keys:
            before = suspect.queries
            verdict = self.scheme.verify(suspect, key)
            if not isinstance(verdict, Verdict) or verdict.detected is not None:
                raise ContractError(f"Expected verify to return a Verdict without `detected`, but got {verdict!r}.")
            found.append(verdict.model_copy(update={"queries": suspect.queries - before}))
        return found

    def p_values(self, model: nn.Module, images: ImageSet, keys: Iterable[Key]) -> list[float]:
        """The p-value of each key."""
        return [verdict.p_value for verdict in self.verdicts(model, images, keys)]


def _recipe(spec: Mapping[str, Any]) -> Recipe:
    values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in spec["recipe"].items()}
    return Recipe(**values)


def host_for(job: Job, share: ImageSet) -> Host:
    """What an owner of this share sees of the clean host."""
    host_spec = job.inputs["host"].meta["identity"]["spec"]
    return _Host(job, share, lambda: job.model("host"), _recipe(host_spec))


def _start(job: Job) -> nn.Module:
    """The network that a learner of this cell starts from."""
    return job.fresh() if job.spec.get("situation", "train") == "train" else job.model("host")


def _rows(job: Job, scheme: Scheme) -> list[Tensor] | None:
    """Each owner's rows of the training set, disjoint, or None where every owner has all of it."""
    share, total = scheme.share, len(job.data.owner)
    count = share if isinstance(share, int) else round(share * total)
    owners = job.spec.get("owners", 1)
    if count >= total and (owners == 1 or scheme.card.carrier != "data"):
        return None
    if count < 1 or count * owners > total:
        raise ValueError(
            f"Expected {owners} owners with shares of {share} to fit into {total} training images, but they need "
            f"{count * owners}: lower --owners or the share."
        )
    order = torch.randperm(total, generator=job.rng("shares").torch())
    return [order[i * count : (i + 1) * count].to(job.device) for i in range(owners)]


def owner_shares(job: Job, scheme: Scheme) -> list[ImageSet]:
    """Each owner's own images; all of the training set where owners do not divide it."""
    rows, images = _rows(job, scheme), job.data.owner
    return [images] * job.spec.get("owners", 1) if rows is None else [images[part] for part in rows]


def published_images(job: Job, scheme: Scheme, keys: Sequence[Key]) -> tuple[ImageSet, dict[str, float]]:
    """The training set with every owner's share marked, and how well the images were kept."""
    images = job.data.owner
    if job.spec["situation"] == "distill":
        soft = training.soft_targets(job.model("host"), images)
        images = ImageSet(images.images, images.labels, soft)
    rows = _rows(job, scheme) if keys else None
    if rows is None:
        for key in keys:
            images = scheme.mark_data(images, key).to(job.device)
        return images, _quality([images], [job.data.owner])
    rest = torch.ones(len(images), dtype=torch.bool, device=job.device)
    rest[torch.cat(rows)] = False
    shares = [images[part] for part in rows]
    marked = [scheme.mark_data(share, key).to(job.device) for share, key in zip(shares, keys, strict=True)]
    return ImageSet.join([images[rest], *marked]), _quality(marked, shares)


def _quality(marked: Sequence[ImageSet], originals: Sequence[ImageSet]) -> dict[str, float]:
    """How well the owners' images were kept, mean over owners; nothing where none was changed."""
    pairs = [(m.images[: len(o)], o.images) for m, o in zip(marked, originals, strict=True)]
    if any(m.shape != o.shape for m, o in pairs) or all(torch.equal(m, o) for m, o in pairs):
        return {}
    return {"psnr_db": sum(psnr_db(m, o) for m, o in pairs) / len(pairs)}


def attackers_view(job: Job, images: ImageSet) -> ImageSet | None:
    """The owner's images, if this attack may have them."""
    card = job.attack.card
    return images if card.owner_data or card.stage in ("data", "training") else None


def _embedding_loss(scheme: Scheme, keys: Sequence[Key]) -> Callable[[nn.Module], Tensor | None]:
    def total(model: nn.Module) -> Tensor | None:
        losses = [loss for loss in (scheme.embedding_loss(model, key) for key in keys) if loss is not None]
        return torch.stack(losses).sum() if losses else None

    return total


def _undecayed(scheme: Scheme, keys: Sequence[Key]) -> set[str]:
    return {name for key in keys for name in scheme.undecayed(key)}


def _fresh_keys(job: Job, scheme: Scheme) -> Iterator[Key]:
    """Keys of owners whose images, where a scheme has a share, were in nobody's training set."""
    total, share = len(job.data.owner), scheme.share
    count = share if isinstance(share, int) else round(share * total)
    unseen = job.data.heldout
    if len(unseen) < count < total:
        raise ValueError(
            f"Expected the share of fresh keys ({count} images) to fit into the {len(unseen)} held-out images, but it "
            "does not: lower the share."
        )
    for i in range(job.spec["keys"]):
        rng = job.rng("fresh key", job.spec["scheme"], i)
        own = job.data.owner
        if count < total:
            own = unseen[torch.randperm(len(unseen), generator=rng.torch("share"))[:count].to(job.device)]
        yield scheme.keygen(host_for(job, own), rng).to(job.device)


def _spread(ladder: Sequence[float], count: int) -> set[float]:
    """`count` strengths evenly over the ladder, the last among them."""
    steps = min(count, len(ladder))
    return {ladder[round((i + 1) * len(ladder) / steps) - 1] for i in range(steps)}


def _epoch(epoch: training.Epoch) -> dict[str, Any]:
    return asdict(epoch)


def _dump(part: Point | Verdict) -> dict[str, Any]:
    return part.model_dump(mode="json")
