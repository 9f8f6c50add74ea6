"""Ordinary image processing of published images: geometry, JPEG, blur, noise, and filters that take noise away.

The distortions and their strengths after the list that the robustness of image watermarks is usually measured by:
Fabien A. P. Petitcolas, Ross J. Anderson, Markus G. Kuhn, Attacks on Copyright Marking Systems, Information Hiding
1998. https://doi.org/10.1007/3-540-49380-8_16; the authors' implementation (StirMark):
https://www.petitcolas.net/watermarking/stirmark/
JPEG, smoothing and noise as attacks on watermarked networks: Nils Lukas, Edward Jiang, Xinda Li, Florian Kerschbaum,
SoK: How Robust is Image Classification Deep Neural Network Watermarking?, IEEE S&P 2022.
https://arxiv.org/abs/2108.04974; authors' implementation: https://github.com/dnn-security/Watermark-Robustness-Toolbox
Median, wavelets and an auto-encoder against marks in data sets: Shuo Shao et al., DATABench: Evaluating Dataset
Auditing in Deep Learning from an Adversarial Perspective, 2025. https://arxiv.org/abs/2507.05622; authors'
implementation: https://github.com/shaoshuo-ss/DATABench

Where ours differs, and why:

* Lukas et al. process queries to a trained model; here the learner processes all images that it trains on, marked or
  not, since it cannot tell them apart.
* A cropped or shrunken image is resized back, so that the network's input keeps its size.
* StirMark's small random bends are left out: at 32 x 32 rotation and resizing already resample every pixel.
* Lukas et al. blur by standard deviations of 0.5 to 0.7, padded with zeros; ours go on to 2 and reflect at the border,
  which does not darken it.
* Shao et al. shrink all coefficients of the wavelet transform, the coarse averages too, which darkens the image; ours
  shrink the details alone, as is usual. The transform is Haar's in torch: no further library for ten lines.
* Their auto-encoder learns from images that nobody marked; so does ours (`images-autoencoder`), on the adversary's own.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import Annotated

import torch
from torch import Tensor

from attacks import _filters
from attacks._autoencoder import AutoEncoderParams, reconstructed, trained
from attacks._papers import DATABENCH
from bench.api import (
    Adversary,
    Attack,
    AttackCard,
    Attempt,
    Context,
    Field,
    Paper,
    Params,
    Victim,
    ladder_of,
    papers,
    pixels,
    replace,
)

CHUNK = 4096  # images at a time: 50 MB of 3 x 32 x 32 float32

_STIRMARK = Paper(
    title="Attacks on Copyright Marking Systems",
    authors="F. A. P. Petitcolas, R. J. Anderson, M. G. Kuhn",
    year=1998,
    link="https://doi.org/10.1007/3-540-49380-8_16",
    code="https://www.petitcolas.net/watermarking/stirmark/",
)
_BEFORE = "of the training images instead of the queries"
_CARD = AttackCard(
    name="images-crop",
    title="Published images cropped and resized back",
    paper=_STIRMARK,
    stage="data",
    adversary=Adversary(images=("the owner's",)),
    unit="% of each side",
    carriers=("data",),
    extensions=("resized back to the network's input",),
    tiny={"ladder": [10.0]},
)


class _Processing(Attack):
    """Walks the ladder; a subclass says what becomes of one batch."""

    def apply(self, victim: Victim, context: Context) -> Iterator[Attempt]:
        """Process all published images at each rung, always from the originals."""
        for strength in self.ladder:
            # The same stream at each rung: strengths differ, the draws do not.
            generator = context.rng.torch("draws")
            batches = victim.images.images.split(CHUNK)
            images = torch.cat([self._process(batch, strength, generator) for batch in batches])
            yield Attempt(strength, images=victim.images.with_images(images))

    @abstractmethod
    def _process(self, images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
        """N x C x H x W uint8 images at one strength, as uint8 of the same shape on the same device."""


class Crop(_Processing):
    """The same centre crop of all images, at least a pixel a side, resized back."""

    card = _CARD
    Params = ladder_of(
        5.0, 10.0, 20.0, 30.0, gt=0, lt=50,
        description="% of the height and the width cut away at each of the four sides",
    )  # fmt: skip

    def _process(self, images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
        from torchvision.transforms import InterpolationMode
        from torchvision.transforms.v2 import functional as F

        height, width = images.shape[2:]
        top, left = (min(max(1, round(strength / 100 * side)), side // 2 - 1) for side in (height, width))
        return F.resized_crop(
            images, top, left, height - 2 * top, width - 2 * left, [height, width], InterpolationMode.BILINEAR, True
        )


class Resize(_Processing):
    """Shrunk and enlarged again, bilinear."""

    card = replace(
        _CARD, name="images-resize", title="Published images shrunk and resized back", unit="% of each side lost"
    )
    Params = ladder_of(25.0, 50.0, 75.0, gt=0, lt=100, description="% of the height and the width lost by shrinking")

    def _process(self, images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
        from torchvision.transforms.v2 import functional as F

        size = list(images.shape[2:])
        # Not below 2: PyTorch's uint8 kernel fails an internal assertion on RGB images of a single pixel.
        small = [max(2, round((1 - strength / 100) * side)) for side in size]
        return F.resize(F.resize(images, small, antialias=True), size, antialias=True)


class Rotate(_Processing):
    """Turned by the same angle, left or right at random; corners are black."""

    card = replace(_CARD, name="images-rotate", title="Published images rotated", unit="degrees", extensions=())
    Params = ladder_of(
        5.0, 15.0, 30.0, 45.0, gt=0, le=180, description="degrees; each image turns left or right at random"
    )

    def _process(self, images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
        from torchvision.transforms import InterpolationMode
        from torchvision.transforms.v2 import functional as F

        left = (torch.rand(len(images), generator=generator) < 0.5).to(images.device)
        turned = images.clone()
        for rows, angle_deg in ((left, strength), (~left, -strength)):
            if rows.any():
                turned[rows] = F.rotate(images[rows], angle_deg, InterpolationMode.BILINEAR)
        return turned


class Flip(_Processing):
    """Mirrored left to right."""

    card = replace(
        _CARD, name="images-flip", title="Published images mirrored", unit="% of images", extensions=(), tiny={}
    )
    Params = ladder_of(100.0, gt=0, le=100, description="% of the images, at random, that are mirrored left to right")

    def _process(self, images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
        chosen = torch.rand(len(images), generator=generator) < strength / 100
        return torch.where(chosen.to(images.device)[:, None, None, None], images.flip(3), images)


class Jpeg(_Processing):
    """Compressed with loss and decoded; grey or RGB images, colour at half resolution as is the default."""

    card = replace(
        _CARD,
        name="images-jpeg",
        title="Published images compressed by JPEG",
        paper=papers.SOK,
        unit="100 - quality",
        extensions=(_BEFORE,),
        tiny={"ladder": [50.0]},
    )
    Params = ladder_of(5.0, 35.0, 55.0, gt=0, lt=100, description="100 minus the JPEG quality")

    def _process(self, images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
        quality = max(1, round(100 - strength))
        return _filters.jpeg(images, quality)


class Blur(_Processing):
    """Smoothed by a Gaussian that reaches three standard deviations."""

    card = replace(
        _CARD,
        name="images-blur",
        title="Published images smoothed by a Gaussian",
        paper=papers.SOK,
        unit="pixels (sd)",
        extensions=(_BEFORE,),
        tiny={"ladder": [1.0]},
    )
    Params = ladder_of(0.5, 0.7, 1.0, 2.0, gt=0, le=10, description="standard deviation of the Gaussian, in pixels")

    def _process(self, images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
        return _filters.gaussian(images, strength)


class Noise(_Processing):
    """Gaussian noise on every pixel and channel, drawn once per image, clipped."""

    card = replace(
        _CARD,
        name="images-noise",
        title="Published images with Gaussian noise",
        paper=papers.SOK,
        unit="of the range (sd)",
        extensions=(_BEFORE,),
        tiny={"ladder": [0.05]},
    )
    Params = ladder_of(
        0.01, 0.03, 0.05, 0.1, gt=0, le=1, description="standard deviation of the noise, in units of the range [0, 1]"
    )

    def _process(self, images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
        noise = torch.randn(images.shape, generator=generator).to(images.device)
        return _as_bytes(pixels(images).add_(strength * noise))


class Median(_Processing):
    """The median of a window around each pixel."""

    card = replace(
        _CARD,
        name="images-median",
        title="Published images smoothed by a median filter",
        paper=DATABENCH,
        unit="pixels a side",
        extensions=(),
        tiny={"ladder": [3]},
    )
    Params = _filters.WindowParams

    def _process(self, images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
        return _filters.median(images, int(strength))


class WaveletParams(Params):
    """What of an image counts as noise."""

    ladder: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(
        (0.02, 0.05, 0.1, 0.2), description="threshold, as a fraction of the image's largest coefficient"
    )
    levels: int = Field(2, ge=1, le=5, description="levels of the transform")


class Wavelet(_Processing):
    """Details of the Haar transform shrunk towards 0 by a threshold."""

    card = replace(
        _CARD,
        name="images-wavelet",
        title="Published images denoised by wavelet shrinkage",
        paper=DATABENCH,
        unit="of the largest coefficient",
        extensions=("thresholds around the authors' 0.1", "averages are not shrunk"),
        tiny={"ladder": [0.1]},
    )
    Params = WaveletParams

    def _process(self, images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
        return _as_bytes(_filters.wavelet_denoised(pixels(images), strength, self.params.levels))


class Reconstruction(Attack):
    """Replaced by what an auto-encoder of the adversary's own images makes of them."""

    card = replace(
        _CARD,
        name="images-autoencoder",
        title="Published images reconstructed by an auto-encoder",
        paper=DATABENCH,
        adversary=Adversary(images=("the owner's", "own unlabelled")),
        unit="x fewer numbers",
        extensions=("a ladder of lengths of the code: 3 is the authors'",),
        scales={
            "small": {"epochs": 40},
            "quick": {"ladder": [3.0, 12.0], "epochs": 20},
            "smoke": {"ladder": [12.0], "epochs": 10},
        },
        tiny={"ladder": [12.0], "epochs": 2},
    )
    Params = AutoEncoderParams

    def apply(self, victim: Victim, context: Context) -> Iterator[Attempt]:
        """Train an auto-encoder at each rung, and put all published images through it."""
        own, published = context.data.images.to(context.device), victim.images.images
        for factor in self.ladder:
            model = trained(own, factor, self.params.epochs, context.rng)
            parts = [_as_bytes(reconstructed(model, pixels(part.to(own.device)))) for part in published.split(CHUNK)]
            yield Attempt(factor, images=victim.images.with_images(torch.cat(parts).to(published.device)))


def _as_bytes(images: Tensor) -> Tensor:
    return images.clamp(0, 1).mul(255).round().to(torch.uint8)
