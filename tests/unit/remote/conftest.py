"""Places for results: in memory, in a folder and on S3."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.runner.remote import Remote, remote_at
from tests.fakes.places import a_url, moto

KINDS = ("memory", "file", "s3")


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with moto() as url:
        yield url
    remote_at.cache_clear()


@pytest.fixture(params=KINDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return a_url(request.param, tmp_path, request.getfixturevalue("bucket") if request.param == "s3" else "")


@pytest.fixture
def place(tmp_path: Path) -> Remote:
    return Remote(a_url("memory", tmp_path))
