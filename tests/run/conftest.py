"""An empty tracking store, made once: its migrations take seconds."""

import shutil
import subprocess
import sys

import pytest

from bench.tracking import default_uri
from tests.run.tracked import ENVIRONMENT, make


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
