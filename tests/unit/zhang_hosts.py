"""The kinds of trigger set, and hosts that they are made for."""

from __future__ import annotations

from typing import Any

from schemes.zhang import ZhangContent, ZhangNoise, ZhangUnrelated
from tests.fakes import FakeHost, noise_images

KINDS = (ZhangContent, ZhangUnrelated, ZhangNoise)


def host_of(count: int = 80, side: int = 16, channels: int = 3, content: Any = "objects") -> FakeHost:
    """Random images of four classes; a trigger set needs neither network nor training to be made."""
    return FakeHost(noise_images(count, 0, side, channels), noise_images(40, 1, side, channels), content=content)
