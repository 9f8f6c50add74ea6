"""`--precision` from the command line to the training, and to the record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import rich_click as click
from click.testing import CliRunner

from bench.cli import main
from bench.cli.run import run
from bench.records.files import load_records
from bench.steps import training
from bench.steps.workspace import PRECISIONS

RUN = ("run", "--scheme", "uchida-posthoc", "--attack", "none", "--profile", "smoke", "--null-keys", "0", "--no-mlflow")


@pytest.mark.parametrize(
    ("asked", "mixed", "told"),
    [
        ((), False, "float32"),
        (("--precision", "half"), True, "bfloat16 training, float32 otherwise"),
    ],
)
def test_trainings_run_as_asked_and_the_record_says_it(
    asked: tuple[str, ...], mixed: bool, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, train = set[bool](), training.train

    def watched(*args: Any, **options: Any) -> training.Trained:
        seen.add(options["mixed_precision"])
        return train(*args, **options)

    monkeypatch.setattr(training, "train", watched)
    done = CliRunner().invoke(main, [*RUN, *asked, "--device", "cpu", "--run-dir", str(tmp_path)])
    assert done.exit_code == 0, done.output
    (record,) = load_records(tmp_path / "records")
    assert seen == {mixed}
    assert record.provenance.arithmetic == told


def test_the_command_line_offers_what_a_place_takes() -> None:
    (offered,) = (option.type for option in run.params if option.name == "precision")
    assert isinstance(offered, click.Choice)
    assert tuple(offered.choices) == PRECISIONS
