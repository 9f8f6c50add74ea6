"""The one training loop, for every recipe, situation and device."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.contract.images import ImageSet, pixels
from bench.contract.networks import Batch, Recipe, predict
from bench.data.augmentation import augment as augmented
from bench.data.loading import Data
from bench.identity import Rng
from bench.steps import cpu as cpu  # its settings, for all that trains
from bench.steps.cuda_graph import Passes
from bench.steps.optimizer import learning_rate, optimizer_of

__all__ = [
    "Diverged",
    "Epoch",
    "Trained",
    "accuracy",
    "half",
    "predict",
    "soft_targets",
    "train",
    "train_epochs",
    "watched_by",
]

ExtraLoss = Callable[[nn.Module, Batch], Tensor | None]
_told: ContextVar[Callable[[int, int], None]] = ContextVar("told of epochs", default=lambda epoch, epochs: None)


class Diverged(RuntimeError):  # noqa: N818 - the state of a training, as reports call it
    """The loss or a weight is no longer a finite number."""


@dataclass(frozen=True)
class Epoch:
    """What happened in one epoch.

    Attributes:
        epoch: 1, 2, ...
        loss: mean task loss of the ordinary steps.
        extra_loss: mean of the added loss; None where there was none.
        accuracy: fraction of the training images classified correctly, as they were when they passed.
        seconds: wall time.
        images_per_s: images of the ordinary steps.
    """

    epoch: int
    loss: float
    extra_loss: float | None
    accuracy: float
    seconds: float
    images_per_s: float


@dataclass(frozen=True)
class Trained:
    """A network after its last epoch, in eval mode."""

    model: nn.Module
    history: list[Epoch]
    time_s: float


@contextmanager
def watched_by(tell: Callable[[int, int], None]) -> Iterator[None]:
    """In this scope `tell` hears of every epoch that ends: its number, and how many there are."""
    token = _told.set(tell)
    try:
        yield
    finally:
        _told.reset(token)


def train(model: nn.Module, images: ImageSet, recipe: Recipe, *, rng: Rng, **options: Any) -> Trained:
    """Train `model` in place for all epochs of the recipe; see `train_epochs`."""
    start = time.perf_counter()
    history = list(train_epochs(model, images, recipe, rng=rng, **options))
    return Trained(model.eval(), history, time.perf_counter() - start)


def train_epochs(
    model: nn.Module,
    images: ImageSet | Callable[[], ImageSet],
    recipe: Recipe,
    *,
    rng: Rng,
    augment: Sequence[str],
    extra_loss: ExtraLoss | None = None,
    watches: Mapping[str, str] | None = None,
    undecayed: Collection[str] = (),
    mixed_precision: bool = False,
) -> Iterator[Epoch]:
    """Train `model` in place, on the device of `images`, and yield after every epoch with the model in eval mode.

    The numbers depend on `rng` alone: the global generator, from which dropout draws, is seeded for each epoch and
    given back as it was. Frozen layers (none of whose parameters needs a gradient) stay in eval mode, so that their
    batch statistics do not move either.

    Args:
        model: float images in [0, 1] in, logits out.
        images: labels, or soft targets where it has them, are what the network shall answer; a function gives the set
            of each epoch anew, always of one size.
        recipe: with a `descent`, batches are drawn and steps are taken as that says.
        rng: the stream of the order, the augmentation and dropout.
        augment: the data set's batch augmentations; `recipe.augment` takes precedence.
        extra_loss: called with the model and the batch in every ordinary step; what it returns is added to the task
            loss.
        watches: name -> path of the submodule whose output the batch shall carry.
        undecayed: names of parameters that weight decay leaves alone.
        mixed_precision: autocast, to float16 on a GPU without bfloat16; never with a `descent`.

    Raises:
        Diverged: the loss or a weight is not finite at the end of an epoch.
        ValueError: there are fewer than two images, `undecayed` names no parameter, or the network or the recipe
            cannot be trained by the recipe's `descent`.
    """
    current = images() if callable(images) else images
    if len(current) < 2:
        raise ValueError(f"Expected at least 2 images to train on, but got {len(current)}.")
    device = current.images.device
    ordinary = recipe.descent is None
    model.to(device).to(memory_format=torch.channels_last if ordinary else torch.contiguous_format)
    rows = _usable_rows(len(current), recipe)
    steps: _Steps
    if ordinary:
        steps = _Steps(model, recipe, rows, extra_loss, watches or {}, undecayed, mixed_precision)
    else:
        steps = _DescentSteps(model, recipe, rows, extra_loss, {}, undecayed, rng.child("privacy").seed)
    names = augment if recipe.augment is None else recipe.augment
    # What is mixed are probabilities, of as many classes as the network has.
    classes = 0 if recipe.mix is None else predict(model, current.images[:1]).shape[1]
    try:
        for epoch in range(1, recipe.epochs + 1):
            start = time.perf_counter()
            current = images() if callable(images) and epoch > 1 else current
            with _seeded(rng.child("dropout", epoch), device), steps.scope():
                _train_mode(model)
                steps.prepare(current)
                rows_of_batches = steps.rows(rng, epoch)
                for batch in _batches(current, recipe, names, rng.torch("augment", epoch), rows_of_batches, classes):
                    steps.take(*batch)
            model.eval()
            loss, extra, correct, seen = steps.read_out(epoch)
            seconds = time.perf_counter() - start
            _told.get()(epoch, recipe.epochs)
            yield Epoch(epoch, loss, extra, correct / seen, seconds, seen / seconds)
    finally:
        steps.release()


def accuracy(model: nn.Module, images: ImageSet) -> float:
    """Fraction of the images that the model classifies correctly, in eval mode.

    Raises:
        ValueError: there are no images.
    """
    if len(images) == 0:
        raise ValueError("Expected at least one image to measure accuracy on, but got none.")
    return (predict(model, images.images).argmax(1) == images.labels).float().mean().item()


def accuracies(model: nn.Module, data: Data, *, all_unseen: bool = True) -> dict[str, float | None]:
    """Accuracy on the held-out images, and on all that neither owner nor adversary has, from the same answers.

    Args:
        model: in eval mode, on the device of the images.
        data: what was dealt out.
        all_unseen: ask about all unseen images.

    Returns:
        `test_accuracy` and `unseen_accuracy`; the second is None where it was not asked for, or no more are unseen.
    """
    more = all_unseen and len(data.unseen) > len(data.heldout)
    asked = data.unseen if more else data.heldout
    right = predict(model, asked.images).argmax(1) == asked.labels
    every = right.float().mean().item() if more else None
    return {"test_accuracy": right[: len(data.heldout)].float().mean().item(), "unseen_accuracy": every}


def soft_targets(model: nn.Module, images: ImageSet) -> Tensor:
    """The model's probabilities, N x K, for the images as they are: what a student is distilled from."""
    return predict(model, images.images).softmax(1)


