"""The page works where it is read: in a browser, from a file, with nothing else."""

import csv
import io
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from leaderboard import build, page, rows
from tests.fakes import (
    benchmark_records,
    contest,
    crowd,
    idle,
    member,
    of_scheme,
    rung,
    said,
    searched,
)

MINUS, DASH = "\N{MINUS SIGN}", "\N{EN DASH}"


def test_it_works_from_a_file_in_silence_and_asks_for_nothing_else(open_tab, site):
    tab = open_tab(site)
    assert tab.page.url.startswith("file://")
    assert len(tab.schemes) == 9
    assert tab.panels.locator("svg").count() == 7
    for view in ("heatmap", "tradeoff", "removal", "schemes", "claims", "table"):
        tab.view(view)
    for row in tab.page.locator("tr.row .name").all():
        row.click()
    assert tab.noise == []
    assert [url for url in tab.requests if not url.startswith("data:")] == [site.as_uri()]


def test_a_click_on_a_header_sorts_and_missing_values_stay_last(open_tab, site):
    tab = open_tab(site)
    head = tab.page.locator('[data-sort="fidelity"]')
    for expected in ("descending", "ascending"):
        head.click()
        shown = [float(text.split("\n")[0].replace(MINUS, "-")) for text in tab.column("Fidelity")[:7]]
        assert shown == sorted(shown, reverse=expected == "descending")
        assert len(set(shown)) > 3
        assert set(tab.schemes[7:]) == {"baseline-none", "deepstamp"}
        assert tab.page.locator("th[aria-sort]").get_attribute("aria-sort") == expected
    tab.page.locator('[data-sort="scheme"]').click()
    assert tab.schemes == [*sorted(name for name in tab.schemes if name != "baseline-none"), "baseline-none"]


def test_filters_and_sorting_survive_the_address(open_tab, site):
    tab = open_tab(site)
    tab.page.select_option("#carrier", "weights")
    tab.page.select_option("#attack", "pruning-global")
    tab.page.fill("#q", "UCHIDA train")
    tab.page.locator('[data-sort="removal"]').click()
    tab.page.locator("tr.row .name", has_text="uchida-diff").click()
    tab.page.locator("tr.detail code").first.wait_for()
    assert sorted(tab.schemes) == ["uchida-diff", "uchida-direct", "uchida-random"]
    expected = {"profile": "quick", "carrier": "weights", "attack": "pruning-global", "sort": "removal"}
    assert expected.items() <= tab.fragment.items()
    again = open_tab(site, "#" + urlsplit(tab.page.url).fragment)
    assert again.schemes == tab.schemes
    assert again.page.input_value("#q") == "UCHIDA train"
    assert again.page.locator("tr.detail").inner_text() == tab.page.locator("tr.detail").inner_text()
    again.page.click("#clear")
    assert len(again.schemes) == 9
    assert again.fragment["profile"] == "quick"


def test_an_address_with_nonsense_shows_the_whole_table(open_tab, site):
    tab = open_tab(site, "#profile=<b>&carrier=constructor&sort=__proto__&order=x&row=zz&attack=toString&curves=%00")
    assert tab.schemes == ["uchida-random"]
    assert tab.noise == []


def test_one_profile_is_shown_at_a_time(open_tab, site):
    tab = open_tab(site, "")
    profiles = tab.page.locator("#profile option").all_inner_texts()
    assert profiles == ["small", "quick"]
    tab.page.select_option("#profile", "small")
    assert tab.schemes == ["uchida-random"]
    assert tab.column("Seeds") == ["2"]
    tab.page.locator("tr.row .name").click()
    tab.page.locator("tr.detail code").first.wait_for()
    assert "--profile small" in tab.page.locator("tr.detail code").nth(1).inner_text()
    tab.page.select_option("#profile", "quick")
    assert len(tab.schemes) == 9
    assert tab.page.locator("tr.detail").count() == 0


def test_the_attack_filter_replaces_the_worst_case(open_tab, tmp_path):
    holds, breaks = [rung(10, 0.9, said(1e-9))], [rung(10, 0.9, said(0.5))]
    tab = open_tab(build([of_scheme(attack="mild", curve=holds), of_scheme(attack="harsh", curve=breaks)], tmp_path))
    assert "0 of 1" in tab.column("Robustness")[0]
    tab.page.select_option("#attack", "mild")
    assert "1 of 1" in tab.column("Robustness")[0]
    assert tab.column("Removal") == ["> 0.0"]
    tab.page.select_option("#attack", "harsh")
    assert tab.column("Removal") == ["0.0"]


