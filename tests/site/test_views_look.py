"""How the views look: widths, paper, the keyboard, colours, where numbers and labels stand."""

import re

import pytest

from leaderboard import build
from tests.fakes import of_scheme
from tests.site.viewed import ladder


@pytest.mark.parametrize("view", ["heatmap", "tradeoff", "removal", "attacks", "schemes", "claims"])
@pytest.mark.parametrize("width", [1280, 640, 360])
def test_no_view_is_wider_than_the_window(open_tab, path, view, width):
    tab = open_tab(path, "#profile=small")
    tab.page.set_viewport_size({"width": width, "height": 800})
    tab.view(view)
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= width


def test_paper_says_the_choice_in_words(open_tab, path):
    tab = open_tab(path, "#profile=small&verify=scores&has=labels&lacks=labelled+copies&give=5")
    words = tab.page.locator(".only-print")
    assert not words.is_visible()
    tab.page.emulate_media(media="print")
    assert not tab.page.locator("#threat").is_visible()
    assert words.inner_text() == (
        "You can verify with: its scores. The attacker has: labels of its answers, and lacks: own labelled images, "
        "other customers' copies. You may lose 5 points of accuracy at most."
    )


def test_the_keyboard_reaches_tabs_and_header_and_name_stay_in_sight(tab):
    tab.page.focus("#tab-table")
    tab.page.keyboard.press("ArrowRight")
    tab.page.wait_for_selector("#view-other[data-drawn=heatmap]")
    assert tab.page.evaluate("document.activeElement.id") == "tab-heatmap"
    tab.page.keyboard.press("ArrowLeft")
    assert tab.page.locator("#board").is_visible()
    named = "e => e.labels?.length || e.getAttribute('aria-label') || e.textContent.trim()"
    for element in tab.page.locator("select:visible, input:visible, button:visible").all():
        assert element.evaluate(named), element.evaluate("e => e.outerHTML")
    tab.page.set_viewport_size({"width": 800, "height": 420})
    tab.page.evaluate("document.querySelector('#view-table .scroll').scrollTo(300, 300)")
    place = """element => {
        const [own, around] = [element, element.closest(".scroll")].map(each => each.getBoundingClientRect());
        return [own.left - around.left, own.top - around.top];
    }"""
    for where, side in (("tr.row td.scheme", 0), ("thead th.num", 1)):
        assert tab.page.locator(where).first.evaluate(place)[side] == pytest.approx(1, abs=2)


CONTRAST = """pairs => {
    const part = (c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    const light = (name) => {
        const [r, g, b] = getComputedStyle(document.documentElement).getPropertyValue(name).trim().match(/\\w\\w/g)
            .map((hex) => part(parseInt(hex, 16) / 255));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    return pairs.map(([a, b]) => {
        const [low, high] = [light(a), light(b)].sort((x, y) => x - y);
        return (high + 0.05) / (low + 0.05);
    });
}"""
INKS = [
    (f"--{ink}", f"--{on}") for ink in ("ink", "soft", "focus", "good", "some", "bad") for on in ("paper", "raised")
]
INKS += [
    ("--good", "--good-bg"),
    ("--some", "--some-bg"),
    ("--bad", "--bad-bg"),
    ("--paper", "--good"),
    ("--paper", "--mid"),
]
EDGES = [("--edge", "--paper"), ("--edge", "--raised")]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_and_the_edges_of_controls_stand_out_from_their_ground(open_tab, path, scheme):
    tab = open_tab(path, "#profile=small")
    tab.page.emulate_media(color_scheme=scheme)
    for least, pairs in ((4.5, INKS), (3.0, EDGES)):
        found = dict(zip(pairs, tab.page.evaluate(CONTRAST, pairs), strict=True))
        assert {pair: ratio for pair, ratio in found.items() if ratio < least} == {}


SIDES = "t => [...t.querySelectorAll('thead th, tbody td')].map(cell => getComputedStyle(cell).textAlign)"


def test_numbers_stand_below_their_heads_and_lists_show_their_choice(tab):
    for name in ("schemes", "claims"):
        view = tab.view(name)
        for table in view.locator("table.plain").all():
            sides = table.evaluate(
                "t => [...t.querySelectorAll('thead th, tbody td')].map(c => getComputedStyle(c).textAlign)"
            )
            assert set(sides[1:]) == {"right"}, name
    tab.view("heatmap")
    room = "select => [select.scrollWidth, select.clientWidth]"
    wanted, width = tab.page.locator("#shade").evaluate(room)
    assert width >= 200
    assert wanted <= width


def test_rows_of_one_scheme_are_told_apart_where_no_column_does(open_tab, tmp_path):
    made = [of_scheme(arch=arch, curve=ladder((1, 1e-9))) for arch in ("wrn", "vgg")]
    tab = open_tab(build(made, tmp_path))
    assert [text.strip() for text in tab.schemes] == ["uchida-random"] * 2
    assert tab.page.locator("td.scheme", has_text="vgg").locator(".only-wide").count() == 0, "a column says it"
    tab.page.evaluate("change({ cols: 'scheme fidelity' })")
    assert tab.page.locator("td.scheme .only-wide").all_inner_texts() == ["vgg", "wrn"]
    tab.choose("arch", "vgg")
    assert tab.page.locator("td.scheme .only-wide").count() == 0, "the filter says it"


def test_the_label_of_a_limit_lies_above_lines_and_below_dots(tab):
    tab.page.locator("tr.row .name").first.click()
    kinds = "svg => [...svg.children].map(each => each.getAttribute('class') || '')"
    drawn = tab.page.locator("tr.detail figure svg").first.evaluate(kinds)
    assert max(i for i, kind in enumerate(drawn) if kind == "seed") < drawn.index("said")
    assert drawn.index("said") < min(i for i, kind in enumerate(drawn) if kind in ("on", "off", "part"))


def test_no_text_shows_more_digits_than_mean_anything(open_tab, tmp_path):
    tab = open_tab(build([of_scheme(curve=ladder((16.6, 0.5)), profile="small")], tmp_path), "#profile=small")
    for view in ("removal", "tradeoff", "attacks", "schemes", "claims"):
        tab.view(view)
        assert not re.findall(r"\d\.\d{6,}", tab.page.locator("main").inner_text()), view


KINDS = ("all", "some", "none")


def test_paper_keeps_the_colours_that_the_legend_of_the_heat_map_names(tab):
    view = tab.view("heatmap")
    tab.page.emulate_media(media="print")
    grounds = [view.locator(f".key.{kind}").evaluate("e => getComputedStyle(e).backgroundColor") for kind in KINDS]
    assert len({*grounds, "rgb(255, 255, 255)", "rgba(0, 0, 0, 0)"}) == len(KINDS) + 2
