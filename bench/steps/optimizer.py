"""A recipe's optimiser, and its learning rate over a training."""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection

import torch
from torch import nn

from bench.contract.networks import Recipe

__all__ = ["learning_rate", "optimizer_of"]


def learning_rate(recipe: Recipe, step: int, steps: int) -> float:
    """The learning rate of step `step` (from 0) of `steps`.

    `onecycle` rises by a half cosine from lr/25 to lr in the first 30 % of the steps and falls by another one to
    lr/250,000 (Smith, Topin 2019, https://arxiv.org/abs/1708.07120, as PyTorch sets it, at constant momentum). Any
    schedule rises from 0 along a line first where the recipe has a warm-up (Goyal et al. 2017,
    https://arxiv.org/abs/1706.02677, section 2.2).
    """
    return _scheduled(recipe, step, steps) * min(1.0, (step + 1) / max(recipe.warmup * steps / recipe.epochs, 1))


def _scheduled(recipe: Recipe, step: int, steps: int) -> float:
    if recipe.schedule == "onecycle":
        peak = max(0.3 * steps - 1, 1e-9)
        if step <= peak:
            return _between(recipe.lr / 25, recipe.lr, step / peak)
        return _between(recipe.lr, recipe.lr / 250_000, (step - peak) / (steps - 1 - peak))
    if recipe.schedule == "step":
        return recipe.lr * recipe.gamma ** sum(step / steps >= milestone for milestone in recipe.milestones)
    if recipe.schedule == "cosine":
        return _between(recipe.lr, 0.0, step / steps)
    return recipe.lr


def _between(start: float, end: float, progress: float) -> float:
    """Half a cosine wave from `start` at progress 0 to `end` at 1."""
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


def optimizer_of(
    model: nn.Module, recipe: Recipe, undecayed: Collection[str], *, fused: bool = False
) -> torch.optim.Optimizer:
    """The recipe's optimiser of all parameters that need a gradient.

    Args:
        model: on its device.
        recipe: its optimiser, momentum and weight decay.
        undecayed: names of parameters that weight decay leaves alone.
        fused: one kernel for all weights, which a GPU has.

    Raises:
        ValueError: `undecayed` names no parameter.
    """
    named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    for name in undecayed:
        if name not in dict(model.named_parameters()):
            near = difflib.get_close_matches(name, named, n=1)
            hint = f' Did you mean "{near[0]}"?' if near else ""
            raise ValueError(f'Expected the name of a parameter to spare from weight decay, but got "{name}".{hint}')
    groups = [
        {"params": [p for name, p in named.items() if name not in undecayed], "weight_decay": recipe.weight_decay},
        {"params": [p for name, p in named.items() if name in undecayed], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    at_once = {"fused" if fused else "foreach": True}
    if recipe.optimizer == "adam":
        return torch.optim.AdamW(groups, lr=recipe.lr, betas=(recipe.momentum, 0.999), **at_once)
    nesterov = recipe.nesterov and recipe.momentum > 0
    return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=nesterov, **at_once)
