"""The schema of a record: everything that one cell of the matrix left behind."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, model_validator

from bench.contract.fields import Detail, Finite, Fraction, Hex, Name, Seconds, Strict, Text
from bench.contract.verdict import Point, Verdict
from bench.identity import digest
from bench.stats import Interval, protection_advantage, wilson_interval

__all__ = ["Cell", "Count", "Protection", "Provenance", "Record", "RecordError", "Security"]


COIN = 0.5


class RecordError(ValueError):
    """A file is not a valid record; the message says which file and what is wrong."""


class Protection(NamedTuple):
    """Protection advantage (Anti-Neuron Watermarking, Eq. 7): matches beyond what guessing gives.

    Attributes:
        matches, trials: M of N experiments.
        chance: p, of a match by guessing.
    """

    matches: int
    trials: int
    chance: float

    @property
    def advantage(self) -> float:
        """(M - N p) / N; its ceiling is 1 - p."""
        return protection_advantage(self.matches, self.trials, self.chance)

    @property
    def normalised(self) -> float | None:
        """The advantage as a fraction of its ceiling, so that methods of different chance compare.

        None where guessing is always right, which leaves no advantage to gain.
        """
        return self.advantage / (1 - self.chance) if self.chance < 1 else None

    @property
    def interval(self) -> Interval | None:
        """Of the advantage: Wilson's for M / N, less p."""
        found = wilson_interval(self.matches, self.trials)
        return found and Interval(found.low - self.chance, found.high - self.chance)


class Count(Strict):
    """How many of `trials` claims were (falsely) accepted."""

    hits: Annotated[int, Field(ge=0)]
    trials: Annotated[int, Field(ge=0)]

    @model_validator(mode="after")
    def _bounded(self) -> Count:
        if self.hits > self.trials:
            raise ValueError(f"Expected at most {self.trials} hits, but got {self.hits}.")
        return self


class Security(Strict):
    """False claims of fresh keys at the matrix's FPR: on clean hosts, and on clean hosts after the attack.

    `attacked` is per rung, in the order of the curve; a rung without trials was not examined.
    """

    clean: Count
    attacked: list[Count] = []


class Cell(Strict):
    """The identity of one cell of the matrix: what was asked for, nothing of how it went."""

    scheme: Name
    attack: Name
    arch: Name
    dataset: Name
    situation: Name
    profile: Name
    seed: Annotated[int, Field(ge=0, lt=2**31)]
    owners: Annotated[int, Field(ge=1, le=10_000)] = 1
    scheme_params: dict[str, Detail] = {}
    attack_params: dict[str, Detail] = {}

    @property
    def identity(self) -> str:
        """Digest of the cell's fields: two cells with the same digest ask the same question."""
        return digest(self.model_dump())


class Provenance(Strict):
    """Where a record comes from: enough to rebuild it, and to see why two differ."""

    bench_version: Name
    git_revision: Annotated[str, Field(max_length=64)] | None = None
    git_dirty: bool | None = None
    source_hash: Hex
    data_checksum: Annotated[str, Field(max_length=200)]
    split: dict[str, int] = {}
    steps: dict[str, Hex] = {}
    packages: dict[str, Annotated[str, Field(max_length=60)]] = {}
    python: Annotated[str, Field(max_length=60)] = ""
    platform: Annotated[str, Field(max_length=200)] = ""
    device: Annotated[str, Field(max_length=100)] = "cpu"
    threads: Annotated[int, Field(ge=1, le=4096)] = 1
    finished: Annotated[str, Field(max_length=40)] = ""


