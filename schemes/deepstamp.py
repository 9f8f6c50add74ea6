"""DeepStamp: a network draws the visible mark anew into every image, so that a classifier can still learn from it.

Poster: On the Feasibility of Training Neural Networks with Visibly Watermarked Dataset, Sanghyun Hong, Tae-hoon Kim,
Tudor Dumitras, Jonghyun Choi, NDSS 2019, https://arxiv.org/abs/1902.10854
Authors' implementation: https://github.com/Sanghyun-Hong/DeepStamp

Where ours differs, and why:

* Networks, losses and learning rates are those of the authors' code, which are not the poster's: its numbers of
  layers and its L2 distance are others (`distance=l2`), and its task loss compares predictions, the code's uses labels.
* W learns on the owner's training images alone; theirs learns on the test images and their labels as well.
* `gradient_matching`: in their code this term has no gradient, so by default ours leaves it out. `intended` makes it
  work: the marked images stay in the graph, and F is in eval mode, since dropout differs from pass to pass.
* W is trained at `size` x `size`, a multiple of 8, which V needs; F still sees the images' own size. W has no fixed
  size and stamps images as they are.
* Values are rounded; theirs are truncated, half a grey level darker.
* `classifier`: F may be of another architecture than the network that later learns (the transfer of section IV).
* The mark and its verification are ours, as in `visible-static`: the search is for the owner's mark, not for what W
  made of it, since only that was drawn as the decoys are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.api import Field, Host, ImageSet, Rng, SchemeCard, papers, pixels
from schemes._visible import EXTENSIONS, VisibleKey, VisibleParams, VisibleScheme, layers, over, painted

__all__ = ["DeepStamp", "DeepStampParams", "discriminator", "visualiser", "watermarker"]

BATCH = 64
MOST_PIXELS = 1 << 20  # in one batch of W, which holds 16 channels of them
BETAS = (0.5, 0.999)


class DeepStampParams(VisibleParams):
    """Hyper-parameters of the training of W, V and D; the defaults are those of the released artefacts."""

    epochs: int = Field(100, ge=1, le=10_000, description="of training W")
    images: int | None = Field(None, ge=2, description="most training images of the owner to train W on; none: all")
    batch_size: int = Field(64, ge=2, le=4_096, description="while training W")
    size: int = Field(32, ge=32, le=512, multiple_of=8, description="side of images and mark while training W, pixels")
    lr_w: float = Field(0.01, gt=0, le=1, description="learning rate of W, which draws the mark")
    lr_v: float = Field(0.001, gt=0, le=1, description="learning rate of V, the auto-encoder of marks")
    lr_d: float = Field(0.01, gt=0, le=1, description="learning rate of D, which tells drawn from plain marks")
    task: float = Field(1.0, ge=0, le=1e6, description="weight of F's cross-entropy on marked images")
    similarity: float = Field(1.0, ge=0, le=1e6, description="weight of V's distance between marks")
    adversarial: float = Field(1.0, ge=0, le=1e6, description="weight of D's verdict")
    distance: Literal["l1", "l2"] = Field("l1", description="between marks: the code's l1, or the poster's l2")
    gradient_matching: Literal["off", "intended"] = Field("off", description="penalise another gradient of F's loss")
    classifier: str | None = Field(None, max_length=80, description="architecture of F; none: that of the learner")


def watermarker() -> nn.Module:
    """W: image and mark, N x 7 x H x W, to a mark for that image, N x 4 x H x W in (0, 1). 8,692 parameters."""
    widths = (7, 16, 16, 16, 16)
    blocks: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        blocks += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.Tanh()]
    return nn.Sequential(*blocks, nn.Conv2d(16, 4, 3, padding=1), nn.Sigmoid())


def discriminator() -> nn.Module:
    """D: stamped images, N x 3 x H x W of at least 32 x 32, to logits of "plainly stamped". 1,245 parameters."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 4, 2, 1), nn.LeakyReLU(0.2),
        nn.Conv2d(4, 8, 4, 2, 1), nn.BatchNorm2d(8), nn.LeakyReLU(0.2),
        nn.Conv2d(8, 1, 8),
    )  # fmt: skip


