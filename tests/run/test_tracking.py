import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from bench import tracking
from bench.contract.verdict import Point, Verdict
from bench.identity import digest
from bench.lease import myself
from bench.metrics.beside import Beside
from bench.records.record import AFTER_ATTACK, Cell, CellRecord, Provenance
from bench.tracking import TrackingError, default_uri, ui_command, ui_link
from bench.tracking.mirror import Mirror
from tests.fakes import contest, identified, measured_rate, measured_test, member, nulls

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


@pytest.fixture(scope="session")
def first_sync(tmp_path_factory):
    """A new store, made by the first sync of all: (database, what it printed)."""
    run_dir = tmp_path_factory.mktemp("template")
    record = run_dir / "r.json"
    record.write_text(make(seed=1000).model_dump_json())
    code = (
        "import json, sys, pathlib\n"
        "from bench.records.files import load_record\n"
        "from bench.tracking import default_uri, sync\n"
        "sync([load_record(pathlib.Path('r.json'))], default_uri(pathlib.Path('.')), experiment='template')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=run_dir, env=ENVIRONMENT, capture_output=True, text=True, timeout=120
    )
    return run_dir / "mlflow.db", done.returncode, done.stdout + done.stderr


@pytest.fixture
def drawing_store(first_sync, tmp_path):
    """The URI of an empty experiment's store in `tmp_path`, without the seconds that its migrations take."""
    shutil.copy(first_sync[0], tmp_path / "mlflow.db")
    return default_uri(tmp_path)


@pytest.fixture
def store(drawing_store, monkeypatch):
    """The same without figures, which are most of what a run costs."""
    for name in ("draw_curve", "draw_searches", "draw_histories"):
        monkeypatch.setattr(f"bench.tracking.{name}", lambda record, path, *rest: None)
    return drawing_store


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


def test_the_first_sync_into_a_new_store_prints_nothing_and_leaves_no_litter(first_sync):
    database, status, printed = first_sync
    assert (status, printed) == (0, "")
    assert sorted(p.name for p in database.parent.iterdir()) == [
        "mlartifacts",
        "mlflow.db",
        "mlflow.db.synced",
        "r.json",
    ]


def test_a_record_becomes_one_run_found_by_its_tags(store):
    record = make()
    assert sync([record, make("xinv", seed=1)], store) == (2, 0, 0)
    (run,) = runs_of(store, "tags.scheme = 'uchida-random'")
    assert run.info.run_name == "uchida-random / pruning / wrn / s0"
    assert run.info.status == "FINISHED"
    assert run.info.end_time - run.info.start_time == 27_000
    expected = {
        "bench.cell": record.cell.identity, "bench.cell_key": record.cell_key, "attack": "pruning", "arch": "wrn",
        "dataset": "digits-m", "situation": "train", "profile": "smoke", "seed": "0", "status": "ok",
        "carrier": "weights", "access": "white-box", "stage": "model", "git_revision": "abc123",
    }  # fmt: skip
    assert expected.items() <= run.data.tags.items()
    assert {
        "scheme": "uchida-random",
        "seed": "0",
        "owners": "1",
        "scheme.bits": "8",
    }.items() <= run.data.params.items()


def test_metrics_follow_the_strength_and_the_headline_is_known_by_hand(store):
    sync([make()], store)
    (run,) = runs_of(store)
    assert history(store, "curve/ber", run) == [(0, 0.0), (20, 0.0), (50, 0.125), (80, 0.5)]
    assert history(store, "curve/detected", run) == [(0, 1.0), (20, 1.0), (50, 1.0), (80, 0.0)]
    assert history(store, "curve/log10_p", run)[:3] == [(0, -300.0), (20, pytest.approx(-12)), (50, pytest.approx(-6))]
    assert history(store, "curve/fidelity_pp", run)[-1] == (80, pytest.approx(-23.0))
    headline = {
        "clean_accuracy": 0.93, "test_accuracy": 0.91, "fidelity_pp": -2.0, "detected": 1.0, "ber": 0.0, "p_value": 0.0,
        "removal_cost_pp": 21.0, "survived_share": 2 / 3, "false_positive_rate": 0.02,
        "attacked_false_positive_rate": 0.0, "host_time_s": 12.0, "embed_time_s": 15.0,
    }  # fmt: skip
    assert {name: run.data.metrics[name] for name in headline} == pytest.approx(headline)


