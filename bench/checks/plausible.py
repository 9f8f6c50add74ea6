"""Numbers that no run can have left: found in the records of a submission without computing anything.

A scheme helps by saying in a verdict's details how its p-value came about: `nulls` (or `decoys_asked`) is the number of
null statistics that the claim was ranked among, `matches`, `trials` and `chance` are those of a binomial tail.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date, datetime, timedelta
from itertools import pairwise
from typing import TypeGuard

from bench.contract.verdict import Point, Verdict
from bench.identity import canonical
from bench.records.record import CellRecord
from bench.records.submission import Submission

__all__ = ["CHECKS", "implausible"]

ROUNDING = 2e-7  # of a mean in single precision, relative
EXCEEDING = 10  # null statistics as large as the claim's, at which a sequential test stops
LEAST_P, CLOSE = 1e-300, 1e-6  # below the first nothing is compared; relative error of a p-value computed elsewhere
LONGEST_S = 30 * 86_400.0  # of one phase
TIME_ZONES = timedelta(days=2)

Records = Mapping[str, CellRecord]


def implausible(submission: Submission) -> str | None:
    """The first number that cannot be, in one sentence with the check that caught it; None if there is none."""
    for check in CHECKS:
        for found in check(submission.records):
            return f"{check.__name__.replace('_', ' ')}: {found}"
    return None


def status_ok(records: Records) -> Iterator[str]:
    """Something was measured."""
    if not any(record.status == "ok" for record in records.values()):
        yield "Expected at least one record with status ok, but there is none."


def accuracy_of_whole_images(records: Records) -> Iterator[str]:
    """Accuracy times the number of images is a whole number (the GRIM test), and held-out ones are among the unseen."""
    for name, record in _done(records):
        images = record.provenance.split.get("heldout", 0)
        if not 1 <= images <= 10_000_000:
            yield f"Expected {name} to say how many images were held out, but it says {images}."
            return
        every = record.provenance.split.get("unseen", images)
        for what, accuracy, unseen in _accuracies(record):
            for share, count in ((accuracy, images), (unseen, every)):
                if share is not None and abs(share * count - round(share * count)) > max(1e-6, ROUNDING * count):
                    yield f"{name}: {what} of {share:.6g} is {share * count:.3f} of {count} images."
            if unseen is not None and not -0.5 <= unseen * every - accuracy * images <= every - images + 0.5:
                yield f"{name}: {what} cannot be {accuracy:.6g} of {images} images and {unseen:.6g} of all {every}."


def possible_p_values(records: Records) -> Iterator[str]:
    """A rank among n nulls is k / (n + 1), or 10 / l where the test stopped early; a binomial tail is its formula."""
    for name, record in _done(records):
        most = record.cell.scheme_params.get("decoys")
        for where, verdict in _verdicts(record):
            reason = _impossible(verdict, most if isinstance(most, int) and most > 0 else None)
            if reason:
                yield f"{name}, {where}: {reason}"


def possible_bit_errors(records: Records) -> Iterator[str]:
    """The bit error rate times the length of the payload is a multiple of one half."""
    for name, record in _done(records):
        for where, verdict in _verdicts(record):
            bits = len(verdict.payload or "")
            if verdict.ber is not None and bits and abs(2 * verdict.ber * bits - round(2 * verdict.ber * bits)) > 1e-4:
                yield f"{name}, {where}: a bit error rate of {verdict.ber:.6g} is no number of errors in {bits} bits."


def possible_times(records: Records) -> Iterator[str]:
    """Phases end within a month, an attack's time does not run backwards, and nothing ends in the future."""
    soon = (datetime.now().astimezone() + TIME_ZONES).date()
    for name, record in records.items():
        spent = [point.attack_time_s for point in record.points]
        spent += [point.verify_time_s for point in record.points]
        if any(seconds > LONGEST_S for seconds in (*record.timings_s.values(), *spent)):
            yield f"{name}: a phase took more than {LONGEST_S / 86_400:.0f} days."
        if any(b < a for a, b in pairwise(point.attack_time_s for point in record.curve)):
            yield f"{name}: the attacker's time gets less from one rung to the next."
        if record.status == "ok" and record.timings_s.get("embed", 0.0) <= 0:
            yield f"{name}: embedding took no time."
        if not (ended := _day(record.provenance.finished)) or ended > soon:
            yield f"{name}: it was finished on {record.provenance.finished[:40]!r}."


