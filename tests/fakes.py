"""Records and plans made by hand, for tests of everything that reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.contract.verdict import Point, Search, Verdict
from bench.plan.matrix import Planned, Request, expand
from bench.plan.profiles import PROFILES
from bench.records.record import Cell, Count, Provenance, Record, Security

HASH = "0" * 64


def verdict(p_value: float = 1e-9, **fields: Any) -> Verdict:
    return Verdict(**{"statistic": 1.0, "p_value": p_value, "detected": p_value <= 0.01, "ber": 0.0, **fields})


def search(least: float = 60.0, true: float | None = 60.0, unit: str = "degrees", step: int = 30) -> Search:
    """A loss curve over the hue circle that dips by 2 at the candidate `least`."""
    candidates = [float(k) for k in range(0, 360, step)]
    away = [min(abs(k - least), 360 - abs(k - least)) / 180 for k in candidates]
    return Search(candidates=candidates, losses=[0.1 + 2 * part**0.5 for part in away], true=true, unit=unit)


def identified(least: float = 60.0, true: float | None = 60.0, chance: float = 1 / 12, **fields: Any) -> Verdict:
    """What a verifier says that infers a signature: `least`, where the owner's is `true`."""
    found = {"inferred": least, "matched": least == true, "chance": chance, "search": search(least, true)}
    return verdict(**{"p_value": 1e-3 if least == true else 0.8, "ber": None, **found, **fields})


def member(answer: bool, **fields: Any) -> Verdict:
    """What a test of membership says, which a coin gets right half the time."""
    return verdict(**{"p_value": 1e-3 if answer else 0.8, "ber": None, "matched": answer, "chance": 0.5, **fields})


def point(
    strength: float, accuracy: float = 0.9, p_value: float = 1e-9, *, verdicts: Sequence[Verdict] = (), **fields: Any
) -> Point:
    made = list(verdicts) or [verdict(p_value)]
    return Point(strength=strength, test_accuracy=accuracy, verdicts=made, **fields)


def cell(**fields: Any) -> Cell:
    base = {
        "scheme": "uchida-random", "attack": "pruning", "arch": "wrn", "dataset": "digits-m",
        "situation": "fine-tune", "profile": "quick", "seed": 0,
    }  # fmt: skip
    return Cell(**{**base, **fields})


def provenance(**fields: Any) -> Provenance:
    base = {"bench_version": "0.1.0", "source_hash": HASH, "data_checksum": HASH}
    return Provenance(**{**base, **fields})


def record(status: str = "ok", **fields: Any) -> Record:
    base: dict[str, Any] = {"cell_key": HASH, "cell": cell(), "status": status, "provenance": provenance()}
    if status == "ok":
        curve = [point(50.0, 0.88), point(90.0, 0.5, 0.4)]
        base |= {
            "carrier": "weights", "access": "white-box", "stage": "model", "unit": "% of weights",
            "marked": point(0.0, 0.9), "curve": curve, "clean_accuracy": 0.91,
            "security": Security(clean=Count(hits=1, trials=100)), "timings_s": {"host": 10.0, "embed": 2.0},
        }  # fmt: skip
    elif status == "failed":
        base["traceback"] = "Traceback (most recent call last):\n  ...\nRuntimeError: boom"
    else:
        base["reason"] = "it has no meaning"
    return Record(**{**base, **fields})


CHECKSUMS = {"digits-m": "c" * 64, "cifar10": "d" * 64}


def request(**fields: Any) -> Request:
    base = {
        "schemes": ("uchida-random",), "attacks": ("pruning",), "archs": ("wrn",), "datasets": ("digits-m",),
        "situations": ("fine-tune",), "profile": PROFILES["smoke"], "seeds": (0,),
    }  # fmt: skip
    return Request(**{**base, **fields})


def planned(**fields: Any) -> Planned:
    """The one cell of such a request."""
    (one,) = expand(request(**fields), CHECKSUMS)
    return one
