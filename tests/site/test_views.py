"""The views of the page: the answer to a threat model, heat map, trade-off, removal cost, schemes, false claims."""

import csv
import io
import json
from urllib.parse import urlsplit

import pytest

from leaderboard import build, page, rows
from tests.fakes import HOSTILE, contest, idle, nulls, of_scheme
from tests.site.viewed import NEEDS, ladder, records

NAMES = "chips => chips.map(chip => chip.firstChild.textContent)"


def answers(tab):
    """What the page names under each outcome, and how it says it."""
    lines = tab.page.locator(".outcome").all()
    names = [line.locator(".chip").evaluate_all(NAMES) for line in lines]
    return {
        line.locator(".mark").inner_text().split(" ", 1)[1]: found for line, found in zip(lines, names, strict=True)
    }


def test_the_answer_names_what_survives_and_follows_both_sliders_and_the_attacker(tab):
    assert answers(tab) == {"holds in every seed": ["firm"], "broken in every seed": ["cheap", "frail"]}
    tab.choose("loss", 1)
    assert answers(tab) == {"holds in every seed": ["firm", "cheap"], "broken in every seed": ["frail"]}
    tab.choose("loss", 4)
    tab.page.uncheck("#has-labelled")
    assert answers(tab)["holds in every seed"] == ["cheap", "firm"], "tuning needs images"
    assert "What survives 1 of 2 attacks, for at most 4 points" in tab.page.locator("#answer h2").inner_text()
    assert tab.fragment["lacks"] == "labelled"
    tab.choose("verify", "labels")
    assert answers(tab) == {"holds in every seed": ["cheap"]}
    assert tab.schemes == ["cheap"]
    tab.choose("verify", "data set")
    assert "No scheme can be verified so" in tab.page.locator("#answer").inner_text()
    tab.page.click("#clear")
    tab.choose("give", 2)
    assert sorted(tab.schemes) == ["cheap", "frail"], "firm loses five points"


def test_the_leaders_are_named_and_ranks_are_of_the_usual_choice_alone(open_tab, tmp_path):
    answer = open_tab(build(contest(), tmp_path / "7"), "#profile=small").page.locator("#answer")
    assert "Rank 1, told apart from all others of its table: strong." in answer.inner_text()
    tab = open_tab(build(contest(seeds=3), tmp_path / "3"), "#profile=small")
    words = "With 3 seeds no two rows can be told apart (it takes 7): rank 1 is possible for each."
    assert words in tab.page.locator("#answer").inner_text()
    tab.choose("loss", 6)
    assert "Ranks are of the usual choice" in tab.page.locator("#answer").inner_text()
    assert not any("rank" in text for text in tab.column("Robustness"))
    tied = [of_scheme(s, seed=n, curve=ladder((1, p)), profile="small") for n in range(9) for s, p in TIED.items()]
    answer = open_tab(build(tied, tmp_path / "tied"), "#profile=small").page.locator("#answer")
    assert "Rank 1 is shared, as these are not told apart: a; b." in answer.inner_text()


TIED = {"a": 1e-9, "b": 1e-9, "c": 0.5}


def test_rows_sort_by_the_worst_case_under_the_choice(tab):
    assert tab.schemes == ["firm", "cheap", "frail"]
    cells = tab.page.locator("td[data-label='Robustness, survives']")
    assert [text.split("\n")[0] for text in cells.all_inner_texts()] == ["● 2 of 2", "○ 0 of 2", "○ 0 of 2"]
    assert "broken under tuning" in cells.nth(1).get_attribute("title")
    tab.choose("loss", 12)
    assert [text.split("\n")[0] for text in cells.all_inner_texts()] == ["● 2 of 2", "○ 0 of 2", "○ 0 of 2"]
    assert tab.column("Removal") == ["> 12.0", "4.0", "1.0"]


def test_rows_that_survive_as_much_sort_by_what_removal_costs_and_then_keep_their_order(open_tab, tmp_path):
    costs = {"a": 1, "b": 3, "c": 2, "d": 3, "e": 3}
    made = [of_scheme(scheme, curve=ladder((cost, 0.5)), profile="small") for scheme, cost in costs.items()]
    halves = [of_scheme("f", seed=n, curve=[ladder(one)[0]], profile="small") for n, one in enumerate(HALF)]
    tab = open_tab(build([*made, *halves], tmp_path), "#profile=small")
    assert tab.schemes == ["f", "b", "d", "e", "c", "a"], "what survives counts before what removal costs"
    tab.page.evaluate("change({ sort: 'robustness', order: 'up' })")
    assert tab.schemes == ["a", "c", "b", "d", "e", "f"]
    tab.page.evaluate("change({ sort: 'scheme', order: 'down' })")
    assert tab.schemes == ["f", "e", "d", "c", "b", "a"]


