"""The schema of records: what a cell of the matrix, a calibration or the judging of a claim left behind."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, TypeAdapter, model_validator

from bench.contract.fields import Detail, Finite, Fraction, Hex, Name, Seconds, Strict, Text
from bench.contract.verdict import Point, Verdict
from bench.identity import digest

__all__ = [
    "AFTER_ATTACK",
    "FRESH_KEY",
    "LEFT_OUT",
    "OTHER_DATA",
    "OWN_DATA",
    "PERMUTED",
    "RECORDS",
    "RIVAL_DATA",
    "SCHEMA_VERSION",
    "Applied",
    "CalibrationRecord",
    "Cell",
    "CellRecord",
    "ClaimRecord",
    "NullSet",
    "Provenance",
    "Record",
    "RecordError",
]

SCHEMA_VERSION: Literal[2] = 2
# Kinds of nulls: a key that no network has seen claims the clean host, or that host after the attack; an owner drawn as
# the others were claims a network that was trained without this owner's images.
FRESH_KEY, AFTER_ATTACK, LEFT_OUT = "fresh key", "fresh key after attack", "left-out owner"
# Null models that fresh keys claim, by what they learned: the owner's images as the clean host did, those with the
# classes' names permuted, another data set, what the adversary has.
OWN_DATA, PERMUTED = "independent clean model", "permuted labels"
OTHER_DATA, RIVAL_DATA = "other data set", "data of the adversary"
LONGEST_NAME = 200  # characters of a file name before the digest

# An attack's name may be a combination: `pruning=50+output-noise`.
AttackName = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._+=@-]*$")]
Key = Annotated[str, StringConstraints(max_length=500)]
Params = Annotated[dict[Key, Detail], Field(max_length=500)]
Numbers = Annotated[dict[Key, Finite], Field(max_length=1000)]
Verdicts = Annotated[list[Verdict], Field(max_length=10_000)]
PValues = Annotated[list[Fraction], Field(max_length=100_000)]


class RecordError(ValueError):
    """A file is not a valid record; the message says which file and what is wrong."""


class Applied(Strict):
    """One attack of a chain, with its parameters."""

    name: Name
    params: Params = {}


class Cell(Strict):
    """The identity of one cell of the matrix: what was asked for, nothing of how it went.

    Attributes:
        attack: as it is typed: a name, or a chain such as `pruning=50+output-noise`.
        attacks: the attacks of the chain in order, with their parameters.
    """

    scheme: Name
    attack: AttackName
    arch: Name
    dataset: Name
    situation: Name
    profile: Name
    seed: Annotated[int, Field(ge=0, lt=2**31)]
    owners: Annotated[int, Field(ge=1, le=10_000)] = 1
    scheme_params: Params = {}
    attacks: Annotated[list[Applied], Field(max_length=16)] = []

    @model_validator(mode="after")
    def _named(self) -> Cell:
        typed = [part.partition("=")[0] for part in self.attack.split("+")]
        if self.attacks and [applied.name for applied in self.attacks] != typed:
            raise ValueError(f"Expected the attacks of {self.attack!r}, but got {[a.name for a in self.attacks]}.")
        return self

    @property
    def attack_params(self) -> dict[str, Any]:
        """The parameters of the attack; of a chain by `NAME.param`."""
        if len(self.attacks) == 1:
            return dict(self.attacks[0].params)
        return {f"{each.name}.{name}": value for each in self.attacks for name, value in each.params.items()}

    @property
    def identity(self) -> str:
        """Digest of the cell's fields: two cells with the same digest ask the same question."""
        return digest(self.model_dump())

    @property
    def filename(self) -> str:
        """The name of the cell's record: readable, at most 213 characters, unique to the cell's identity."""
        return _filename(
            self.scheme, self.attack, self.arch, self.dataset, self.situation, self.profile, f"s{self.seed}",
            identity=self.identity,
        )  # fmt: skip


def _filename(*parts: str, identity: str) -> str:
    return "__".join(part.replace(" ", "-") for part in parts)[:LONGEST_NAME] + f"__{identity[:8]}.json"