def visualiser() -> nn.Module:
    """V: an auto-encoder of marks, N x 4 x H x W of sides divisible by 8. 21,732 parameters."""
    return nn.Sequential(
        nn.Conv2d(4, 8, 4, 2, 1), nn.LeakyReLU(0.2),
        nn.Conv2d(8, 16, 4, 2, 1), nn.BatchNorm2d(16), nn.LeakyReLU(0.2),
        nn.Conv2d(16, 32, 4, 2, 1), nn.BatchNorm2d(32), nn.LeakyReLU(0.2),
        nn.ConvTranspose2d(32, 16, 4, 2, 1), nn.BatchNorm2d(16), nn.LeakyReLU(0.2),
        nn.ConvTranspose2d(16, 8, 4, 2, 1), nn.BatchNorm2d(8), nn.LeakyReLU(0.2),
        nn.ConvTranspose2d(8, 4, 4, 2, 1),
    )  # fmt: skip


@dataclass(frozen=True)
class DeepStampKey(VisibleKey):
    """And the weights of W, by name."""

    W: Mapping[str, Tensor] = field(default_factory=dict)


class DeepStamp(VisibleScheme[DeepStampKey]):
    """The mark that W synthesises from each image and the owner's mark."""

    card = SchemeCard(
        name="deepstamp",
        title="DeepStamp, synthesised mark",
        paper=papers.DEEPSTAMP,
        carrier="data",
        access="data set",
        payload="zero-bit",
        situations=("train",),
        keygen_trains=True,
        key_arch="classifier",
        also="scores",
        extensions=(*EXTENSIONS, "gradient matching that has a gradient"),
        scales={
            "smoke": {"epochs": 2, "images": 200, "decoys": 199},
            "quick": {"epochs": 4, "images": 1000, "decoys": 199},
            "small": {"epochs": 15},
        },
        tiny={
            "epochs": 2,
            "images": 256,
            "batch_size": 32,
            "decoys": 39,
            "probe": 8,
            "model_decoys": 9,
            "examined": 500,
        },
    )
    Params: ClassVar[type[VisibleParams]] = DeepStampParams
    key_type = DeepStampKey

    def keygen(self, host: Host, rng: Rng) -> DeepStampKey:
        """Draw the owner's mark, then train W on the owner's images against F (Eq. 1)."""
        key = self.draw_key(host, rng)
        images = host.share[_some(len(host.share), self.params.images, rng.torch("images")).to(host.device)]
        training = _Training(self.params, key.mark, host.model().eval(), rng)
        for name, values in training.run(images).items():
            host.note(f"loss of {name}" if name.isupper() else name, values)
        state = {name: tensor.detach() for name, tensor in training.W.state_dict().items()}
        return self.measured(DeepStampKey(**vars(key), W=state))

    @torch.no_grad()
    def synthesise(self, images: Tensor, key: DeepStampKey) -> Tensor:
        """The mark w' for each of N x 3 x H x W uint8 images: N x 4 x H x W in (0, 1), W in eval mode."""
        W, mark = _restored(key), key.mark[None]
        batch = max(1, min(BATCH, MOST_PIXELS // (images.shape[2] * images.shape[3])))
        drawn = []
        for chunk in images.split(batch):
            # Batches as large as the image's size allows, and always so: another number may sum in another order.
            full = F.pad(pixels(chunk), (0, 0, 0, 0, 0, 0, 0, batch - len(chunk)))
            drawn.append(W(torch.cat([full, mark.expand(batch, -1, -1, -1)], 1))[: len(chunk)])
        return torch.cat(drawn)

    def stamp(self, images: Tensor, key: DeepStampKey, first: int = 0) -> Tensor:
        """Blend into each image the mark that W draws for it; nothing is random. See `VisibleScheme.stamp`."""
        chunks = images.split(4 * BATCH)
        return torch.cat([painted(chunk, *layers(self.synthesise(chunk, key), key.blend)) for chunk in chunks])


class _Training:
    """W, V and D learning together; F is only asked."""

    def __init__(self, params: Any, mark: Tensor, classifier: nn.Module, rng: Rng) -> None:
        self.params, self.rng, self.classifier = params, rng, classifier
        self.mark = _fit(mark[None], (params.size, params.size))
        self.W, self.V, self.D = (
            _initialised(build, rng, mark.device) for build in (watermarker, visualiser, discriminator)
        )
        rates = ((self.W, params.lr_w), (self.V, params.lr_v), (self.D, params.lr_d))
        self.optimisers = [torch.optim.Adam(net.parameters(), lr, BETAS) for net, lr in rates]
        self.distance = F.l1_loss if params.distance == "l1" else F.mse_loss
        classifier.requires_grad_(params.gradient_matching == "intended")

    def run(self, images: ImageSet) -> dict[str, list[float]]:
        """Train for the epochs asked for: by name of a loss, its mean in each epoch; `alpha` is that of w'."""
        history: dict[str, list[float]] = {}
        for epoch in range(self.params.epochs):
            order = torch.randperm(len(images), generator=self.rng.torch("order", epoch)).to(images.images.device)
            steps = [self.step(images[rows]) for rows in order.split(self.params.batch_size) if len(rows) > 1]
            for name in steps[0]:
                history.setdefault(name, []).append(float(torch.stack([step[name] for step in steps]).mean()))
        return history

    def step(self, batch: ImageSet) -> dict[str, Tensor]:
        """One batch: V, then D, then W."""
        size, c = self.mark.shape[2:], self.params.blend
        x = _fit(pixels(batch.images), (size[0], size[1]))
        drawn = self.W(torch.cat([x, self.mark.expand(len(x), -1, -1, -1)], 1))
        plain, stamped = over(x, *layers(self.mark, c)), over(x, *layers(drawn, c))
        to_w, to_v, to_d = self.optimisers
        loss_v = self.v_loss(self.mark) + self.v_loss(drawn.detach())
        _descend(to_v, loss_v)
        loss_d = _bce(self.D(plain), 1) + _bce(self.D(stamped.detach()), 0)
        _descend(to_d, loss_d)
        task = self.task_loss(stamped, batch)
        loss_w = (
            self.params.adversarial * _bce(self.D(stamped), 1)
            + self.params.similarity * self.v_loss(drawn)
            + self.params.task * task
        )
        if self.params.gradient_matching == "intended":
            loss_w = loss_w + self.gradient_gap(x, stamped, batch)
        _descend(to_w, loss_w)
        parts = {"W": loss_w, "V": loss_v, "D": loss_d, "task": task, "alpha": drawn[:, 3].mean()}
        return {name: part.detach() for name, part in parts.items()}

    def v_loss(self, marks: Tensor) -> Tensor:
        """Distance between V's rendering of `marks` and the owner's mark."""
        rendered = self.V(marks)
        return self.distance(rendered, self.mark.expand_as(rendered))

    def task_loss(self, images: Tensor, batch: ImageSet) -> Tensor:
        """F's cross-entropy on the true labels, the images at their own size again."""
        size = batch.images.shape[2:]
        return F.cross_entropy(self.classifier(_fit(images, (size[0], size[1]))).float(), batch.labels)

    def gradient_gap(self, clean: Tensor, stamped: Tensor, batch: ImageSet) -> Tensor:
        """Euclidean distance of F's gradients on clean and on marked images, over all its parameters."""
        parameters = [parameter for parameter in self.classifier.parameters() if parameter.requires_grad]
        wanted = torch.autograd.grad(self.task_loss(clean, batch), parameters)
        found = torch.autograd.grad(self.task_loss(stamped, batch), parameters, create_graph=True)
        squares = torch.stack([(one - two).square().sum() for one, two in zip(wanted, found, strict=True)])
        return (squares.sum() + 1e-12).sqrt()


def _descend(optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
    """One step of this optimiser's own parameters; nobody else's collect gradients."""
    optimiser.zero_grad()
    loss.backward(inputs=[parameter for group in optimiser.param_groups for parameter in group["params"]])
    optimiser.step()


def _bce(logits: Tensor, truth: int) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, truth))


def _fit(images: Tensor, size: tuple[int, int]) -> Tensor:
    """The images at H x W; themselves if that is their size."""
    if tuple(images.shape[2:]) == size:
        return images
    return F.interpolate(images, size=size, mode="bilinear", antialias=True)


def _some(length: int, most: int | None, generator: torch.Generator) -> Tensor:
    """At most `most` rows of `length` at random; all in order where that is enough."""
    return torch.arange(length) if most is None else torch.randperm(length, generator=generator)[:most]


def _initialised(build: Callable[[], nn.Module], rng: Rng, device: torch.device) -> nn.Module:
    """A network with PyTorch's default weights, from a stream of its own."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rng.child("init", build.__name__).seed)
        return build().to(device)


def _restored(key: DeepStampKey) -> nn.Module:
    """W with the key's weights, in eval mode."""
    with torch.device("meta"):
        network = watermarker()
    network.load_state_dict(dict(key.W), assign=True)
    return network.requires_grad_(False).eval()