def one_step_one_result(records: Records) -> Iterator[str]:
    """Cells that share a step share its result: one clean host and one marked model behind all attacks."""
    shared: tuple[tuple[str, Callable[[CellRecord], object]], ...] = (
        ("host", lambda record: record.clean_accuracy),
        ("control", lambda record: record.control_accuracy),
        ("mark", _of_mark),
    )
    for step, result in shared:
        known: dict[str, tuple[str, str]] = {}
        for name, record in _done(records):
            key = record.provenance.steps.get(step)
            if key is None:
                continue
            first, expected = known.setdefault(key, (name, canonical(result(record))))
            if canonical(result(record)) != expected:
                yield f"{name} and {first} name the same step {step!r}, but differ in what it gave."


def seeds_differ(records: Records) -> Iterator[str]:
    """Two seeds that agree in every number were one run."""
    known: dict[str, tuple[str, int]] = {}
    for name, record in _done(records):
        numbers = [_without_times(point) for point in record.points]
        asked = record.cell.model_dump(exclude={"seed"})
        text = canonical([asked, record.clean_accuracy, numbers, [null.model_dump() for null in record.nulls]])
        other, seed = known.setdefault(text, (name, record.cell.seed))
        if seed != record.cell.seed:
            yield f"{name} and {other} are of two seeds and agree in every number."


CHECKS = (
    status_ok, accuracy_of_whole_images, possible_p_values, possible_bit_errors, possible_times, one_step_one_result,
    seeds_differ,
)  # fmt: skip


def _done(records: Records) -> Iterator[tuple[str, CellRecord]]:
    return ((name, record) for name, record in records.items() if record.status == "ok")


def _accuracies(record: CellRecord) -> Iterator[tuple[str, float, float | None]]:
    """What they are of, on the held-out images, and on all unseen ones where that was measured."""
    found = [
        ("the clean host's accuracy", record.clean_accuracy, record.clean_unseen_accuracy),
        ("the control's accuracy", record.control_accuracy, record.control_unseen_accuracy),
        *((f"the accuracy at strength {p.strength:g}", p.test_accuracy, p.unseen_accuracy) for p in record.points),
    ]
    return ((what, held, unseen) for what, held, unseen in found if held is not None)


def _verdicts(record: CellRecord) -> Iterator[tuple[str, Verdict]]:
    for point in record.points:
        yield from ((f"strength {point.strength:g}", verdict) for verdict in point.verdicts)
    yield from (("clean host", verdict) for verdict in record.clean_verdicts)
    yield from (("held-out user", verdict) for verdict in record.heldout_verdicts)


def _impossible(verdict: Verdict, most: int | None) -> str | None:
    """Why the details of a verdict cannot give its p-value."""
    p, details = verdict.p_value, verdict.details
    nulls, asked = details.get("nulls"), details.get("decoys_asked")
    if _count(nulls) and not _is_rank(p, [nulls], None):
        return f"p = {p:.6g} is no rank among {nulls} nulls."
    if _count(asked) and not _is_rank(p, [asked], None if most is None else most):
        return f"p = {p:.6g} is no rank among {asked} nulls" + (f" of at most {most}." if most else ".")
    matches, trials, chance = (details.get(name) for name in ("matches", "trials", "chance"))
    if _count(matches) and _count(trials) and isinstance(chance, float) and 0 < chance < 1:
        return _no_tail(p, matches, trials, chance)
    return None


def _count(value: object) -> TypeGuard[int]:
    return type(value) is int and 0 <= value <= 10**9


def _is_rank(p: float, asked: Iterable[int], most: int | None) -> bool:
    """Whether p = k / (n + 1) for a whole k from 1 on; where a sequential test may stop, 10 / n too."""
    for n in asked:
        if most is not None and n < most:
            return (n == 0 and p == 1.0) or math.isclose(p * n, EXCEEDING, rel_tol=1e-9)
        k = p * (n + 1)
        early = most is not None and math.isclose(p * n, EXCEEDING, rel_tol=1e-9)
        if not early and (round(k) < 1 or abs(k - round(k)) > 1e-6 * max(1.0, k)):
            return False
    return True


def _no_tail(p: float, matches: int, trials: int, chance: float) -> str | None:
    from scipy.stats import binom

    if matches > trials:
        return f"{matches} of {trials} trials matched."
    expected = float(binom.sf(matches - 1, trials, chance))
    if max(p, expected) > LEAST_P and not math.isclose(p, min(1.0, expected), rel_tol=CLOSE):
        return f"p = {p:.6g}, but {matches} of {trials} at chance {chance:g} give {expected:.6g}."
    return None


def _of_mark(record: CellRecord) -> object:
    marked = None if record.marked is None else _without_times(record.marked)
    return [marked, [verdict.model_dump(mode="json") for verdict in record.clean_verdicts]]


def _without_times(point: Point) -> object:
    return point.model_dump(mode="json", exclude={"attack_time_s", "verify_time_s"})


def _day(text: str) -> date | None:
    try:
        return datetime.fromisoformat(text).date()
    except ValueError:
        return None
