"""Radioactive data: images whose features move along secret directions, which a classifier then aligns with.

Radioactive data: tracing through training, Sablayrolles, Douze, Schmid, Jegou, ICML 2020,
https://arxiv.org/abs/2002.00937. Authors' implementation: https://github.com/facebookresearch/radioactive_data
As compared in Zou, Gong, Wang, Anti-Neuron Watermarking, 2022, section 5.5, https://arxiv.org/abs/2109.09023.

Where ours differs, and why:

* The marking network is the clean host. Its normalisation is the space of the steps and of the image term, as
  ImageNet's is theirs.
* Random views are the data set's own augmentation (a shift of up to an eighth, a mirrored half where a mirror image
  keeps its label); theirs are ImageNet's resized crops. The shifts are whole pixels.
* Pixels are rounded once, at the end; theirs every tenth step, which loses smaller steps, and at the end truncated,
  which darkens every image by half a level.
* Features are aligned by least squares of minimum norm in float64. With fewer probe images than features, or dead
  features, classifiers are compared within the span of what the probe shows. A carrier is drawn whatever that span
  is, so the p-value stays exact; only its power suffers.
* Fisher's combination takes the classes of which the owner has images; theirs takes all, which are all marked.

The p-values are exact, not approximate: on a network that never saw the marked images, the aligned classifiers do not
depend on the carriers, which are uniform on the sphere and independent of one another.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.api import (
    Field,
    Host,
    ImageSet,
    Key,
    Paper,
    Params,
    Rng,
    Scheme,
    SchemeCard,
    Share,
    Suspect,
    Verdict,
    cosine_p_value,
    fisher_p_value,
    pixels,
)
from schemes._users import content

BATCH = 128
RCOND = 1e-6  # features are float32: directions of the probe below this are rounding errors


class RadioactiveParams(Params):
    """Hyper-parameters; the defaults are those of the authors' instructions."""

    share: Share = Field(Share(0.01), description="the owner's part of the training set, or a number of images")
    steps: int = Field(90, ge=1, le=10_000, description="gradient steps per image")
    lr: float = Field(1.0, gt=0, le=1e6, description="length of a step, in normalised pixels a unit of gradient")
    lam_ft: float = Field(0.01, ge=0, description="weight of the distance that the features move")
    lam_img: float = Field(5e-4, ge=0, description="weight of the squared distance that the normalised pixels move")
    radius: float = Field(10.0, gt=0, le=255, description="most that a pixel may change, levels of 0 to 255")
    augment: bool = Field(True, description="mark through random views, one each step")
    probe: int = Field(512, ge=2, le=100_000, description="held-out images that align a suspect's features")


@dataclass(frozen=True)
class RadioactiveKey(Key):
    """The owner's secrets.

    Attributes:
        marked: the owner's images, N x 3 x H x W uint8, as published.
        carriers: K x d, one direction a class.
        probe, features: held-out images, and the marking network's features of them, M x d.
        classes: of which the owner has images.
        moved: mean shift of the features along the carriers.
    """

    marked: Tensor
    carriers: Tensor
    probe: Tensor
    features: Tensor
    classes: tuple[int, ...]
    moved: float