HALF = ((1, 0.5), (20, 1e-9))  # one of two seeds is broken, for one point


def test_a_link_reproduces_the_view_and_nonsense_is_passed_over(tab, open_tab, path):
    tab.choose("loss", 8)
    tab.choose("has", "scores")
    tab.choose("by", "queries")
    tab.choose("most", 0)
    tab.page.uncheck("#has-copies")
    tab.view("heatmap")
    tab.choose("shade", "p")
    tab.page.wait_for_selector("#view-other[data-drawn=heatmap] .key.p4")
    again = open_tab(path, "#" + urlsplit(tab.page.url).fragment)
    again.page.wait_for_selector("#view-other[data-drawn=heatmap]")
    for where in ("#answer", "#view-other", "#threat"):
        assert again.page.locator(where).inner_text() == tab.page.locator(where).inner_text()
    assert (
        "1 of 2 attacks, for at most 8 points of accuracy and queries: 0" in again.page.locator("#answer").inner_text()
    )
    odd = "#view=__proto__&loss=1e9&most=-1&by=constructor&lacks=%00+x&verify=<b>&cell=zz+q&cols=toString&scheme=%27"
    nonsense = open_tab(path, odd)
    assert nonsense.schemes == tab.view("table").locator("tr.row .name").all_inner_texts() == ["firm", "cheap", "frail"]
    assert "of 2 attacks, for at most 5 points" in nonsense.page.locator("#answer").inner_text()
    assert nonsense.noise == []


def test_the_heat_map_shows_each_cell_and_opens_it_with_its_command(tab):
    view = tab.view("heatmap")
    texts = [button.get_attribute("aria-label") for button in view.locator("td button").all()]
    assert len(texts) == 6
    assert "cheap, tuning: 0 of 2 survive, weakest p 0.500" in texts
    assert "firm, tuning: 2 of 2 survive, weakest p 1e\N{MINUS SIGN}9" in texts
    assert view.locator("thead th").all_text_contents() == ["firm", "cheap", "frail"]
    tab.choose("loss", 12)
    tab.page.wait_for_selector("button[aria-label='firm, tuning: 2 of 2 survive, weakest p 0.001']")
    tab.page.click("button[aria-label^='cheap, tuning']")
    cell = tab.page.locator("#cell")
    cell.locator("code").wait_for()
    assert "bench run --scheme cheap --attack tuning" in cell.locator("code").inner_text()
    assert "survives 0 of 2" in cell.inner_text()
    assert "19289c8a44b7" in cell.inner_text()
    assert cell.locator("figure").first.locator("path.seed").count() == 2
    assert tab.page.evaluate("document.activeElement.textContent") == "cheap under tuning"
    cell.get_by_role("button", name="Close").click()
    assert not cell.is_visible()


def test_arrow_keys_go_through_the_heat_map_and_escape_closes_a_cell(tab):
    tab.view("heatmap").locator("td button").first.focus()
    focused = "document.activeElement.getAttribute('aria-label').split(':')[0]"
    seen = [tab.page.evaluate(focused)]
    for key in ("ArrowRight", "ArrowRight", "ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp"):
        tab.page.keyboard.press(key)
        seen.append(tab.page.evaluate(focused))
    assert [each.split(", ")[0] for each in seen] == ["firm", "cheap", "frail", "frail", "frail", "cheap", "cheap"]
    assert [each.split(", ")[1] for each in seen] == ["querying"] * 4 + ["tuning"] * 2 + ["querying"]
    tab.page.keyboard.press("Enter")
    tab.page.locator("#cell code").wait_for()
    tab.page.keyboard.press("Escape")
    assert not tab.page.locator("#cell").is_visible()
    tab.page.wait_for_selector("#view-other[data-drawn=heatmap]")
    assert tab.page.evaluate(focused) == "cheap, querying"
    tab.page.focus("#shade")
    tab.choose("shade", "p")
    tab.page.wait_for_selector("#view-other[data-drawn=heatmap] .key.p4")
    assert tab.page.evaluate("document.activeElement.id") == "shade"


def test_the_front_is_of_rows_that_none_betters(tab):
    first = tab.view("tradeoff").locator("figure").first
    assert sorted(t.split(":")[0] for t in first.locator("circle.on title").all_text_contents()) == ["cheap", "firm"]
    assert [t.split(":")[0] for t in first.locator("circle.idle title").all_text_contents()] == ["frail"]
    assert "on the front: " in first.locator("svg").get_attribute("aria-label")


