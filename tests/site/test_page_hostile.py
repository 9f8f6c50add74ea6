"""What a record says is text on the page: nothing of it runs, opens, is fetched, or is a formula in the CSV."""

from leaderboard import build
from tests.fakes import (
    HOSTILE,
    identified,
    idle,
    of_scheme,
    rung,
    said,
    search,
)


def test_hostile_searches_and_histories_are_text(open_tab, tmp_path):
    odd = {"candidates": [-1e30, 5.0, 1e30], "losses": [1e30, -1e30, 0.0], "true": 1e-30, "unit": HOSTILE[:40]}
    alone = {"candidates": [7.0], "losses": [3.0], "true": 7.0, "unit": "constructor"}
    told = [identified(search=each) for each in (odd, alone, search(unit=HOSTILE[9:48]))]
    made = of_scheme(
        stage="training", marked=rung(0, 0.9, *told), curve=[rung(1, 0.9, *told)], heldout_verdicts=told,
        histories={HOSTILE: [1e30, -1e30], "__proto__": [0.0] * 3}, owners=3,
    )  # fmt: skip
    tab = open_tab(build([made], tmp_path))
    tab.page.locator("tr.row .name").click()
    tab.page.locator("tr.detail code").first.wait_for()
    assert HOSTILE in tab.page.locator("tr.detail").inner_text()
    assert f"signature ({HOSTILE[:40]})" in tab.page.locator("tr.detail svg text").all_text_contents()
    assert "NaN" not in tab.page.locator("tr.detail").inner_html()
    assert tab.page.locator("script").count() == 4
    assert tab.page.locator("img").count() == 0
    assert tab.noise == []


def test_hostile_strings_are_shown_as_text_and_never_run(open_tab, tmp_path):
    params = {"note": HOSTILE, "__proto__": HOSTILE, "constructor": 1}
    curve = [rung(10, 0.9, said(0.5)), rung(20, 0.8, said(0.5))]
    made = [of_scheme(scheme_params=params, unit=HOSTILE, provenance={"platform": HOSTILE}, curve=curve)]
    made += [idle("failed", attack="b", why=HOSTILE, scheme_params=params)]
    made += [idle("not applicable", scheme="uchida-diff", why=HOSTILE, scheme_params=params)]
    tab = open_tab(build(made, tmp_path, generated=HOSTILE))
    tab.page.locator("tr.row .name", has_text="uchida-random").click()
    tab.page.locator("tr.detail code").first.wait_for()
    assert HOSTILE in tab.page.locator("tr.detail").inner_text()
    assert HOSTILE in tab.page.locator("tr.row", has_text="uchida-diff").inner_text()
    assert HOSTILE in tab.page.locator("footer").inner_text()
    assert HOSTILE in tab.page.locator("tr.detail svg text").all_text_contents()
    assert tab.page.locator("img").count() == 0
    assert tab.page.locator("script").count() == 4
    assert tab.noise == []


def test_the_policy_stops_a_script_that_got_in_and_any_request(open_tab, site):
    tab = open_tab(site)
    tab.page.evaluate(
        """() => {
            const script = document.createElement("script");
            script.textContent = "window.ran = true";
            document.body.append(script);
        }"""
    )
    assert tab.page.evaluate("window.ran") is None
    assert tab.page.evaluate("fetch('https://example.invalid/').then(() => 'sent', () => 'refused')") == "refused"
    assert all("Content Security Policy" in text for text in tab.noise)
    assert len(tab.noise) >= 2


def test_a_formula_in_a_record_is_not_one_in_the_csv(open_tab, tmp_path):
    made = [of_scheme(scheme_params={"=1+1": value}) for value in ("a", "b")]
    tab = open_tab(build(made, tmp_path))
    assert sorted(row.split(",")[3] for row in tab.page.evaluate("csv()").splitlines()[1:]) == ["'=1+1=a", "'=1+1=b"]


CARD = {
    "title": "The title",
    "paper": "A. Author: A paper (2017)",
    "link": "https://example.org/paper",
    "code": "javascript:alert(1)",
    "extensions": ["a better null"],
    "adversary": "white-box access; no images",
}


def test_rows_link_to_papers_and_to_nothing_that_runs(open_tab, tmp_path):
    curve = [rung(10, 0.9, said(1e-9)), rung(20, 0.8, said(0.5))]
    made = of_scheme(attack="pruning=50+ftal", curve=curve)
    cards = {"schemes": {"uchida-random": CARD}, "attacks": {"pruning": CARD, "ftal": {**CARD, "title": "Tuning"}}}
    tab = open_tab(build([made], tmp_path, cards=cards))
    links = tab.page.locator("tr.row a")
    assert [link.get_attribute("href") for link in links.all()] == ["https://example.org/paper"]
    links.first.evaluate("link => link.addEventListener('click', event => event.preventDefault())")
    links.first.click()
    assert tab.page.locator("tr.detail").count() == 0, "a link does not open the row"
    tab.page.locator("tr.row .name").click()
    tab.page.locator("tr.detail code").first.wait_for()
    text = tab.page.locator("tr.detail").inner_text()
    assert "pruning 50 → ftal: what each seed shows" in text
    assert "Tuning. The adversary has white-box access; no images." in text
    assert "Ours, not the authors': a better null." in text
    assert "--attack pruning=50+ftal" in text
    tab.page.get_by_role("button", name="How the columns are defined").click()
    assert tab.page.locator("#help").get_attribute("open") is not None
    assert tab.page.locator("a[href^='javascript']").count() == 0
