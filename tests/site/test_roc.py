"""Detection over the false positive rate, as the page draws it."""

import re

import pytest

from leaderboard import build
from tests.fakes import of_scheme, rung, said

MARKED = (1e-6, 1e-6, 2e-3, 0.02, 0.5)
ATTACKED = (1e-6, 0.005, 0.3, 0.3, 0.9)


def record(scheme, seed, before, after):
    curve = [rung(1, 0.88, said(after)), rung(2, 0.5, said(1.0))]
    return of_scheme(scheme, "tuning", seed, curve, marked=rung(0, 0.9, said(before)), profile="small")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    made = [record("firm", *each) for each in zip(range(5), MARKED, ATTACKED, strict=True)]
    made.append(record("lone", 0, 0.1, 0.1))
    return build(made, tmp_path_factory.mktemp("roc"))


def chart_of(tab, row):
    tab.page.locator("tr.row", has_text=row).click()
    tab.page.locator("tr.detail .panel").first.wait_for()
    return tab.page.locator("svg[aria-label^='Detection over']")


def test_shares_of_claims_by_rate_before_an_attack_and_after_it(open_tab, path):
    tab = open_tab(path, "#profile=small")
    chart = chart_of(tab, "firm")
    assert "5 claims: unattacked 60 % at 1 %, attacked 40 % at 1 %" in chart.get_attribute("aria-label")
    lines = [chart.locator(f"path.{kind}").get_attribute("d") for kind in ("roc:not(.off)", "roc.off")]
    shares = [[round((118 - float(y)) / 1.1) for y in re.findall(r"[ML][\d.]+ ([\d.]+)", each)] for each in lines]
    assert [each[-1] for each in shares] == [100, 100], "at a rate of 1 every claim is accepted"
    assert [sorted(set(each)) for each in shares] == [[40, 60, 80, 100], [20, 40, 80, 100]]
    assert tab.noise == []


def test_one_claim_has_no_such_chart(open_tab, path):
    assert chart_of(open_tab(path, "#profile=small"), "lone").count() == 0