@pytest.mark.parametrize(
    ("curve", "cost", "survived"),
    [
        (PRUNING[:2], None, 1.0),
        ((*PRUNING, (90, 0.85, 0.5, 0.9), (95, 0.5, 0.5, 0.9)), 6.0, 0.4),
        (((5, 0.95, 0.5, 0.9),), 0.0, 0.0),
    ],
    ids=["never broken", "cheapest of three", "gains accuracy"],
)
def test_removal_costs_the_least_accuracy_given_up_where_the_claim_fails(store, curve, cost, survived):
    sync([make(curve=curve)], store)
    (run,) = runs_of(store)
    assert run.data.metrics.get("removal_cost_pp") == (None if cost is None else pytest.approx(cost))
    assert run.data.metrics["survived_share"] == pytest.approx(survived)


def test_fractional_strengths_are_numbered_by_rung_and_kept_as_a_metric(store):
    sync([make(curve=((0.5, 0.9, 0.0, 1e-9), (1.5, 0.8, 0.5, 0.9)))], store)
    (run,) = runs_of(store)
    assert history(store, "curve/strength", run) == [(0, 0.0), (1, 0.5), (2, 1.5)]


def test_owners_are_averaged(store):
    verdicts = [
        Verdict(statistic=s, p_value=p, matched=p <= 0.01)
        for s, p in ((4.0, 1e-4), (2.0, 1e-2), (0.0, 1.0), (0.0, 1.0))
    ]
    sync([make(marked=Point(strength=0, test_accuracy=0.9, verdicts=verdicts), curve=[])], store)
    (run,) = runs_of(store)
    averaged = {"statistic": 1.5, "log10_p": -1.5, "detected": 0.5, "matched": 0.5}
    assert {name: run.data.metrics[name] for name in averaged} == pytest.approx(averaged)
    assert "ber" not in run.data.metrics


def test_protection_stands_beside_detection_at_every_rung(store):
    hit, missed = identified(60.0), identified(90.0)
    curve = [Point(strength=5, test_accuracy=0.9, verdicts=[hit, missed])]
    sync([make(marked=Point(strength=0, test_accuracy=0.9, verdicts=[hit, hit]), curve=curve)], store)
    (run,) = runs_of(store)
    ceiling = 1 - 1 / 12
    assert history(store, "curve/protection_advantage", run) == [
        (0, pytest.approx(ceiling)),
        (5, pytest.approx(5 / 12)),
    ]
    assert history(store, "curve/protection_normalised", run) == [
        (0, pytest.approx(1)),
        (5, pytest.approx(5 / 12 / ceiling)),
    ]
    assert history(store, "curve/matched", run) == [(0, 1.0), (5, 0.5)]
    assert run.data.metrics["protection_advantage"] == pytest.approx(ceiling)


def test_a_protection_that_is_not_known_is_not_logged(store):
    asked = Point(strength=0, test_accuracy=0.9, verdicts=[member(True)])
    certain = Point(strength=0, test_accuracy=0.9, verdicts=[identified(chance=1.0)])
    sync([make(marked=asked, curve=[]), make(seed=1, marked=certain, curve=[])], store)
    unasked, sure = (runs_of(store, f"tags.seed = '{seed}'")[0].data.metrics for seed in (0, 1))
    assert not {"protection_advantage", "protection_normalised", "curve/protection_advantage"} & set(unasked)
    assert (sure["protection_advantage"], "protection_normalised" in sure) == (0.0, False)


def test_histories_are_metrics_along_the_epochs_under_names_that_mlflow_takes(store):
    histories = {
        "keygen/loss of W": [2.0, 1.0, 0.5],
        "training/loss": [4.0, 3.0],
        "a (b)": [9.0],
        "a [b]": [8.0],
        "c": [],
    }
    sync([make(histories=histories, measures={"training/loss": 7.0})], store)
    (run,) = runs_of(store)
    assert history(store, "keygen/loss of W", run) == [(1, 2.0), (2, 1.0), (3, 0.5)]
    assert history(store, "training/loss", run) == [(0, 7.0)]
    assert history(store, "training/loss_", run) == [(1, 4.0), (2, 3.0)]
    assert (run.data.metrics["a _b_"], run.data.metrics["a _b__"]) == (9.0, 8.0)
    assert "c" not in run.data.metrics


