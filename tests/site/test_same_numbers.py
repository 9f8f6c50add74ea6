"""One run shown in four places says the same numbers in each: terminal, `results`, MLflow and page."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from bench.cli.ranks import ranks_table
from bench.cli.tables import results_table
from bench.metrics.flat import rows as flat_rows
from bench.records.record import AFTER_ATTACK, FRESH_KEY, CellRecord, NullSet
from bench.tracking import projection
from leaderboard import rows
from tests.fakes import cell, contest, identified, member, nulls, point, record, verdict

FPR = 0.02
TIED = [0.015, 0.5]  # what holds at this rate and not at the usual one
HELD, WEAK, BROKEN = verdict(1e-9, ber=0.0), verdict(0.015, ber=0.25), verdict(0.5, ber=0.5)


def weights(seed: int, accuracy: float) -> CellRecord:
    """Three owners: one never falls, one falls at exactly five points, one for much more."""
    curve = [
        point(50.0, accuracy - 0.05, verdicts=[HELD, BROKEN, WEAK], measures={"zeros": 0.5}),
        point(90.0, accuracy - 0.30, verdicts=[HELD, BROKEN, BROKEN]),
    ]
    return record(
        cell=cell(scheme="weights", seed=seed), marked=point(0.0, accuracy, verdicts=[HELD, HELD, WEAK]), curve=curve,
        clean_accuracy=0.93,
        nulls=[
            nulls(2, 50),
            NullSet(kind=FRESH_KEY, p_values=TIED),
            NullSet(kind=AFTER_ATTACK, strength=90.0, p_values=TIED),
        ],
        timings_s={"host": 10.0, "embed": 12.0},
    )  # fmt: skip


def run() -> list[CellRecord]:
    """Several owners, two seeds, a data mark, a membership test, an attack on the evidence and a failed cell."""
    at = {"attack": "blur", "situation": "train"}
    hue = record(
        cell=cell(scheme="hue", **at), carrier="data", stage="data", nulls=[],
        clean_accuracy=0.9, control_accuracy=0.85,
        marked=point(0.0, 0.8, verdicts=[identified(), identified(90.0)]),
        curve=[point(1.0, 0.79, verdicts=[identified(90.0), identified(90.0)])],
    )  # fmt: skip
    mia = record(
        cell=cell(scheme="mia", **at), carrier="none", stage="data", heldout_verdicts=[member(True), member(False)],
        marked=point(0.0, 0.8, verdicts=[member(True)] * 3), curve=[point(1.0, 0.5, verdicts=[member(False)] * 3)],
    )  # fmt: skip
    forged = record(
        cell=cell(scheme="trigger", attack="forge"), stage="evidence", committed=False, marked=point(0.0, 0.9, 0.015),
        curve=[point(1.0, 0.9, 0.015), point(2.0, 0.9, 0.5)],
    )  # fmt: skip
    failed = record("failed", cell=cell(scheme="broken"))
    return [weights(0, 0.91), weights(1, 0.90), hue, mia, forged, failed]


def printed(made: CellRecord) -> dict[str, str]:
    """What the terminal's table says of one cell, by column."""
    console = Console(width=300, file=io.StringIO(), no_color=True)
    table = results_table([made], console.width, FPR)
    shown = {}
    for column in table.columns:
        (value,) = column.cells
        shown[str(column.header)] = str(value)
    return shown


def logged(made: CellRecord) -> dict[str, dict[int, float]]:
    """What MLflow is given of one cell: name -> step -> value."""
    found: dict[str, dict[int, float]] = {}
    for name, value, step in projection.metrics(made, FPR):
        found.setdefault(name, {})[step] = value
    return found


def page_row(made: list[CellRecord]) -> dict[str, Any]:
    (row,) = rows(made, FPR)
    return row


def first(made: CellRecord, name: str) -> Any:
    """A value of the marked model in `results`."""
    return flat_rows([made], FPR)[0][name]


def share(count: dict[str, Any]) -> float:
    return float(count["hits"] / count["trials"])