def test_cells_without_numbers_are_seen_with_their_reasons(open_tab, site):
    tab = open_tab(site)
    rows = {row.locator(".name").inner_text(): row for row in tab.page.locator("tr.row").all()}
    assert f"{DASH} not applicable: Nothing to prune." in rows["baseline-none"].inner_text()
    assert "✕ failed: RuntimeError: the loss is not finite" in rows["deepstamp"].inner_text()
    assert "1 cell failed" in rows["uchida-diff"].inner_text()
    assert "2 of 2" in rows["uchida-diff"].inner_text()
    rows["uchida-diff"].click()
    assert "pruning-global, seed 2: failed" in tab.page.locator("tr.detail").inner_text()


def test_a_missing_interval_is_a_dash(open_tab, tmp_path):
    tab = open_tab(build([of_scheme()], tmp_path))
    assert tab.column("Fidelity") == [f"{MINUS}1.00\n± {DASH}"]
    assert tab.column("Robustness") == [DASH]
    assert tab.column("False claims") == [DASH]


def test_a_row_shows_every_seed_of_every_attack(open_tab, site):
    tab = open_tab(site)
    tab.page.locator("tr.row .name", has_text="uchida-random").press("Enter")
    tab.page.locator("tr.detail code").first.wait_for()
    charts = tab.page.locator("tr.detail figure")
    assert charts.count() == 6
    assert charts.nth(0).locator("path.seed").count() == 3
    assert charts.nth(0).locator("circle").count() == 3 * 10
    assert "seed 0, 10 % of weights: 1 of 1 detected" in charts.nth(0).locator("circle title").nth(1).text_content()
    told = tab.page.locator("tr.detail").inner_text()
    assert "19289c8a44b7" in told
    assert "--scheme uchida-random --attack pruning " in told, "its own details, not a neighbour's"


def test_a_dot_is_hollow_exactly_where_the_claim_broke(open_tab, tmp_path):
    curve = [rung(10, 0.9, said(0.01)), rung(20, 0.8, said(0.0101))]
    tab = open_tab(build([of_scheme(curve=curve)], tmp_path))
    kinds = [dot.get_attribute("class") for dot in tab.panels.locator("circle").all()]
    assert kinds == ["on", "on", "off"]


def test_protection_is_a_column_that_sorts_and_says_what_was_counted(open_tab, tmp_path):
    made = [searched(3, missed=missed, scheme=f"anw-{missed}") for missed in (1, 0, 2)]
    tab = open_tab(build([*made, of_scheme(), idle("failed", scheme="broken")], tmp_path))
    tab.page.locator('[data-sort="protection"]').click()
    assert tab.schemes == ["uchida-random", "anw-0", "anw-1", "anw-2", "broken"]
    cells = tab.page.locator("td[data-label='Protection, advantage']")
    assert cells.all_inner_texts() == ["0.99\n1 of 1", "0.92\n3 of 3", "0.58\n2 of 3", "0.25\n1 of 3"]
    tip = cells.nth(1).get_attribute("title")
    assert tip.startswith("0.917 = 3 of 3 right, less the chance 0.083 of guessing (no interval)")
    assert tip.endswith("normalised 1.000")


def test_yes_and_no_about_membership_say_what_was_counted(open_tab, tmp_path):
    marked, others = rung(0, 0.9, *[member(True)] * 4), [member(True), member(False)]
    tab = open_tab(build([of_scheme("mia", carrier="none", marked=marked, heldout_verdicts=others)], tmp_path))
    (cell,) = tab.page.locator("td[data-label='Protection, advantage']").all()
    assert cell.inner_text() == "0.25\n4 of 4 · 1 of 2"
    tip = cell.get_attribute("title")
    assert tip.startswith("0.250 = mean of 4 of 4 owners told yes and 1 of 2 held-out users told no, less one half")