class Provenance(Strict):
    """Where a record comes from: enough to rebuild it, and to see why two differ.

    Attributes:
        cpu_capability: the instructions that PyTorch used, for instance `AVX512`, and variables that limit them.
        math_library: names and versions of what multiplies matrices.
        arithmetic: how the device computed: half precision, TF32, determinism; empty where it was not kept.
    """

    bench_version: Name
    git_revision: Annotated[str, Field(max_length=64)] | None = None
    git_dirty: bool | None = None
    source_hash: Hex
    data_checksum: Annotated[str, Field(max_length=200)]
    split: Annotated[dict[Key, Annotated[int, Field(ge=0, lt=2**63)]], Field(max_length=100)] = {}
    steps: Annotated[dict[Key, Hex], Field(max_length=100)] = {}
    packages: Annotated[dict[Key, Annotated[str, Field(max_length=60)]], Field(max_length=1000)] = {}
    python: Annotated[str, Field(max_length=60)] = ""
    platform: Annotated[str, Field(max_length=200)] = ""
    device: Annotated[str, Field(max_length=100)] = "cpu"
    threads: Annotated[int, Field(ge=1, le=4096)] = 1
    cpu_model: Annotated[str, Field(max_length=200)] = ""
    cpu_capability: Annotated[str, Field(max_length=200)] = ""
    math_library: Annotated[str, Field(max_length=200)] = ""
    arithmetic: Annotated[str, Field(max_length=200)] = ""
    finished: Annotated[str, Field(max_length=40)] = ""


class NullSet(Strict):
    """P-values of claims that are false by construction.

    Attributes:
        kind: who claims what, for instance `FRESH_KEY` (a key that no model has seen claims the clean host).
        strength: of the attack that the host went through; None for no attack.
        network: number of the null model that is claimed; None for the clean host, for networks that were trained
            without some owners' images, and for a suspect that no chance went into.
        p_values: one a claim, in the order of the fresh keys.
    """

    kind: Name
    strength: Finite | None = None
    network: Annotated[int, Field(ge=0, lt=10_000)] | None = None
    p_values: PValues


class _Kept(Strict):
    """What every kind of record says."""

    schema_version: Literal[2] = SCHEMA_VERSION
    provenance: Provenance


