"""Protection advantage: right answers about whose data or model it is, beyond what guessing gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from bench.contract.verdict import Point, Verdict
from bench.metrics import DEFAULT_FPR
from bench.metrics.aggregate import one_a_seed
from bench.metrics.inference import cluster_interval
from bench.metrics.robustness import hits
from bench.records.record import CellRecord
from bench.stats import Interval, protection_advantage, wilson_interval

__all__ = ["Protection", "protection", "protection_over_seeds"]

COIN = 0.5


class Protection(NamedTuple):
    """Protection advantage (Anti-Neuron Watermarking, Eq. 7).

    Attributes:
        matches, trials: M of N experiments with owners.
        chance: p, of a match by guessing.
        refused, others: of yes-or-no answers (chance one half): held-out users who were rightly told no, of how many.
        independent: whether no two trials share a network.
        seeds: matches and trials of each seed, where several are pooled.
    """

    matches: int
    trials: int
    chance: float
    refused: int = 0
    others: int = 0
    independent: bool = True
    seeds: tuple[tuple[int, int], ...] = ()

    @property
    def advantage(self) -> float:
        """(M - N p) / N; of yes-or-no answers (true positive rate + true negative rate) / 2 - 1/2.

        The second gives 0 to who always says yes and to who always says no, however many of either are asked.
        The ceiling of both is 1 - p.
        """
        if not self.others:
            return protection_advantage(self.matches, self.trials, self.chance)
        return (self.matches / self.trials + self.refused / self.others) / 2 - COIN

    @property
    def normalised(self) -> float | None:
        """The advantage as a fraction of its ceiling, so that methods of different chance compare.

        None where guessing is always right, which leaves no advantage to gain.
        """
        return self.advantage / (1 - self.chance) if self.chance < 1 else None

    @property
    def interval(self) -> Interval | None:
        """That of M / N, less p: Wilson's, or over five seeds and more where trials share networks.

        None for yes-or-no answers, and for fewer seeds that trials share.
        """
        if self.others:
            return None
        if self.independent:
            found = wilson_interval(self.matches, self.trials)
        else:
            found = cluster_interval([hits for hits, _ in self.seeds], [count for _, count in self.seeds])
        return found and Interval(found.low - self.chance, found.high - self.chance)


def protection(record: CellRecord, point: Point | None = None, fpr: float = DEFAULT_FPR) -> Protection | None:
    """Protection advantage over the owners at `point` (by default the marked model).

    A scheme that identifies nothing, or does not say how often guessing would, is right where it detects, and by chance
    at the false positive rate. Where the answer is a yes or no that a coin would get right, held-out users are asked
    too, and no is their answer. None where they were not asked (they are on the marked model alone), because who
    always says yes would always be right. None as well for attacks on the evidence, whose claims are no owner's, and
    without verdicts.
    """
    point = point or record.marked
    on_marked = point is record.marked
    if point is None or not point.verdicts or (record.stage == "evidence" and not on_marked):
        return None
    count, chance = len(point.verdicts), _chance(point.verdicts)
    if chance is None:
        return Protection(hits(point, fpr), count, fpr, independent=count == 1)
    matches = sum(bool(verdict.matched) for verdict in point.verdicts)
    if chance != COIN:
        return Protection(matches, count, chance, independent=count == 1)
    others = [not v.matched for v in record.heldout_verdicts if v.matched is not None] if on_marked else []
    return Protection(matches, count, chance, sum(others), len(others), False) if others else None


def _chance(verdicts: Sequence[Verdict]) -> float | None:
    """How often guessing matches; None where one of the verdicts does not say, or identifies nothing."""
    if any(verdict.chance is None or verdict.matched is None for verdict in verdicts):
        return None
    return max(verdict.chance for verdict in verdicts if verdict.chance is not None)


def protection_over_seeds(records: Sequence[CellRecord], fpr: float = DEFAULT_FPR) -> Protection | None:
    """On the marked models of all seeds: experiments are added up, because each counts alike."""
    found = [each for record in one_a_seed(records, "marked") if (each := protection(record, fpr=fpr))]
    if not found:
        return None
    return Protection(
        matches=sum(each.matches for each in found),
        trials=sum(each.trials for each in found),
        chance=max(each.chance for each in found),
        refused=sum(each.refused for each in found),
        others=sum(each.others for each in found),
        independent=all(each.independent for each in found),
        seeds=tuple((each.matches, each.trials) for each in found),
    )
