"""What a verifier may look at: as much as the card grants, every query counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from torch import Tensor, nn

from bench.contract.images import ImageSet
from bench.contract.networks import predict

__all__ = ["Access", "AccessError", "Suspect"]


Access = Literal["white-box", "scores", "labels", "data set"]


class AccessError(PermissionError):
    """A scheme asked a suspect for more than its card's access allows."""


class Suspect:
    """What a verifier may look at: as much as the card's access allows, with every query counted.

    Args:
        access: the scheme's access; asking for more raises `AccessError`.
        model: the suspect network, None if the suspect is a data set.
        images: the suspect data set, None if the suspect is a network.
        also: a further access that the card declares and the examiner grants, or None.
    """

    def __init__(
        self,
        access: Access,
        *,
        model: nn.Module | None = None,
        images: ImageSet | None = None,
        also: Access | None = None,
    ) -> None:
        self.access = access
        self.also = also
        self.queries = 0
        self._model = model.eval() if model is not None else None
        self._images = images
        self._memory: dict[str, tuple[Any, int]] = {}

    def offers(self, access: Access) -> bool:
        """May it be asked with this access? Ask first where the card only says `also`."""
        part = self._images if access == "data set" else self._model
        return part is not None and access in (self.access, self.also)

    @property
    def model(self) -> nn.Module:
        """The network itself, in eval mode (white box only)."""
        return self._need(self._model, "white-box")

    @property
    def images(self) -> ImageSet:
        """The suspect data set."""
        return self._need(self._images, "data set")

    def log_probs(self, images: Tensor) -> Tensor:
        """Log-probabilities, N x K float32, of N x C x H x W images (uint8, or float in [0, 1])."""
        return self._answers(images, "scores", "white-box")

    def labels(self, images: Tensor) -> Tensor:
        """Predicted classes, N int64."""
        return self._answers(images, "labels", "scores", "white-box").argmax(1)

    def losses(self, images: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy of each image, N float32 (needs scores)."""
        return -self.log_probs(images).gather(1, labels.to(images.device)[:, None]).squeeze(1)

    def memo(self, name: str, compute: Callable[[], Any]) -> Any:
        """Compute once per suspect: for what does not depend on the key, for instance null statistics.

        Its queries count for every claim that uses it, as if each stood alone.
        """
        if name in self._memory:
            self.queries += self._memory[name][1]
        else:
            before = self.queries
            value = compute()
            self._memory[name] = value, self.queries - before
        return self._memory[name][0]

    def _need(self, part: Any, *allowed: Access) -> Any:
        if self.access not in allowed and self.also not in allowed:
            raise AccessError(
                f"Expected a scheme with access {' or '.join(map(repr, allowed))}, but its card says {self.access!r}: "
                "declare the access that verification needs, or ask for less."
            )
        if part is None:
            raise AccessError(f"This suspect has nothing for access {self.access!r}.")
        return part

    def _answers(self, images: Tensor, *allowed: Access) -> Tensor:
        model: nn.Module = self._need(self._model, *allowed)
        self.queries += len(images)
        return predict(model, images).log_softmax(1)
