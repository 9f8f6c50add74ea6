"""What a submission's numbers cannot be, which cells are computed again, and how far these may lie off."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from tokenize import TokenError
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.checks import canary, verification
from bench.checks.agreement import DRIFT_PP, disagreement, together
from bench.checks.canary import Finding, chosen, expected_s
from bench.checks.plausible import implausible
from bench.checks.source import forbidden, harness_digest, own_files, project_file, today
from bench.checks.verification import verify
from bench.plan.fingerprint import digest_of, tree
from bench.records.record import CellRecord
from bench.records.submission import Envelope, Rerun, Source, Submission, load_stamp, load_submission
from bench.stats import rank_p_value, sequential_p_value
from tests.fakes import nulls, point, verdict
from tests.fakes import submissions as fakes

ROOT = Path(__file__).parents[2]


def submitted(*records: CellRecord) -> Submission:
    found = {record.filename: record for record in records}
    return Submission(Path(), Envelope(**fakes.envelope(dict.fromkeys(found, b""))), found, None)


def judged(*records: CellRecord) -> str | None:
    return implausible(submitted(*records))


# ---- numbers that cannot be ------------------------------------------------------------------------------------------
def test_honest_records_are_plausible() -> None:
    assert judged(fakes.honest(0), fakes.honest(1), fakes.honest(0, "noise")) is None


@given(st.integers(1, 60_000), st.data())
def test_every_whole_number_of_images_is_an_accuracy(images: int, data: st.DataObject) -> None:
    import numpy as np

    right = data.draw(st.integers(0, images))
    accuracy = float(np.float32(right) / np.float32(images))
    record = fakes.honest(clean_accuracy=accuracy)
    split = {"heldout": images}
    record = record.model_copy(update={
        "provenance": record.provenance.model_copy(update={"split": split}), "marked": None, "curve": [],
        "control_accuracy": None,
    })  # fmt: skip
    assert judged(record) is None


@pytest.mark.parametrize("accuracy", [0.613, 0.6001, 0.59999, 0.60499])
def test_an_accuracy_between_two_numbers_of_images_is_caught(accuracy: float) -> None:
    found = judged(fakes.honest(marked=point(0.0, accuracy, verdicts=[fakes.matched()])))
    assert found
    assert found.startswith("accuracy of whole images: ")
    assert "of 200 images" in found


@pytest.mark.parametrize(
    ("right", "fault"),
    [(260, None), (119, "cannot be"), (371, "cannot be"), (260.5, "of 450 images")],
    ids=["fine", "fewer than of the held-out ones", "more than there are", "no whole number"],
)
def test_held_out_images_are_among_all_unseen_ones(right: float, fault: str | None) -> None:
    """120 of 200 held-out images: 120 to 370 of all 450."""
    record = fakes.honest(marked=point(0.0, 0.6, verdicts=[fakes.matched()], unseen_accuracy=right / 450))
    split = {**record.provenance.split, "unseen": 450}
    found = judged(record.model_copy(update={"provenance": record.provenance.model_copy(update={"split": split})}))
    assert (found is None) == (fault is None)
    assert (fault or "") in (found or "")


def test_without_the_number_of_images_nothing_can_be_checked() -> None:
    record = fakes.honest()
    without = record.model_copy(update={"provenance": record.provenance.model_copy(update={"split": {}})})
    assert "how many images" in (judged(without) or "")


def ranked(p_value: float, asked: int | None = None, most: int | None = None, total: int | None = None) -> str | None:
    """What is said of a p-value with these details."""
    details = {"decoys_asked": asked, "nulls": total}
    made = verdict(p_value, ber=None, details={name: v for name, v in details.items() if v is not None})
    record = fakes.honest(marked=point(0.0, 0.6, verdicts=[made]))
    params = {} if most is None else {"decoys": most}
    return judged(record.model_copy(update={"cell": record.cell.model_copy(update={"scheme_params": params})}))


@given(st.integers(1, 300), st.data())
def test_every_rank_and_every_sequential_rank_is_possible(most: int, data: st.DataObject) -> None:
    draws = data.draw(st.lists(st.integers(0, 20), min_size=most, max_size=most))
    own = data.draw(st.integers(0, 20))
    assert ranked(rank_p_value(own, draws), total=most) is None
    rest = iter(draws)
    p_value, drawn = sequential_p_value(own, lambda count: [next(rest) for _ in range(count)], most)
    assert ranked(p_value, len(drawn), most) is None


def test_a_statistic_that_is_not_finite_has_no_decoys_and_is_no_evidence() -> None:
    p_value, drawn = sequential_p_value(math.nan, lambda count: [0.0] * count, 99)
    assert ranked(p_value, len(drawn), 99) is None


@pytest.mark.parametrize(
    ("p_value", "asked", "most", "total"),
    [
        (0.0025, 199, 199, None),  # half of the least rank
        (0.0, 199, 199, None),
        (0.005, 100, 199, None),  # the test cannot have stopped there
        (0.05, 100, 199, None),
        (0.0025, None, None, 199),
        (0.0124, None, None, 199),
        (1e-9, None, None, 99),
        (0.0, None, None, 99),
    ],
)
def test_a_p_value_that_is_no_rank_is_caught(
    p_value: float, asked: int | None, most: int | None, total: int | None
) -> None:
    assert (ranked(p_value, asked, most, total) or "").startswith("possible p values: ")


@pytest.mark.parametrize("factor", [0.5, 2.0, 0.999, 0.0])
def test_a_binomial_tail_is_computed_anew(factor: float) -> None:
    right = fakes.matched(20)
    wrong = fakes.matched(20, p_value=right.p_value * factor)
    assert judged(fakes.honest(marked=point(0.0, 0.6, verdicts=[right]))) is None
    assert "give" in (judged(fakes.honest(marked=point(0.0, 0.6, verdicts=[wrong]))) or "")


def test_more_matches_than_trials_are_caught() -> None:
    assert "31 of 30" in (judged(fakes.honest(marked=point(0.0, 0.6, verdicts=[fakes.matched(31, p_value=0.0)]))) or "")


def test_every_owners_verdict_is_looked_at() -> None:
    wrong = fakes.matched(20, p_value=1e-3)
    record = fakes.honest(marked=point(0.0, 0.6, verdicts=[fakes.matched(), fakes.matched()]), curve=[])
    assert judged(record.model_copy(update={"heldout_verdicts": [wrong]})) is not None
    assert judged(record.model_copy(update={"clean_verdicts": [wrong]})) is not None


@pytest.mark.parametrize(("ber", "fine"), [(0.25, True), (0.125, True), (0.0, True), (1.0, True), (0.1, False)])
def test_errors_of_a_payload_are_whole_or_half(ber: float, fine: bool) -> None:
    found = judged(fakes.honest(marked=point(0.0, 0.6, verdicts=[verdict(payload="0110", ber=ber)])))
    assert (found is None) == fine


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"timings_s": {"embed": 0.0}}, "no time"),
        ({"timings_s": {}}, "no time"),
        ({"timings_s": {"embed": 1.0, "host": 1e8}}, "30 days"),
        ({"finished": "2999-01-01T00:00:00+00:00"}, "finished"),
        ({"finished": ""}, "finished"),
        ({"finished": "<script>"}, "finished"),
    ],
)
def test_times_that_cannot_be_are_caught(fields: dict[str, Any], word: str) -> None:
    record = fakes.honest()
    if "finished" in fields:
        fields = {"provenance": record.provenance.model_copy(update=fields)}
    found = judged(record.model_copy(update=fields))
    assert found
    assert found.startswith("possible times: ")
    assert word in found


def test_an_attacks_time_does_not_run_backwards() -> None:
    curve = [point(40.0, 0.5, attack_time_s=5.0), point(80.0, 0.2, attack_time_s=4.0)]
    assert "gets less" in (judged(fakes.honest(curve=curve)) or "")


@pytest.mark.parametrize("field", ["clean_accuracy", "control_accuracy", "marked"])
def test_cells_of_one_network_agree_about_it(field: str) -> None:
    one, other = fakes.honest(0), fakes.honest(0, "noise")
    value = point(0.0, 0.9, verdicts=[fakes.matched()]) if field == "marked" else 0.9
    found = judged(one, other.model_copy(update={field: value}))
    assert found
    assert found.startswith("one step one result: ")


def test_verification_times_of_one_network_may_differ() -> None:
    one, other = fakes.honest(0), fakes.honest(0, "noise")
    assert other.marked is not None
    slower = other.marked.model_copy(update={"verify_time_s": 3.0})
    assert judged(one, other.model_copy(update={"marked": slower})) is None


def test_one_seed_told_twice_is_caught() -> None:
    one = fakes.honest(0)
    again = one.model_copy(update={"cell": one.cell.model_copy(update={"seed": 7})})
    assert (judged(one, again) or "").startswith("seeds differ: ")


def test_a_submission_without_numbers_is_caught() -> None:
    nothing = fakes.honest(status="not applicable", reason="it has no meaning", marked=None, curve=[], nulls=[])
    assert (judged(nothing) or "").startswith("status ok: ")


# ---- the choice ------------------------------------------------------------------------------------------------------
def test_the_choice_follows_from_the_content_and_the_salt() -> None:
    made = submitted(*(fakes.honest(seed) for seed in range(20)))
    other = submitted(*(fakes.honest(seed) for seed in range(20)))
    assert chosen(made) == chosen(other)
    assert sorted(chosen(made)) == sorted(made.records)
    changed = Submission(Path(), made.envelope.model_copy(update={"who": "Another"}), made.records, None)
    assert len({tuple(chosen(each, salt)) for each in (made, changed) for salt in ("", "7", "8")}) == 6


def test_cheap_cells_are_likelier_and_none_is_impossible() -> None:
    cheap, dear = fakes.honest(0), fakes.honest(1, timings_s={"embed": 50.0})
    made = submitted(cheap, dear)
    first = Counter(chosen(made, str(salt))[0] for salt in range(2000))
    expected = 2000 * expected_s(dear) / (expected_s(dear) + expected_s(cheap))
    assert abs(first[cheap.filename] - expected) < 5 * math.sqrt(2000) / 2
    assert first[dear.filename] > 0


def test_no_claim_of_time_excludes_a_cell() -> None:
    assert expected_s(fakes.honest(timings_s={"embed": 9e8})) == 4 * canary.BUDGET_S
    assert expected_s(fakes.honest(timings_s={"embed": 0.0})) >= canary.LEAST_S


def test_what_has_no_numbers_is_not_computed_again() -> None:
    failed = fakes.honest(3, status="failed", traceback="boom", marked=None, curve=[], nulls=[])
    assert chosen(submitted(failed)) == []


# ---- agreement -------------------------------------------------------------------------------------------------------
def moved(record: CellRecord, points: float, **provenance: Any) -> CellRecord:
    """The record with accuracies of the marked model moved, perhaps from another environment."""
    assert record.marked is not None
    marked = record.marked.model_copy(update={"test_accuracy": (record.marked.test_accuracy or 0) + points / 100})
    where = record.provenance.model_copy(update=provenance)
    return record.model_copy(update={"marked": marked, "provenance": where})


def test_the_same_environment_gives_the_same_numbers() -> None:
    record = fakes.honest()
    assert disagreement(record, record, same=True) is None
    found = disagreement(moved(record, 0.5), record, same=True)
    assert found
    assert "marked.test_accuracy" in found
    assert "computed again in the same environment" in found


@pytest.mark.parametrize("where", [{"cpu_capability": "AVX2"}, {"threads": 2}, {"packages": {"torch": "3"}},
                                   {"device": "cuda"}])  # fmt: skip
def test_elsewhere_a_replay_may_lie_as_far_off_as_was_measured(where: dict[str, Any]) -> None:
    record = fakes.honest()
    for points, fine in ((1.9, True), (-1.9, True), (2.0, True), (2.5, False), (-2.5, False)):
        assert (disagreement(moved(record, points, **where), record, same=True) is None) == fine, points


def test_another_harness_is_another_environment() -> None:
    record = fakes.honest()
    assert disagreement(moved(record, 1.0), record, same=False) is None
    assert disagreement(moved(record, 1.0), record, same=True) is not None


@pytest.mark.parametrize("name", ["clean_accuracy", "control_accuracy"])
def test_clean_networks_are_held_to_the_same(name: str) -> None:
    record = fakes.honest()
    far = moved(record, 0, threads=2).model_copy(update={name: 0.5})
    assert name.replace("_", " ") in (disagreement(far, record, same=True) or "")


def test_a_verdict_that_turns_is_caught_anywhere() -> None:
    record = fakes.honest()
    turned = fakes.honest(marked=point(0.0, 0.6, verdicts=[fakes.matched(5)]))
    for threads in (1, 2):
        assert disagreement(moved(turned, 0, threads=threads), record, same=True) is not None


def test_a_cell_that_fails_when_computed_again_is_caught() -> None:
    failed = fakes.honest(status="failed", traceback="boom", marked=None, curve=[], nulls=[])
    assert "status" in (disagreement(fakes.honest(), failed, same=True) or "")


def test_fewer_fresh_keys_are_no_disagreement_and_other_claims_are() -> None:
    record = fakes.honest()
    assert disagreement(record, record.model_copy(update={"nulls": []}), same=True) is None
    assert disagreement(record, record.model_copy(update={"nulls": [nulls(3, 20)]}), same=True) is not None


def reruns(*drifts: float, exact: bool = False) -> tuple[Rerun, ...]:
    return tuple(Rerun(record="x.json", profile="smoke", exact=exact, drift_pp=drift) for drift in drifts)


def test_drifts_to_one_side_are_caught_together() -> None:
    assert together(reruns(1.9)) is None
    assert together(reruns(1.9, -1.9, 1.5, -1.0)) is None
    assert together(reruns(1.9, 1.5, 1.9, 1.0)) is not None
    assert together(reruns(-1.9, -1.5, -1.9, -1.0)) is not None
    assert DRIFT_PP / 2 == 1.0


# ---- source ----------------------------------------------------------------------------------------------------------
def test_the_source_of_a_scheme_is_its_file_and_its_helpers() -> None:
    assert set(own_files("schemes/zhang.py")) >= {"schemes/zhang.py", "schemes/_firmness.py"}
    assert project_file(ROOT / "schemes" / "zhang.py") == "schemes/zhang.py"
    assert project_file(ROOT / "tests" / "plugins" / "hooks.py") is None
    assert len(harness_digest()) == 64


def beside(folder: Path, text: str) -> tuple[Path, Envelope]:
    (folder / "source").mkdir(exist_ok=True)
    (folder / "source" / "my.py").write_text(text)
    try:
        digest = digest_of(text)
    except (SyntaxError, TokenError):
        digest = "0" * 64
    files = {"source/my.py": digest}
    source = {"files": files, "harness": harness_digest()}
    return folder, Envelope(**{**fakes.envelope({"x.json": b""}), "source": source})


def test_source_beside_the_envelope_is_hashed_without_being_imported(tmp_path: Path) -> None:
    told = beside(tmp_path, "raise SystemExit")
    assert today(*told) == told[1].source
    assert (tmp_path / "source" / "my.py").write_text("# a comment\nraise SystemExit\n")
    assert today(*told) == told[1].source, "comments compute nothing"
    assert (tmp_path / "source" / "my.py").write_text("raise SystemExit(1)")
    assert today(*told) != told[1].source


@pytest.mark.parametrize("text", ["def", "'" * 3, "\x00", "(" * 10_000, "x" * 10 + "\n" + " y\n  z"])
def test_what_is_not_python_has_no_source(tmp_path: Path, text: str) -> None:
    assert today(*beside(tmp_path, text)) is None


def test_source_that_is_gone_is_none(tmp_path: Path) -> None:
    for name in ("schemes/no_such_file.py", "source/no_such_file.py"):
        source = Source(files={name: "0" * 64}, harness="0" * 64)
        envelope = Envelope(**{**fakes.envelope({"x.json": b""}), "source": source.model_dump()})
        assert today(tmp_path, envelope) is None


@pytest.mark.parametrize(
    "line",
    [
        "import os", "import socket", "import subprocess as s", "from pathlib import Path", "import bench.registry",
        "from bench.steps import judge", "from . import x", "import ctypes", "import importlib", "import inspect",
        "import sys", "import gc", "open('x')", "eval('1')", "exec('')", "__import__('os')", "globals()",
        "().__class__.__bases__", "f.__globals__", "torch.load('x')", "torch.hub", "numpy.memmap", "import pickle",
    ],
)  # fmt: skip
def test_what_no_method_needs_is_named(tmp_path: Path, line: str) -> None:
    found = forbidden(*beside(tmp_path, f"import torch\n{line}\n"))
    assert found
    assert "line 2" in found


def test_the_projects_own_methods_keep_the_rule() -> None:
    for folder in ("schemes", "attacks"):
        files = {f"{folder}/{path.name}": "0" * 64 for path in (ROOT / folder).glob("[a-z_]*.py")}
        for name in files:
            source = {"files": {name: "0" * 64}, "harness": "0" * 64}
            envelope = Envelope(**{**fakes.envelope({"x.json": b""}), "source": source})
            assert name == f"{folder}/__init__.py" or forbidden(ROOT, envelope) is None


# ---- the whole, without computing anything ---------------------------------------------------------------------------
@pytest.fixture
def folder(tmp_path: Path) -> Path:
    source = {"files": own_files("schemes/uchida.py"), "harness": harness_digest()}
    return fakes.written(tmp_path / "uchida-random", source=source)


Verify = Callable[..., verification.Outcome]


@pytest.fixture
def agreeing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A canary that computes nothing and agrees."""

    def replayed(submission: Submission, *_: Any, **__: Any) -> Finding:
        return Finding(tuple(Rerun(record=name, profile="smoke", exact=True) for name in submission.records))

    monkeypatch.setattr(verification, "replayed", replayed)


