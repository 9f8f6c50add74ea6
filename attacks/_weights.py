"""The weights of a network that attacks act on."""

from __future__ import annotations

from torch import nn

__all__ = ["prunable"]


def prunable(model: nn.Module) -> list[str]:
    """Names of all convolution and linear weight tensors, each once even where layers share it."""
    kinds = (nn.modules.conv._ConvNd, nn.Linear)
    weights = {f"{path}.weight" for path, module in model.named_modules() if isinstance(module, kinds)}
    return [name for name, _ in model.named_parameters() if name in weights]
