"""What `bench calibrate` and `bench detect` measured, on the page, in MLflow, and where a file is damaged."""

import base64
import csv
import io
import json
import os

import pytest
from PIL import Image

from bench.cli.report import measured_beside, write_page
from bench.metrics.beside import Beside
from bench.records.calibration import CALIBRATION
from bench.records.detectability import DETECTABILITY
from bench.records.files import save_record
from bench.records.pictures import PictureRow
from bench.runner.rundir import RunDir
from leaderboard import build
from leaderboard.table import rows
from tests.fakes import HOSTILE, measured_rate, measured_test, nulls, of_scheme, rung, said

DASH = "\N{EN DASH}"
RATES = [
    measured_rate(2, 100),
    measured_rate(30, 100, null="permuted labels", beyond=True),
    measured_rate(4, 100, null="fresh key after attack", attack="pruning"),
    measured_rate(50, 100, nominal=0.1),
]
TESTS = [
    measured_test("ks", 0.3),
    measured_test("variance", 0.001, part=HOSTILE),
    measured_test("classifier", None, reason=HOSTILE),
]
RECORDS = [of_scheme(curve=[rung(10, 0.89, said(1e-6))], nulls=[nulls(1, 50)]), of_scheme("zhang-content")]


def run_dir(folder):
    for record in RECORDS:
        save_record(record, folder / "records")
    CALIBRATION.merge(RATES, folder)
    DETECTABILITY.merge(TESTS, folder)
    return RunDir(folder)


@pytest.fixture
def tab(open_tab, tmp_path):
    tab = open_tab(build(RECORDS, tmp_path, beside=Beside(RATES, TESTS)))
    yield tab
    assert tab.noise == []


def lines(table):
    rows = [line.locator("th, td").all_inner_texts() for line in table.locator("tbody tr").all()]
    return [[text.replace(DASH, "-") for text in row] for row in rows]


def test_a_schemes_part_shows_its_mark_and_what_an_attack_left(open_tab, tmp_path):
    file = io.BytesIO()
    Image.new("RGB", (128, 32), (200, 30, 30)).save(file, "PNG")
    png = base64.b64encode(file.getvalue()).decode()
    about = {"scheme_params": RECORDS[0].cell.scheme_params, "dataset": "digits-m", "profile": "quick"}
    shown = [
        PictureRow(scheme=RECORDS[0].cell.scheme, what=what, images=4, png=png, **about)
        for what in ("removal-matting", "after", "before")
    ]
    tab = open_tab(build(RECORDS, tmp_path, beside=Beside(pictures=shown)))
    figures = tab.view("schemes").locator(".pictures figure")
    assert figures.locator("figcaption").all_inner_texts() == ["before the mark", "marked", "left by removal-matting"]
    sizes = figures.locator("img").evaluate_all("found => found.map(each => [each.naturalWidth, each.alt])")
    assert sizes[1] == [128, "4 images, marked"], "it is drawn, which the page's own rules must allow"
    assert tab.noise == []


def test_a_schemes_part_has_false_claims_by_null_and_how_visible_its_mark_is(tab):
    view = tab.view("schemes")
    assert view.locator("h3", has_text="False claims").count() == 1
    claims = lines(view.get_by_role("region", name="False claims").locator("table"))
    assert claims == [
        ["fresh key", "2.0 %", "1.0-7.0 %", "100", "8", "1 %"],
        ["permuted labels", "▲ 30.0 %", "15.0-35.0 %", "100", "8", "1 %"],
        ["fresh key after attack: pruning", "4.0 %", "2.0-9.0 %", "100", "8", "1 %"],
    ]
    seen = lines(view.get_by_role("region", name="Is the mark visible").locator("table"))
    assert [line[2] for line in seen] == ["0.300", "0.002", "-"], "adjusted over two tests"
    assert seen[1][1:] == [HOSTILE, "0.002", "0.90", "0.50-1.00", "5 seeds", "25", "▲ visible"]
    assert seen[2][-1] == f"cannot tell: {HOSTILE}"
    assert view.locator("img").count() == 0
    tab.choose("scheme", "zhang-content")
    tab.page.wait_for_selector("#view-other[data-drawn=schemes]")
    assert view.get_by_role("region", name="Is the mark visible").count() == 0


def test_columns_show_the_worst_null_and_the_test_that_sees_most(tab):
    tab.page.click("#columns summary")
    tab.page.check("[data-column=detectability]")
    assert tab.column("False claims") == [f"▲ 30.0 %\n15.0{DASH}35.0 %", DASH]
    assert tab.column("Detectability") == ["▲ 0.002\nAUC 0.90", DASH]
    found = list(csv.DictReader(io.StringIO(tab.saved("csv")[0])))
    assert [(row["calibrated_null"], row["detectability_test"]) for row in found] == [
        ("permuted labels", "variance"), ("", "")
    ]  # fmt: skip
    assert found[0]["false_claims_hits"] == "1", "what records say stays"
    tab.page.click("[data-sort=detectability]")
    tab.page.locator("tr.row .name").first.click()
    tab.page.wait_for_selector(".facts dt:has-text('Detectability')")
    assert "30.0 % of 100 claims" in tab.page.locator(".detail").inner_text()
    assert tab.page.locator("img").count() == 0


def test_it_says_nothing_of_submissions():
    made = rows(RECORDS[:1], submitted=RECORDS[:1], beside=Beside(RATES, TESTS))
    assert {row["origin"]: row["calibrated"] is None for row in made} == {"computed here": False, "self-reported": True}


@pytest.mark.parametrize("where", ["", "records"])
def test_the_files_are_found_in_the_run_directory_or_among_its_records(tmp_path, where):
    found = run_dir(tmp_path)
    for file in (CALIBRATION, DETECTABILITY):
        (tmp_path / file.name).rename(tmp_path / where / file.name)
    page = write_page(found, tmp_path / "site").read_text()
    assert '"calibrated":{' in page
    assert '"visible":{' in page
    assert len(measured_beside(found, 0.01).rates(RECORDS[0].cell)) == 3


def edited(path, **fields):
    first, *others = json.loads(path.read_text())
    path.write_text(json.dumps([{**first, **fields}, *others]))


DAMAGES = {
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:-9]),
    "another schema": lambda path: path.write_text('{"schema": 9, "rows": []}'),
    "impossible": lambda path: edited(path, seeds=-1),
    "a number as text": lambda path: edited(path, seeds="2"),
    "a share above 1": lambda path: edited(path, interval_high=1.5),
    "NaN": lambda path: path.write_text(path.read_text().replace("0.001", "NaN").replace("0.02", "NaN")),
    "nested": lambda path: path.write_text("[" * 100 + "]" * 100),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "a FIFO": lambda path: (path.unlink(), os.mkfifo(path)),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("file", [CALIBRATION, DETECTABILITY], ids=lambda file: file.name)
def test_a_damaged_file_is_one_sentence_and_the_page_comes_without_it(tmp_path, capsys, file, damage):
    found = run_dir(tmp_path)
    DAMAGES[damage](tmp_path / file.name)
    page = write_page(found, tmp_path / "site").read_text()
    told = capsys.readouterr().err
    assert told.count("Passed over:") == 1, told
    assert file.name in told.replace("\n", "")
    assert "Traceback" not in told
    assert ('"calibrated":{' in page) == (file is DETECTABILITY)
    assert ('"visible":{' in page) == (file is CALIBRATION)
