"""The one row of records, and the page as a browser without scripts reads it."""

import base64
import json
import zlib
from html.parser import HTMLParser

from leaderboard import build, rows


def only(records):
    (row,) = rows(records)
    return row


class Page(HTMLParser):
    """What a browser would see: scripts with their attributes, and every address."""

    def __init__(self, html):
        super().__init__()
        self.scripts, self.addresses, self.policy, self.tags = [], [], "", []
        self.feed(html)

    @property
    def payload(self):
        """What is embedded, with the details of each row in it."""
        payload = json.loads(self.scripts[0][1])
        packs = [json.loads(zlib.decompress(base64.b64decode(line))) for line in self.scripts[3][1].split()]
        details = [detail for pack in packs for detail in pack]
        rows = [{**row, **detail} for row, detail in zip(payload["rows"], details, strict=True)]
        return {**payload, "rows": rows}

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.tags.append(tag)
        self.addresses += [given[name] for name in ("src", "href", "action") if name in given]
        if tag == "script":
            self.scripts.append([given, ""])
        if given.get("http-equiv") == "Content-Security-Policy":
            self.policy = given["content"]

    def handle_data(self, text):
        if self.scripts and self.tags[-1] == "script":
            self.scripts[-1][1] += text

    def handle_endtag(self, tag):
        self.tags.append("/" + tag)


def page_of(records, tmp_path, **options):
    path = build(records, tmp_path / "site", **options)
    assert path == tmp_path / "site" / "index.html"
    return Page(path.read_text(encoding="utf-8")), path