def test_a_worst_case_over_more_attacks_stands_first(open_tab, tmp_path):
    holds, breaks = [rung(10, 0.9, said(1e-9))], [rung(10, 0.9, said(0.5))]
    made = [of_scheme(s, a, curve=holds, profile="small") for s in ("all", "none") for a in ("a", "b")]
    made[2:] = [of_scheme("none", a, curve=breaks, profile="small") for a in ("a", "b")]
    made += [of_scheme("untried", "a", curve=holds, profile="small")]
    made += [of_scheme("mia", a, curve=holds, profile="small", carrier="none") for a in ("a", "b")]
    tab = open_tab(build(made, tmp_path), "#profile=small")
    assert tab.schemes == ["all", "none", "untried", "mia"], "coverage, survival, and baselines apart"
    cells = tab.page.locator("td[data-label='Robustness, survives']").all_inner_texts()
    assert [text.split("\n")[1] for text in cells] == [f"{n} of 2 attacks" for n in (2, 2, 1, 2)]
    assert tab.page.locator("tr.group").count() == 1
    with tab.page.expect_download() as download:
        tab.page.click("#csv")
    found = list(csv.DictReader(io.StringIO(Path(download.value.path()).read_text(encoding="utf-8"))))
    assert [(row["attacks_covered"], row["attacks_faced"]) for row in found] == [(n, "2") for n in "2212"]


def test_a_demonstration_is_listed_by_name_and_says_so(open_tab, tmp_path):
    holds, breaks = [rung(10, 0.9, said(1e-9))], [rung(10, 0.9, said(0.5))]
    made = [of_scheme(s, curve=c, profile=p) for p in ("quick", "small") for s, c in (("a", breaks), ("b", holds))]
    tab = open_tab(build(made, tmp_path), "#profile=quick")
    assert "never ranked" in tab.page.locator("#worth").inner_text()
    assert tab.schemes == ["a", "b"]
    tab.page.select_option("#profile", "small")
    assert "never ranked" not in tab.page.locator("#worth").inner_text()
    assert tab.schemes == ["b", "a"]


def test_a_rank_stands_below_robustness_and_in_the_csv_and_a_demonstration_has_none(open_tab, tmp_path):
    tab = open_tab(build([*contest(), *contest("quick")], tmp_path), "#profile=small")
    cells = tab.page.locator("td[data-label='Robustness, survives']")
    assert [text.split("\n")[-1] for text in cells.all_inner_texts()] == [
        "rank 1 of 3",
        "rank 2\u20133 of 3",
        "rank 2\u20133 of 3",
    ]
    assert "rank 2\u20133 of 3; survives 0.0 % of the attacks (95 %: 0.0 to 41.0 %), mean over seeds" in (
        cells.last.get_attribute("title")
    )
    with tab.page.expect_download() as download:
        tab.page.click("#csv")
    found = list(csv.DictReader(io.StringIO(Path(download.value.path()).read_text(encoding="utf-8"))))
    assert [(row["rank_best"], row["rank_worst"], row["ranked"]) for row in found] == [("1", "1", "3")] + [
        ("2", "3", "3")
    ] * 2
    tab.page.select_option("#profile", "quick")
    assert not any("rank" in text for text in cells.all_inner_texts())


def test_few_seeds_say_how_many_it_takes(open_tab, tmp_path):
    tab = open_tab(build(contest(seeds=3), tmp_path), "#profile=small")
    cell = tab.page.locator("td[data-label='Robustness, survives']").first
    assert "with 3 seeds no two can be told apart: it takes 7" in cell.get_attribute("title")


def test_a_row_draws_its_searches_with_the_own_and_the_inferred_signature(open_tab, tmp_path):
    made = searched(14, missed=1, rungs=(5, 10), heldout=(0.0,) * 5 + (30.0,) * 3)
    tab = open_tab(build([made], tmp_path))
    tab.page.locator("tr.row .name").press("Enter")
    tab.page.locator("tr.detail code").first.wait_for()
    searches, rungs = tab.page.locator("tr.detail .block").nth(0), tab.page.locator("tr.detail .block").nth(1)
    charts = searches.locator("figure")
    assert charts.count() == 12 + 1
    assert "and 2 more owners" in searches.inner_text()
    own, square = charts.nth(1).locator("line.own"), charts.nth(1).locator("rect")
    there = 32 + 60 / 330 * 160  # signature 60 of 0..330 on an axis from 32 to 192
    assert float(own.get_attribute("x1")) == pytest.approx(there)
    assert float(square.get_attribute("x")) + 3 == pytest.approx(there, abs=0.06)
    assert [charts.nth(i).locator("rect").get_attribute("class") for i in (0, 1)] == ["off", "on"]
    assert charts.nth(0).locator("svg").get_attribute("aria-label") == (
        "owner 0: mean loss against the signature (degrees). "
        "owner 0: least loss 0.1 at 0 degrees, inferred 0, own 30, no match"
    )
    heldout = charts.nth(12)
    assert "8 held-out users" in heldout.inner_text()
    assert (heldout.locator("path.seed").count(), heldout.locator("line.own").count()) == (6, 0)
    assert rungs.locator(".small figure").count() == 3
    assert rungs.locator("figure", has_text="Owner 1").locator("path.loss").count() == 3
    assert "first owners of seed 0" in rungs.inner_text()
    text = tab.page.locator("tr.detail").inner_text()
    assert "8 users; inferred mean |k| = 11.25 degrees (Student-t over users, 0 to 24.23); 5 of 8 infer no" in text
    assert tab.noise == []