class Radioactive(Scheme[RadioactiveKey]):
    """Every image moves along the carrier of its class."""

    Params = RadioactiveParams
    key_type = RadioactiveKey
    card = SchemeCard(
        name="radioactive",
        title="Radioactive data",
        paper=Paper(
            "Radioactive data: tracing through training",
            "A. Sablayrolles, M. Douze, C. Schmid, H. Jegou",
            2020,
            "https://arxiv.org/abs/2002.00937",
            "https://github.com/facebookresearch/radioactive_data",
        ),
        carrier="data",
        access="white-box",
        payload="zero-bit",
        situations=("train",),
        keygen_trains=True,  # it trains images, which takes as long
        extensions=(
            "views by the data set's augmentation",
            "alignment of minimum norm where features outnumber images",
        ),
        scales={
            "smoke": {"share": 0.1, "steps": 10},
            "quick": {"share": 0.3, "steps": 20, "lr": 50.0, "radius": 64.0},
            "small": {"share": 0.02},
        },
        # Far stronger marks than the authors': so short a training takes up nothing of theirs.
        tiny={"share": 0.3, "steps": 20, "lr": 50.0, "radius": 128.0, "lam_img": 0.0, "lam_ft": 0.0, "probe": 128},
    )

    def keygen(self, host: Host, rng: Rng) -> RadioactiveKey:
        """Draw a carrier for each class, mark the owner's images, and note the marking network's features."""
        network: Any = host.model()
        own = host.share
        order = torch.randperm(len(host.heldout), generator=Rng("radioactive-probe", host.dataset.name).torch())
        probe = host.heldout.images[order[: self.params.probe].to(host.device)]
        features = features_of(network, probe)
        carriers = carriers_of(len(host.dataset.classes), features.shape[1], rng.torch("carriers"))
        views = host.dataset.augment if self.params.augment else ()
        directions = carriers.to(host.device)[own.labels]
        marked = mark(network, own.images, directions, self.params, views, rng.torch("views"))
        moved = ((features_of(network, marked) - features_of(network, own.images)) * directions.cpu()).sum(1)
        classes = tuple(own.labels.unique().tolist())
        return RadioactiveKey(marked, carriers, probe, features, classes, float(moved.mean())).to(host.device)

    def mark_data(self, images: ImageSet, key: RadioactiveKey) -> ImageSet:
        """The owner's images as key generation marked them.

        Raises:
            ValueError: these are not as many images as the key was made for.
        """
        marked = key.marked
        if images.images.shape != marked.shape:
            raise ValueError(
                f"Expected the owner's own images, {tuple(marked.shape)}, but got {tuple(images.images.shape)}: "
                "radioactive data are marked one by one when the key is made."
            )
        return images.with_images(marked.to(images.images.device))

    def verify(self, suspect: Suspect, key: RadioactiveKey) -> Verdict:
        """Cosines of the aligned classifiers with the carriers of the owner's classes (sections 3.3, 3.4)."""
        carriers: Any = key.carriers.cpu().double()
        name = content(key.probe, key.features)
        aligned, residual = suspect.memo(f"radioactive {name}", lambda: aligned_classifiers(suspect.model, key))
        if aligned is None or aligned.shape != carriers.shape:
            return Verdict(statistic=0.0, p_value=1.0, details={"unreadable": True})
        cosines = (F.normalize(aligned, dim=1) * carriers).sum(1)[list(key.classes)].clamp(-1, 1).tolist()
        p_values = [cosine_p_value(cosine, carriers.shape[1]) for cosine in cosines]
        return Verdict(
            statistic=sum(cosines) / len(cosines),
            p_value=fisher_p_value(p_values),
            details={
                "cosines": cosines,
                "dimension": carriers.shape[1],
                "alignment_residual": residual,
                "feature_shift": key.moved,
            },
        )


def carriers_of(classes: int, dimension: int, generator: torch.Generator) -> Tensor:
    """One random direction a class: classes x dimension float32, of length 1, not orthogonalised."""
    return F.normalize(torch.randn(classes, dimension, generator=generator, dtype=torch.float64), dim=1).float()


def mark(
    network: nn.Module,
    images: Tensor,
    directions: Tensor,
    params: RadioactiveParams,
    views: tuple[str, ...],
    generator: torch.Generator,
) -> Tensor:
    """Images whose features moved along their directions (Eq. 4), by projected gradient descent.

    Args:
        network: the marking network, in eval mode.
        images: N x C x H x W, uint8.
        directions: N x d, of length 1.
        params: steps, weights and radius.
        views: names of augmentations; none marks the images as they stand.
        generator: of the views.
    """
    batches = zip(images.split(BATCH), directions.split(BATCH), strict=True)
    return torch.cat([_mark_batch(network, batch, along, params, views, generator) for batch, along in batches])


