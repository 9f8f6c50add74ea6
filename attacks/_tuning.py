"""Further trainings of the marked network on the adversary's images: parameters, labels, ladders, parts held still."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from attacks._weights import clear
from bench.api import Adversary, Context, Field, ImageSet, Params, Recipe, Victim, last_linear, replace

__all__ = ["StepParams", "TuningParams", "held_at_zero", "own_images", "reset_head", "short", "tune", "visited"]


class StepParams(Params):
    """How the adversary's steps are taken, by SGD."""

    lr: float = Field(0.001, gt=0, le=1, description="learning rate")
    batch_size: int = Field(64, ge=2, le=4096, description="images a step")


class TuningParams(StepParams):
    """A fine-tuning that ends an attack."""

    epochs: int = Field(5, ge=0, le=1000, description="epochs of fine-tuning; 0 for none")
    schedule: Literal["constant", "cosine"] = Field(
        "constant", description="learning rate of the fine-tuning: constant, or along half a cosine to 0"
    )


def short(context: Context, params: StepParams, epochs: int) -> Recipe:
    """The learner's recipe with the adversary's steps, at a constant learning rate, and so many epochs."""
    return replace(
        context.recipe,
        epochs=epochs,
        lr=params.lr,
        batch_size=params.batch_size,
        optimizer="sgd",
        momentum=0.9,
        schedule="constant",
        warmup=0.0,
    )


def own_images(adversary: Adversary, victim: Victim, context: Context) -> ImageSet:
    """The adversary's own images; where it has no labels, with those that the victim's network predicts.

    Raises:
        AccessError: the adversary has no images of its own, or is not white-box.
    """
    images = context.data.to(context.device)
    if "own" in adversary.images:
        return images
    return ImageSet(images.images, context.predict(victim.model(), images.images).argmax(1))


def tune(
    context: Context, model: nn.Module, images: ImageSet, params: TuningParams, name: str, **changes: Any
) -> nn.Module:
    """`model` after the fine-tuning that `params` describe, in eval mode; as it is where that has no epochs.

    Args:
        context: trains.
        model: trained in place, all of it.
        images: with the labels to learn.
        params: epochs, learning rate, batch size.
        name: of the training's random stream.
        changes: further fields of the recipe.
    """
    if not params.epochs:
        return model.eval()
    recipe = replace(short(context, params, params.epochs), schedule=params.schedule, **changes)
    return context.train(images, recipe, model=model.requires_grad_(), name=name)


def visited(networks: Iterator[nn.Module], rungs: Sequence[tuple[float, int]]) -> Iterator[tuple[float, nn.Module]]:
    """One training's network at each rung of a ladder.

    Args:
        networks: the network after each epoch.
        rungs: strength and number of epochs, neither decreasing; none of 0 epochs.
    """
    done = 0
    for strength, epoch in rungs:
        while done < epoch:
            model = next(networks)
            done += 1
        yield strength, model


def reset_head(model: nn.Module, generator: torch.Generator, classes: int | None = None) -> nn.Linear:
    """Replace the last linear layer by an untrained one, uniform within 1/sqrt(inputs), and return it.

    Args:
        model: changed in place.
        generator: on the CPU.
        classes: outputs of the new layer; as many as before by default.

    Raises:
        ValueError: there is none.
    """
    path = last_linear(model)
    old: Any = model.get_submodule(path)
    new = nn.utils.skip_init(nn.Linear, old.in_features, classes or old.out_features)
    with torch.no_grad():
        for parameter in new.parameters():
            parameter.copy_((2 * torch.rand(parameter.shape, generator=generator) - 1) * old.in_features**-0.5)
    model.set_submodule(path, new.to(old.weight))
    return new


@contextmanager
def held_at_zero(model: nn.Module, masks: Mapping[str, Tensor]) -> Iterator[None]:
    """Scope in which parameters stay zero where their mask is true, however the network is trained.

    Args:
        model: what the masks name is set to zero at once, too, and all of the network becomes trainable.
        masks: parameter name -> bool, of its shape.
    """
    clear(model.requires_grad_(), masks)
    # No gradient and, at zero, no weight decay: steps leave them as they are.
    handles = [model.get_parameter(name).register_hook(partial(_cleared, mask)) for name, mask in masks.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        clear(model, masks)


def _cleared(mask: Tensor, gradient: Tensor) -> Tensor:
    return gradient.masked_fill(mask, 0.0)
