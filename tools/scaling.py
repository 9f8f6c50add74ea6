"""Prints what the matrix of all schemes and attacks costs, in steps, FLOPs, device hours and money, and how it scales.

python tools/scaling.py [--profiles standard,paper] [--archs wrn,alexnet,vgg16,resnet50] [--seeds 5]
    [--workers 1,8,64,512] [--speed 1] [--overhead-s 2] [--price 2.5] [--write]

The steps are those of the real plan. FLOPs of a network are counted by PyTorch on the `meta` device, its speed was
measured (`SPEED`). How many images an attack and a verdict pass through the network comes from the shipped records of
all schemes and attacks at `quick`. A schedule is simulated by list scheduling. With `--write` the tables replace those
in docs/scaling.md.
"""

from __future__ import annotations

import argparse
import heapq
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from bench.runner.order import priorities, tails

if TYPE_CHECKING:
    from bench.plan.step import Step

ROOT = Path(__file__).parent.parent
PAGE, RECORDS = ROOT / "docs" / "scaling.md", ROOT / "leaderboard" / "records"
BEGIN, END = "<!-- tools/scaling.py begins -->", "<!-- tools/scaling.py ends -->"
# CIFAR-10 as the split divides it, and digits-m, on which the shipped records were made.
OWNER, ADVERSARY, HELDOUT = 33_333, 16_667, 10_000
SMALL_OWNER, SMALL_EPOCHS = 898, {True: 16, False: 30}  # digits-m; epochs at `quick` of a learner, and of a host
# Images/s of the training loop on one H100 (`tests/benchmarks/test_gpu.py`); other networks: the FLOP/s of the first.
SPEED = {"wrn": 61_200, "alexnet": 89_400, "vgg16": 49_200, "resnet50": 11_600}
TRAINING = 3  # a step of training costs about three forward passes


# ---- schedules -------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Schedule:
    """A simulated schedule.

    Attributes:
        makespan: when the last step ends.
        total: of all durations.
        critical: the longest chain of steps that wait for one another.
        workers: how many there were.
    """

    makespan: float
    total: float
    critical: float
    workers: int

    @property
    def ideal(self) -> float:
        """No schedule is shorter: the longest chain, or the work divided evenly."""
        return max(self.critical, self.total / self.workers)

    @property
    def limit(self) -> str:
        """What a shorter schedule would need."""
        return "the longest chain of steps" if self.critical > self.total / self.workers else "the work"


def schedule(
    durations: Sequence[float], inputs: Sequence[Sequence[int]], workers: int, priority: Sequence[float] | None = None
) -> Schedule:
    """List scheduling: a worker that is free takes the first step of the list whose inputs are done.

    No such schedule is longer than 2 - 1/m times the best one of m workers (Graham 1969, Theorem 1).

    Args:
        durations: of each step; steps stand after their inputs.
        inputs: numbers of the steps that each step waits for.
        workers: at least 1.
        priority: the order of the list, the lowest first; by default as the steps stand.
    """
    order = list(range(len(durations))) if priority is None else list(priority)
    readers, waiting = defaultdict[int, list[int]](list), [len(set(needed)) for needed in inputs]
    for step, needed in enumerate(inputs):
        for one in set(needed):
            readers[one].append(step)
    ready = [(order[step], step) for step, count in enumerate(waiting) if not count]
    heapq.heapify(ready)
    running, now = list[tuple[float, int]](), 0.0
    while ready or running:
        while ready and len(running) < workers:
            step = heapq.heappop(ready)[1]
            heapq.heappush(running, (now + durations[step], step))
        now, ended = heapq.heappop(running)
        for step in readers[ended]:
            waiting[step] -= 1
            if not waiting[step]:
                heapq.heappush(ready, (order[step], step))
    return Schedule(now, sum(durations), max(tails(durations, inputs), default=0.0), workers)