@pytest.mark.usefixtures("agreeing")
def test_an_honest_submission_is_stamped_for_what_it_holds(folder: Path) -> None:
    found = verify(folder, salt="7")
    assert (found.failure, found.remaining) == (None, ())
    stamp = load_stamp(folder / "verification.json")
    assert (stamp.state, stamp.content, stamp.salt) == ("verified", load_submission(folder).content, "7")
    assert load_submission(folder).stamp == stamp


@pytest.mark.usefixtures("agreeing")
@pytest.mark.parametrize(
    ("change", "check"),
    [(fakes.halved, "possible p values"), (fakes.raised(1.3), "accuracy of whole images")],
)
def test_a_doctored_submission_fails_without_computing_anything(folder: Path, change: Any, check: str) -> None:
    fakes.doctored(folder, change)
    found = verify(folder)
    assert found.failure
    assert found.failure.startswith(check)
    stamp = load_stamp(folder / "verification.json")
    assert (stamp.state, stamp.reason) == ("failed", found.failure)


@pytest.mark.usefixtures("agreeing")
def test_source_that_differs_from_its_digest_fails(folder: Path) -> None:
    told = json.loads((folder / "submission.json").read_text())
    told["source"]["files"]["schemes/uchida.py"] = "0" * 64
    (folder / "submission.json").write_text(json.dumps(told))
    assert (verify(folder).failure or "").startswith("source: schemes/uchida.py is not what computed the records")


def test_nothing_computed_again_takes_an_old_stamp_away(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fakes.stamped(folder)
    monkeypatch.setattr(verification, "replayed", lambda *_, **__: Finding(nothing="no data"))
    assert verify(folder).nothing == "no data"
    assert not (folder / "verification.json").exists()


@pytest.mark.usefixtures("agreeing")
def test_verifying_without_a_stamp_writes_nothing(folder: Path) -> None:
    before = sorted(folder.rglob("*"))
    verify(folder, stamp=False)
    assert sorted(folder.rglob("*")) == before


def test_the_root_of_the_source_is_the_repository() -> None:
    assert tree().root == ROOT
