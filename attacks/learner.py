"""What a learner does to the training, and whether a data watermark survives it.

As tested on data watermarks: Zihang Zou, Boqing Gong, Liqiang Wang, Anti-Neuron Watermarking: Protecting Personal Data
Against Unauthorized Neural Networks, ECCV 2022, section 5.3 and figure 3. https://arxiv.org/abs/2109.09023; authors'
implementation: https://github.com/zzzucf/anti-neuron-watermarking. Most techniques have papers of their own, named on
the cards.

Each rung is a whole training of the learner's ordinary recipe with one thing changed, on the same random streams, so
that only the strength differs.

Where ours differs from the authors', and why:

* They test one strength each (cutout 8, label smoothing 0.1, noise 0.1, FGSM 0.01, output noise 0.1, colour jitter
  once); ours climb to stronger ones, which the p-value of a claim can then be followed along.
* FGSM acts on images in [0, 1]; theirs on normalised ones, clamped to [-1, 1], where 0.01 is a smaller step.
* What they call differential privacy is Gaussian noise on the logits: here `output-noise`. `dp-sgd` is the real thing.
* Colour jitter keeps one order (brightness, contrast, saturation, hue); the order matters little, and one order
  allows whole batches.
* Madry et al. train on the images of PGD alone; here an ordinary step follows each adversarial one, as with Zou et
  al.'s FGSM, so that the two attacks differ in the adversary only.
* DP-SGD starts from fresh weights in every situation, with group instead of batch normalisation, which would mix the
  images of a batch (Opacus makes the same replacement); Abadi et al. used networks without normalisation.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from math import ceil
from typing import Annotated

import torch
from torch import Tensor, nn

from attacks._colour import jitter
from bench.api import Attack, AttackCard, Claim, Context, Field, Paper, Params, Recipe, Rng, Victim, replace

_ANW = Paper(
    title="Anti-Neuron Watermarking: Protecting Personal Data Against Unauthorized Neural Networks",
    authors="Z. Zou, B. Gong, L. Wang",
    year=2022,
    link="https://arxiv.org/abs/2109.09023",
    code="https://github.com/zzzucf/anti-neuron-watermarking",
)
_CARD = AttackCard(
    name="augment-crop-flip",
    title="Ordinary training, with the data set's augmentation",
    paper=_ANW,
    stage="training",
    knowledge="the published images and their labels; nothing of the scheme",
    unit="x the ordinary recipe",
    carriers=("data", "none"),
)
_STRONGER = "strengths beyond the authors'"


class _Learner(Attack):
    """Trains once a rung; a subclass says what becomes of the recipe."""

    def apply(self, victim: Victim, context: Context) -> Iterator[Claim]:
        """Train on the published images by the changed recipe, from the same streams at each rung."""
        for strength in self.ladder:
            recipe = self._changed(context.recipe, strength, context.rng)
            yield Claim(strength, model=context.train(victim.images, recipe, name="learner"))

    @abstractmethod
    def _changed(self, recipe: Recipe, strength: float, rng: Rng) -> Recipe:
        """The recipe at one strength."""


class OrdinaryParams(Params):
    """Nothing to choose."""

    ladder: tuple[Annotated[float, Field(ge=1, le=1)], ...] = Field((1.0,), description="1: as usual")


class Ordinary(_Learner):
    """Random crops and flips, or what else is usual for the data set, even where the ordinary recipe goes without."""

    card = _CARD
    Params = OrdinaryParams

    def _changed(self, recipe: Recipe, strength: float, rng: Rng) -> Recipe:
        return replace(recipe, augment=None)


class CutoutParams(Params):
    """How much is cut out."""

    ladder: tuple[Annotated[int, Field(ge=1, le=512)], ...] = Field((8, 16), description="side of the square, pixels")


def cutout(images: Tensor, generator: torch.Generator, *, side: int, value: float = 0.5) -> Tensor:
    """Sets a square of each image to `value`; its centre is any pixel, so that it may lie partly outside.

    Args:
        images: N x C x H x W, float, on any device.
        generator: on the CPU.
        side: of the square, in pixels.
        value: put in its place; 0.5 is what networks normalise to 0.
    """
    inside = []
    for length in images.shape[2:]:
        start = torch.randint(length, (len(images), 1), generator=generator) - side // 2
        place = torch.arange(length)
        inside.append(((place >= start) & (place < start + side)).to(images.device))
    square = inside[0][:, None, :, None] & inside[1][:, None, None, :]
    return images.masked_fill(square, value)


class Cutout(_Learner):
    """A grey square at a random place of each image."""

    card = replace(
        _CARD,
        name="cutout",
        title="Cutout",
        paper=Paper(
            title="Improved Regularization of Convolutional Neural Networks with Cutout",
            authors="T. DeVries, G. W. Taylor",
            year=2017,
            link="https://arxiv.org/abs/1708.04552",
            code="https://github.com/uoguelph-mlrg/Cutout",
        ),
        unit="pixels",
        extensions=("16 pixels beside Zou et al.'s 8",),
        tiny={"ladder": [8]},
    )
    Params = CutoutParams

    def _changed(self, recipe: Recipe, strength: float, rng: Rng) -> Recipe:
        return replace(recipe, transforms=(*recipe.transforms, partial(cutout, side=int(strength))))


class SmoothingParams(Params):
    """How soft the labels are."""

    ladder: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(
        (0.1, 0.3), description="probability spread evenly over all classes"
    )


class LabelSmoothing(_Learner):
    """Labels that leave every class some probability."""

    card = replace(
        _CARD,
        name="label-smoothing",
        title="Label smoothing",
        paper=Paper(
            title="Rethinking the Inception Architecture for Computer Vision",
            authors="C. Szegedy, V. Vanhoucke, S. Ioffe, J. Shlens, Z. Wojna",
            year=2016,
            link="https://arxiv.org/abs/1512.00567",
        ),
        unit="probability",
        extensions=(_STRONGER,),
        tiny={"ladder": [0.1]},
    )
    Params = SmoothingParams

    def _changed(self, recipe: Recipe, strength: float, rng: Rng) -> Recipe:
        return replace(recipe, label_smoothing=strength)


class NoiseParams(Params):
    """How strong the noise is."""

    ladder: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(
        (0.05, 0.1, 0.2), description="standard deviation of the noise on images in [0, 1]"
    )


def gaussian_noise(images: Tensor, generator: torch.Generator, *, sd: float) -> Tensor:
    """Images in [0, 1], N x C x H x W, plus Gaussian noise of standard deviation `sd`, clamped to [0, 1]."""
    noise = torch.randn(images.shape, generator=generator).to(images.device)
    return (images + sd * noise).clamp(0, 1)


class GaussianNoise(_Learner):
    """Fresh noise on every training image."""

    card = replace(
        _CARD,
        name="gaussian-noise",
        title="Gaussian noise on training images",
        unit="standard deviation",
        extensions=("strengths around the authors' 0.1",),
        tiny={"ladder": [0.1]},
    )
    Params = NoiseParams

    def _changed(self, recipe: Recipe, strength: float, rng: Rng) -> Recipe:
        return replace(recipe, transforms=(*recipe.transforms, partial(gaussian_noise, sd=strength)))


@dataclass(frozen=True)
class Adversary:
    """Finds images within `eps` of the given ones that the network gets wrong; a `Recipe.perturb`.

    Attributes:
        eps: the largest change of a pixel value, of images in [0, 1].
        step: of each iteration.
        iterations: how many.
        start: CPU generator of a uniform start within `eps`; None starts at the image itself.
    """

    eps: float
    step: float
    iterations: int
    start: torch.Generator | None = None

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        """Steps along the sign of the loss's gradient, each projected to the eps-box and to [0, 1].

        Args:
            model: in the mode that the training has it in, as the authors attack it.
            images: N x C x H x W, float in [0, 1].
            labels: N, int64.
        """
        x = images
        if self.start is not None:
            draws = 2 * torch.rand(images.shape, generator=self.start) - 1
            x = (images + self.eps * draws.to(images.device)).clamp(0, 1)
        for _ in range(self.iterations):
            x = x.detach().requires_grad_()
            loss = nn.functional.cross_entropy(model(x), labels)
            (gradient,) = torch.autograd.grad(loss, x)
            x = x.detach() + self.step * gradient.sign()
            x = (images + (x - images).clamp(-self.eps, self.eps)).clamp(0, 1)
        return x.detach()


_Eps = Annotated[float, Field(gt=0, le=1)]


class FGSMParams(Params):
    """How far the adversary may go."""

    ladder: tuple[_Eps, ...] = Field((0.01, 0.03), description="eps, the change of each pixel value in [0, 1]")


class AdversarialFGSM(_Learner):
    """A step on adversarial images of one gradient step before every ordinary step."""

    card = replace(
        _CARD,
        name="adversarial-fgsm",
        title="Adversarial training by the fast gradient sign method",
        paper=Paper(
            title="Explaining and Harnessing Adversarial Examples",
            authors="I. J. Goodfellow, J. Shlens, C. Szegedy",
            year=2015,
            link="https://arxiv.org/abs/1412.6572",
        ),
        unit="eps",
        extensions=(_STRONGER,),
        tiny={"ladder": [0.01]},
    )
    Params = FGSMParams

    def _changed(self, recipe: Recipe, strength: float, rng: Rng) -> Recipe:
        return replace(recipe, perturb=Adversary(strength, strength, 1))


class PGDParams(Params):
    """How far the adversary may go, and in how many steps."""

    ladder: tuple[_Eps, ...] = Field((4 / 255, 8 / 255), description="eps, the change of each pixel value in [0, 1]")
    step: float = Field(0.25, gt=0, le=2, description="size of a step, as a fraction of eps")
    iterations: int = Field(7, ge=1, le=100, description="steps of the adversary for every step of the learner")


class AdversarialPGD(_Learner):
    """A step on adversarial images of projected gradient ascent before every ordinary step."""

    card = replace(
        _CARD,
        name="adversarial-pgd",
        title="Adversarial training by projected gradient descent",
        paper=Paper(
            title="Towards Deep Learning Models Resistant to Adversarial Attacks",
            authors="A. Madry, A. Makelov, L. Schmidt, D. Tsipras, A. Vladu",
            year=2018,
            link="https://arxiv.org/abs/1706.06083",
            code="https://github.com/MadryLab/cifar10_challenge",
        ),
        unit="eps",
        extensions=("not among the techniques of Zou et al.", "an ordinary step after each adversarial one"),
        tiny={"ladder": [8 / 255], "iterations": 2, "step": 0.5},
    )
    Params = PGDParams

    def _changed(self, recipe: Recipe, strength: float, rng: Rng) -> Recipe:
        step = self.params.step * strength
        return replace(recipe, perturb=Adversary(strength, step, self.params.iterations, rng.torch("start")))


class JitterParams(Params):
    """How much colours move."""

    ladder: tuple[Annotated[float, Field(gt=0, le=10)], ...] = Field(
        (0.5, 1.0, 2.0), description="times the four ranges below"
    )
    brightness: float = Field(0.1, ge=0, le=1, description="brightness factors in 1 +- this")
    contrast: float = Field(0.2, ge=0, le=1, description="contrast factors in 1 +- this")
    saturation: float = Field(0.2, ge=0, le=1, description="saturation factors in 1 +- this")
    hue: float = Field(0.2, ge=0, le=0.5, description="turns of the hue circle within +- this; 0.5 is all of it")


class ColourJitter(_Learner):
    """Random brightness, contrast, saturation and hue of each image: the hue is where ANW's mark lies."""

    card = replace(
        _CARD,
        name="colour-jitter",
        title="Colour jitter",
        unit="x the authors' ranges",
        extensions=("half and twice the authors' ranges",),
        tiny={"ladder": [1.0]},
    )
    Params = JitterParams

    def _changed(self, recipe: Recipe, strength: float, rng: Rng) -> Recipe:
        ranges = {name: strength * getattr(self.params, name) for name in ("brightness", "contrast", "saturation")}
        change = partial(jitter, **ranges, hue=strength * self.params.hue)
        return replace(recipe, transforms=(*recipe.transforms, change))


