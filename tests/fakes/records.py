"""Records and plans made by hand and by chance, for tests of everything that reads them."""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Sequence
from typing import Any

from bench.contract.verdict import Point, Search, Verdict
from bench.plan.matrix import Planned, Request, expand
from bench.plan.profiles import PROFILES
from bench.records.calibration import CalibrationRow
from bench.records.detectability import DetectabilityRow
from bench.records.record import AFTER_ATTACK, FRESH_KEY, Cell, CellRecord, NullSet, Provenance

HASH = "0" * 64


def verdict(p_value: float = 1e-9, **fields: Any) -> Verdict:
    return Verdict(**{"statistic": 1.0, "p_value": p_value, "ber": 0.0, **fields})


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


def nulls(hits: int, trials: int, kind: str = FRESH_KEY, strength: float | None = None) -> NullSet:
    """False claims of which `hits` are accepted at 1 %, and the others at no rate in use."""
    return NullSet(kind=kind, strength=strength, p_values=[0.005] * hits + [0.5] * (trials - hits))


def record(status: str = "ok", **fields: Any) -> CellRecord:
    """A record whose cell has as many owners as the marked model has verdicts."""
    owners = len(fields["marked"].verdicts) if fields.get("marked") else 1
    asked = fields.pop("cell", cell()).model_copy(update={"owners": owners})
    base: dict[str, Any] = {"cell_key": HASH, "cell": asked, "status": status, "provenance": provenance()}
    if status == "ok":
        curve = [point(s, a, verdicts=[verdict(p)] * owners) for s, a, p in ((50.0, 0.88, 1e-9), (90.0, 0.5, 0.4))]
        base |= {
            "carrier": "weights", "access": "white-box", "stage": "model", "unit": "% of weights",
            "marked": point(0.0, 0.9), "curve": curve, "clean_accuracy": 0.91,
            "nulls": [nulls(1, 100)], "timings_s": {"host": 10.0, "embed": 2.0},
        }  # fmt: skip
    elif status == "failed":
        base["traceback"] = "Traceback (most recent call last):\n  ...\nRuntimeError: boom"
    else:
        base["reason"] = "it has no meaning"
    return CellRecord(**{**base, **fields})


# ---- records as a benchmark leaves them ------------------------------------------------------------------------------
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
SCHEMES = {
    "uchida-random": ("weights", "white-box", "train"),
    "uchida-direct": ("weights", "white-box", "train"),
    "uchida-diff": ("weights", "white-box", "train"),
    "uchida-posthoc": ("weights", "white-box", "post-hoc"),
    "zhang-content": ("behaviour", "labels", "train"),
    "zhang-unrelated": ("behaviour", "labels", "train"),
    "zhang-noise": ("behaviour", "labels", "train"),
}
LADDER = (10, 20, 30, 40, 50, 60, 70, 80, 90)


def said(p_value: float, ber: float | None = None) -> Verdict:
    """A verdict whose statistic follows its p-value."""
    return verdict(p_value, ber=ber, statistic=-math.log10(max(p_value, 1e-30)), queries=100)


def rung(strength: float, accuracy: float | None, *verdicts: Verdict) -> Point:
    """One rung with these verdicts."""
    return Point(strength=strength, test_accuracy=accuracy, verdicts=list(verdicts))