# ---- FLOPs -----------------------------------------------------------------------------------------------------------
@cache
def flops(arch: str, width: float = 1.0, *, train: bool = False, classes: int = 10) -> float:
    """FLOPs an image of 32 x 32 takes forward, or forward and backward; a multiplication and an addition are two."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from bench import archs
    from bench.identity import Rng

    model = archs.build(arch, classes, width=width, rng=Rng("flops")).to("meta").train(train)
    images = torch.empty(2, 3, 32, 32, device="meta")
    with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(train):
        out = model(images)
        if train:
            out.sum().backward()
    return counter.get_total_flops() / len(images)


def rate(arch: str) -> float:
    """FLOP/s that training an architecture reached, or the first one measured did."""
    known = arch if arch in SPEED else next(iter(SPEED))
    return SPEED[known] * flops(known, train=True)


@dataclass
class Passes:
    """How many images attacks and verdicts pass through a network, in trained images of `digits-m` at `quick`.

    Attributes:
        attack: attack -> images, of a whole ladder without its verdicts.
        verdict: (scheme, attack) -> images, of the verdicts of the ladder.
        one: scheme -> images, of one verdict on a marked network.
    """

    attack: dict[str, float] = field(default_factory=dict)
    verdict: dict[str, float] = field(default_factory=dict)
    one: dict[str, float] = field(default_factory=dict)

    @classmethod
    def measured(cls, folder: Path = RECORDS) -> Passes:
        """Of the shipped records: medians over schemes, in units of the time that the host took to train."""
        from bench.records.files import load_records

        found: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in ("attack", "verdict", "one")}
        for record in load_records(folder):
            if record.status != "ok" or record.cell.profile != "quick" or not record.timings_s.get("host"):
                continue
            images = SMALL_OWNER * SMALL_EPOCHS[record.carrier in ("data", "none")] / record.timings_s["host"]
            spent = sum(point.attack_time_s for point in record.curve)
            judged = sum(point.verify_time_s for point in record.curve)
            trains = record.stage == "data"  # the learner of attacked images trains when it is judged
            found["attack"][record.cell.attack].append(images * (spent + (judged if trains else 0)))
            found["verdict"][record.cell.attack].append(0.0 if trains else images * judged)
            assert record.marked is not None
            found["one"][record.cell.scheme].append(images * record.marked.verify_time_s)
        return cls(**{name: {key: median(values) for key, values in each.items()} for name, each in found.items()})


class Work:
    """FLOPs of each step of a plan.

    Args:
        passes: what attacks and verdicts pass through a network.
    """

    def __init__(self, passes: Passes) -> None:
        self.passes = passes

    def __call__(self, step: Step) -> float:
        """FLOPs of a step."""
        spec = step.spec
        trained, forward = self.images(step)
        return trained * flops(spec["arch"], spec["width"], train=True) + forward * flops(spec["arch"], spec["width"])

    def images(self, step: Step) -> tuple[float, float]:
        """Images that are trained on, and images that pass forward only."""
        spec, kind = step.spec, step.kind
        epochs = spec["recipe"]["epochs"] if "recipe" in spec and spec.get("situation") != "post-hoc" else 0
        whole, heldout = epochs * (spec["owner"] or OWNER), spec["heldout"] or HELDOUT
        verdict = self.passes.one.get(spec.get("scheme", ""), 0.0)
        if kind in ("attack", "attacked_nulls"):
            return self._attacked(step, heldout)
        if kind in ("nulls", "left_out_claims"):
            return spec.get("keys", spec.get("claims", 0)) * verdict, 0
        if kind == "null_claims":  # eight networks at most
            return 8 * spec["keys"] * verdict, 0
        if kind == "mark":
            return whole + verdict * (2 + spec["heldout_users"]), heldout
        return whole, {"host": heldout + (spec["owner"] or OWNER), "control": heldout}.get(kind, 0)

    def _attacked(self, step: Step, heldout: int) -> tuple[float, float]:
        """An attack, its verdicts, and one pass of the held-out images for each rung."""
        name, params = step.spec["attacks"][-1]
        rungs = len(params.get("ladder") or [0])
        attack = self.passes.attack.get(name, 0.0) * scale(name, params, step.spec["recipe"]["epochs"])
        if step.kind == "attacked_nulls":
            verdicts = step.spec["keys"] * step.spec["rungs"] * self.passes.one.get(step.spec["scheme"], 0.0)
            return attack + verdicts, 0
        return attack + self.passes.verdict.get(name, 0.0), rungs * heldout


def scale(name: str, params: Mapping[str, Any], epochs: int) -> float:
    """How many times the work of the attack at `quick` it is with these parameters, on a data set of full size.

    Args:
        name: of the attack.
        params: in the plan.
        epochs: of the recipe that the victim was trained by, or of the learner's.
    """
    from bench.registry import attacks, make, params_of

    cls = attacks()[name]
    before = params_of(make(cls, cls.card.scales.get("quick", {})))
    rungs, before_rungs = (p.get("ladder") or [1] for p in (params, before))
    rung = len(rungs) / len(before_rungs)
    learner = cls.card.stage in ("data", "training")
    if learner or cls.card.unit == "% of a training":
        return (rung if learner else 1) * epochs / (SMALL_EPOCHS[True] if learner else 8) * OWNER / SMALL_OWNER
    if cls.card.unit == "epochs":
        return max(rungs) / max(before_rungs) * OWNER / SMALL_OWNER
    if params.get("epochs"):
        return rung * params["epochs"] / max(1, before.get("epochs", 1)) * OWNER / SMALL_OWNER
    return rung * (OWNER / SMALL_OWNER if cls.card.adversary.images else 1)


# ---- the matrix ------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Matrix:
    """All schemes against all attacks, as a graph of steps."""

    cells: int
    meaningful: int
    kinds: Mapping[str, int]
    flops: Mapping[str, float]
    seconds: Mapping[str, float]
    inputs: Sequence[Sequence[int]]
    work_s: Sequence[float]
    labels: Sequence[str]
    networks: int

    @classmethod
    def of(cls, profile: str, archs: Sequence[str], seeds: int, work: Callable[[Step], float]) -> Matrix:
        """The plan of a profile; the data sets need not be there."""
        from bench.plan.matrix import Request, expand, steps_of
        from bench.plan.profiles import PROFILES
        from bench.registry import attacks, schemes

        chosen = PROFILES[profile]
        checksums = {name: name for name in (chosen.dataset, "digits-m", "photographs", "caltech101")}
        request = Request(
            tuple(schemes()), tuple(attacks()), tuple(archs), (chosen.dataset,), (chosen.situation,), chosen,
            tuple(range(seeds)),
        )  # fmt: skip
        cells = expand(request, checksums)
        steps = steps_of(cells)
        number = {step.key: index for index, step in enumerate(steps)}
        inputs = [[number[needed.key] for needed in step.inputs.values()] for step in steps]
        each = [work(step) for step in steps]
        times = [its / rate(step.spec["arch"]) for step, its in zip(steps, each, strict=True)]
        by_kind, seconds = defaultdict[str, float](float), defaultdict[str, float](float)
        for step, its, taken in zip(steps, each, times, strict=True):
            by_kind[step.kind] += its
            seconds[step.kind] += taken
        kinds = Counter(step.kind for step in steps)
        networks = sum(kinds[kind] for kind in ("host", "mark", "without", "null_host"))
        meaningful = sum(cell.reason is None for cell in cells)
        labels = [step.label for step in steps]
        return cls(len(cells), meaningful, kinds, by_kind, seconds, inputs, times, labels, networks)


def chain(matrix: Matrix, durations: Sequence[float]) -> list[str]:
    """The labels of the longest chain of steps."""
    longest = tails(durations, matrix.inputs)
    readers = defaultdict[int, list[int]](list)
    for step, needed in enumerate(matrix.inputs):
        for one in needed:
            readers[one].append(step)
    step = max(range(len(durations)), key=longest.__getitem__)
    found = [matrix.labels[step]]
    while readers[step]:
        step = max(readers[step], key=longest.__getitem__)
        found.append(matrix.labels[step])
    return found


# ---- tables ----------------------------------------------------------------------------------------------------------
def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table in Markdown; the first column is text."""
    lines = ["| " + " | ".join(head) + " |", "| --- " + "| ---: " * (len(head) - 1) + "|"]
    return "\n".join(lines + ["| " + " | ".join(map(str, row)) + " |" for row in rows])