def _mark_batch(
    network: Any, images: Tensor, along: Tensor, params: RadioactiveParams, views: tuple[str, ...], rng: torch.Generator
) -> Tensor:
    originals = pixels(images)
    with torch.no_grad():
        before = network.features(originals)
    scale = network.std
    # The steps are those of normalised pixels, whatever the network's normalisation is.
    change = torch.zeros_like(originals)
    for _ in range(params.steps):
        change.requires_grad_()
        moved = network.features(seen(originals + change * scale, views, rng)) - before
        loss = _loss(moved, along, change, params)
        (gradient,) = torch.autograd.grad(loss, change)
        stepped = (change.detach() - params.lr * gradient) * scale
        near = stepped.clamp(-params.radius / 255, params.radius / 255)
        change = ((originals + near).clamp(0, 1) - originals) / scale
    return (originals + change * scale).mul(255).round().to(torch.uint8)


def _loss(moved: Tensor, along: Tensor, change: Tensor, params: RadioactiveParams) -> Tensor:
    """Summed over images, so that each image's gradient is its own."""
    distance = torch.linalg.vector_norm(moved, dim=1)
    each = -(moved * along).sum(1) + params.lam_ft * distance + params.lam_img * change.flatten(1).square().sum(1)
    return each.sum()


def seen(images: Tensor, views: tuple[str, ...], generator: torch.Generator) -> Tensor:
    """A random view of each image, differentiable: shifted by whole pixels over a black margin, mirrored.

    Args:
        images: N x C x H x W, float.
        views: any of `crop` and `flip`.
        generator: on the CPU.
    """
    count, _, height, width = images.shape
    if "crop" in views:
        images = F.pad(images, (width // 8, width // 8, height // 8, height // 8))
    tops, lefts = (torch.randint(n, (count, 1), generator=generator) for n in _spare(images, height, width))
    rows, columns = tops + torch.arange(height), lefts + torch.arange(width)
    if "flip" in views:
        mirrored = torch.randint(2, (count, 1), generator=generator, dtype=torch.bool)
        columns = torch.where(mirrored, columns.flip(1), columns)
    rows, columns = rows.to(images.device)[:, None, :, None], columns.to(images.device)[:, None, None, :]
    channels = images.shape[1]
    picked = images.gather(2, rows.expand(count, channels, height, images.shape[3]))
    return picked.gather(3, columns.expand(count, channels, height, width))


def _spare(images: Tensor, height: int, width: int) -> tuple[int, int]:
    """How many windows of height x width fit below and beside one another."""
    return images.shape[2] - height + 1, images.shape[3] - width + 1


@torch.no_grad()
def features_of(network: Any, images: Tensor) -> Tensor:
    """What enters the head, N x d float32 on the CPU, of N x C x H x W uint8 images."""
    return torch.cat([network.features(pixels(batch)).float().cpu() for batch in images.split(BATCH)])


def aligned_classifiers(model: nn.Module, key: RadioactiveKey) -> tuple[Tensor | None, float]:
    """The suspect's classifiers in the marking network's features, K x d float64, and the relative misfit.

    A X = B in least squares, of the features A of the marking network and B of the suspect, and W' = W X^T
    (section 3.4). None if the suspect has no linear head to read, or one that is not finite.
    """
    network = _classifier(model)
    if network is None:
        return None, 0.0
    A, B = key.features.cpu().double(), features_of(network, key.probe).double()
    W = network.net.get_submodule(network.head).weight.detach().double().cpu()
    if not (W.isfinite().all() and B.isfinite().all()):
        return None, 0.0
    X = torch.linalg.lstsq(A, B, rcond=RCOND, driver="gelsd").solution
    misfit = torch.linalg.matrix_norm(A @ X - B) / torch.linalg.matrix_norm(B).clamp_min(1e-30)
    return W @ X.T, float(misfit)


def _classifier(model: nn.Module) -> Any:
    """The network that has features and a head, within whatever stands before it; None if there is none."""
    found = (part for part in model.modules() if isinstance(getattr(part, "head", None), str))
    return next((part for part in found if callable(getattr(part, "features", None))), None)
