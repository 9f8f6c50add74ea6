"""Anti-Neuron Watermarking: Protecting Personal Data Against Unauthorized Neural Networks.

Zou, Gong, Wang, 2022, https://arxiv.org/abs/2109.09023
Code: https://github.com/zzzucf/anti-neuron-watermarking

Where this differs from the paper, and why:

* The colour map is T^-1 R(k) T; Eq. 5 prints T R(k) T^-1, which colours greys. The authors' code has it right.
* Signatures on the circle match by circular distance, strictly below tau: 350 and 5 degrees lie 15 apart.
* `anw-blue` adds to the blue channel, as the paper says; the authors' code adds to the green one and does not clip.
  Their 512 of 64 x 64 pixels are an eighth of an image, and so they are here whatever its size.
* `anw-user-lct`: the authors divide the random matrix by its sum, which changes nothing; matrices near singularity
  are drawn again.
* Gradient search: the authors show a run that starts at the true signature; ours starts anywhere, several times at
  once, by Adam. Its finding stands in the details: the verdict rests on the grid and needs scores only.
* The paper gives no p-value. One in eleven (how the owner's signature ranks among all) is all that one user's
  images can give; ours also asks by what factor the loss at the owner's signature falls below that without one, and
  ranks this among equally many images drawn at random from the user's and from others that nobody trained on. On a
  network that never saw the user's images all of these are alike, so the rank is exact. A factor and not a difference,
  because the loss of memorised images is small at every signature. Without one, and not at every other: whoever
  memorised the images without a mark knows them best as they are, but next best under small rotations.
* `views` (an extension) asks about each image as crop and flip show it to a learner, too, and averages the losses: the
  least one lies nearer to the signature. The grid asks about all views, gradient search about one after another.
* `groups` (an extension) splits a user's images into parts with a signature each, all drawn alike. A network that never
  saw the key does not depend on what was drawn, whatever else it was trained on, so that the p-value is the rank of
  the drawn signatures among signatures drawn anew, and needs no other images.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from bench.api import YIQ, Field, Host, Rng, SchemeCard, colour_rotations, papers, recoloured, replace
from schemes._signatures import AntiNeuron, AnwKey, AnwParams

CARD = SchemeCard(
    name="anw-hue",
    title="Anti-Neuron Watermarking, hue",
    paper=papers.ANW,
    carrier="data",
    access="scores",
    also="white-box",
    payload="multi-bit",
    situations=("train",),
    extensions=(
        "crops and mirror images are asked about, too (`views`)",
        "the p-value: an exact rank of the loss ratio among images drawn from the user's and unseen ones",
    ),
    scales={
        "smoke": {"share": 0.05, "pool": 60, "decoys": 199, "starts": 2, "steps": 10, "probe": 20},
        "quick": {"share": 0.05, "pool": 150, "decoys": 499, "starts": 2, "steps": 15, "probe": 40},
        # A user of 2 % owns 60 images, and among so few unseen ones the least loss wanders; the paper's own 500.
        "small": {"share": 0.02, "heldout": 500, "starts": 4, "steps": 32, "probe": 60, "views": 4},
    },
    tiny={"share": 0.05, "pool": 30, "decoys": 99, "starts": 1, "steps": 2, "probe": 8},
)
# Where each user has a colour space or pixels of their own, each key asks about the unseen images anew.
_OWN_POOL = {
    **CARD.scales,
    "quick": {**CARD.scales["quick"], "pool": 100},
    "small": {**CARD.scales["small"], "pool": 150, "views": 2},
}
HUES = tuple(float(degrees) for degrees in range(30, 360, 30))
INTENSITIES = (0.1, 0.3, 0.5)


class HueParams(AnwParams):
    """Hyper-parameters of the hue."""

    tau: float = Field(15.0, gt=0, le=180, description="largest error of a match, degrees (not reached)")


class BlueParams(AnwParams):
    """Hyper-parameters of the blue channel."""

    tau: float = Field(0.1, gt=0, le=1, description="largest error of a match, intensity (not reached)")
    pixels: int = Field(512, ge=1, le=4096, description="changed pixels of a 64 x 64 image; as large a part of others")


class LctParams(HueParams):
    """Hyper-parameters of users' own colour spaces."""

    determinant: float = Field(0.01, ge=0, lt=1, description="matrices whose determinant is smaller are drawn again")


class AnwHue(AntiNeuron):
    """All hues of the user's images are rotated by a secret angle."""

    card = CARD
    Params: ClassVar[type[HueParams]] = HueParams
    signatures, unit, step, span = HUES, "degrees", 10.0, (0.0, 360.0)

    def secret(self, host: Host, rng: Rng) -> dict[str, Tensor]:
        """Nothing: the colour space is everybody's."""
        return {}

    def bearing(self, images: Tensor, signatures: Tensor, key: AnwKey) -> Tensor:
        """Rotated in YIQ, or in the user's own space."""
        return recoloured(
            images, colour_rotations(YIQ if key.space is None else key.space, signatures.to(images.device))
        )

    def distance(self, a: float, b: float) -> float:
        """On the circle, degrees."""
        return abs((a - b + 180) % 360 - 180)

    def wrapped(self, signature: float) -> float:
        """0 to 360 degrees."""
        return signature % 360


class AnwUserLct(AnwHue):
    """The rotation takes place in a colour space of the user's own (section 5.4)."""

    card = replace(
        CARD, name="anw-user-lct", title="Anti-Neuron Watermarking, each user's own colour space", scales=_OWN_POOL
    )
    Params = LctParams

    def secret(self, host: Host, rng: Rng) -> dict[str, Tensor]:
        """T_u ~ U(-1, 1), 3 x 3, drawn again while it is nearly singular."""
        generator = rng.torch("space")
        while True:
            space = torch.rand(3, 3, generator=generator, dtype=torch.float64) * 2 - 1
            if abs(float(torch.linalg.det(space))) >= self.params.determinant:
                return {"space": space}


class AnwBlue(AntiNeuron):
    """The blue of secret pixels is raised or lowered by a share of their luma."""

    card = replace(CARD, name="anw-blue", title="Anti-Neuron Watermarking, blue channel", scales=_OWN_POOL)
    Params = BlueParams
    signatures, unit, step, span = INTENSITIES, "of luma", 0.05, (0.0, 0.6)

    def secret(self, host: Host, rng: Rng) -> dict[str, Tensor]:
        """H x W int8: the sign of the change at the chosen pixels, 0 elsewhere."""
        height, width = host.images.images.shape[2:]
        count = max(1, round(self.params.pixels / 4096 * height * width))
        places = torch.zeros(height * width, dtype=torch.int8)
        chosen = torch.randperm(height * width, generator=rng.torch("places"))[:count]
        places[chosen] = torch.randint(2, (count,), generator=rng.torch("signs"), dtype=torch.int8) * 2 - 1
        return {"places": places.view(height, width)}

    def bearing(self, images: Tensor, signatures: Tensor, key: AnwKey) -> Tensor:
        """Blue plus or minus signature times luma at the chosen pixels."""
        assert key.places is not None, "every key of this kind has them"
        luma = torch.tensordot(images, YIQ[0].to(images), dims=([1], [0]))
        change = signatures.to(images).view(-1, 1, 1) * key.places.to(images) * luma
        return torch.cat([images[:, :2], (images[:, 2:] + change[:, None]).clamp(0, 1)], 1)