def networks_table(archs: Sequence[str]) -> str:
    """FLOPs of an image, and the speed of training, by architecture."""
    rows = [
        [arch, f"{flops(arch) / 1e9:.3f}", f"{flops(arch, train=True) / 1e9:.3f}",
         f"{rate(arch) / flops(arch, train=True):,.0f}", f"{rate(arch) / 1e12:.0f}"]
        for arch in archs
    ]  # fmt: skip
    head = ["architecture", "forward, GFLOP an image", "training step, GFLOP an image", "images/s", "TFLOP/s"]
    return table(head, rows)


def costs_table(matrix: Matrix, asked: argparse.Namespace) -> str:
    """Steps, work, device hours and money, by kind of step."""

    def row(name: str, count: int, work: float, seconds: float) -> list[str]:
        hours = (seconds / asked.speed + asked.overhead_s * count) / 3600
        return [name, f"{count:,}", f"{work / 1e15:,.0f}", f"{hours:,.0f}", f"{hours * asked.price:,.0f}"]

    kinds = sorted(matrix.kinds, key=lambda kind: -matrix.seconds[kind])
    rows = [row(kind.replace("_", " "), matrix.kinds[kind], matrix.flops[kind], matrix.seconds[kind]) for kind in kinds]
    rows.append(row("**all**", sum(matrix.kinds.values()), sum(matrix.flops.values()), sum(matrix.work_s)))
    return table(["kind of step", "steps", "PFLOP", "device hours", "money"], rows)


