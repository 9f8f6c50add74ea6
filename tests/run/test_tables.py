"""Tables at every width: names are folded and columns left out, and no number is ever folded or cut."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console
from rich.text import Text

from bench.cli import main, tables
from bench.cli.fitting import plain_table
from bench.cli.ranks import ranks_table
from bench.cli.tables import results_table
from bench.records.files import save_record
from tests.fakes import SCHEMES, benchmark_records, contest, simulated

WIDTHS = (40, 60, 80, 110, 200)
ROWS = [
    ["visible-displacement", "a title of many words", "1.7e-77", "> 3.14159", Text("4/5 at 50", "red")],
    ["uchida-random", "another", "4.7e-10", "-12.5", Text("yes")],
]


def printed(table: object, width: int, encoding: str = "utf-8") -> str:
    raw = io.BytesIO()
    console = Console(file=io.TextIOWrapper(raw, encoding=encoding, write_through=True), width=width, markup=False)
    console.print(table)
    return raw.getvalue().decode(encoding)


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
@pytest.mark.parametrize("width", [26, *WIDTHS])
def test_numbers_stay_whole_and_lines_fit(width: int, encoding: str) -> None:
    table = plain_table(
        ["scheme", "title", "p-value", "statistic", "worst case"], ROWS, width=width,
        numbers=("p-value", "statistic"), leave_out=("title", "statistic", "worst case"),
    )  # fmt: skip
    text = printed(table, width, encoding)
    assert max(map(len, text.splitlines())) <= width
    words = text.replace("|", " ").split()
    assert {"1.7e-77", "4.7e-10"} <= set(words)
    assert ("statistic" not in words) or ("> 3.14159" in text and "-12.5" in words)
    assert "…" not in text


def test_columns_are_left_out_in_the_stated_order_and_it_is_said() -> None:
    columns, order = ["scheme", "title", "p-value", "statistic", "worst case"], ("title", "statistic", "worst case")
    table = plain_table(columns, ROWS, width=36, numbers=("p-value", "statistic"), leave_out=order)
    assert [str(column.header) for column in table.columns] == ["scheme", "p-value", "worst case"]
    assert table.caption == "left out for want of room: title, statistic"
    whole = plain_table(columns, ROWS, width=80, numbers=("p-value", "statistic"), leave_out=order)
    assert len(whole.columns) == 5
    assert whole.caption is None


def test_names_are_broken_after_hyphens_and_numbers_in_texts_are_not() -> None:
    table = plain_table(["what"], [["visible-displacement"], ["p 1.7e-77"], ["[red]wrn-16-2"]], width=13)
    lines = [line.strip() for line in printed(table, 13).splitlines()]
    assert lines[2:6] == ["visible-", "displacement", "p 1.7e-77", "[red]wrn-16-2"]


@pytest.mark.parametrize("width", WIDTHS)
def test_every_p_value_of_the_results_is_whole(width: int) -> None:
    records = [record for record in benchmark_records() if record.marked and len(record.marked.verdicts) == 1][:20]
    text = printed(results_table(records, width), width)
    assert max(map(len, text.splitlines())) <= width
    words = set(text.split())
    assert {f"{record.marked.verdicts[0].p_value:.2g}" for record in records if record.marked} <= words


@pytest.mark.parametrize("width", WIDTHS)
def test_the_rungs_fit_and_their_p_values_are_whole(
    width: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    records = benchmark_records()[:5]
    for each in records:
        save_record(each, tmp_path / "records")
    text = CliRunner().invoke(main, ["results", "--run-dir", str(tmp_path)]).output
    assert max(map(len, text.splitlines())) <= width
    assert {f"{v.p_value:.2g}" for r in records for p in r.points for v in p.verdicts} <= set(text.split())


@pytest.mark.parametrize("width", WIDTHS)
def test_ranks_and_intervals_are_whole(width: int) -> None:
    """Six schemes in one set, one of them in another, over five seeds."""
    records = [simulated(s, a, n) for s in SCHEMES for a in ("pruning", "pruning-global") for n in range(5)]
    text = printed(ranks_table(records, width), width)
    assert max(map(len, text.splitlines())) <= width
    table = [line for line in text.splitlines() if line.split() and line.split()[-1] in ("1-6", "-")]
    assert len(table) == len(SCHEMES)
    if width >= 80:
        assert [("0.48-1.00" in line, "5 of 5" in line, " 2/2 " in line) for line in table].count((True,) * 3) == 6
        assert "0.28-0.99" in text


def test_of_very_many_cells_the_first_are_shown_and_the_others_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    records = [simulated(s, a, n) for s in SCHEMES for a in ("pruning", "pruning-global") for n in range(5)]
    whole = printed(results_table(records, 200), 200)
    assert "bench results" not in whole
    monkeypatch.setattr(tables, "MOST", 7)
    text = printed(results_table(records, 200), 200)
    assert f"the first 7 of {len(records)} cells; `bench results` prints them all" in text
    assert [len([line for line in each.splitlines() if " pruning" in line]) for each in (text, whole)] == [
        7,
        len(records),
    ]


def test_what_the_ranks_say_of_few_seeds_and_of_demonstrations() -> None:
    few, enough = (" ".join(printed(ranks_table(contest(seeds=n), 110), 110).split()) for n in (5, 7))
    assert "with 5 seeds no two of 3 schemes can be told apart: it takes 7 at least" in few
    assert "it takes" not in enough
    assert "never ranks" not in few
    shown = " ".join(printed(ranks_table(contest("quick"), 110), 110).split())
    assert "profile quick: a demonstration; the leaderboard page never ranks it" in shown
    assert ranks_table(contest(seeds=1), 110) is None


def test_schemes_of_other_parameters_are_named_apart() -> None:
    text = printed(ranks_table([*contest(), *contest(scheme_params={"bits": 8})], 110), 110)
    assert {"strong bits=8", "strong bits=256"} <= {" ".join(line.split()[:2]) for line in text.splitlines()}


def test_the_results_end_with_the_ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for each in contest():
        save_record(each, tmp_path / "records")
    text = CliRunner().invoke(main, ["results", "--run-dir", str(tmp_path)]).output
    ranked = {words[0]: words[-1] for line in text.splitlines() if (words := line.split())}
    assert (ranked["strong"], ranked["weak"]) == ("1", "2-3")
    table = CliRunner().invoke(main, ["results", "--run-dir", str(tmp_path), "--format", "csv"]).output
    assert "2-3" not in table


def test_names_give_way_before_a_number_with_a_sign() -> None:
    table = plain_table(["scheme", "cost"], [["uchida-random", "> 3.14159"]], width=18, numbers=("cost",))
    assert "uchida-  > 3.14159" in printed(table, 18)