class OutputNoiseParams(Params):
    """How strong the noise is."""

    ladder: tuple[Annotated[float, Field(gt=0, le=100)], ...] = Field(
        (0.1, 0.3, 1.0), description="standard deviation of the noise on each logit"
    )


@dataclass(frozen=True)
class LogitNoise:
    """A forward hook that adds fresh noise to every answer; its `generator` is on the CPU."""

    sd: float
    generator: torch.Generator

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...], logits: Tensor) -> Tensor:
        """Logits, N x K, plus noise of standard deviation `sd`."""
        return logits + self.sd * torch.randn(logits.shape, generator=self.generator).to(logits)


class OutputNoise(Attack):
    """An ordinary network that answers with noise: the same queries in the same order get the same noise."""

    card = replace(
        _CARD,
        name="output-noise",
        title="Gaussian noise on the logits",
        unit="standard deviation",
        extensions=(_STRONGER,),
        tiny={"ladder": [0.1, 1.0]},
    )
    Params = OutputNoiseParams

    def apply(self, victim: Victim, context: Context) -> Iterator[Claim]:
        """Train once, then let copies answer with ever stronger noise of the same stream."""
        model = context.train(victim.images, context.recipe, name="learner")
        for sd in self.ladder:
            noisy = copy.deepcopy(model)
            noisy.register_forward_hook(LogitNoise(sd, context.rng.torch("noise")))
            yield Claim(sd, model=noisy)


