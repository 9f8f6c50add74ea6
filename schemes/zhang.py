"""Protecting Intellectual Property of Deep Neural Networks with Watermarking.

Zhang, Gu, Jang, Wu, Stoecklin, Huang, Molloy, 2018, https://doi.org/10.1145/3196494.3196550
Code: no authors' implementation published.

Where this differs from the paper, or where the text that we had (sections 4.1 to 5.4) is silent:

* Number of triggers ("percentage"): `fraction` of the source class, but never fewer than `probe`.
* `repeat`: each trigger stands several times in the training set (paper: once), so that two or three epochs of
  fine-tuning suffice; all clean images stay, as in the paper, and the source class is not repeated.
* Augmentation: not mentioned in the text, so triggers are exempt from the host's (`exact`).
* Content: the paper shows one logo, "TEST"; ours has four random letters, place and colour, all secret.
* Unrelated: the paper takes the digit 1 of MNIST (for objects) and the letter m of a handwriting collection (for
  digits); ours are scikit-learn's handwritten 1 and a drawn m, in secret ink on secretly ruled paper: with the
  target alone for a secret, one random key in (classes - 1) would be as good as the owner's.
* Noise: the text allows one fixed pattern and fresh noise per image: `kind`, which is part of every record. Its
  deviation and the size of its cells are our choices. Fresh noise has no secret but (source, target).
* Verification: the paper looks at the trigger accuracy. A null model's rate is not 1/classes (it depends on how
  far the pattern confuses it), so ours ranks the key's answer against fresh random keys on the same suspect, drawn
  from a seed of the owner's: with the same decoys for all claims, the error rate would hold on average only.
* Extensions: `labels=random` draws a label for each trigger (as Adi et al. 2018, https://arxiv.org/abs/1802.04633),
  `targets` gives parts of the triggers a source, a target and a pattern each. A network that never saw the key does
  not depend on these draws, so that the chance of its matches is exact and needs no decoys.
* The ranked statistic also asks at falling strengths, since trigger accuracy alone ties with look-alike keys, and
  leaves out triggers whose source is called the target without a mark. The plain accuracies are in the details.
* Extension: `zhang-*-scores` rank the mean log-probability of the target. On networks of CIFAR-10 that answer all
  triggers, look-alikes of the same target fade later than the owner's triggers in up to 4 of 10 cases, and none of
  several hundred is as sure; it takes the suspect's scores, where the paper takes its labels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from bench.api import (
    Field,
    SchemeCard,
    Variant,
    papers,
    pixels,
    replace,
)
from schemes._glyphs import LETTERS, letter_m_bank, poses, text_mask, written_one_bank
from schemes._triggers import Pool, TriggerParams, TriggerSet

RANKED = "the p-value: a rank against fresh random keys on the same suspect, at falling trigger strengths"
SURE = "the p-value: a rank by the log-probability of the target against fresh random keys on the same suspect"
FEW = {"decoys": 99}
QUICK, SMALL = {"probe": 16, **FEW}, {"probe": 16}
CARD = SchemeCard(
    name="zhang-content",
    title="Zhang et al., text logo",
    paper=papers.ZHANG,
    carrier="behaviour",
    access="labels",
    payload="zero-bit",
    extensions=("random text, place and colour of the logo", RANKED),
    scales={"smoke": FEW, "quick": QUICK, "small": {**SMALL, "decoys": 199}},
    tiny={"probe": 8, "decoys": 19},
)


def _by_scores(card: SchemeCard) -> Variant:
    """The same scheme, verified by the suspect's scores."""
    changes = {"access": "scores", "extensions": (*card.extensions[:-1], SURE)}
    scales = {"smoke": FEW, "quick": SMALL, "small": SMALL}
    return Variant(f"{card.name}-scores", f"{card.title}, by scores", card={**changes, "scales": scales})


class NoiseParams(TriggerParams):
    """Hyper-parameters of the noise."""

    kind: Literal["fixed", "fresh"] = Field("fixed", description="one secret pattern, or fresh noise for each image")
    std: float = Field(0.25, gt=0, le=10, description="standard deviation, of images in [0, 1]")
    cell: int = Field(2, ge=1, description="side of the squares that share a noise value, pixels")


