"""Records to be synced, and what a tracking store then holds."""

import os

from bench import tracking
from bench.contract.verdict import Point, Verdict
from bench.identity import digest
from bench.records.record import AFTER_ATTACK, Cell, CellRecord, Provenance
from tests.fakes import nulls

QUICK = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "OMP_NUM_THREADS": "1"}
ENVIRONMENT = {**os.environ, **QUICK}
PRUNING = ((20, 0.90, 0.0, 1e-12), (50, 0.88, 0.125, 1e-6), (80, 0.70, 0.5, 0.8))


def point(strength, accuracy, ber, p_value, owners=1, **more):
    verdict = Verdict(statistic=1 - ber, p_value=p_value, ber=ber, queries=3)
    return Point(strength=strength, test_accuracy=accuracy, verdicts=[verdict] * owners, **more)


def make(scheme="uchida-random", seed=0, curve=PRUNING, scheme_params=None, attack_params=None, **fields):
    owners = len(fields["marked"].verdicts) if fields.get("marked") else 1
    cell = Cell(
        scheme=scheme, attack="pruning", arch="wrn", dataset="digits-m", situation="train", profile="smoke", seed=seed,
        owners=owners,
        scheme_params={"bits": 8} if scheme_params is None else scheme_params,
        attacks=[{"name": "pruning", "params": attack_params or {}}],
    )  # fmt: skip
    defaults = {
        "cell_key": digest(["source 1", cell.identity]), "cell": cell, "status": "ok", "carrier": "weights",
        "access": "white-box", "stage": "model", "unit": "% of weights", "clean_accuracy": 0.93,
        "marked": point(0, 0.91, 0.0, 0.0),
        "curve": [rung if isinstance(rung, Point) else point(*rung, owners) for rung in curve],
        "nulls": [nulls(1, 50), *(nulls(0, 10, AFTER_ATTACK, strength) for strength in (20, 50, 80))],
        "timings_s": {"host": 12.0, "embed": 15.0},
        "provenance": Provenance(
            bench_version="1", source_hash="0" * 64, data_checksum="x", git_revision="abc123",
            finished="2026-01-02T03:04:05+00:00",
        ),
    }  # fmt: skip
    return CellRecord(**{**defaults, **fields})


def failed(**fields):
    traceback = "Traceback (most recent call last):\n  ...\nFloatingPointError: the loss became NaN"
    return make(**{"status": "failed", "traceback": traceback, "marked": None, "curve": [], "nulls": [], **fields})


def meaningless(**fields):
    reason = {"status": "not applicable", "reason": "weights cannot be cropped"}
    return make(**reason, marked=None, curve=[], nulls=[], **fields)


def sync(records, uri, **options):
    """How many runs were created, updated and left unchanged."""
    return tracking.sync(records, uri, **options)[:3]


def client_of(uri):
    from mlflow import MlflowClient

    return MlflowClient(uri)


def runs_of(uri, condition="", experiment="watermark-bench"):
    client = client_of(uri)
    return list(client.search_runs([client.get_experiment_by_name(experiment).experiment_id], condition))


def history(uri, name, run):
    return [(m.step, m.value) for m in client_of(uri).get_metric_history(run.info.run_id, name)]