class PrivacyParams(Params):
    """How much noise there is on the gradients, and how long each may be."""

    ladder: tuple[Annotated[float, Field(ge=0.1, le=100)], ...] = Field(
        (0.5, 1.0), description="noise multiplier: standard deviation of the noise over the clipping norm"
    )
    max_grad_norm: float = Field(1.0, gt=0, description="each image's gradient is clipped to this norm")
    delta: float = Field(1e-5, gt=0, lt=1, description="probability for which the privacy loss epsilon is not claimed")


class DPSGD(Attack):
    """Differentially private training: no image, marked or not, can move the network by much.

    Batch normalisation is replaced by group normalisation first. Each claim tells the epsilon that its training
    spent, by Renyi accounting of the Poisson-sampled Gaussian mechanism. Needs the extra `dp` (Opacus).
    """

    card = replace(
        _CARD,
        name="dp-sgd",
        title="Differentially private training",
        paper=Paper(
            title="Deep Learning with Differential Privacy",
            authors="M. Abadi, A. Chu, I. Goodfellow, H. B. McMahan, I. Mironov, K. Talwar, L. Zhang",
            year=2016,
            link="https://arxiv.org/abs/1607.00133",
        ),
        unit="noise multiplier",
        extensions=("Zou et al. tested noise on the outputs instead: `output-noise`",),
        tiny={"ladder": [1.0]},
    )
    Params = PrivacyParams

    def apply(self, victim: Victim, context: Context) -> Iterator[Claim]:
        """Train a fresh network by noisy, clipped steps of the learner's recipe."""
        for multiplier in self.ladder:
            privacy = {"noise_multiplier": multiplier, "max_grad_norm": self.params.max_grad_norm}
            recipe = replace(context.recipe, privacy=privacy)
            network = without_batch_norm(context.fresh("learner"))
            model = context.train(victim.images, recipe, model=network, name="learner")
            spent = epsilon(len(victim.images), recipe, self.params.delta)
            yield Claim(multiplier, model=model, measures={"epsilon": spent, "delta": self.params.delta})