def schedules_table(matrix: Matrix, asked: argparse.Namespace) -> str:
    """Simulated schedules, as the coordinator orders the steps, and in the order of the plan."""
    durations = [asked.overhead_s + seconds / asked.speed for seconds in matrix.work_s]
    rows = []
    for workers in asked.workers:
        plan = schedule(durations, matrix.inputs, workers)
        ours = schedule(durations, matrix.inputs, workers, priorities(durations, matrix.inputs, workers))
        hours = [f"{seconds / 3600:,.2f}" for seconds in (ours.ideal, ours.makespan)]
        over = [f"{each.makespan / each.ideal:.3f}" for each in (ours, plan)]
        rows.append([workers, *hours, *over, plan.limit])
    head = ["workers", "ideal, hours", "makespan, hours", "over ideal", "in the order of the plan", "limited by"]
    longest = " → ".join(chain(matrix, durations))
    return f"{table(head, rows)}\n\nLongest chain: {longest} ({plan.critical / 3600:.2f} hours)."


def report(asked: argparse.Namespace) -> str:
    """All tables, in Markdown."""
    work = Work(Passes.measured())
    parts = [networks_table(asked.archs)]
    for profile in asked.profiles:
        matrix = Matrix.of(profile, asked.archs, asked.seeds, work)
        parts += [
            f"### Profile `{profile}`",
            f"{matrix.cells:,} cells, of which {matrix.meaningful:,} have a meaning; {sum(matrix.kinds.values()):,} "
            f"steps; {matrix.networks:,} networks are kept.",
            costs_table(matrix, asked),
            schedules_table(matrix, asked),
        ]
    return "\n\n".join(parts)


def names(text: str) -> list[str]:
    """A comma list."""
    return [part.strip() for part in text.split(",") if part.strip()]


def options() -> argparse.ArgumentParser:
    """What can be typed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profiles", type=names, default=["standard", "paper"])
    parser.add_argument("--archs", type=names, default=["wrn", "alexnet", "vgg16", "resnet50"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--workers", type=lambda text: list(map(int, names(text))), default=[1, 8, 64, 512])
    parser.add_argument("--speed", type=float, default=1.0, help="of a device, in those that were measured")
    parser.add_argument("--overhead-s", type=float, default=2.0, help="of a step besides its network")
    parser.add_argument("--price", type=float, default=2.5, help="of a device hour")
    parser.add_argument("--write", action="store_true", help="replace the tables in docs/scaling.md")
    return parser


def main() -> None:
    """Print the tables, or write them into the page."""
    asked = options().parse_args()
    found = report(asked)
    if not asked.write:
        print(found)
        return
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n\n{found}\n\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
