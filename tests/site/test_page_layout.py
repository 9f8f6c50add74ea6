"""The page fits windows, phones and paper, and its axes are the same everywhere."""

import re

import pytest

from leaderboard import build
from tests.fakes import (
    of_scheme,
    rung,
    said,
    searched,
)


@pytest.mark.parametrize("width", [1280, 800, 400])
def test_searches_are_not_wider_than_the_window(open_tab, tmp_path, width):
    made = searched(5, rungs=(5, 10), heldout=(0.0,) * 3, histories={"x" * 200: [1.0, 2.0]})
    tab = open_tab(build([made], tmp_path))
    tab.page.set_viewport_size({"width": width, "height": 800})
    tab.page.locator("tr.row .name").click()
    tab.page.locator("tr.detail code").first.wait_for()
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("width", [1280, 800, 400])
def test_nothing_is_wider_than_the_window(open_tab, site, width):
    tab = open_tab(site)
    tab.page.set_viewport_size({"width": width, "height": 800})
    tab.page.locator("tr.row .name", has_text="uchida-diff").click()
    tab.page.locator("tr.detail code").first.wait_for()
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= width
    if width != 800:  # in between, the table scrolls in its own box
        assert tab.page.evaluate("document.querySelector('.scroll').scrollWidth") <= width


def test_percentages_have_the_same_axis_everywhere(open_tab, tmp_path):
    made = [of_scheme(s, curve=[rung(10, a, said(1e-9, 0.01))]) for s, a in (("a", 0.91), ("b", 0.12))]
    tab = open_tab(build(made, tmp_path))
    expected = ["0 %", "25 %", "50 %", "75 %", "100 %"]
    for figure in tab.panels.locator("figure").all():
        assert [t for t in figure.locator("text").all_text_contents() if t.endswith(" %")] == expected
    tab.view("table").locator("tr.row .name").first.click()
    for title in ("Test accuracy", "Bit error rate"):
        texts = tab.page.locator("tr.detail figure", has_text=title).locator("text").all_text_contents()
        assert texts[:5] == ["0", "25", "50", "75", "100"]


def test_long_names_do_not_break_a_phone(open_tab, tmp_path):
    name, chain = "a-long-name-" * 15, "images-jpeg=75+cutout=8+" + "pruning-of-everything-" * 7
    curve = [rung(10, 0.9, said(1e-9)), rung(20, 0.8, said(0.5))]
    made = of_scheme(name, chain, curve=curve, unit="% of the weights of all the layers together", arch=name)
    tab = open_tab(build([made], tmp_path))
    tab.page.set_viewport_size({"width": 360, "height": 740})
    tab.page.locator("tr.row .name").click()
    tab.page.locator("tr.detail figure").first.wait_for()
    assert tab.panels.locator("svg").count() == 1
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= 360


def test_all_columns_fit_on_paper(open_tab, site):
    tab = open_tab(site)
    tab.page.emulate_media(media="print")
    tab.page.set_viewport_size({"width": 1054, "height": 726})  # A4 across, less its margins, at 96 dots an inch
    assert tab.page.locator("thead th").last.bounding_box()["x"] > 900
    assert tab.page.evaluate("document.querySelector('#board').getBoundingClientRect().right") <= 1054
    assert not tab.page.locator("#filters").is_visible()
    assert tab.page.locator(".scroll").evaluate("e => getComputedStyle(e).overflowX") == "visible", "nothing is cut off"
    width, height = re.search(
        rb"/MediaBox *\[0 0 ([0-9]+)[0-9.]* ([0-9]+)", tab.page.pdf(prefer_css_page_size=True)
    ).groups()
    assert int(width) > int(height)