def half(device: torch.device) -> torch.dtype:
    """The half precision of a device: float16 on a GPU without bfloat16."""
    lacking = device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.float16 if lacking else torch.bfloat16


def _usable_rows(images: int, recipe: Recipe) -> int:
    """How many images an epoch passes: a last batch below an eighth of the others is left out.

    Batch normalisation has no variance of one image, and of a few a step that can throw the whole training off.
    """
    full, rest = divmod(images, recipe.batch_size)
    return images - (rest if full and rest < recipe.batch_size / 8 and recipe.descent is None else 0)


def _batches(
    images: ImageSet,
    recipe: Recipe,
    augment: Sequence[str],
    generator: torch.Generator,
    rows: Iterable[Tensor],
    classes: int,
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Images as floats, labels, and what the network shall answer (labels or probabilities), of each batch."""
    for chosen in rows:
        batch = images[chosen.to(images.labels.device)]
        x = augmented(pixels(batch.images), augment, generator, batch.exact)
        for transform in recipe.transforms:
            x = transform(x, generator)
        targets = batch.labels if batch.targets is None else batch.targets
        if recipe.mix is not None:
            targets = F.one_hot(targets, classes).float() if batch.targets is None else targets
            x, targets = recipe.mix(x, targets, generator)
        yield x.contiguous(memory_format=torch.channels_last), batch.labels, targets


class _Steps:
    """Optimisation steps, and the sums over an epoch, which stay on the device until it ends."""

    def __init__(
        self,
        model: nn.Module,
        recipe: Recipe,
        images: int,
        extra_loss: ExtraLoss | None,
        watches: Mapping[str, str],
        undecayed: Collection[str],
        mixed_precision: bool,
    ) -> None:
        self.model, self.recipe, self.extra_loss, self.images = model, recipe, extra_loss, images
        self.per_epoch = math.ceil(images / recipe.batch_size)
        self.device = next(model.parameters()).device
        self.mixed = mixed_precision
        self.half = half(self.device)
        scaled = self.mixed and self.half == torch.float16
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=scaled)
        # On a GPU each launch counts. Where the first step may be skipped, as with float16, PyTorch's one kernel would
        # begin with a momentum that nobody has set.
        fused = self.device.type == "cuda" and not scaled
        self.optimizer = optimizer_of(model, recipe, undecayed, fused=fused)
        self.watches, self.activations = watches, dict[str, Tensor]()
        # What is watched is asked for at each step, which a graph does not do.
        self.passes = Passes(model) if self.device.type == "cuda" and not watches else None
        self.done = 0
        self._reset()

    def _reset(self) -> None:
        self.seen = 0
        self.loss, self.extra, self.correct = torch.zeros(3, device=self.device)
        self.has_extra = False

    def prepare(self, images: ImageSet) -> None:
        """Called in each epoch, in training mode: on a GPU the passes on full batches become CUDA graphs."""
        if self.passes is not None and self.images >= (size := self.recipe.batch_size):
            batch = torch.zeros(size, *images.images.shape[1:], device=self.device)
            self.passes.record(batch.contiguous(memory_format=torch.channels_last), self._recording())

    def release(self) -> None:
        """Called at the end, however it comes: what graphs hold of a GPU is given back."""
        if self.passes is not None:
            self.passes.release()

    @contextmanager
    def _recording(self) -> Iterator[None]:
        with _seeded(Rng("recording"), self.device), self._autocast(cache_enabled=False):
            yield

    def _autocast(self, **options: bool) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=self.half, enabled=self.mixed, **options)

    def rows(self, rng: Rng, epoch: int) -> Iterable[Tensor]:
        """Row numbers of each batch of an epoch: every image once, in random order."""
        order = torch.randperm(self.images, generator=rng.torch("order", epoch))
        return order.to(self.device).split(self.recipe.batch_size)

    def scope(self) -> AbstractContextManager[None]:
        """Entered for each epoch: the watched layers keep their output."""
        return self._watching()

    @contextmanager
    def _watching(self) -> Iterator[None]:
        handles = [
            self.model.get_submodule(path).register_forward_hook(partial(self._watch, name))
            for name, path in self.watches.items()
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _watch(self, name: str, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self.activations[name] = output

    def take(self, x: Tensor, labels: Tensor, targets: Tensor) -> None:
        """One batch: an adversarial step where the recipe asks for it, then the ordinary step."""
        self._begin()
        if self.recipe.perturb is not None:
            self._descend(self._task_loss(self.recipe.perturb(self.model, x, labels), targets)[0])
        loss, logits = self._task_loss(x, targets)
        extra = None
        if self.extra_loss is not None:
            extra = self.extra_loss(self.model, Batch(x, labels, logits, self.activations))
        self._descend(loss if extra is None else loss + extra)
        self._count(loss * len(x), logits, labels)
        if extra is not None:
            self.extra += extra.detach() * len(x)
            self.has_extra = True

    def _begin(self) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.recipe, self.done, self.per_epoch * self.recipe.epochs)
        self.done += 1

    def _count(self, losses: Tensor, logits: Tensor, labels: Tensor) -> None:
        self.seen += len(labels)
        self.loss += losses.detach()
        self.correct += (logits.detach().argmax(1) == labels).sum()

    def _task_loss(self, x: Tensor, targets: Tensor, reduction: str = "mean") -> tuple[Tensor, Tensor]:
        with self._autocast():
            logits = self.model(x) if self.passes is None else self.passes(x)
        smoothing, temperature = self.recipe.label_smoothing, self.recipe.temperature
        loss = F.cross_entropy(logits.float() / temperature, targets, label_smoothing=smoothing, reduction=reduction)
        return temperature**2 * loss, logits

    def _descend(self, loss: Tensor) -> None:
        # A perturbation may have left gradients behind.
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def read_out(self, epoch: int) -> tuple[float, float | None, int, int]:
        """Mean loss, mean added loss, correct and seen images of the epoch that ends; the sums begin anew."""
        weights = torch.stack([parameter.detach().norm() for parameter in self.model.parameters()]).isfinite().all()
        loss, extra, correct, finite = torch.stack([self.loss, self.extra, self.correct, weights.float()]).tolist()
        seen, has_extra = max(self.seen, 1), self.has_extra
        self._reset()
        if not (finite and math.isfinite(loss) and math.isfinite(extra)):
            raise Diverged(
                f"Expected finite losses and weights, but got a loss of {loss / seen:.4g} (added: {extra / seen:.4g}) "
                f"in epoch {epoch} of {self.recipe.epochs} at a peak learning rate of {self.recipe.lr:g}: lower it."
            )
        return loss / seen, extra / seen if has_extra else None, int(correct), seen


class _DescentSteps(_Steps):
    """Steps that a recipe's `descent` takes, on batches that it draws."""

    def __init__(
        self,
        model: nn.Module,
        recipe: Recipe,
        images: int,
        extra_loss: ExtraLoss | None,
        watches: Mapping[str, str],
        undecayed: Collection[str],
        seed: int,
    ) -> None:
        if recipe.perturb is not None or recipe.mix is not None or extra_loss is not None:
            raise ValueError(
                "Expected a recipe with a descent of its own to train without adversarial steps and without mixed "
                "images or an added loss, but got one of them: leave out `perturb` and `mix`, or embed by data."
            )
        super().__init__(model, recipe, images, None, watches, undecayed, mixed_precision=False)
        self.passes = None
        assert recipe.descent is not None, "the caller looked"
        self.descending = recipe.descent.start(model, self.optimizer, images=images, steps=self.per_epoch, seed=seed)

    def rows(self, rng: Rng, epoch: int) -> Iterable[Tensor]:
        return self.descending.rows(rng.torch("order", epoch))

    def scope(self) -> AbstractContextManager[None]:
        return self.descending.scope()

    def take(self, x: Tensor, labels: Tensor, targets: Tensor) -> None:
        """One batch, of any number of images."""

        def loss(rows: slice) -> Tensor:
            losses, logits = self._task_loss(x[rows].contiguous(), targets[rows], "sum")
            self._count(losses, logits, labels[rows])
            return losses

        self._begin()
        self.descending.step(len(x), loss)


@contextmanager
def _seeded(rng: Rng, device: torch.device) -> Iterator[None]:
    """Scope in which the global generators of the CPU and of `device` are seeded; they come back as they were."""
    if device.type == "cpu":
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(rng.seed)
            yield
        return
    with torch.random.fork_rng(devices=[device], device_type=device.type):
        torch.default_generator.manual_seed(rng.seed)
        torch.get_device_module(device).manual_seed(rng.seed)
        yield


def _train_mode(model: nn.Module) -> None:
    model.train()
    for module in model.modules():
        own = list(module.parameters(recurse=False))
        if own and not any(parameter.requires_grad for parameter in own):
            module.eval()
