"""Adversarial images within a box around the given ones: the inner maximisation of adversarial training.

Ian J. Goodfellow, Jonathon Shlens, Christian Szegedy, Explaining and Harnessing Adversarial Examples, ICLR 2015 (one
step). https://arxiv.org/abs/1412.6572; Aleksander Madry et al., Towards Deep Learning Models Resistant to Adversarial
Attacks, ICLR 2018 (several). https://arxiv.org/abs/1706.06083
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

__all__ = ["Perturbation"]


@dataclass(frozen=True)
class Perturbation:
    """Finds images within `eps` of the given ones that the network gets wrong; a `Recipe.perturb`.

    Attributes:
        eps: the largest change of a pixel value, of images in [0, 1].
        step: of each iteration.
        iterations: how many.
        start: CPU generator of a uniform start within `eps`; None starts at the image itself.
    """

    eps: float
    step: float
    iterations: int
    start: torch.Generator | None = None

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        """Steps along the sign of the loss's gradient, each projected to the eps-box and to [0, 1].

        Args:
            model: in the mode that the training has it in, as the authors attack it.
            images: N x C x H x W, float in [0, 1].
            labels: N, int64.
        """
        x = images
        if self.start is not None:
            draws = 2 * torch.rand(images.shape, generator=self.start) - 1
            x = (images + self.eps * draws.to(images.device)).clamp(0, 1)
        for _ in range(self.iterations):
            x = x.detach().requires_grad_()
            loss = nn.functional.cross_entropy(model(x), labels)
            (gradient,) = torch.autograd.grad(loss, x)
            x = x.detach() + self.step * gradient.sign()
            x = (images + (x - images).clamp(-self.eps, self.eps)).clamp(0, 1)
        return x.detach()
