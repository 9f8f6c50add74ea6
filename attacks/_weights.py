"""The weights of a network that attacks act on."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

__all__ = ["clear", "prunable"]


def prunable(model: nn.Module) -> list[str]:
    """Names of all convolution and linear weight tensors, each once even where layers share it."""
    kinds = (nn.modules.conv._ConvNd, nn.Linear)
    weights = {f"{path}.weight" for path, module in model.named_modules() if isinstance(module, kinds)}
    return [name for name, _ in model.named_parameters() if name in weights]


@torch.no_grad()
def clear(model: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Set parameters to zero where their mask is true.

    Args:
        model: changed in place.
        masks: parameter name -> bool, of its shape.
    """
    for name, mask in masks.items():
        model.get_parameter(name).masked_fill_(mask, 0.0)
