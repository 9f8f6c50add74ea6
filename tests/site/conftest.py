"""A page in headless Chromium, and everything it says or asks for."""

from __future__ import annotations

import shutil
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from leaderboard import build
from tests.fakes import benchmark_records
from tests.site.viewed import CARDS, records

CHROMIUM = shutil.which("chromium")
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking")
FLAGS += ("--disable-component-update", "--disable-sync")


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no chromium on the path")
    with sync_api.sync_playwright() as playwright:
        profile = tmp_path_factory.mktemp("chromium")
        context = playwright.chromium.launch_persistent_context(
            profile, executable_path=CHROMIUM, args=FLAGS, viewport={"width": 1280, "height": 900}
        )
        yield context
        context.close()


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    return build(benchmark_records(), tmp_path_factory.mktemp("site"))


class Tab:
    """A page, and everything it says or asks for."""

    def __init__(self, context, path: Path, fragment: str):
        self.page = context.new_page()
        self.page.set_default_timeout(5_000)
        self.noise, self.requests = [], []
        self.page.on("console", lambda message: self.noise.append(message.text))
        self.page.on("pageerror", lambda error: self.noise.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.noise.append(dialog.message), dialog.dismiss()))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri() + fragment)
        self.page.wait_for_selector("#count:not(:empty)", state="attached")

    def column(self, label):
        """The texts of one column of the rows, from the top."""
        index = [head.split("\n")[0] for head in self.page.locator("thead th").all_inner_texts()].index(label)
        return [row.locator("td").nth(index).inner_text() for row in self.page.locator("tr.row").all()]

    @property
    def panels(self):
        """The robustness curves under one attack."""
        self.view("attacks")
        return self.page.locator("#panels")

    def view(self, name):
        """Another view, once it is drawn."""
        self.page.click(f"#tab-{name}")
        if name != "table":
            self.page.wait_for_selector(f"#view-other[data-drawn={name}]", state="attached")
        return self.page.locator("#view-table" if name == "table" else "#view-other")

    def choose(self, name, value):
        """Move a slider, or choose of a list."""
        step = """([id, value]) => {
            const element = document.getElementById(id);
            element.value = value;
            const kind = element.type === "range" ? "input" : "change";
            element.dispatchEvent(new Event(kind, { bubbles: true }));
        }"""
        self.page.evaluate(step, [name, str(value)])

    def saved(self, kind):
        """The text of a download, and its name."""
        with self.page.expect_download() as download:
            self.page.click(f"#{kind}")
        return Path(download.value.path()).read_text(encoding="utf-8"), download.value.suggested_filename

    @property
    def schemes(self):
        return self.page.locator("tr.row .name").all_inner_texts()

    @property
    def fragment(self):
        return {name: value for name, (value,) in parse_qs(urlsplit(self.page.url).fragment).items()}


@pytest.fixture
def open_tab(browser):
    tabs = []

    def opened(path, fragment="#profile=quick"):
        tabs.append(Tab(browser, path, fragment))
        return tabs[-1]

    yield opened
    for tab in tabs:
        tab.page.close()


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return build(records(), tmp_path_factory.mktemp("views"), cards=CARDS)


@pytest.fixture
def tab(open_tab, path):
    tab = open_tab(path, "#profile=small")
    yield tab
    assert tab.noise == []
    assert [url for url in tab.requests if not url.startswith("data:")] == [path.as_uri()]