def test_a_row_draws_the_histories_of_its_keys(open_tab, tmp_path):
    histories = {"loss of W": [2.0, 1.0, 0.5], "once": [1.0], **{f"more {i}": [1.0, 2.0] for i in range(11)}}
    tab = open_tab(build([of_scheme(seed=s, histories=histories) for s in (0, 1)], tmp_path))
    tab.page.locator("tr.row .name").click()
    tab.page.locator("tr.detail code").first.wait_for()
    charts = tab.page.locator("tr.detail figure")
    assert charts.count() == 12
    assert charts.nth(0).locator("path.loss").count() == 2
    label = charts.nth(0).locator("svg").get_attribute("aria-label")
    assert label == "loss of W against the epoch: seed 0 ends at 0.5, seed 1 ends at 0.5"
    assert "and 1 more history" in tab.page.locator("tr.detail").inner_text()
    assert "NaN" not in tab.page.locator("tr.detail").inner_html()
    assert tab.noise == []


def test_the_csv_holds_the_shown_rows_in_their_order(open_tab, site):
    tab = open_tab(site, "#profile=quick&carrier=weights&sort=scheme&order=up")
    with tab.page.expect_download() as download:
        tab.page.click("#csv")
    assert download.value.suggested_filename == "watermark-bench-quick.csv"
    found = list(csv.DictReader(io.StringIO(Path(download.value.path()).read_text(encoding="utf-8"))))
    assert [row["scheme"] for row in found] == tab.schemes
    assert {row["profile"] for row in found} == {"quick"}
    assert [f"{float(row['fidelity_pp']):.2f}".replace("-", MINUS) for row in found] == [
        text.split("\n")[0] for text in tab.column("Fidelity")
    ]
    assert "the loss is not finite" in found[0]["problems"]


def test_no_records_is_said(open_tab, tmp_path):
    tab = open_tab(build([], tmp_path))
    assert "No records yet" in tab.page.locator("tbody").inner_text()
    assert tab.noise == []


# ---- submissions, links, many rows -----------------------------------------------------------------------------------
def invented(profile):
    """What somebody would send to stand first: equal seeds, certain beyond doubt, unharmed by every attack."""
    curve = [rung(strength, 0.99, said(1e-300, 0.0)) for strength in (10, 50, 90)]
    return [
        of_scheme("aaa-best", attack, seed, curve, rung(0, 0.99, said(1e-300, 0.0)), profile=profile)
        for attack in ("pruning", "pruning-global", "made-up")
        for seed in range(5)
    ]


@pytest.fixture(scope="module")
def contested(tmp_path_factory):
    """Own rows of `quick` and `small`, and an invented scheme in those and in a better profile."""
    made = [of_scheme("zzz-worse", marked=rung(0, 0.3, said(0.9)), profile="quick")]
    made += [record for profile in ("small", "quick", "standard", "aaa") for record in invented(profile)]
    return build(benchmark_records(), tmp_path_factory.mktemp("contested"), submitted=made)


def test_an_invented_scheme_is_neither_the_default_view_nor_first_nor_ranked(open_tab, contested):
    tab = open_tab(contested, "")
    assert tab.page.input_value("#profile") == "small", "a profile that only a submission knows is no default"
    assert tab.page.locator("#profile option").all_inner_texts() == ["small", "quick", "standard", "aaa"]
    tab.page.select_option("#profile", "quick")
    for column in ("scheme", "fidelity", "evidence", "robustness", "removal", "security"):
        for _ in range(2):
            tab.page.locator(f'[data-sort="{column}"]').click()
            assert tab.schemes[-2:] == ["aaa-best", "zzz-worse"], "by name, whatever the order"
    assert "9 of 9 rows of profile quick, and 2 self-reported" in tab.page.locator("#count").inner_text()
    assert "made-up" not in tab.page.locator("#count").inner_text()
    own = tab.page.locator("tr.row:not(.told) td[data-label='Robustness, survives']").all_inner_texts()
    assert own
    assert all("of 2 attacks" in text for text in own if "attacks" in text), "it asks nothing of own rows"
    assert tab.panels.locator("figure").last.get_attribute("class") == "panel told"


