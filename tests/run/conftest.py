"""An empty tracking store, made once, since its migrations take seconds; a folder of pictures."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench.tracking import default_uri
from tests.run.stamped import write
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


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """24 pictures of two sizes in three folders, a text file, a broken picture, a hidden file."""
    root = tmp_path / "in"
    for i in range(24):
        write(
            root / ("", "a", "a/b")[i % 3] / f"{i:02d}.{'jpg' if i == 5 else 'png'}",
            (12, 8) if i % 7 == 6 else (8, 8),
            i,
        )
    (root / "notes.txt").write_text("no picture")
    (root / "a" / "10x.png").write_bytes(b"no picture either")
    (root / ".hidden.png").write_bytes(b"")
    return root