def test_a_second_sync_changes_nothing(store):
    records = [make(seed=seed) for seed in range(3)]
    sync(records, store)
    before = {run.info.run_id: run.to_dictionary() for run in runs_of(store)}
    assert sync(iter(records), store) == (0, 0, 3)
    assert {run.info.run_id: run.to_dictionary() for run in runs_of(store)} == before


def test_ranks_are_tags_that_follow_the_other_records(store):
    made = [record for record in contest(seeds=6) if record.cell.scheme != "faint"]

    def ranks():
        return {(r.data.tags["scheme"], r.data.tags.get("rank"), r.data.tags.get("rank_of")) for r in runs_of(store)}

    none, found = {("strong", None, None), ("weak", None, None)}, {("strong", "1", "2"), ("weak", "2", "2")}
    assert sync(made[:-1], store) == (11, 0, 0)
    assert ranks() == none, "a part of the records gives other ranks than the whole"
    assert sync(made, store, ranked=made) == (1, 0, 11)
    assert ranks() == found
    before = {run.info.run_id: run.to_dictionary() for run in runs_of(store)}
    assert sync(made[:3], store) == (0, 0, 3)
    assert sync(made, store, ranked=made) == (0, 0, 12)
    assert {run.info.run_id: run.to_dictionary() for run in runs_of(store)} == before
    sync(made, store, ranked=[record for record in made if record.cell.seed == 0])
    assert ranks() == none, "one seed ranks nothing"


def test_times_alone_do_not_replace_a_run_but_a_finding_or_new_code_does(store):
    record = make()
    sync([record], store)
    (first,) = runs_of(store)
    slower = record.model_copy(update={"timings_s": {"host": 99.0}})
    assert sync([slower], store) == (0, 0, 1)
    assert sync([record.model_copy(update={"cell_key": "f" * 64})], store) == (0, 1, 0)
    assert sync([make(marked=point(0, 0.5, 0.0, 0.0))], store) == (0, 1, 0)
    (run,) = runs_of(store)
    assert run.info.run_id != first.info.run_id
    assert run.data.metrics["test_accuracy"] == 0.5


def test_a_failed_cell_is_a_failed_run_until_a_retry_replaces_it(store):
    assert sync([failed()], store) == (1, 0, 0)
    (broken,) = runs_of(store)
    assert broken.info.status == "FAILED"
    assert broken.data.tags["error"] == "FloatingPointError: the loss became NaN"
    assert "detected" not in broken.data.metrics
    assert sync([make()], store) == (0, 1, 0)
    assert [run.info.status for run in runs_of(store)] == ["FINISHED"]


def test_a_cell_that_is_not_applicable_has_no_run_and_loses_the_one_it_had(store):
    assert sync([make(), make(seed=1)], store) == (2, 0, 0)
    assert sync([make(), meaningless(seed=1)], store) == (0, 0, 1)
    assert [run.data.tags["seed"] for run in runs_of(store)] == ["0"]


def test_no_run_stays_running_after_a_killed_sync(store):
    record, gone = make(), make(seed=7)
    sync([make(seed=1)], store)
    client = client_of(store)
    experiment = client.get_experiment_by_name("watermark-bench").experiment_id
    for cell in (record, gone):  # what a kill between create_run and set_terminated leaves
        client.create_run(experiment, tags={"bench.cell": cell.cell.identity})
    foreign = client.create_run(experiment, run_name="somebody else's").info.run_id
    assert sync([record, make(seed=1)], store) == (0, 1, 1)
    (run,) = runs_of(store, f"tags.`bench.cell` = '{record.cell.identity}'")
    assert run.info.status == "FINISHED"
    (orphan,) = runs_of(store, f"tags.`bench.cell` = '{gone.cell.identity}'")
    assert orphan.info.status == "KILLED"
    assert [r.info.run_id for r in runs_of(store, "attributes.status = 'RUNNING'")] == [foreign]


