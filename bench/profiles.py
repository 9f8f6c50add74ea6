"""What does a number mean? A profile fixes data sizes, widths, recipes and seeds; records never mix profiles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from bench.api import Recipe

__all__ = ["PROFILES", "Profile"]


@dataclass(frozen=True)
class Profile:
    """One scale of experiment.

    Attributes:
        ranked: whether its results may be ranked on the leaderboard.
        archs, dataset, situation, seeds: what is run when the command line does not say.
        owner, adversary, heldout: images of each part of the split; None for all there are.
        widths: width multiplier per architecture; 1 where it is missing.
        host: recipe of the clean host per architecture (`*`: the others); used by situation `train` too.
        embed: recipe of fine-tuning and distilling while embedding.
        params: scheme parameters that differ from the paper at this scale, per scheme name or glob.
        null_keys: fresh keys that claim each clean host.
        attacked_null_keys: fresh keys that claim the clean host at every rung of an attack.
        trained_null_keys: fresh keys of schemes whose key generation trains networks.
    """

    name: str
    title: str
    ranked: bool
    archs: tuple[str, ...]
    dataset: str
    situation: str
    seeds: int
    owner: int | None
    adversary: int | None
    heldout: int | None
    host: Mapping[str, Recipe]
    embed: Mapping[str, Recipe]
    widths: Mapping[str, float] = field(default_factory=dict)
    params: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    null_keys: int = 100
    attacked_null_keys: int = 20
    trained_null_keys: int = 2

    def recipe(self, phase: str, arch: str) -> Recipe:
        """The recipe of a phase (`host` or `embed`) for an architecture; `wrn-16-2` takes that of `wrn`."""
        table = self.host if phase == "host" else self.embed
        return table.get(arch) or table.get(arch.split("-")[0]) or table["*"]

    def width(self, arch: str) -> float:
        """The width multiplier of an architecture."""
        return self.widths.get(arch, 1.0)

    def scheme_params(self, scheme: str) -> dict[str, Any]:
        """Parameters of a scheme that this profile sets; a later matching entry wins."""
        merged: dict[str, Any] = {}
        for pattern, params in self.params.items():
            if fnmatchcase(scheme, pattern):
                merged.update(params)
        return merged


PROFILES: dict[str, Profile] = {}