class CellRecord(_Kept):
    """Everything that one cell left behind: what was measured, and no number that is derived from it.

    Attributes:
        cell_key: content key: the cell, the source that computed it, the data and the seed.
        status: `ok`, `failed` (see `traceback`) or `not applicable` (see `reason`): three different things.
        carrier, access, stage: from the cards, so that a page can filter by threat model without the code.
        committed: of an attack on the evidence: whether it forges a key that was committed to before the suspect was
            seen; None for all other attacks.
        unit: of the strengths.
        marked: the marked model before the attack (strength 0).
        curve: the attack's rungs in order.
        clean_accuracy: test accuracy of the clean host with the same seed.
        control_accuracy: test accuracy after the same embedding situation without a mark; None where the clean host
            is that control, or nobody trained one.
        clean_unseen_accuracy, control_unseen_accuracy: the same on all unseen images: see `Point`.
        clean_verdicts: one per owner on the clean host.
        heldout_verdicts: of users whose images nobody was trained on, on the marked model.
        nulls: the p-values of claims that are false.
        histories: by name (`keygen/...`, `training/...`), a number per epoch of what was trained.
        timings_s: seconds per phase: `host`, `keygen`, `embed`, `embed_baseline` and so on.
        measures: numbers of the whole cell, for instance the capacity in bits or the PSNR of marked images.
    """

    type: Literal["cell"] = "cell"
    cell_key: Hex
    cell: Cell
    status: Literal["ok", "failed", "not applicable"]
    reason: Text | None = None
    traceback: Text | None = None
    carrier: Name | None = None
    access: Name | None = None
    stage: Name | None = None
    committed: bool | None = None
    unit: Annotated[str, Field(max_length=80)] = ""
    marked: Point | None = None
    curve: Annotated[list[Point], Field(max_length=1000)] = []
    clean_accuracy: Fraction | None = None
    control_accuracy: Fraction | None = None
    clean_unseen_accuracy: Fraction | None = None
    control_unseen_accuracy: Fraction | None = None
    clean_verdicts: Verdicts = []
    heldout_verdicts: Verdicts = []
    nulls: Annotated[list[NullSet], Field(max_length=2000)] = []
    histories: Annotated[dict[Key, Annotated[list[Finite], Field(max_length=10_000)]], Field(max_length=1000)] = {}
    timings_s: Annotated[dict[Key, Seconds], Field(max_length=100)] = {}
    measures: Numbers = {}

    @model_validator(mode="after")
    def _status_has_its_evidence(self) -> CellRecord:
        for status, field in (("ok", "marked"), ("failed", "traceback"), ("not applicable", "reason")):
            if self.status == status and not getattr(self, field):
                raise ValueError(f"Expected a record with status {status!r} to hold its {field}, but it has none.")
        measured = ("marked", "curve", "clean_verdicts", "heldout_verdicts", "nulls")
        odd = next((name for name in measured if self.status != "ok" and getattr(self, name)), None)
        if odd:
            raise ValueError(f"Expected {odd} only with status 'ok', but the status is {self.status!r}.")
        return self

    @model_validator(mode="after")
    def _curve_is_one_ladder(self) -> CellRecord:
        if any(b.strength <= a.strength for a, b in pairwise(self.points)):
            raise ValueError("Expected the strengths to increase from that of the marked model, but they do not.")
        owned = self.points[:1] if self.stage == "evidence" else self.points  # a forged claim is no owner's
        odd = next((len(point.verdicts) for point in owned if len(point.verdicts) != self.cell.owners), None)
        if odd is not None:
            raise ValueError(f"Expected {self.cell.owners} verdicts at every strength, one an owner, but got {odd}.")
        return self

    @property
    def points(self) -> list[Point]:
        """The marked point, then the rungs."""
        return ([self.marked] if self.marked else []) + self.curve

    def findings(self) -> dict[str, Any]:
        """What must be the same when the same command runs again: everything but times and environment."""
        data = self.model_dump(mode="json", exclude={"timings_s", "provenance"})
        for point in [data["marked"], *data["curve"]]:
            for name in ("attack_time_s", "verify_time_s"):
                (point or {}).pop(name, None)
        return data

    @property
    def filename(self) -> str:
        """Where the cell's record is kept."""
        return self.cell.filename


class CalibrationRecord(_Kept):
    """P-values of one kind of null for one scheme: how often it claims what is not its owner's.

    Attributes:
        attack: what the hosts went through; `none` for clean ones.
    """

    type: Literal["calibration"] = "calibration"
    scheme: Name
    attack: AttackName
    arch: Name
    dataset: Name
    profile: Name
    nulls: Annotated[list[NullSet], Field(min_length=1, max_length=2000)]

    @property
    def filename(self) -> str:
        """Where the record is kept."""
        place = (self.scheme, self.attack, self.arch, self.dataset, self.profile)
        return _filename("calibration", *place, identity=digest(place))


class ClaimRecord(_Kept):
    """Whether a paper's claim holds, and the evidence.

    Attributes:
        claim: the claim's name.
        source: where the paper says it.
        cells: digests of the cells that were judged.
    """

    type: Literal["claim"] = "claim"
    paper: Name
    claim: Name
    statement: Text
    source: Text
    profile: Name
    verdict: Literal["PASS", "FAIL", "INCONCLUSIVE"]
    evidence: Params = {}
    cells: Annotated[list[Hex], Field(max_length=10_000)] = []

    @property
    def filename(self) -> str:
        """Where the record is kept."""
        place = (self.paper, self.claim, self.profile)
        return _filename("claim", *place, identity=digest(place))


Record = Annotated[CellRecord | CalibrationRecord | ClaimRecord, Field(discriminator="type")]
RECORDS: TypeAdapter[CellRecord | CalibrationRecord | ClaimRecord] = TypeAdapter(Record)