def test_a_run_that_a_living_process_writes_is_left_alone_and_one_of_a_dead_process_is_not(store):
    sync([make(seed=1)], store)
    client = client_of(store)
    experiment = client.get_experiment_by_name("watermark-bench").experiment_id
    ended = subprocess.Popen(["true"])
    ended.wait()
    writers = {
        "living": {**myself(), "since": time.time()},
        "dead": {**myself(), "pid": ended.pid, "since": time.time()},
        "of before the restart": {**myself(), "boot": "another", "since": time.time()},
        "elsewhere": {**myself(), "host": "another", "since": time.time()},
        "elsewhere, long ago": {**myself(), "host": "another", "since": time.time() - 3_600},
    }
    begun = {}
    for name, writer in writers.items():
        for cell in (make().cell.identity, "f" * 16):  # one that this sync writes itself, one that it knows nothing of
            tags = {"bench.cell": cell, "bench.writer": json.dumps(writer)}
            begun.setdefault(name, []).append(client.create_run(experiment, tags=tags).info.run_id)
    sync([make(), make(seed=1)], store)
    running = {run.info.run_id for run in runs_of(store, "attributes.status = 'RUNNING'")}
    assert running == {*begun["living"], *begun["elsewhere"]}


def test_a_half_written_digest_is_not_taken_for_a_whole_run_and_doubles_are_removed(store):
    record = make()
    sync([record], store)
    (whole,) = runs_of(store)
    client = client_of(store)
    tags = {name: whole.data.tags[name] for name in ("bench.cell", "bench.digest")}
    client.create_run(whole.info.experiment_id, tags=tags)
    assert sync([record], store) == (0, 0, 1)
    assert [run.info.run_id for run in runs_of(store)] == [whole.info.run_id]


