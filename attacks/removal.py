"""Visible watermark removal: the mark that a whole collection shares is estimated from the collection, and undone.

Tali Dekel, Michael Rubinstein, Ce Liu, William T. Freeman, On the Effectiveness of Visible Watermarks, CVPR 2017.
https://openaccess.thecvf.com/content_cvpr_2017/html/Dekel_On_the_Effectiveness_CVPR_2017_paper.html (no implementation
by the authors; one by others: https://github.com/rohitrango/automatic-watermark-detection)

Where ours differs, and why:

* The strength is the size of the collection that the mark is estimated from: that it gives the mark away is the
  paper's argument. All published images are cleaned at every strength.
* No detection in each image (section 3.1): the images share one size and the mark one place. A mark that is moved or
  changed from image to image is estimated as if it were not, which is the defence that the paper proposes.
* The gradients' median (Eq. 3 and 4, with Poisson reconstruction) finds where the mark is. Its opacity starts from
  moments, var J = (1 - a)^2 var I and mean J = a W + (1 - a) mean I, instead of from the matting of single images: at
  32 x 32 nothing but the collection tells a mark from its scene. Moments of the unmarked I come from the mirrored or
  the neighbouring unmarked pixels.
* The refinement (section 3.2) takes the robust norm of each channel and direction by itself, and reweighted least
  squares by conjugate gradients; its fidelity term follows the matte of the moments, not the gradients' median, which
  is biased by the opacity times the mean scene. The weights are those of the implementation above.
* `removal-median` and `removal-inpainting` are baselines of ours; `removal-matting-clean` is ours, too: its adversary
  takes the moments of unmarked images from its own ones, and so can undo a mark that touches every pixel.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from attacks import _matting
from attacks._matting import Mark
from bench.api import (
    Adversary,
    Attack,
    AttackCard,
    Attempt,
    Context,
    Field,
    Params,
    Victim,
    papers,
    pixels,
    replace,
)

Percent = Annotated[float, Field(gt=0, le=100)]
Cleaner = Callable[[Tensor], Tensor]
CHUNK = 4096  # images at a time: 50 MB of 3 x 32 x 32 float32

_ONE_PLACE = "one place and size for all images, no detection"
_CARD = AttackCard(
    name="removal-matting",
    title="Visible mark removed by multi-image matting",
    paper=papers.DEKEL,
    stage="data",
    adversary=Adversary(images=("the owner's",)),
    unit="% of the collection",
    carriers=("data",),
    schemes=("visible-*", "deepstamp"),
    scales={"quick": {"ladder": [100.0]}, "smoke": {"ladder": [100.0]}},
    extensions=(_ONE_PLACE, "opacity starts from moments over the collection"),
    tiny={"ladder": [100.0], "rounds": 1, "refined": 10},
)


class RegionParams(Params):
    """What counts as the mark's region."""

    threshold: float = Field(
        0.2, gt=0, lt=1, description="least relief of the reconstructed mark that counts, as a share of the highest"
    )


class CollectionParams(RegionParams):
    """How many images the mark is estimated from."""

    ladder: tuple[Percent, ...] = Field(
        (1.0, 10.0, 100.0), description="% of the published images, at random, that the mark is estimated from"
    )


class MattingParams(CollectionParams):
    """And how the estimate is refined."""

    rounds: int = Field(2, ge=1, le=20, description="alternations between scenes, the mark and its opacity")
    refined: int = Field(50, ge=2, le=1000, description="images that the refinement looks at")
    blend: float = Field(0.9, gt=0, lt=0.99, description="opacity above which neighbours are blended in")


class InpaintingParams(RegionParams):
    """How far around the mark."""

    ladder: tuple[Annotated[int, Field(ge=1, le=16)], ...] = Field(
        (1, 2, 3), description="pixels by which the mark's region is widened before it is filled"
    )