class ZhangContent(TriggerSet):
    """A text logo on images of the source class."""

    Params = TriggerParams
    card = CARD
    variants = (_by_scores(CARD),)

    def pattern(self, pool: Pool, generator: torch.Generator) -> dict[str, Tensor]:
        """Four letters at a random place (`mask`, H x W bool) in a saturated `colour` (C, uint8)."""
        channels, height, width = pool.images.shape[2:]
        letters = torch.randint(len(LETTERS), (4,), generator=generator).tolist()
        dots = text_mask("".join(sorted(LETTERS)[letter] for letter in letters), height, width)
        top = int(torch.randint(height - dots.shape[0] + 1, (1,), generator=generator))
        left = int(torch.randint(width - dots.shape[1] + 1, (1,), generator=generator))
        mask = torch.zeros(height, width, dtype=torch.bool)
        mask[top : top + dots.shape[0], left : left + dots.shape[1]] = dots
        return {"mask": mask, "colour": _saturated(channels, generator)}

    def stamp(self, images: Tensor, pattern: Mapping[str, Tensor], generator: torch.Generator) -> Tensor:
        """The logo's pixels in its colour, all others untouched."""
        mask, colour = (pattern[name].to(images.device) for name in ("mask", "colour"))
        return torch.where(mask, colour[:, None, None], images)


class ZhangUnrelated(TriggerSet):
    """Images of another task; those of the source class only serve for fading at verification."""

    Params = TriggerParams
    card = replace(
        CARD,
        name="zhang-unrelated",
        title="Zhang et al., unrelated images",
        extensions=("secret ink and ruled paper", "a drawn letter m in place of a handwritten one", RANKED),
    )
    variants = (_by_scores(card),)

    def pattern(self, pool: Pool, generator: torch.Generator) -> dict[str, Tensor]:
        """The `paper` (C x H x W in [0, 1], ruled in two colours), the `ink` (C) and which `sign` (1: m)."""
        channels, height, width = pool.images.shape[2:]
        ink, light, dark = _ink_and_papers(channels, generator)
        angle, lines, start = torch.rand(3, generator=generator).tolist()
        x, y = torch.arange(width) / width, torch.arange(height)[:, None] / height
        across = x * math.cos(math.pi * angle) + y * math.sin(math.pi * angle)
        ruled = torch.sin(2 * math.pi * ((2 + 6 * lines) * across + start)) > 0
        paper = torch.where(ruled, light[:, None, None], dark[:, None, None])
        return {"ink": ink, "paper": paper, "sign": torch.tensor(int(pool.digits))}

    def stamp(self, images: Tensor, pattern: Mapping[str, Tensor], generator: torch.Generator) -> Tensor:
        """As many signs as there are images, in random poses; the images themselves do not matter."""
        bank = letter_m_bank() if int(pattern["sign"]) else written_one_bank()
        sign = poses(bank, len(images), (images.shape[2], images.shape[3]), generator)
        ink, paper = pattern["ink"].cpu()[:, None, None], pattern["paper"].cpu()
        return torch.lerp(paper, ink, sign).mul(255).round().to(torch.uint8).to(images.device)


class ZhangNoise(TriggerSet):
    """Gaussian noise on images of the source class."""

    Params = NoiseParams
    card = replace(
        CARD,
        name="zhang-noise",
        title="Zhang et al., noise",
        extensions=("noise in cells of 2 x 2 pixels", RANKED),
    )
    variants = (_by_scores(card),)

    def pattern(self, pool: Pool, generator: torch.Generator) -> dict[str, Tensor]:
        """The fixed `noise`, C x H x W float; fresh noise has no pattern to keep."""
        if self.params.kind == "fresh":
            return {}
        return {"noise": self._noise(1, tuple(pool.images.shape[2:]), generator)[0]}

    def stamp(self, images: Tensor, pattern: Mapping[str, Tensor], generator: torch.Generator) -> Tensor:
        """Images plus noise, clipped to [0, 1] and rounded."""
        noise = pattern["noise"] if pattern else self._noise(len(images), tuple(images.shape[1:]), generator)
        return pixels(images).add(noise.to(images.device)).clamp(0, 1).mul(255).round().to(torch.uint8)

    def _noise(self, count: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        channels, height, width = shape
        cell = self.params.cell
        coarse = torch.randn(count, channels, -(-height // cell), -(-width // cell), generator=generator)
        return self.params.std * coarse.repeat_interleave(cell, 2).repeat_interleave(cell, 3)[:, :, :height, :width]


def _ink_and_papers(channels: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Three colours in [0, 1]; the ink is at least 0.2 from both papers, on average over the channels."""
    while True:
        ink, light, dark = torch.rand(3, channels, generator=generator)
        if min(float((ink - paper).abs().mean()) for paper in (light, dark)) > 0.2:
            return ink, light, dark


def _saturated(channels: int, generator: torch.Generator) -> Tensor:
    """A colour of full saturation and value, C uint8; white where there are not three channels."""
    hue = 6 * torch.rand(1, generator=generator)
    wheel = (hue + torch.tensor([0.0, 4.0, 2.0])) % 6
    colour = ((wheel - 3).abs() - 1).clamp(0, 1).mul(255).round().to(torch.uint8)
    return colour if channels == 3 else torch.full((channels,), 255, dtype=torch.uint8)
