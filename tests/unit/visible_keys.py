"""Keys of visible marks, and what they are made for."""

from __future__ import annotations

from typing import Any

from bench.api import ImageSet, Rng, Suspect
from schemes._visible import VisibleKey, VisibleScheme
from schemes.visible import VisibleDisplacement, VisibleOpacity, VisibleStatic
from tests.fakes import FakeHost
from tests.fakes import cloudy_images as cloudy

KINDS = (VisibleStatic, VisibleOpacity, VisibleDisplacement)
TINY: dict[str, Any] = {"probe": 4, "decoys": 19, "model_decoys": 4}


def host_of(count: int = 12, height: int = 32, width: int = 32, seed: int = 0) -> FakeHost:
    """A mark that is not learned needs neither network nor training."""
    return FakeHost(cloudy(count, seed, height, width), cloudy(8, seed + 1, height, width))


def examine(images: ImageSet) -> Suspect:
    return Suspect("data set", images=images)


def key_of(scheme: VisibleScheme, seed: int = 0, **host: int) -> VisibleKey:
    return scheme.keygen(host_of(**host), Rng("owner", seed))
