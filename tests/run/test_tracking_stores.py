"""Where runs are kept: files, folders that move, processes that write at once, servers."""

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
from bench.tracking import TrackingError, default_uri, ui_command, ui_link
from bench.tracking.mirror import Mirror
from tests.run.tracked import ENVIRONMENT, PRUNING, client_of, make, meaningless, runs_of, sync


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
