"""How firmly a network knows triggers: how long they keep their answer while they fade, or how sure it is of them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bench.api import Suspect
from schemes._users import LARGEST, finite

__all__ = ["firmness", "sureness"]

STRENGTHS = tuple(step / 10 for step in range(10, 0, -1))
ROUNDING, DIGIT = 1e-9, 1e-6


def firmness(
    suspect: Suspect, triggers: Tensor, sources: Tensor, clean: Tensor, targets: Tensor, enough: float = 0.0
) -> list[float]:
    """How firmly each of K trigger sets (K x n x C x H x W) calls its target, in [0, 1].

    The triggers fade into their sources in ten steps, and the hit rates are added up until one is below a half.
    With labels alone this tells the trained pattern from a look-alike, which may hit as often but fades sooner.
    Only triggers whose source is not called the target anyway (`clean`: K x n answers) are evidence and count.

    Args:
        suspect: asked for labels.
        triggers: K x n x C x H x W, uint8.
        sources: the images that they were made of.
        clean: K x n, what the suspect calls these.
        targets: K.
        enough: a set that can no longer reach this much is not asked further; its firmness is below it all the same.
    """
    count, probe = triggers.shape[:2]
    counted = clean != targets[:, None]
    found = torch.zeros(count, dtype=torch.float64)
    going = torch.arange(count)
    for asked, strength in enumerate(STRENGTHS, start=1):
        rows = going.to(triggers.device)
        faded = torch.lerp(sources[rows].float(), triggers[rows].float(), strength).round().to(torch.uint8)
        hits = suspect.labels(faded.flatten(0, 1)).cpu().view(-1, probe) == targets[going, None]
        rate = (hits & counted[going]).sum(1).double() / counted[going].sum(1).clamp_min(1)
        found[going] += rate / len(STRENGTHS)
        within_reach = found[going] + (len(STRENGTHS) - asked) / len(STRENGTHS) >= enough - ROUNDING
        going = going[(rate >= 0.5) & within_reach]
        if not len(going):
            break
    return [float(value) for value in found]


def sureness(
    suspect: Suspect, triggers: Tensor, clean: Tensor, targets: Tensor, enough: float = -math.inf
) -> list[float]:
    """Mean log-probability of its target over each of K trigger sets (K x n x C x H x W), as given.

    A network is surer of what it was trained on than of look-alikes that it calls the same. Triggers whose source is
    called the target anyway do not count; a set without others is as weak as can be. Sets are asked for one trigger,
    then for as many as before, and so on: most look-alikes fall behind with their first.

    Args:
        suspect: asked for scores.
        triggers: K x n x C x H x W, uint8.
        clean: K x n, what the suspect calls their sources.
        targets: K.
        enough: a set that can no longer reach this much is not asked further; its value is below it all the same.
    """
    count, probe = triggers.shape[:2]
    counted = clean != targets[:, None]
    found, number = torch.zeros(count, dtype=torch.float64), counted.sum(1)
    going, asked = number.nonzero().flatten(), 0
    while asked < probe and len(going):
        part = slice(asked, max(1, 2 * asked))
        some = triggers[going.to(triggers.device), part]
        labels = targets[going].repeat_interleave(some.shape[1])
        losses = finite(suspect.losses(some.flatten(0, 1), labels)).view(len(going), -1)
        found[going] -= (losses * counted[going, part]).sum(1) / number[going].clamp_min(1)
        going, asked = going[found[going] >= enough - DIGIT], asked + some.shape[1]
    known = torch.where(number > 0, found, torch.tensor(-LARGEST, dtype=torch.float64))
    return [float(mean) for mean in known.round(decimals=6)]  # the same in a batch of any size