def test_an_interrupted_run_is_taken_back(store, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("bench.tracking._write_artifacts", interrupt)
        with pytest.raises(KeyboardInterrupt):
            sync([make()], store)
    assert runs_of(store) == []
    assert sync([make()], store) == (1, 0, 0)


def test_many_cells_are_found_by_reading_the_experiment_once(store, monkeypatch):
    monkeypatch.setattr("bench.tracking.FEW", 1)
    monkeypatch.setattr("bench.tracking.RUNS_PER_PAGE", 2)
    records = [make(seed=seed) for seed in range(5)]
    assert sync(records[:3], store) == (3, 0, 0)
    assert sync(records, store) == (2, 0, 3)


def test_a_deleted_experiment_is_restored(store):
    sync([make()], store)
    client = client_of(store)
    client.delete_experiment(client.get_experiment_by_name("watermark-bench").experiment_id)
    sync([make()], store)
    assert len(runs_of(store)) == 1


def test_long_parameters_and_odd_names_reach_the_store(store):
    measures = {"psnr (dB)": 31.5, "a%[b]": 1.0, "../up": 2.0, "": 3.0, "x" * 400: 4.0, "detected": 0.25}
    record = make(
        scheme_params={"positions": list(range(5000)), "note": "y" * 600, "a[0]": None, "a(0)": True},
        marked=point(0, 0.9, 0.0, 0.0, True, measures=measures),
        curve=[],
        measures={"psnr (dB)": 30.0, "µ": 5.0},
    )
    sync([record], store)
    (run,) = runs_of(store)
    params, metrics = run.data.params, run.data.metrics
    assert len(params["scheme.positions"]) == 6000
    assert params["scheme.positions"].startswith("0, 1, 2, ")
    assert params["scheme.positions"].endswith("...")
    assert params["scheme.note"] == "y" * 600
    assert (params["scheme.a_0_"], params["scheme.a_0__"]) == ("null", "true")
    assert metrics["detected"] == metrics["curve/detected"] == 1.0
    expected = {"psnr _dB_": 31.5, "psnr _dB__": 30.0, "a_b_": 1.0, "up": 2.0, "unnamed": 3.0, "detected_": 0.25}
    assert expected.items() <= metrics.items()


def test_curves_longer_than_a_batch_are_logged_whole(store):
    rungs = tuple((i, 0.9, 0.0, 1e-9) for i in range(1, 201))
    sync([make(curve=rungs, scheme_params={f"p{i}": i for i in range(150)})], store)
    (run,) = runs_of(store)
    assert len(history(store, "curve/ber", run)) == 201
    assert sum(name.startswith("scheme.p") for name in run.data.params) == 150


def test_the_curve_and_the_record_lie_beside_the_store(drawing_store, tmp_path):
    from matplotlib.image import imread

    record = make(unit="$\\weights$ %", curve=((1, 0.9, 0.0, 1e-9), (1000, 0.1, 0.5, 1.0)))
    sync([record, failed(seed=1)], drawing_store)
    complete, broken = (
        runs_of(drawing_store, f"tags.status = '{status}'")[0].info.run_id for status in ("ok", "failed")
    )
    assert {f.path for f in client_of(drawing_store).list_artifacts(broken)} == {"record.json"}
    folder = tmp_path / "mlartifacts" / complete / "artifacts"
    assert CellRecord.model_validate_json((folder / "record.json").read_text()) == record
    image = imread(folder / "curve.png")
    assert min(image.shape[:2]) > 400
    assert image[..., :3].std() > 0.05  # something is drawn


def test_searches_and_histories_are_drawn_where_there_are_any(drawing_store, tmp_path):
    from matplotlib.image import imread

    found = [identified(signature, signature) for signature in [30.0 * (i % 12) for i in range(14)]]
    owners = Point(strength=0, test_accuracy=0.9, verdicts=found)
    others = [identified(0.0, None)] * 3
    full = make(marked=owners, heldout_verdicts=others, histories={"$loss$ of W": [2.0, 1.0], "b": [1e30], "c": []})
    sync([full, make(seed=1, marked=owners, curve=[]), make(seed=2, histories={"empty": []})], drawing_store)
    drawn = {}
    for run in runs_of(drawing_store):
        folder = tmp_path / "mlartifacts" / run.info.run_id / "artifacts"
        drawn[run.data.tags["seed"]] = {path.name: imread(path) for path in folder.glob("*.png")}
    assert {seed: set(images) for seed, images in drawn.items()} == {
        "0": {"curve.png", "signature_search.png", "histories.png"},
        "1": {"curve.png", "signature_search.png"},
        "2": {"curve.png"},
    }
    both, alone = (drawn[seed]["signature_search.png"] for seed in "01")
    assert both.shape[0] > alone.shape[0] + 200  # held-out users have a panel of their own
    for image in (both, alone, drawn["0"]["histories.png"]):
        assert image[..., :3].std() > 0.05


def test_a_plain_folder_and_a_silent_server_are_one_clear_sentence(tmp_path, monkeypatch):
    with pytest.raises(TrackingError, match="Expected a tracking URI such as sqlite"):
        sync([make()], str(tmp_path))
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        with pytest.raises(TrackingError, match="Records are unharmed"):
            sync([make()], f"http://127.0.0.1:{taken.getsockname()[1]}")


def test_the_store_opens_in_folders_with_odd_names(first_sync, tmp_path):
    run_dir = tmp_path / "my runs #1"
    run_dir.mkdir()
    shutil.copy(first_sync[0], run_dir / "mlflow.db")
    sync([make()], default_uri(run_dir))
    (run,) = runs_of(default_uri(run_dir))
    assert (run_dir / "mlartifacts" / run.info.run_id / "artifacts" / "record.json").is_file()
    for name in ("why?", "100%20"):
        with pytest.raises(ValueError, match="Expected a run directory without"):
            default_uri(tmp_path / name)


def test_the_command_line_and_the_link_to_open_it():
    assert default_uri(Path("/data/runs")) == "sqlite:////data/runs/mlflow.db"
    store, odd = "sqlite:////data/runs/mlflow.db", "sqlite:////a b/mlflow.db"
    assert ui_command(store) == f"mlflow ui --backend-store-uri {store}"
    assert ui_command(odd, 5050) == f"mlflow ui --backend-store-uri '{odd}' --port 5050"
    assert ui_command("http://host:5000") is None
    runs = "/#/experiments/7/runs?workflowType=machine_learning&viewStateShareKey=bench"
    assert ui_link(store, "7") == f"http://127.0.0.1:5000{runs}"
    assert ui_link(store, "7", 5050) == f"http://127.0.0.1:5050{runs}"
    assert ui_link("https://host/mlflow/", "7") == f"https://host/mlflow{runs}"


def test_the_experiment_says_what_it_holds_and_the_runs_name_their_data_set(store):
    synced = tracking.sync([make()], store)
    experiment = client_of(store).get_experiment_by_name("watermark-bench")
    assert synced.experiment_id == experiment.experiment_id
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    assert "One run per cell" in experiment.tags["mlflow.note.content"]
    (run,) = runs_of(store)
    columns = json.loads(experiment.tags["mlflow.sharedViewState.bench"])["selectedColumns"]
    shown = {name.removeprefix("metrics.`")[:-1] for name in columns if name.startswith("metrics.")}
    assert {"test_accuracy", "detected", "removal_cost_pp"} <= shown <= set(run.data.metrics)
    charts = json.loads(experiment.tags["mlflow.sharedViewState.bench"])["compareRunCharts"]
    assert {chart["metricKey"] for chart in charts} <= set(run.data.metrics)
    (used,) = run.inputs.dataset_inputs
    assert (used.dataset.name, used.dataset.digest) == ("digits-m", "x")


# --- stores that several processes share, that break, and that move -----------------------------------------------


SYNC = (
    "import sys, pathlib\n"
    "from bench.records.files import load_record\n"
    "from bench.tracking import default_uri, sync\n"
    "records = [load_record(path) for path in sorted(pathlib.Path('.').glob('*.json'))]\n"
    "sync(records, default_uri(pathlib.Path('.')))\n"
)


EIGHT = (
    # Imported once, before the fork: eight imports would take most of the time.
    "import os, alembic.command, matplotlib.figure, mlflow.tracking, mlflow.store.tracking.sqlalchemy_store\n"
    "import bench.records.files, bench.tracking\n"
    "children = []\n"
    "for _ in range(8):\n"
    "    child = os.fork()\n"
    "    if child == 0:\n"
    "        exec(SYNC)\n"
    "        os._exit(0)\n"
    "    children.append(child)\n"
    "raise SystemExit(sum(os.waitpid(child, 0)[1] != 0 for child in children))\n"
)


def test_eight_syncs_at_once_into_a_fresh_folder_leave_one_run_per_cell(tmp_path):
    for seed in range(2):
        (tmp_path / f"{seed}.json").write_text(make(seed=seed, curve=[]).model_dump_json())
    code = f"SYNC = {SYNC!r}\n{EIGHT}"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=200
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(run.data.tags["seed"] for run in runs_of(default_uri(tmp_path))) == ["0", "1"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "0.json", "1.json", "mlartifacts", "mlflow.db", "mlflow.db.synced",
    ]  # fmt: skip


def test_a_full_disk_while_the_database_is_made_leaves_nothing_behind(tmp_path):
    (tmp_path / "r.json").write_text(make().model_dump_json())
    full = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
    ignored = "import signal\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    done = subprocess.run(
        [sys.executable, "-c", full + ignored + SYNC], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True
    )
    assert done.stderr.splitlines()[-1].startswith("bench.tracking.store.TrackingError: Expected "), done.stderr
    assert "with room on its disk" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["r.json"]