def of_scheme(
    scheme: str = "uchida-random", attack: str = "pruning", seed: int = 0, curve: Any = None, marked: Any = None,
    **fields: Any,
) -> CellRecord:  # fmt: skip
    """A record by hand: `fields` replace those of the record, or of its cell."""
    carrier, access, situation = SCHEMES.get(scheme, ("weights", "white-box", "train"))
    cell: dict[str, Any] = {
        "scheme": scheme,
        "attack": attack,
        "arch": "wrn-10-4",
        "dataset": "digits-m",
        "situation": situation,
    }
    cell |= {"profile": "quick", "seed": seed, "scheme_params": {"bits": 256}, "attack_params": {}}
    cell |= {name: fields.pop(name) for name in list(fields) if name in cell or name == "owners"}
    *first, last = (part.partition("=")[0] for part in attack.split("+"))
    cell["attacks"] = [*({"name": name} for name in first), {"name": last, "params": cell.pop("attack_params")}]
    owners = cell.setdefault("owners", len(marked.verdicts) if marked else 1)
    provenance = {
        "bench_version": "0.1.0",
        "git_revision": "19289c8a44b7b3f0",
        "git_dirty": False,
        "source_hash": hashlib.sha256(f"{scheme}{attack}".encode()).hexdigest(),
        "data_checksum": "sha256-of-digits-m",
        "packages": {"torch": "2.9.0", "numpy": "2.3.1", "scipy": "1.18.1", "mlflow": "3.17.2"},
        "python": "3.12.3",
        "platform": "Linux x86-64",
        "finished": f"2026-11-20T10:{seed:02d}:00Z",
        **fields.pop("provenance", {}),
    }
    data = {
        "cell_key": hashlib.sha256(json.dumps(cell).encode()).hexdigest(),
        "cell": cell,
        "status": "ok",
        "carrier": carrier,
        "access": access,
        "stage": "model",
        "unit": "% of weights",
        "marked": marked or rung(0, 0.9, *[said(1e-9, 0.0)] * owners),
        "curve": curve or [],
        "clean_accuracy": 0.91,
        "provenance": provenance,
        **fields,
    }
    return CellRecord.model_validate(data)


def measured_rate(accepted: int = 1, n: int = 100, **fields: Any) -> CalibrationRow:
    """A row of `calibration.json` about the cell of `of_scheme()`."""
    share = accepted / n
    base: dict[str, Any] = {
        "scheme": "uchida-random", "scheme_params": {"bits": 256}, "arch": "wrn-10-4", "datasets": ["digits-m"],
        "profile": "quick", "seeds": 2, "attack": "none", "null": "fresh key", "nominal": 0.01, "accepted": accepted,
        "n": n, "networks": 8, "keys": 20, "false_positive_rate": share, "interval_low": share / 2,
        "interval_high": min(1.0, share + 0.05), "p_value": 0.5, "beyond": False,
    }  # fmt: skip
    return CalibrationRow(**{**base, **fields})


def measured_test(test: str, p_value: float | None, **fields: Any) -> DetectabilityRow:
    """A row of `detectability.json` about the cell of `of_scheme()`."""
    base: dict[str, Any] = {
        "scheme": "uchida-random", "scheme_params": {"bits": 256}, "arch": "wrn-10-4", "dataset": "digits-m",
        "situation": "train", "profile": "quick", "owners": 1, "seeds": 5, "clean": 25, "networks": "0" * 64,
        "test": test, "p_value": p_value,
    }  # fmt: skip
    if p_value is not None:
        base |= {"least_p_value": 1e-4, "auc": 0.9, "interval_low": 0.5, "interval_high": 1.0, "part": "block1.conv"}
    return DetectabilityRow(**{**base, **fields})


def idle(
    status: str, scheme: str = "uchida-random", attack: str = "pruning", seed: int = 0, why: str = "why", **fields: Any
) -> CellRecord:
    """A record without numbers."""
    kept = of_scheme(scheme, attack, seed, **fields).model_dump()
    told = {"traceback" if status == "failed" else "reason": why}
    return CellRecord.model_validate({**kept, "status": status, "marked": None, "curve": [], "nulls": [], **told})