def test_removal_costs_are_dots_a_seed_and_bounds_say_so(tab):
    figures = tab.view("removal").locator("figure")
    assert figures.count() == 3
    label = figures.first.locator("svg").get_attribute("aria-label")
    assert label == "firm: querying > 3.0 points, tuning > 12.0 points"
    assert figures.first.locator("circle.on").count() == 4
    assert figures.nth(1).locator("circle.off").count() == 4
    assert "tuning: 4.0 points" in figures.nth(1).locator("circle title").all_text_contents()


def test_a_scheme_has_its_card_its_places_and_every_attack(tab):
    view = tab.view("schemes")
    tab.choose("scheme", "cheap")
    tab.page.wait_for_selector("button:text('command, provenance')")
    tab.page.wait_for_selector("#view-other[data-drawn=schemes]")
    assert "Ours, not the authors': a better null." in view.inner_text()
    assert "wrn-10-4, digits-m, train" in view.locator("table").inner_text()
    captions = view.locator("figcaption").all_inner_texts()
    assert (
        captions == ["querying 2 of 2 survive, removal 8.0 points", "tuning 0 of 2 survive, removal 4.0 points"][::-1]
    )
    tab.choose("has", "scores")
    tab.page.wait_for_selector("figcaption:has-text('not open to this attacker')")


def test_an_attack_says_whether_it_is_open_to_the_attacker(tab):
    view = tab.view("attacks")
    tab.choose("curves", "tuning")
    tab.page.wait_for_selector(".about:has-text('own images')")
    assert "Open to the attacker chosen above. For 5 points at most, 1 of 3 rows keep every claim." in view.inner_text()
    tab.page.uncheck("#has-labelled")
    tab.page.wait_for_selector(".about:has-text('who lacks: own labelled images')")


def test_false_claims_stand_by_kind_with_intervals_and_forgeries_by_commitment(open_tab, tmp_path):
    made = [*records(), *(
        of_scheme(
            "firm", f"forge-{c}", 0, ladder((0, p)), profile="small", stage="evidence", committed=c, access="white-box",
            clean_accuracy=0.95,
        )
        for c, p in ((True, 0.2), (False, 1e-5))
    )]  # fmt: skip
    view = open_tab(build(made, tmp_path), "#profile=small").view("claims")
    table = [line.split("\t") for line in view.locator("table").inner_text().replace("\n", " ").split("  ")]
    heads = view.locator("thead th").all_inner_texts()
    firm = view.locator("tbody tr", has_text="firm").locator("td").all_inner_texts()
    said_of = dict(zip(heads[1:], firm, strict=True))
    assert said_of["fresh key"].startswith("2/100"), table
    assert "%" in said_of["fresh key"]
    assert said_of["forged, committed"] == "0.200"
    assert said_of["forged, not committed"] == "▲ 1e\N{MINUS SIGN}5"


def test_columns_are_chosen_and_rows_can_be_asked_to_be_complete(tab):
    heads = "thead th button"
    tab.page.click("#columns summary")
    for column in ("date", "runtime", "cost", "rank", "origin"):
        tab.page.check(f"[data-column={column}]")
    tab.page.uncheck("[data-column=carrier]")
    shown = tab.page.locator(heads).all_inner_texts()
    assert {"Date", "Run time", "Cost", "Rank", "Origin"} <= {text.strip(" ↑↓") for text in shown}
    assert not any(text.startswith("Carrier") for text in shown)
    assert tab.column("Date")[0] == "2026-11-20"
    assert tab.column("Run time")[0] == "12 s"
    assert len(tab.schemes) == 3
    tab.page.check("[data-column='']")
    assert tab.schemes == [], "no row has a forgery"
    tab.page.uncheck("[data-column=forged]")
    tab.page.check("[data-column='']")
    assert len(tab.schemes) == 3