def test_a_database_that_is_broken_is_one_sentence_that_names_it(tmp_path):
    (tmp_path / "mlflow.db").write_bytes(b"no database" * 100)
    with pytest.raises(TrackingError, match=r"file is not a database.*remove .*mlflow\.db"):
        sync([make()], default_uri(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.db"]


def test_a_database_that_was_removed_is_made_anew_in_the_same_process(store, tmp_path):
    assert sync([make()], store) == (1, 0, 0)
    (tmp_path / "mlflow.db").unlink()
    assert sync([make()], store) == (1, 0, 0)
    assert len(runs_of(store)) == 1


def test_a_moved_folder_keeps_its_pictures(drawing_store, tmp_path):
    sync([make()], drawing_store)
    moved = tmp_path / "moved" / "runs"
    moved.mkdir(parents=True)
    for name in ("mlflow.db", "mlartifacts"):
        (tmp_path / name).rename(moved / name)
    assert sync([make(), make(seed=1)], default_uri(moved)) == (1, 0, 1)
    for run in runs_of(default_uri(moved)):
        listed = {file.path for file in client_of(default_uri(moved)).list_artifacts(run.info.run_id)}
        assert listed == {"curve.png", "record.json"}
    assert not (tmp_path / "mlartifacts").exists()


def test_pictures_that_somebody_keeps_elsewhere_stay_there(store, tmp_path):
    elsewhere = (tmp_path / "bucket").as_uri()
    client_of(store).create_experiment("watermark-bench", artifact_location=elsewhere)
    (tmp_path / "mlartifacts").mkdir(exist_ok=True)
    sync([make()], store)
    sync([make()], store)
    assert runs_of(store)[0].info.artifact_uri.startswith(elsewhere)


def test_a_run_that_somebody_deleted_comes_back(store):
    assert sync([make(), make(seed=1)], store) == (2, 0, 0)
    client_of(store).delete_run(runs_of(store)[0].info.run_id)
    assert sync([make(), make(seed=1)], store) == (1, 0, 1)


def test_a_store_that_nobody_wrote_to_is_not_opened_for_the_same_records(store, monkeypatch):
    records = [make(), make(seed=1), meaningless(seed=2)]
    sync(records, store, ranked=records)
    found, opened = tracking.sync(records, store), tracking.opened
    asked = []
    monkeypatch.setattr(tracking, "opened", lambda uri: asked.append(uri) or opened(uri))
    assert tracking.sync(records, store) == found == (0, 0, 2, found.experiment_id)
    assert not asked
    told = [
        {"records": records, "fpr": 0.05},
        {"records": records, "ranked": records},
        {"records": records, "experiment": "another"},
        {"records": records[:1]},
        {"records": [make(clean_accuracy=0.5), *records[1:]]},
    ]
    for options in told:
        sync(records, store)
        asked.clear()
        tracking.sync(options.pop("records"), store, **options)
        assert asked, options
    sync(records, store)
    asked.clear()
    Path(f"{store.removeprefix('sqlite:///')}.synced").write_text("{")
    sync(records, store)
    assert asked, "a note that was cut short says nothing"


def test_runs_appear_while_others_are_computed(store):
    with Mirror(store, 0.01, every_s=0.05) as mirror:
        for seed in range(12):  # more than are written at once
            mirror.add(make(seed=seed))
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            time.sleep(0.2)
            if client_of(store).get_experiment_by_name("watermark-bench") and len(runs_of(store)) == 12:
                break
    assert {run.info.status for run in runs_of(store)} == {"FINISHED"}
    assert len(runs_of(store)) == 12
    assert sync([make(seed=seed) for seed in range(12)], store) == (0, 0, 12)


def test_a_run_tells_the_progress_bar_and_the_mirror_of_each_record(monkeypatch):
    from bench.cli.run import _mirrored

    class Heard:
        def __init__(self, *_):
            self.records, self.started, self.finished = [], None, None

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.records.append("ended")

        def add(self, record):
            mirrored.append(record)

        settled = property(lambda self: self.records.append)

    mirrored = []
    monkeypatch.setattr("bench.tracking.mirror.Mirror", Heard)
    progress = Heard()
    with _mirrored(progress, "sqlite:///x.db", 0.01) as watch:
        watch.settled("record")
    assert (progress.records, mirrored) == (["record"], ["record"])
    with _mirrored(progress, None, 0.01) as watch:  # --no-mlflow
        assert watch is progress


def test_a_mirror_whose_store_is_out_of_reach_disturbs_nobody(tmp_path):
    with Mirror(str(tmp_path), 0.01, every_s=0.01) as mirror:
        mirror.add(make())
        time.sleep(0.2)
        mirror.add(make(seed=1))


def test_a_server_that_refuses_the_host_name_is_told_how_to_allow_it(tmp_path):
    stub = (
        "import http.server\n"
        "class Stub(http.server.BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        "        body = b'Invalid Host header - possible DNS rebinding attack detected'\n"
        "        self.send_response(403); self.send_header('Content-Length', str(len(body))); self.end_headers()\n"
        "        self.wfile.write(body)\n"
        "    do_POST = do_GET\n"
        "    def log_message(self, *args): pass\n"
        "server = http.server.HTTPServer(('127.0.0.1', 0), Stub)\n"
        "print(server.server_port, flush=True); server.serve_forever()\n"
    )
    process = subprocess.Popen([sys.executable, "-c", stub], stdout=subprocess.PIPE, text=True)
    try:
        with pytest.raises(TrackingError, match="--allowed-hosts"):
            sync([make()], f"http://127.0.0.1:{process.stdout.readline().strip()}")
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def server(drawing_store, tmp_path):
    """The real MLflow UI over the store, in a process group of its own; yields its address."""
    sync([make(), make(seed=1, curve=PRUNING[:2])], drawing_store)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = ui_command(drawing_store, port).replace("mlflow ui", "ui").split()
    with (tmp_path / "server.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", *command, "--workers", "1"],
            cwd=tmp_path, env=ENVIRONMENT, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
        try:
            address = f"http://127.0.0.1:{port}"
            _wait_until_ready(process, address, tmp_path / "server.log")
            yield address
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(10)


def _wait_until_ready(process, address, log):
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=2) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    pytest.fail(f"The MLflow server did not answer: {log.read_text()}")


def _call(address, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{address}/{path}", data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.read()


def test_the_real_server_shows_the_runs_and_takes_a_sync_itself(server, drawing_store):
    experiment = runs_of(drawing_store)[0].info.experiment_id
    body = {"experiment_ids": [experiment], "filter": "tags.scheme = 'uchida-random'", "order_by": ["tags.seed"]}
    runs = json.loads(_call(server, "api/2.0/mlflow/runs/search", body))["runs"]
    assert [run["info"]["run_name"][-2:] for run in runs] == ["s0", "s1"]
    values = [{m["key"]: m["value"] for m in run["data"]["metrics"]} for run in runs]
    assert [v["survived_share"] for v in values] == pytest.approx([2 / 3, 1.0])
    run_id = runs[0]["info"]["run_id"]
    assert _call(server, f"get-artifact?path=curve.png&run_uuid={run_id}").startswith(b"\x89PNG")
    assert sync([make(), make(seed=2)], server) == (1, 0, 1)
    assert len(runs_of(server)) == 3


def test_what_was_measured_beside_the_records_follows_without_a_new_run(store):
    about = {"scheme_params": {"bits": 8}, "arch": "wrn", "profile": "smoke"}
    rates = [measured_rate(2, 100, **about), measured_rate(30, 100, null="permuted labels", beyond=True, **about)]
    tests = [measured_test("ks", 0.3, **about), measured_test("variance", 0.001, **about)]
    records = [make(), make("xinv")]
    assert sync(records, store) == (2, 0, 0)
    assert sync(records, store, beside=Beside(rates, tests)) == (0, 0, 2), "metrics are added to the runs there are"
    (run,) = runs_of(store, "tags.scheme = 'uchida-random'")
    expected = {
        "calibrated_false_positive_rate": 0.3, "calibrated_false_positive_rate_low": 0.15,
        "calibrated_false_positive_rate_high": 0.35, "detectability_p_value": 0.002, "detectability_auc": 0.9,
        "false_positive_rate": 0.02,
    }  # fmt: skip
    assert {name: run.data.metrics[name] for name in expected} == pytest.approx(expected)
    (other,) = runs_of(store, "tags.scheme = 'xinv'")
    assert not any(name.startswith(("calibrated", "detectability")) for name in other.data.metrics)
    assert sync(records, store, beside=Beside(rates[:1], tests)) == (0, 0, 2)
    (run,) = runs_of(store, "tags.scheme = 'uchida-random'")
    assert run.data.metrics["calibrated_false_positive_rate"] == pytest.approx(0.02)
    assert sync([make(seed=3)], store, beside=Beside(rates, tests)) == (1, 0, 0)
    (new,) = runs_of(store, "tags.seed = '3'")
    assert new.data.metrics["calibrated_false_positive_rate"] == pytest.approx(0.3)