def test_a_self_reported_row_says_what_that_means_wherever_it_is_seen(open_tab, contested):
    tab = open_tab(contested, "#profile=quick&q=aaa-best")
    assert tab.schemes == ["aaa-best"]
    rows = tab.page.locator("tbody tr")
    assert "nobody here has run them again" in rows.nth(0).inner_text()
    assert "self-reported" in rows.nth(1).inner_text()
    pill, ink = rows.nth(1).locator(".pill").first, "e => getComputedStyle(e).backgroundColor"
    assert pill.evaluate(ink) == "rgba(0, 0, 0, 0)", "no colour of success"
    rows.nth(1).locator(".name").click()
    detail = tab.page.locator("tr.detail")
    assert "nobody here has run them again" in detail.locator("p.told").inner_text()
    assert "seeds of pruning agree in every number" in detail.inner_text()
    with tab.page.expect_download() as download:
        tab.page.click("#csv")
    (line,) = csv.DictReader(io.StringIO(Path(download.value.path()).read_text(encoding="utf-8")))
    assert line["origin"] == "self-reported"


def test_a_page_of_nothing_but_submissions_opens(open_tab, tmp_path):
    tab = open_tab(build([], tmp_path, submitted=invented("quick")), "")
    assert tab.schemes == ["aaa-best"]
    assert tab.page.locator("tr.group.told").count() == 1
    assert tab.noise == []


def test_many_rows_are_drawn_some_at_a_time_and_all_of_them_are_searched(open_tab, tmp_path, monkeypatch):
    base = rows([of_scheme(curve=[rung(10, 0.9, said(1e-9))])])
    monkeypatch.setattr(page, "rows", lambda *_, **__: crowd(base, 700))
    tab = open_tab(build([], tmp_path))
    assert len(tab.schemes) == 50
    tab.page.click("#more")
    assert len(tab.schemes) == 550
    tab.page.fill("#q", "00699")
    assert tab.schemes == ["uchida-random-00699"]
    tab.page.locator("tr.row .name").click()
    tab.page.locator("tr.detail figure").first.wait_for()
    again = open_tab(tmp_path / "index.html", "#" + urlsplit(tab.page.url).fragment.replace("q=00699&", ""))
    assert again.schemes[-1] == "uchida-random-00699", "an address of a row shows it, however far down"
    assert again.noise == tab.noise == []


def test_the_curves_open_with_the_attack_that_most_rows_have(open_tab, tmp_path):
    curve = [rung(10, 0.9, said(1e-9))]
    made = [of_scheme(s, "pruning", curve=curve) for s in ("a", "b")] + [of_scheme("c", "blur", curve=curve)]
    tab = open_tab(build(made, tmp_path, submitted=[of_scheme(f"s{i}", "blur", curve=curve) for i in range(4)]))
    assert tab.panels.locator("figure").count() == 2
    assert tab.page.input_value("#curves") == "pruning"


def test_rows_below_the_window_follow_a_slider_in_their_order(open_tab, tmp_path):
    made = [of_scheme(f"s{i:02d}", seed=0, curve=[rung(10, 0.9 - i / 100, said(0.5))]) for i in range(40)]
    tab = open_tab(build(made, tmp_path))
    whole = [f"s{i:02d}" for i in range(40)]
    assert tab.schemes == whole
    tab.page.evaluate("change({ loss: '20', sort: 'scheme', order: 'down' })")
    assert tab.page.locator("tr.row").count() < 40, "the slider waits for what is out of sight"
    assert tab.schemes[:5] == whole[:-6:-1]
    tab.page.wait_for_selector("tr.row >> nth=39")
    assert tab.schemes == whole[::-1]
    assert tab.page.locator("thead th[style]").count() == 0, "widths are held no longer than that"
    tab.page.locator(".scroll").first.evaluate("e => e.scrollTo(0, 500)")
    tab.page.wait_for_timeout(100)
    tab.page.evaluate("change({ order: 'up' })")
    assert tab.schemes == whole, "a reader who scrolled sees all at once"
    tab.page.locator("tr.row .name").nth(35).click()
    assert tab.schemes == whole