def test_exports_hold_what_is_shown(tab):
    tab.choose("loss", 4)
    tab.page.click("#columns summary")
    tab.page.uncheck("[data-column=fidelity]")
    text, name = tab.saved("csv")
    assert name == "watermark-bench-small.csv"
    found = list(csv.DictReader(io.StringIO(text)))
    assert [(row["scheme"], row["robustness_hits"], row["loss_allowed_pp"]) for row in found] == [
        ("firm", "2", "4"), ("cheap", "0", "4"), ("frail", "0", "4"),
    ]  # fmt: skip
    assert "fidelity_pp" not in found[0]
    text, name = tab.saved("json")
    assert name.endswith(".json")
    assert [row["robustness_hits"] for row in json.loads(text)] == [2, 0, 0]
    text, name = tab.saved("latex")
    assert name.endswith(".tex")
    lines = text.splitlines()
    assert lines[1].startswith("\\begin{tabular}{l")
    assert sum(line.startswith("firm & ") for line in lines) == 1
    assert {line.count(" & ") for line in lines if line.endswith("\\\\")} == {lines[3].count(" & ")}
    tab.view("heatmap")
    cells = list(csv.DictReader(io.StringIO(tab.saved("csv")[0])))
    assert {(row["scheme"], row["attack"]): row["survive_hits"] for row in cells}["cheap", "querying"] == "2"
    assert len(cells) == 6


@pytest.mark.parametrize("letter", list("=+-@\t\r"))
def test_no_export_holds_a_formula_or_a_macro(open_tab, tmp_path, letter):
    made = [of_scheme(scheme_params={letter + "1+1": v}) for v in ("a", "b")]
    tab = open_tab(build(made, tmp_path))
    (_, *found) = csv.reader(io.StringIO(tab.page.evaluate("csv()")))
    assert [row[3] for row in found] == [f"'{letter}1+1=a", f"'{letter}1+1=b"]
    made = [of_scheme(scheme_params={"\\input{x}$%_": v}) for v in ("a", "b")]
    latex = open_tab(build(made, tmp_path / "tex")).page.evaluate("latex()")
    assert "\\textbackslash{}input\\{x\\}\\$\\%\\_=a" in latex
    assert "\\input" not in latex


def test_hostile_strings_are_text_in_every_view(open_tab, tmp_path):
    bad = {"title": HOSTILE, "paper": HOSTILE, "link": "javascript:alert(1)", "code": HOSTILE, "extensions": [HOSTILE]}
    needs = {**NEEDS, "images": [HOSTILE], "knows": [HOSTILE]}
    cards = {"schemes": {"uchida-random": bad}, "attacks": {"pruning": {**bad, "adversary": HOSTILE, "needs": needs}}}
    params = {"note": HOSTILE}
    made = [
        of_scheme(
            seed=seed, curve=ladder((1, 0.5)), unit=HOSTILE, scheme_params={**params, "n": n}, nulls=[nulls(1, 9)]
        )
        for seed in (0, 1)
        for n in (1, 2)
    ]
    made += [idle("failed", attack="b", why=HOSTILE, scheme_params={**params, "n": 1})]
    tab = open_tab(build(made, tmp_path, cards=cards))
    for view in ("heatmap", "tradeoff", "removal", "attacks", "schemes", "claims"):
        tab.view(view)
        assert tab.page.locator("img").count() == 0, view
        assert tab.page.locator("script").count() == 4, view
        assert tab.page.locator("a[href^=javascript]").count() == 0, view
        assert "NaN" not in tab.page.locator("main").inner_text(), view
    tab.view("heatmap").locator("td button").first.click()
    tab.page.locator("#cell code").wait_for()
    assert tab.page.locator("img").count() == 0
    assert tab.noise == []


def test_every_origin_is_told_apart_and_only_the_trusted_stand_above(open_tab, tmp_path, monkeypatch):
    origins = ["computed here", "verified", "self-reported", "stale", "failed", "<b>new</b>"]
    made = [
        {**row, "origin": origin, "id": f"0000000{i}", "scheme": f"s{9 - i}"}
        for i, origin in enumerate(origins)
        for row in rows([of_scheme(curve=ladder((1, 1e-9)), profile="small")])
    ]
    monkeypatch.setattr(page, "rows", lambda *_, **__: made)
    tab = open_tab(build([], tmp_path), "#profile=small")
    for order in ("up", "down"):
        tab.page.evaluate(f"change({{ sort: 'scheme', order: '{order}' }})")
        assert tab.schemes[2:] == ["s7", "s6", "s5", "s4"]
        assert set(tab.schemes[:2]) == {"s9", "s8"}
    heads = tab.page.locator("td.group").all_inner_texts()
    assert [head.split(":")[0].split(" ")[0] for head in heads] == ["Self-reported", "Stale", "Failed", "<b>new</b>"]
    badges = tab.page.locator("tr.row .badge").all_inner_texts()
    assert sorted(badges) == sorted(origins[1:])
    assert "disagree" in tab.page.locator(".badge", has_text="failed").get_attribute("title")
    assert sorted(tab.page.locator(".chip").evaluate_all(NAMES)) == ["s8", "s9"]