def without_batch_norm(model: nn.Module) -> nn.Module:
    """A copy of the network in which Opacus has replaced batch by group normalisation, of up to 32 groups.

    Raises:
        ValueError: Opacus is not installed.
    """
    try:
        from opacus.validators import ModuleValidator
    except ImportError as error:
        raise ValueError('Expected Opacus to be installed for DP-SGD: pip install "watermark-bench[dp]".') from error
    fixed: nn.Module = ModuleValidator.fix(model)
    return fixed


def epsilon(images: int, recipe: Recipe, delta: float) -> float:
    """What a private training by this recipe spends, at `delta`, by Renyi differential privacy.

    Mironov, Talwar, Zhang 2019, https://arxiv.org/abs/1908.10530. An epoch has ceil(images / batch size) steps, in each
    of which an image takes part with probability one over that number.
    """
    from opacus.accountants import RDPAccountant
    from opacus.accountants.analysis import rdp

    per_epoch = ceil(images / recipe.batch_size)
    orders = RDPAccountant.DEFAULT_ALPHAS
    spent = rdp.compute_rdp(
        q=1 / per_epoch,
        noise_multiplier=(recipe.privacy or {})["noise_multiplier"],
        steps=per_epoch * recipe.epochs,
        orders=orders,
    )
    return float(rdp.get_privacy_spent(orders=orders, rdp=spent, delta=delta)[0])
