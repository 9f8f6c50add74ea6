"""Records made by hand, for tests of everything that reads records."""

from __future__ import annotations

from typing import Any

from bench.records import Cell, Count, Point, Provenance, Record, Security, Verdict

HASH = "0" * 64


def verdict(p_value: float = 1e-9, **fields: Any) -> Verdict:
    return Verdict(**{"statistic": 1.0, "p_value": p_value, "detected": p_value <= 0.01, "ber": 0.0, **fields})


def point(strength: float, accuracy: float = 0.9, p_value: float = 1e-9, **fields: Any) -> Point:
    return Point(strength=strength, test_accuracy=accuracy, verdicts=[verdict(p_value)], **fields)


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
