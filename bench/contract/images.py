"""Labelled images as tensors, and what is known of a data set without loading it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from bench.contract.fields import ContractError

__all__ = ["DatasetCard", "ImageSet", "pixels"]


@dataclass(frozen=True)
class DatasetCard:
    """What is known of a data set without loading it.

    Attributes:
        content: `digits` where digits are the task (so that a digit is no unrelated image), else `objects`.
        augment: the batch augmentations that leave a label true, by name.
    """

    name: str
    title: str
    classes: tuple[str, ...]
    content: Literal["digits", "objects"]
    augment: tuple[str, ...] = ("crop", "flip")


@dataclass(frozen=True)
class ImageSet:
    """Labelled images as tensors on one device.

    Attributes:
        images: N x C x H x W, uint8.
        labels: N, int64.
        targets: N x K, float32 soft labels in the `distill` situation; else None.
        exact: N, bool: rows that augmentation must leave as they are; None for none.
    """

    images: Tensor
    labels: Tensor
    targets: Tensor | None = None
    exact: Tensor | None = None

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.ndim != 4:
            raise ContractError(
                f"Expected images to be uint8 of N x C x H x W, but got {self.images.dtype} {tuple(self.images.shape)}."
            )
        for name in ("labels", "targets", "exact"):
            rows = getattr(self, name)
            if rows is not None and len(rows) != len(self.images):
                raise ContractError(f"Expected {len(self.images)} {name}, one an image, but got {len(rows)}.")

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: Tensor | slice) -> ImageSet:
        """The given rows (indices, mask or slice)."""
        return ImageSet(
            self.images[rows],
            self.labels[rows],
            None if self.targets is None else self.targets[rows],
            None if self.exact is None else self.exact[rows],
        )

    def to(self, device: torch.device | str) -> ImageSet:
        """The same set on `device`."""
        moved = (None if part is None else part.to(device) for part in self._parts())
        return ImageSet(*moved)  # type: ignore[arg-type]  # the first two are never None

    def with_images(self, images: Tensor) -> ImageSet:
        """The same rows with other images: what a data watermark does."""
        return replace(self, images=images)

    def extend(self, images: Tensor, labels: Tensor, *, exact: bool = False) -> ImageSet:
        """This set and further rows: what a trigger set does. Their labels count even when distilling.

        Args:
            images: M x C x H x W, uint8.
            labels: M, int64.
            exact: augmentation shall leave the new rows as they are.
        """
        images, labels = images.to(self.images.device), labels.to(self.labels.device)
        targets = None
        if self.targets is not None:
            targets = nn.functional.one_hot(labels, self.targets.shape[1]).to(self.targets.dtype)
        mask = torch.ones_like(labels, dtype=torch.bool) if exact else None
        return ImageSet.join([self, ImageSet(images, labels, targets, mask)])

    @staticmethod
    def join(parts: Sequence[ImageSet]) -> ImageSet:
        """One set of the rows of all `parts`, in order; they agree on whether they have targets."""
        targets = [part.targets for part in parts if part.targets is not None]
        masks = [torch.zeros_like(p.labels, dtype=torch.bool) if p.exact is None else p.exact for p in parts]
        return ImageSet(
            torch.cat([part.images for part in parts]),
            torch.cat([part.labels for part in parts]),
            torch.cat(targets) if targets else None,
            torch.cat(masks) if any(part.exact is not None for part in parts) else None,
        )

    def _parts(self) -> tuple[Tensor | None, ...]:
        return self.images, self.labels, self.targets, self.exact


def pixels(images: Tensor) -> Tensor:
    """uint8 images as float32 in [0, 1]; floats pass through."""
    return images.float().div_(255) if images.dtype == torch.uint8 else images
