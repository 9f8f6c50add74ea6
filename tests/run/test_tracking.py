"""What a record becomes in MLflow."""

import json
import subprocess
import time

import pytest

from bench import tracking
from bench.contract.verdict import Point, Verdict
from bench.lease import myself
from bench.metrics.beside import Beside
from bench.records.record import CellRecord
from tests.fakes import contest, identified, measured_rate, measured_test, member
from tests.run.tracked import PRUNING, client_of, failed, history, make, meaningless, point, runs_of, sync


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