OK = [made for made in run() if made.status == "ok"]
each = pytest.mark.parametrize("made", OK, ids=[f"{made.cell.scheme}-{made.cell.seed}" for made in OK])


@each
def test_accuracy_and_fidelity(made: CellRecord) -> None:
    table, mlflow, row = printed(made), logged(made), page_row([made])
    assert first(made, "test_accuracy") == mlflow["test_accuracy"][0] == mlflow["curve/test_accuracy"][0]
    assert float(table["accuracy"]) == pytest.approx(100 * first(made, "test_accuracy"), abs=0.051)
    fidelity = first(made, "fidelity_pp")
    assert fidelity == mlflow["fidelity_pp"][0] == mlflow["curve/fidelity_pp"][0] == row["fidelity"]["mean"]
    assert float(table["fidelity"]) == pytest.approx(fidelity, abs=0.051)


@each
def test_detection_on_the_marked_model(made: CellRecord) -> None:
    table, mlflow, row = printed(made), logged(made), page_row([made])
    found = [line["detected"] for line in flat_rows([made], FPR) if line["strength"] == 0]
    count = row["effectiveness"]
    assert (sum(found), len(found)) == (count["hits"], count["trials"])
    assert mlflow["detected"][0] == mlflow["curve/detected"][0] == share(count)
    words = {1: {0: "no", 1: "yes"}}.get(len(found), {}).get(sum(found), f"{sum(found)}/{len(found)}")
    assert table["detected"] == words
    assert (
        projection.tags(made, FPR)["mlflow.note.content"]
        .splitlines()[2]
        .endswith({1.0: "| yes |", 0.0: "| no |"}.get(share(count), f"| {100 * share(count):.1f} % |"))
    )


@each
def test_detection_along_the_curve(made: CellRecord) -> None:
    (attack,) = page_row([made])["attacks"].values()
    (curve,) = attack["curves"]
    lines = flat_rows([made], FPR)
    for strength, hits, trials, ber in zip(
        curve["strength"], curve["hits"], curve["trials"], curve["ber"], strict=True
    ):
        rung = [line for line in lines if line["strength"] == strength]
        assert (sum(line["detected"] for line in rung), len(rung)) == (hits, trials)
        assert logged(made)["curve/detected"][int(strength)] == hits / trials
        if ber is not None:
            assert logged(made)["curve/ber"][int(strength)] == ber == sum(line["ber"] for line in rung) / len(rung)


@each
def test_worst_case_and_removal_cost(made: CellRecord) -> None:
    table, mlflow, row = printed(made), logged(made), page_row([made])
    worst, cost = row["robustness"], row["removal"]
    if made.stage == "evidence":
        assert (worst, cost, table["worst case"], table["removal cost"]) == (None, None, "-", "-")
        assert "worst_case_survival" not in mlflow
        return
    assert mlflow["worst_case_survival"][0] == share(worst)
    assert table["worst case"].split(" at ")[0] == f"{worst['hits']}/{worst['trials']}"
    name = "removal_cost_above_pp" if cost["more"] else "removal_cost_pp"
    assert mlflow[name][0] == cost["pp"]
    assert table["removal cost"] == ("> " if cost["more"] else "") + f"{cost['pp']:.1f}"


@each
def test_protection(made: CellRecord) -> None:
    table, mlflow, row = printed(made), logged(made), page_row([made])
    advantage = first(made, "protection_advantage")
    assert advantage == row["protection"]["advantage"] == mlflow["protection_advantage"][0]
    assert mlflow["curve/protection_advantage"][0] == advantage
    if "adv." in table:
        assert float(table["adv."]) == pytest.approx(advantage, abs=0.0051)