class Record(Strict):
    """Everything one cell left behind.

    Attributes:
        cell_key: content key: the cell, the source that computed it, the data and the seed.
        status: `ok`, `failed` (see `traceback`) or `not applicable` (see `reason`): three different things.
        carrier, access, stage: from the cards, so that a page can filter by threat model without the code.
        unit: of the strengths.
        marked: the marked model before the attack (strength 0).
        curve: the attack's rungs in order.
        clean_accuracy: test accuracy of the clean host with the same seed.
        clean_verdicts: one per owner on the clean host.
        heldout_verdicts: of users whose images nobody was trained on, on the marked model.
        histories: by name (`keygen/...`, `training/...`), a number per epoch of what was trained.
        timings_s: seconds per phase: `host`, `keygen`, `embed`, `embed_baseline` and so on.
        measures: numbers of the whole cell, for instance the capacity in bits or the PSNR of marked images.
    """

    schema_version: Literal[1] = 1
    cell_key: Hex
    cell: Cell
    status: Literal["ok", "failed", "not applicable"]
    reason: Text | None = None
    traceback: Text | None = None
    carrier: Name | None = None
    access: Name | None = None
    stage: Name | None = None
    unit: Annotated[str, Field(max_length=80)] = ""
    fpr: Fraction = 0.01
    marked: Point | None = None
    curve: Annotated[list[Point], Field(max_length=1000)] = []
    clean_accuracy: Fraction | None = None
    clean_verdicts: list[Verdict] = []
    heldout_verdicts: list[Verdict] = []
    histories: dict[str, Annotated[list[Finite], Field(max_length=10_000)]] = {}
    security: Security | None = None
    timings_s: dict[str, Seconds] = {}
    measures: dict[str, Finite] = {}
    provenance: Provenance

    @model_validator(mode="after")
    def _consistent(self) -> Record:
        if self.status == "ok" and self.marked is None:
            raise ValueError("Expected a record with status 'ok' to hold the marked point, but it has none.")
        if self.status == "failed" and not self.traceback:
            raise ValueError("Expected a record with status 'failed' to hold its traceback, but it has none.")
        if self.status == "not applicable" and not self.reason:
            raise ValueError("Expected a record with status 'not applicable' to hold its reason, but it has none.")
        return self

    @property
    def points(self) -> list[Point]:
        """The marked point, then the rungs."""
        return ([self.marked] if self.marked else []) + self.curve

    def loss_pp(self, point: Point) -> float | None:
        """Accuracy, in percentage points, that the attacker gave up to get from the marked model to `point`."""
        if self.marked is None or self.marked.test_accuracy is None or point.test_accuracy is None:
            return None
        return 100 * (self.marked.test_accuracy - point.test_accuracy)

    @property
    def fidelity_pp(self) -> float | None:
        """Test accuracy of the marked model minus that of the clean host, in percentage points."""
        if self.marked is None or self.marked.test_accuracy is None or self.clean_accuracy is None:
            return None
        return 100 * (self.marked.test_accuracy - self.clean_accuracy)

    def worst_case(self, budget_pp: float = 5.0) -> Point | None:
        """The mildest point with the weakest detection among those that cost at most `budget_pp` points.

        None for attacks on the evidence, which leave the mark alone: a refused forgery is no robustness lost.
        """
        if self.stage == "evidence":
            return None
        affordable = [p for p in self.points if (loss := self.loss_pp(p)) is not None and loss <= budget_pp]
        return min(affordable, key=lambda point: (point.detected_share, point.strength), default=None)

    @property
    def removal_cost_pp(self) -> float | None:
        """The least accuracy an attacker gave up where most owners' claims broke; None if that never happened."""
        if self.stage == "evidence":
            return None
        broken = [self.loss_pp(point) for point in self.points if point.detected_share < 0.5]
        return min((max(0.0, loss) for loss in broken if loss is not None), default=None)

    def protection(self, point: Point | None = None) -> Protection | None:
        """Protection advantage over the owners at `point` (by default the marked model).

        A scheme that identifies nothing, or does not say how often guessing would, is right where it detects, and by
        chance at the false positive rate. Where the answer is a yes or no that a coin would get right, held-out users
        are trials too, and no is their answer: None where they were not asked (they are on the marked model alone),
        because who always says yes would always be right. None as well for attacks on the evidence, whose claims are
        no owner's, and without verdicts.
        """
        point = point or self.marked
        if point is None or not point.verdicts or (self.stage == "evidence" and point is not self.marked):
            return None
        verdicts = point.verdicts
        chances = [verdict.chance for verdict in verdicts if verdict.chance is not None]
        if len(chances) < len(verdicts) or any(verdict.matched is None for verdict in verdicts):
            return Protection(sum(v.p_value <= self.fpr for v in verdicts), len(verdicts), self.fpr)
        right, chance = [bool(verdict.matched) for verdict in verdicts], max(chances)
        if chance == COIN:
            others = [not v.matched for v in self.heldout_verdicts if v.matched is not None and point is self.marked]
            if not others:
                return None
            right += others
        return Protection(sum(right), len(right), chance)

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
        return self.name_of(self.cell)

    @staticmethod
    def name_of(cell: Cell) -> str:
        """A readable file name, unique to the cell's identity."""
        parts = (cell.scheme, cell.attack, cell.arch, cell.dataset, cell.situation, cell.profile, f"s{cell.seed}")
        return "__".join(part.replace(" ", "-") for part in parts) + f"__{cell.identity[:8]}.json"
