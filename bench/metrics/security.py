"""Security: how often claims that are false by construction are accepted, and how strong the best forgery is."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from bench.metrics import DEFAULT_FPR
from bench.metrics.aggregate import Proportion, clustered
from bench.metrics.calibration import accepted, kinds, too_many, trials
from bench.metrics.robustness import detected
from bench.records.record import AFTER_ATTACK, CellRecord

__all__ = [
    "Forged",
    "beyond_chance",
    "false_claims",
    "false_claims_after_attack",
    "false_claims_by_kind",
    "forged",
    "forged_claims",
]


class Forged(NamedTuple):
    """The least p-value of a forgery, over attacks, rungs and seeds; None where none was tried.

    Attributes:
        committed: of those that work with a key that was committed to before the suspect was seen.
        uncommitted: of those that do not.
    """

    committed: float | None
    uncommitted: float | None


def false_claims(records: Sequence[CellRecord], fpr: float = DEFAULT_FPR) -> Proportion | None:
    """False claims before any attack that are accepted, of all kinds of nulls together.

    Fresh keys claim clean hosts and null models, left-out owners networks that were trained without their images. The
    interval takes into account that trials share networks and keys: see `bench.metrics.calibration`.
    """
    claims = [claim for kind in kinds(records) if kind != AFTER_ATTACK for claim in trials(records, kind)]
    return accepted(claims, fpr)


def false_claims_by_kind(records: Sequence[CellRecord], fpr: float = DEFAULT_FPR) -> dict[str, Proportion]:
    """Kind of null -> false claims before any attack that are accepted."""
    found = {kind: accepted(trials(records, kind), fpr) for kind in kinds(records) if kind != AFTER_ATTACK}
    return {kind: count for kind, count in found.items() if count}


def false_claims_after_attack(records: Sequence[CellRecord], fpr: float = DEFAULT_FPR) -> Proportion | None:
    """Fresh keys accepted on clean hosts that went through the attacks; rungs and attacks share hosts and keys.

    What claims after an attack on the evidence is the forger's key, which is no fresh one: see `forged`.
    """
    return accepted(trials(records, AFTER_ATTACK), fpr)


def beyond_chance(records: Sequence[CellRecord], fpr: float = DEFAULT_FPR) -> list[str]:
    """The kinds of nulls before any attack of which more are accepted than the false positive rate explains."""
    return [kind for kind in kinds(records) if kind != AFTER_ATTACK and too_many(trials(records, kind), fpr)]


def forged_claims(records: Sequence[CellRecord], fpr: float = DEFAULT_FPR) -> Proportion | None:
    """Forged claims of attacks on the evidence that are accepted at some strength."""
    attacks = [record for record in records if record.stage == "evidence" and record.curve]
    accepted: dict[int, list[bool]] = defaultdict(list)
    for record in attacks:
        accepted[record.cell.seed] += [
            any(detected(point.verdicts[claim], fpr) for point in record.curve if claim < len(point.verdicts))
            for claim in range(max(len(point.verdicts) for point in record.curve))
        ]
    return clustered((sum(found), len(found)) for found in accepted.values())


def forged(records: Sequence[CellRecord]) -> Forged | None:
    """How strong the strongest forgery looks, with and without a commitment; None where none was tried.

    A verifier without commitments faces both kinds. Records that do not say which kind they are (`committed` is None)
    count as forgeries without.
    """
    least: dict[bool, list[float]] = {True: [], False: []}
    for record in records:
        if record.stage == "evidence":
            least[bool(record.committed)] += [v.p_value for point in record.curve for v in point.verdicts]
    if not any(least.values()):
        return None
    return Forged(*(min(least[kind], default=None) for kind in (True, False)))
