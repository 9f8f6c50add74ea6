"""Expected durations of steps: from past runs, else from shipped typical ones scaled to this machine.

`durations.jsonl` beside the store holds what steps took here. `typical.json` is shipped: what steps took on one machine
(`tools/typical.py` writes it). One factor lies between them: how much slower this machine is. It is measured in a
second where nothing else is known, and corrected by every step that ends.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from bench.plan.step import Step

__all__ = ["Durations", "Names", "Typical", "logged", "names_of", "probe_s"]

SHIPPED = Path(__file__).parent / "typical.json"
# The measured speed of the machine weighs as much as steps that typically take so long together.
PRIOR_S = 10.0
RECENT = 9
# The owner's images where the profile leaves the data set its own division: two thirds of the training part.
IMAGES = {
    "digits-m": 898,
    "photographs": 260,
    "cifar10": 33_333,
    "cifar100": 33_333,
    "mnist": 40_000,
    "tiny-imagenet": 66_667,
}
DEFAULT_IMAGES = 20_000
# Kinds of steps whose duration is that of one training.
TRAININGS = ("host", "control", "mark", "without", "null_host", "null_control")
GUESS_S = {"keys": 2.0, "nulls": 4.0, "attack": 15.0, "attacked_nulls": 10.0}


class Names(NamedTuple):
    """What a step's duration depends on; `owner` is 0 where the data set's own division is used."""

    kind: str
    arch: str
    width: float
    dataset: str
    owner: int
    epochs: int
    situation: str = ""
    attack: str = ""
    scheme: str = ""

    def likeness(self, other: Names) -> tuple[bool, ...]:
        """How alike two steps of one kind are: what decides the duration most comes first."""
        fields = ("scheme", "attack", "arch", "dataset", "situation", "width", "epochs", "owner")
        return tuple(getattr(self, name) == getattr(other, name) for name in fields)


def names_of(step: Step) -> Names:
    """The names of a step."""
    spec = step.spec
    return Names(
        step.kind, spec["arch"], float(spec["width"]), spec["dataset"], spec["owner"] or 0,
        spec["recipe"]["epochs"] if "recipe" in spec else 0,
        spec.get("situation", ""), "+".join(name for name, _ in spec.get("attacks", [])), spec.get("scheme", ""),
    )  # fmt: skip


@dataclass(frozen=True)
class Typical:
    """What steps took on one machine.

    Attributes:
        probe_s: what `probe_s` measured there.
        training: architecture -> width -> seconds to train on 1,000 images once.
        steps: names -> seconds.
    """

    probe_s: float
    training: Mapping[str, Mapping[float, float]] = field(default_factory=dict)
    steps: Mapping[Names, float] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path = SHIPPED) -> Typical:
        """The shipped ones."""
        found = json.loads(path.read_text(encoding="utf-8"))
        training = {arch: {float(w): s for w, s in paces.items()} for arch, paces in found["training"].items()}
        return cls(found["probe_s"], training, {Names(*names): seconds for *names, seconds in found["steps"]})

    def work(self, names: Names) -> float:
        """Seconds that the training in a step takes there; of a step that only judges, those of one epoch."""
        images = names.owner or IMAGES.get(names.dataset, DEFAULT_IMAGES)
        epochs = names.epochs if names.kind in TRAININGS else 1
        return self._pace_s(names.arch, names.width) * images / 1000 * max(1, epochs)

    def _pace_s(self, arch: str, width: float) -> float:
        """Between widths the cost grows a little less than with their square, as small networks are bound by memory."""
        known = self.training.get(arch) or self.training.get(arch.split("-")[0]) or self.training.get("wrn")
        if not known:
            return 1.0
        nearest = min(known, key=lambda other: abs(other - width))
        return known[nearest] * (width / nearest) ** 1.5


class Durations:
    """Learns from every step that ends, in past runs and in this one: hand one object to all who ask or tell."""

    def __init__(self, path: Path, typical: Typical | None = None, probe: Callable[[], float] | None = None) -> None:
        """Read what past runs left.

        Args:
            path: the log of durations; a line that is not as it was written is passed over.
            typical: the shipped durations.
            probe: measures this machine; by default `probe_s`.
        """
        self.path = path
        self._typical = Typical.load() if typical is None else typical
        self._probe = probe_s if probe is None else probe
        self._own: dict[Names, list[float]] = defaultdict(list)
        self._seen_s = self._typically_s = 0.0
        self._expected: dict[Names, float] = {}
        for names, seconds in logged(path):
            self._learn(names, seconds)

    def add(self, step: Step, seconds: float) -> None:
        """Remember what `step` took, here and in the log."""
        names = names_of(step)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"names": names, "seconds": round(seconds, 3)}) + "\n")
        self._learn(names, seconds)

    def seconds(self, step: Step) -> float:
        """The expected duration of `step`."""
        names = names_of(step)
        if names not in self._expected:
            self._expected[names] = self._expect(names)
        return self._expected[names]

    def total_s(self, steps: Iterable[Step], jobs: int = 1) -> float:
        """Expected wall-clock seconds of `steps` on `jobs` workers that keep busy."""
        return sum(map(self.seconds, steps)) / max(1, jobs)

    @property
    def factor(self) -> float:
        """How many times as long as typical a step takes here."""
        measured = self._measured if self._typically_s < PRIOR_S else self._seen_s / self._typically_s
        return (PRIOR_S * measured + self._seen_s) / (PRIOR_S + self._typically_s)

    @cached_property
    def _measured(self) -> float:
        return self._probe() / self._typical.probe_s

    def _expect(self, names: Names) -> float:
        """The median of the same step; else the most similar one, scaled by the work that training is."""
        if names in self._own:
            return median(self._own[names][-RECENT:])
        own = _nearest(names, self._own)
        shipped = _nearest(names, self._typical.steps)
        if own and (not shipped or names.likeness(own) >= names.likeness(shipped)):
            return median(self._own[own][-RECENT:]) * self._typical.work(names) / self._typical.work(own)
        if shipped:
            return self.factor * self._typically(names, shipped)
        return self.factor * GUESS_S.get(names.kind, self._typical.work(names))

    def _typically(self, names: Names, shipped: Names) -> float:
        return self._typical.steps[shipped] * self._typical.work(names) / self._typical.work(shipped)

    def _learn(self, names: Names, seconds: float) -> None:
        self._own[names].append(seconds)
        self._expected.clear()
        shipped = _nearest(names, self._typical.steps)
        if shipped and (shipped.scheme, shipped.attack) == (names.scheme, names.attack):
            self._seen_s += seconds
            self._typically_s += self._typically(names, shipped)


def _nearest(names: Names, known: Iterable[Names]) -> Names | None:
    return max((other for other in known if other.kind == names.kind), key=names.likeness, default=None)


def logged(path: Path) -> Iterator[tuple[Names, float]]:
    """Names and seconds of the steps in a log; a line that is not as it was written is passed over."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        try:
            entry: Any = json.loads(line)
            kind, arch, width, dataset, owner, epochs, *rest = entry["names"]
            yield Names(kind, arch, float(width), dataset, int(owner), int(epochs), *rest), float(entry["seconds"])
        except (ValueError, KeyError, TypeError):  # cut short by a kill, or not ours
            continue


def probe_s(device: str = "cpu", threads: int | None = None, budget_s: float = 0.8) -> float:
    """Measure this machine: the least seconds of one training step of a small convolutional network.

    The least, because other processes can stretch single steps of several threads by an order of magnitude.

    Args:
        device: where steps will be computed.
        threads: that one step will have; None for as many as this process has now.
        budget_s: seconds to measure for, after a warm-up of two steps.
    """
    import torch
    from torch import nn

    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    net = nn.Sequential(nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 16, 3, padding=1))
    net, images = net.to(device), torch.zeros(64, 16, 32, 32, device=device)
    taken: list[float] = []
    while len(taken) < 4 or sum(taken) < budget_s:
        start = time.perf_counter()
        net(images).square().mean().backward()
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)
        taken.append(time.perf_counter() - start)
    torch.set_num_threads(before)
    return min(taken[2:])