def simulated(scheme: str, attack: str, seed: int, profile: str = "quick", **cell: Any) -> CellRecord:
    """A plausible record: accuracy and evidence fall with strength, at a pace of the scheme's own."""
    draw = random.Random(f"{scheme}{attack}{seed}{profile}{cell}")
    bits = scheme.startswith("uchida")
    start = 0.87 + draw.uniform(-0.008, 0.008)
    limit = 70 + 8 * (sorted(SCHEMES).index(scheme) % 4) - (18 if attack == "pruning-global" else 0)

    def at(strength: float) -> Point:
        gone = 1 / (1 + math.exp(-(strength - limit + draw.uniform(-4, 4)) / 6)) if strength else 0.0
        accuracy = max(0.1, start - 0.75 * max(0, (strength - 45) / 55) ** 2.2 + draw.uniform(-0.004, 0.004))
        ber = round(0.5 * gone * 256) / 256
        p_value = min(1.0, 10 ** (-(24 if bits else 15) * (1 - gone) + draw.uniform(0, 0.5)))
        return rung(strength, accuracy if strength else start, said(p_value, ber if bits else None))

    found = [nulls(int(draw.random() < 0.5), 100), *(nulls(0, 20, AFTER_ATTACK, strength) for strength in LADDER)]
    return of_scheme(
        scheme,
        attack,
        seed,
        [at(strength) for strength in LADDER],
        at(0),
        profile=profile,
        clean_accuracy=0.875 + draw.uniform(-0.006, 0.006),
        nulls=found,
        timings_s={"host": 60.0, "embed": 2.0 if scheme.endswith("posthoc") else 60 * draw.uniform(1.0, 1.5)},
        **cell,
    )


def benchmark_records() -> list[CellRecord]:
    """Seven schemes, two attacks, three seeds in profile quick; one failed, one not applicable; a little of small."""
    made = [simulated(s, a, seed) for s in SCHEMES for a in ("pruning", "pruning-global") for seed in range(3)]
    made = [r for r in made if not (r.cell.scheme == "uchida-diff" and r.cell.attack == "pruning-global")]
    trace = 'Traceback (most recent call last):\n  File "x.py"\nRuntimeError: the loss is not finite after 12 steps'
    made += [simulated("uchida-diff", "pruning-global", seed) for seed in (0, 1)]
    made += [idle("failed", "uchida-diff", "pruning-global", 2, why=trace)]
    made += [
        idle("not applicable", "baseline-none", "pruning", s, carrier="none", why="Nothing to prune.") for s in (0, 1)
    ]
    made += [idle("failed", "deepstamp", "pruning", 0, why=trace, carrier="data", access="labels")]
    made += [simulated("uchida-random", "pruning", seed, "small") for seed in range(2)]
    return made


def contest(profile: str = "small", seeds: int = 7, **fields: Any) -> list[CellRecord]:
    """`strong` survives pruning in every seed, `weak` and `faint` in none."""
    broken, held = [rung(10, 0.89, said(0.5))], [rung(10, 0.89, said(1e-9))]
    outcomes = {"strong": held, "weak": broken, "faint": broken}
    return [
        of_scheme(scheme, seed=seed, curve=curve, profile=profile, **fields)
        for scheme, curve in outcomes.items()
        for seed in range(seeds)
    ]


SIGNATURES = tuple(30.0 * (1 + i % 11) for i in range(40))


def searched(
    owners: int = 2, seed: int = 0, missed: int = 0, rungs: Any = (), heldout: Any = (), **fields: Any
) -> CellRecord:
    """A record of a scheme that infers signatures; the first `missed` owners are taken for unmarked."""
    verdicts = [identified(0.0 if i < missed else SIGNATURES[i], SIGNATURES[i]) for i in range(owners)]
    fields = {"scheme": "anti-neuron", "carrier": "data", "stage": "training", "unit": "epochs", **fields}
    others = [identified(signature, None, matched=False) for signature in heldout]
    curve = [rung(strength, 0.8, *verdicts) for strength in rungs]
    marked = rung(0, 0.9, *verdicts)
    return of_scheme(owners=owners, seed=seed, marked=marked, curve=curve, heldout_verdicts=others, **fields)


def crowd(base: Sequence[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """`count` rows of a page like those of `base`, with names and numbers of their own."""
    draw = random.Random(0)

    def varied(value: Any) -> Any:
        if isinstance(value, float):
            return value * draw.uniform(0.9, 1.0)
        if isinstance(value, dict) and "trials" not in value:
            return {name: varied(part) for name, part in value.items()}
        return [varied(part) for part in value] if isinstance(value, list) else value  # counts stay counts

    made = [varied(base[i % len(base)]) for i in range(count)]
    return [{**row, "id": f"{i:08x}", "scheme": f"{row['scheme']}-{i:05d}"} for i, row in enumerate(made)]


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
