"""How near is training to what the machine can do? Per architecture, at the widths of profile `small`."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from bench import archs
from bench.api import ImageSet, Recipe, Rng, pixels
from bench.data import augment
from bench.plan.profiles import PROFILES
from bench.steps import training
from tests.benchmarks.figures import PRODUCT_FLOPS, Figures, alternating, product, ratio, seconds_of

SMALL = PROFILES["small"]
BATCH, AUGMENT, BUDGET_S, ROUNDS = 64, ("crop", "flip"), 4.0, 5


def images(count: int) -> ImageSet:
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randint(256, (count, 3, 32, 32), dtype=torch.uint8, generator=generator)
    return ImageSet(pictures, torch.randint(10, (count,), generator=generator))


def network(arch: str) -> torch.nn.Module:
    made = archs.build(arch, 10, width=SMALL.width(arch), rng=Rng("speed"))
    return made.to(memory_format=torch.channels_last)


def bare(arch: str, batch: ImageSet) -> Callable[[int], None]:
    """Forward, loss, backward, optimizer, so many times, on one batch that stays where it is."""
    model, recipe = network(arch).train(), SMALL.recipe("host", arch)
    x = pixels(batch.images).contiguous(memory_format=torch.channels_last)
    if recipe.optimizer == "adam":
        optimizer: torch.optim.Optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.lr, foreach=True)
    else:
        optimizer = torch.optim.SGD(
            model.parameters(), lr=recipe.lr, momentum=0.9, nesterov=True, weight_decay=5e-4, foreach=True
        )

    def steps(count: int) -> None:
        for _ in range(count):
            loss = F.cross_entropy(model(x), batch.labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

    return steps


def flops_of_a_step(arch: str) -> int:
    """By PyTorch's counter, forward and backward of one batch."""
    model, batch = network(arch).train(), images(BATCH)
    with FlopCounterMode(display=False) as counter:
        F.cross_entropy(model(pixels(batch.images)), batch.labels).backward()
    return int(counter.get_total_flops())


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("arch", ["wrn", "alexnet", "vgg16", "resnet50"])
def test_the_loop_is_near_a_bare_step(arch: str, figures: Figures) -> None:
    """Epochs of the loop, with augmentation, and as many bare steps, in turns; the product of matrices between them."""
    step = bare(arch, images(BATCH))
    step(1)
    count = max(3, min(50, int(BUDGET_S / seconds_of(lambda: step(1)))))
    owner, model, multiply = images(count * BATCH), network(arch), product()
    recipe = Recipe(1, 1e-4, BATCH, SMALL.recipe("host", arch).optimizer)

    def loop() -> object:
        return training.train(model, owner, recipe, rng=Rng("speed"), augment=AUGMENT)

    loops, bares, products = alternating([loop, lambda: step(count), multiply], ROUNDS)
    images_per_s = [count * BATCH / seconds for seconds in loops]
    details = {
        "images_per_s": round(median(images_per_s), 1),
        "bare_images_per_s": round(count * BATCH / median(bares), 1),
        "batch": BATCH, "steps": count, "rounds": ROUNDS, "width": SMALL.width(arch),
    }  # fmt: skip
    near = figures.add("loop_ratio", ratio(bares, loops), case=arch, at_least=0.93, **details)
    done = flops_of_a_step(arch) * count
    peak = [PRODUCT_FLOPS / seconds for seconds in products]
    used = median(done / taken / most for taken, most in zip(loops, peak, strict=True))
    gflops = {"gflop_a_step": round(done / count / 1e9, 2), "matmul_gflops": round(median(peak) / 1e9, 1)}
    figures.add("peak_ratio", used, case=arch, **gflops)
    assert near, f"{arch}: loop {loops}, bare {bares}"


class _AsTorchvisionHasIt(torch.utils.data.Dataset):
    """Arrays that become PIL images and are transformed one by one, as torchvision's CIFAR-10 does."""

    def __init__(self, made: ImageSet) -> None:
        from torchvision import transforms

        self.arrays, self.labels = made.images.permute(0, 2, 3, 1).numpy(), made.labels.tolist()
        steps = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
        self.transform = transforms.Compose(steps)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.fromarray(np.asarray(self.arrays[index]))), self.labels[index]


def test_augmentation_is_faster_than_transforms_of_single_images(figures: Figures, all_threads: int) -> None:
    """Against the quicker of a DataLoader in this process and one with as many workers as threads."""
    owner, generator = images(6_400), torch.Generator().manual_seed(0)
    dataset = _AsTorchvisionHasIt(owner)

    def loader(workers: int) -> torch.utils.data.DataLoader:
        keep = workers > 0
        return torch.utils.data.DataLoader(dataset, BATCH, shuffle=True, num_workers=workers, persistent_workers=keep)

    def ours() -> object:
        order = torch.randperm(len(owner), generator=generator)
        return [augment(pixels(owner.images[rows]), AUGMENT, generator) for rows in order.split(BATCH)]

    loaders = [loader(0), loader(all_threads)]
    works = [ours, *((lambda each=each: [None for _ in each]) for each in loaders)]
    alternating(works, 1)  # workers start
    mine, alone, helped = alternating(works, ROUNDS)
    theirs = min(alone, helped, key=median)
    found = ratio(theirs, mine)
    rates = {name: round(len(owner) / median(taken)) for name, taken in (("ours", mine), ("loader", theirs))}
    assert figures.add("augmentation_speedup", found, at_least=1.0, images_per_s=rates)