@each
def test_false_claims_and_embedding_time(made: CellRecord) -> None:
    table, mlflow, row = printed(made), logged(made), page_row([made])
    security = row["security"] or {"clean": None, "attacked": None, "forged": None}
    names = {"clean": "false_positive_rate", "attacked": "attacked_false_positive_rate", "forged": "forged_claims_rate"}
    for part, name in names.items():
        assert (part, mlflow.get(name)) == (part, security[part] and {0: share(security[part])})
    clean = security["clean"]
    assert table.get("false claims") == (clean and f"{clean['hits']}/{clean['trials']}")
    assert row["embed_ratio"]["mean"] == mlflow["embed_ratio"][0]


@each
def test_the_best_forgery(made: CellRecord) -> None:
    table, mlflow, row = printed(made), logged(made), page_row([made])
    best = row["security"] and row["security"]["best_forgery"]
    if made.stage != "evidence":
        assert (best, table.get("forged"), "forged_p_value_uncommitted" in mlflow) == (None, None, False)
        return
    assert best == {"committed": None, "uncommitted": 0.015}
    assert mlflow["forged_p_value_uncommitted"][0] == best["uncommitted"]
    assert "forged_p_value_committed" not in mlflow
    assert table["forged"] == f"- / {best['uncommitted']:.2g}"


def test_the_run_shows_what_could_differ() -> None:
    """By hand, so that four equal mistakes are seen too."""
    found = {made.cell.scheme: page_row([made]) for made in run()[1:]}
    weights = found["weights"]
    assert (weights["effectiveness"]["hits"], weights["effectiveness"]["trials"]) == (3, 3), "0.015 holds at 2 %"
    assert (weights["robustness"]["hits"], weights["robustness"]["trials"]) == (2, 3), "five points are within five"
    assert weights["removal"]["pp"] == pytest.approx(30.0)
    assert weights["removal"]["more"] is False
    assert found["hue"]["fidelity"]["mean"] == pytest.approx(-5.0), "against the control, not the clean host"
    assert found["hue"]["protection"]["advantage"] == pytest.approx(1 / 2 - 1 / 12)
    assert found["mia"]["protection"]["advantage"] == pytest.approx((1 + 1 / 2) / 2 - 1 / 2)
    assert (found["trigger"]["security"]["forged"]["hits"], found["trigger"]["robustness"]) == (1, None)
    both = page_row(run()[:2])
    assert both["fidelity"]["mean"] == pytest.approx(-2.5)
    assert (both["robustness"]["hits"], both["robustness"]["trials"]) == (4, 6)


def test_ranks_and_their_scores() -> None:
    made = contest()
    page, tags = {row["scheme"]: row for row in rows(made, FPR)}, projection.rank_tags(made, FPR)
    console = Console(width=110, file=io.StringIO(), no_color=True)
    table = ranks_table(made, console.width, FPR)
    assert table is not None
    names, survival, interval, worst, coverage, rank = ([str(cell) for cell in c.cells] for c in table.columns)
    assert names == ["strong", "faint", "weak"]
    for number, name in enumerate(names):
        found, robust = page[name]["rank"], page[name]["robustness"]
        assert rank[number] == {1: "1", 2: "2-3"}[found["low"]]
        assert {tags[m.cell.identity]["rank"] for m in made if m.cell.scheme == name} == {rank[number]}
        assert survival[number] == f"{found['score']['mean']:.2f}"
        assert interval[number] == f"{found['score']['low']:.2f}-{found['score']['high']:.2f}"
        assert worst[number] == f"{robust['hits']} of {robust['trials']}"
        assert coverage[number] == f"{robust['covered']}/{robust['of']}"
    assert projection.rank_tags(contest("quick"), FPR) == projection.rank_tags(contest(seeds=1), FPR) == {}


def test_a_failed_cell_has_no_numbers_anywhere() -> None:
    made = run()[-1]
    (line,), row = flat_rows([made], FPR), page_row([made])
    assert (line["reason"], line["detected"], line["test_accuracy"]) == ("RuntimeError: boom", None, None)
    assert printed(made)["detected"] == "failed"
    assert logged(made) == {}
    assert [row[name] for name in ("fidelity", "effectiveness", "protection", "robustness", "removal")] == [None] * 5
