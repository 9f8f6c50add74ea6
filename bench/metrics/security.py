"""Security: how often claims that are false by construction are accepted, and how strong the best forgery is."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from bench.metrics import DEFAULT_FPR
from bench.metrics.aggregate import Proportion, clustered, one_a_seed, proportion
from bench.metrics.robustness import detected
from bench.records.record import AFTER_ATTACK, FRESH_KEY, LEFT_OUT, CellRecord

__all__ = ["Forged", "beyond_chance", "false_claims", "false_claims_after_attack", "forged", "forged_claims"]

SURE = 1e-3  # a table has many rows: a rate is called too high only where chance would do it once in a thousand


class Forged(NamedTuple):
    """The least p-value of a forgery, over attacks, rungs and seeds; None where none was tried.

    Attributes:
        committed: of those that work with a key that was committed to before the suspect was seen.
        uncommitted: of those that do not.
    """

    committed: float | None
    uncommitted: float | None


def false_claims(records: Sequence[CellRecord], fpr: float = DEFAULT_FPR) -> Proportion | None:
    """Fresh keys accepted on clean hosts, and left-out owners on networks that were trained without their images.

    Every attack of a seed saw the same networks and keys: they count once a seed. The interval is over keys, which are
    drawn independently, for the networks that were examined.
    """
    found = _accepted(one_a_seed(records, "nulls"), (FRESH_KEY, LEFT_OUT), fpr)
    return proportion(sum(hits for hits, _ in found.values()), sum(trials for _, trials in found.values()))


def false_claims_after_attack(records: Sequence[CellRecord], fpr: float = DEFAULT_FPR) -> Proportion | None:
    """Fresh keys accepted on clean hosts that went through the attacks.

    Rungs and attacks of a seed share a host and keys, so the interval is over seeds. What claims after an attack on
    the evidence is the forger's key, which is no fresh one: see `forged`.
    """
    records = [record for record in records if record.stage != "evidence"]
    return clustered(_accepted(records, (AFTER_ATTACK,), fpr).values())


def _accepted(records: Sequence[CellRecord], kinds: tuple[str, ...], fpr: float) -> dict[int, tuple[int, int]]:
    """Accepted claims, and all, of each seed."""
    p_values: dict[int, list[float]] = defaultdict(list)
    for record in records:
        p_values[record.cell.seed] += [p for null in record.nulls if null.kind in kinds for p in null.p_values]
    return {seed: (sum(p <= fpr for p in found), len(found)) for seed, found in p_values.items()}


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


def beyond_chance(count: Proportion, fpr: float = DEFAULT_FPR) -> bool:
    """Whether so many false claims are more than the false positive rate explains (exact binomial test)."""
    from scipy.stats import binom

    return float(binom.sf(count.hits - 1, count.trials, fpr)) <= SURE