class _Removal(Attack):
    """Walks the ladder; a subclass says how an image is cleaned."""

    def apply(self, victim: Victim, context: Context) -> Iterator[Attempt]:
        """Estimate at each rung, then clean all published images."""
        images = victim.images.images.to(context.device)
        order = torch.randperm(len(images), generator=context.rng.torch("collection")).to(images.device)
        for strength in self.ladder:
            count = self._count(strength, len(images))
            clean = self._cleaner(images[order[:count]], strength, context)
            batches = (clean(pixels(batch)).clamp_(0, 1) for batch in images.split(CHUNK))
            cleaned = torch.cat([batch.mul_(255).round_().to(torch.uint8) for batch in batches])
            claimed = victim.images.with_images(cleaned.to(victim.images.images.device))
            yield Attempt(strength, images=claimed, measures={"estimated_from_images": count})

    def _count(self, strength: float, total: int) -> int:
        """How many images the mark is estimated from."""
        return min(total, max(2, round(strength / 100 * total)))

    @abstractmethod
    def _cleaner(self, collection: Tensor, strength: float, context: Context) -> Cleaner:
        """From N x C x H x W uint8 images to what cleans M x C x H x W float images in [0, 1]."""


class Median(_Removal):
    """The median image minus its background, subtracted: blind to what the mark has taken from the scene."""

    card = replace(
        _CARD,
        name="removal-median",
        title="Visible mark removed by subtracting the median",
        extensions=(_ONE_PLACE, "a baseline of ours"),
        tiny={"ladder": [100.0]},
    )
    Params = CollectionParams

    def _cleaner(self, collection: Tensor, strength: float, context: Context) -> Cleaner:
        region = _matting.find_region(collection, self.params.threshold)
        typical = _matting.median(collection, lambda levels: levels)
        layer = typical - _matting.harmonic_fill(typical[None], region)[0]
        return lambda images: images - layer


class Matting(_Removal):
    """The mark and its opacity, estimated jointly with the scenes, and the blending inverted."""

    card = _CARD
    Params: ClassVar[type[MattingParams]] = MattingParams

    def _cleaner(self, collection: Tensor, strength: float, context: Context) -> Cleaner:
        start = self._start(collection, context)
        mark = _matting.refine(collection[: self.params.refined], start, self.params.rounds)
        return lambda images: self._unblend(images, mark)

    def _start(self, collection: Tensor, context: Context) -> Mark:
        region = _matting.find_region(collection, self.params.threshold)
        return _matting.from_moments(collection, region)

    def _unblend(self, images: Tensor, mark: Mark) -> Tensor:
        """Subtract the mark; where it is near opaque, rounding has destroyed the scene and the neighbours count."""
        scenes = _matting.subtract(images, mark)
        share = ((mark.opacity - self.params.blend) / (1 - self.params.blend)).clamp(0, 1)
        return scenes.lerp(_matting.harmonic_fill(scenes, share > 0), share.expand_as(scenes))


class MattingClean(Matting):
    """Multi-image matting by an adversary who has unmarked images of the same kind."""

    card = replace(
        _CARD,
        name="removal-matting-clean",
        title="Visible mark removed by multi-image matting, with clean images at hand",
        adversary=Adversary(images=("the owner's", "own")),
        extensions=(_ONE_PLACE, "opacity starts from moments over the collection and over clean images"),
    )

    def _start(self, collection: Tensor, context: Context) -> Mark:
        everywhere = torch.ones(collection.shape[2:], dtype=torch.bool, device=collection.device)
        return _matting.from_moments(collection, everywhere, context.data.images.to(collection.device))


class Inpainting(_Removal):
    """The mark's region filled from its border by Laplace's equation: needs no opacity, keeps nothing of the scene."""

    card = replace(
        _CARD,
        name="removal-inpainting",
        title="Visible mark filled in from its surroundings",
        unit="pixels",
        scales={"quick": {"ladder": [2]}, "smoke": {"ladder": [2]}},
        extensions=(_ONE_PLACE, "a baseline of ours"),
        tiny={"ladder": [1]},
    )
    Params = InpaintingParams

    def _count(self, strength: float, total: int) -> int:
        return total

    def _cleaner(self, collection: Tensor, strength: float, context: Context) -> Cleaner:
        region = _matting.find_region(collection, self.params.threshold, margin=int(strength))
        return lambda images: _matting.harmonic_fill(images, region)
