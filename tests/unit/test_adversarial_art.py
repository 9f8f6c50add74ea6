"""Do our adversarial images agree with those of the Adversarial Robustness Toolbox, on the same network and images?

Both compute in float32, where a gradient that is zero but for rounding may take either sign: the network is smooth, so
that none of these few thousand is.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from art.attacks.evasion import FastGradientMethod, ProjectedGradientDescentPyTorch
from art.estimators.classification import PyTorchClassifier
from torch import Tensor, nn

from attacks._perturbation import Perturbation
from attacks.evidence import towards
from bench.api import Rng

CLASSES, SIZE = 10, 16


def network() -> nn.Module:
    """Convolutional, with batch statistics at rest; seeded by name."""
    rng = Rng("network against the toolbox")
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.Softplus(),
        nn.AvgPool2d(4),
        nn.Flatten(),
        nn.Linear(8 * (SIZE // 4) ** 2, CLASSES),
    )
    for name, values in model.named_parameters():
        values.data = torch.randn(values.shape, generator=rng.torch(name)) * 0.3
    return model.eval()


def theirs(model: nn.Module) -> PyTorchClassifier:
    return PyTorchClassifier(
        model,
        loss=nn.CrossEntropyLoss(),
        input_shape=(3, SIZE, SIZE),
        nb_classes=CLASSES,
        clip_values=(0.0, 1.0),
        device_type="cpu",
    )


def images_and_labels() -> tuple[Tensor, Tensor]:
    rng = Rng("images against the toolbox")
    images = torch.rand(6, 3, SIZE, SIZE, generator=rng.torch("pixels"))
    return images, torch.randint(CLASSES, (6,), generator=rng.torch("labels"))


def agree(found: Tensor, expected: np.ndarray, images: Tensor, eps: float) -> None:
    moved = (found - images).abs()
    assert 0.9 * eps < float(moved.max()) <= eps + 1e-6, "both moved, and stayed within the box"
    torch.testing.assert_close(found, torch.from_numpy(expected), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("eps", "iterations"), [(0.02, 1), (0.05, 7), (0.4, 12)])
@pytest.mark.parametrize("targeted", [True, False])
def test_projected_gradient_steps_agree(eps: float, iterations: int, targeted: bool) -> None:
    model, (images, labels) = network(), images_and_labels()
    step = eps if iterations == 1 else eps / 3
    attack = ProjectedGradientDescentPyTorch(
        theirs(model),
        norm=np.inf,
        eps=eps,
        eps_step=step,
        max_iter=iterations,
        targeted=targeted,
        num_random_init=0,
        batch_size=len(images),
        verbose=False,
    )
    expected = attack.generate(images.numpy(), labels.numpy())
    if targeted:
        found = towards(model, images, labels, eps, step, iterations)
    else:
        found = Perturbation(eps, step, iterations)(model, images, labels)
    agree(found, expected, images, eps)


def test_one_gradient_step_agrees() -> None:
    model, (images, labels) = network(), images_and_labels()
    expected = FastGradientMethod(theirs(model), eps=0.03, batch_size=len(images)).generate(
        images.numpy(), labels.numpy()
    )
    agree(Perturbation(0.03, 0.03, 1)(model, images, labels), expected, images, 0.03)
