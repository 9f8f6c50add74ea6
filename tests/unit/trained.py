"""Small networks and images that tests of training share."""

import torch
from torch import nn

from bench.api import ImageSet, Recipe
from bench.identity import Rng
from bench.steps import training

RNG = Rng("test training")


RECIPE = Recipe(epochs=2, lr=0.05, batch_size=16)


def toy(count: int = 64, size: int = 8) -> ImageSet:
    """Two classes: a bright left half, a bright right half."""
    generator = RNG.torch("toy")
    images = torch.randint(0, 100, (count, 3, size, size), generator=generator, dtype=torch.uint8)
    labels = torch.arange(count) % 2
    images[labels == 0, :, :, : size // 2] += 120
    images[labels == 1, :, :, size // 2 :] += 120
    return ImageSet(images, labels)


def small_net(classes: int = 2, dropout: float = 0.0, channels: int = 4) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, channels, 3, padding=1),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(channels * 64, classes),
        )


def linear(classes: int = 2) -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, classes))


def fit(model: nn.Module, images: ImageSet, recipe: Recipe = RECIPE, **options) -> training.Trained:
    return training.train(model, images, recipe, **{"rng": RNG.child("fit"), "augment": (), **options})


class Recorder(nn.Module):
    """A network that keeps the batches which it saw in train mode."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))
        self.seen: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.seen.append(x.detach().clone())
        return x.mean((1, 2, 3))[:, None] * self.weight


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(first: nn.Module, second: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(state(first).values(), state(second).values(), strict=True))
