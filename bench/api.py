"""What does an author import? The contract of schemes and attacks, on one page.

A scheme or an attack is one file in `schemes/` or `attacks/`. It imports from this module (and torch, numpy,
scipy), never from the rest of the harness, which owns data, training, seeds, devices, storage and judging:

* a **scheme** overrides the hooks it needs: `keygen`, `mark_data`, `embedding_loss`, `mark_model`, `verify`,
  `capacity`. Marking data and adding a loss are all that embedding is, so the harness runs any scheme from
  scratch, while fine-tuning and while distilling; none of that is a scheme's business.
* an **attack** overrides `apply`, a generator over its ladder of strengths. It yields attempts; the harness judges
  them. An attack never grades itself, and is handed only what its card's `Adversary` declares.

Images are `N x C x H x W`, uint8 where they are stored and float32 in [0, 1] where a network sees them;
networks normalise inside. Labels are int64. Every random number comes from the `Rng` that a hook is given.
"""

from __future__ import annotations

from dataclasses import replace

from pydantic import Field

from bench.contract import papers
from bench.contract.attack import Adversary, Answer, Attack, AttackCard, Attempt, Context, Serving, Victim
from bench.contract.channels import Change, Channels, Slot, fold_norms
from bench.contract.colour import YIQ, colour_rotations, recoloured, rotate_hue
from bench.contract.fields import ContractError, Paper, Params, Share, Variant, ladder_of
from bench.contract.images import DatasetCard, ImageSet, pixels
from bench.contract.keys import Capacity, Key
from bench.contract.networks import Arch, Batch, Recipe, last_linear, predict
from bench.contract.scheme import Host, Scheme, SchemeCard
from bench.contract.suspect import AccessError, Suspect
from bench.contract.verdict import Point, Search, Verdict
from bench.identity import Rng, digest
from bench.stats import (
    bits_p_value,
    cosine_p_value,
    fisher_p_value,
    matches_p_value,
    rank_p_value,
    sequential_p_value,
)

__all__ = [
    "YIQ",
    "AccessError",
    "Adversary",
    "Answer",
    "Arch",
    "Attack",
    "AttackCard",
    "Attempt",
    "Batch",
    "Capacity",
    "Change",
    "Channels",
    "Context",
    "ContractError",
    "DatasetCard",
    "Field",
    "Host",
    "ImageSet",
    "Key",
    "Paper",
    "Params",
    "Point",
    "Recipe",
    "Rng",
    "Scheme",
    "SchemeCard",
    "Search",
    "Serving",
    "Share",
    "Slot",
    "Suspect",
    "Variant",
    "Verdict",
    "Victim",
    "bits_p_value",
    "colour_rotations",
    "cosine_p_value",
    "digest",
    "fisher_p_value",
    "fold_norms",
    "ladder_of",
    "last_linear",
    "matches_p_value",
    "papers",
    "pixels",
    "predict",
    "rank_p_value",
    "recoloured",
    "replace",
    "rotate_hue",
    "sequential_p_value",
]
