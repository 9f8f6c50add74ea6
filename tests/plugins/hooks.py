"""Schemes that override the hooks which no built-in one needs: other answers, keys that change, watched layers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.api import (
    Batch,
    Host,
    ImageSet,
    Key,
    Paper,
    Rng,
    Scheme,
    SchemeCard,
    Suspect,
    Verdict,
    replace,
)

CARD = SchemeCard(
    name="test-dawn",
    title="Answers with the next class",
    paper=Paper("None", "Nobody", 2026, "https://example.org"),
    carrier="behaviour",
    access="labels",
    payload="zero-bit",
)


@dataclass(frozen=True)
class EpochKey(Key):
    """How often it was refreshed."""

    epoch: int


class Dawn(Scheme[EpochKey]):
    """The owner's answers are moved to the next class."""

    card = CARD
    key_type = EpochKey

    def keygen(self, host: Host, rng: Rng) -> EpochKey:
        return EpochKey(0)

    def mark_data(self, images: ImageSet, key: EpochKey) -> ImageSet:
        """Four triggers, as bright as the key is old."""
        return images.extend(torch.full_like(images.images[:4], 10 * key.epoch), images.labels[:4], exact=True)

    def serve(self, answers: Tensor, images: Tensor, key: EpochKey) -> Tensor:
        return answers.roll(1, 1)

    def verify(self, suspect: Suspect, key: EpochKey) -> Verdict:
        return Verdict(statistic=float(key.epoch), p_value=1.0)


class Moving(Dawn):
    """The key counts the epochs that it was embedded for."""

    card = replace(CARD, name="test-moving", title="Changes its key", refreshes=True)

    def refresh(self, key: EpochKey, model: nn.Module, epoch: int) -> EpochKey:
        assert epoch == key.epoch + 1
        return EpochKey(epoch)


class Watching(Dawn):
    """The added loss is what the head's output differs from the logits by, and 1."""

    card = replace(CARD, name="test-watching", title="Watches two layers", watches=("head", "conv2"))

    def embedding_loss(self, model: nn.Module, key: EpochKey, batch: Batch) -> Tensor:
        assert batch.activations["conv2"].ndim == 4
        assert batch.activations["conv2"].requires_grad
        assert len(batch.labels) == len(batch.images)
        return (batch.activations["head"] - batch.logits).abs().sum() + 1
