"""A user's images, compared with images that nobody trained on.

Anti-Neuron Watermarking, membership inference and memorisation all ask whether a network treats a user's images
unlike unseen ones. To a network that never saw the user's, every set drawn from both is like the user's own, so the
rank of the user's among such sets is an exact p-value.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import torch
from torch import Tensor

from bench.api import Host, ImageSet, Rng, rank_p_value

__all__ = ["ROUNDING", "contained", "content", "finite", "permutation_p_value", "split_heldout", "subset_means"]

LARGEST = 1e6  # stands for a loss that is not finite
ROUNDING = 1e-9  # sums of the same numbers in another order are a tie
CHUNK = 256  # random subsets at a time: bounds the memory of the rank test


def contained(images: ImageSet, among: ImageSet) -> Tensor:
    """Which rows of `images` show the same pixels as a row of `among`: N bool, on the device of `images`."""
    known = {row.tobytes() for row in among.images.cpu().numpy()}
    same = [row.tobytes() in known for row in images.images.cpu().numpy()]
    return torch.tensor(same, dtype=torch.bool, device=images.labels.device)


def content(*tensors: Tensor) -> str:
    """A digest of tensors, for what a suspect is asked once for all keys that would ask the same."""
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(str((tensor.dtype, tuple(tensor.shape))).encode())
        found.update(tensor.contiguous().cpu().numpy().tobytes())
    return found.hexdigest()


def finite(losses: Tensor) -> Tensor:
    """The losses as float64 on the CPU; what is not finite is `LARGEST`, as far from a member's as can be."""
    return losses.double().cpu().nan_to_num(LARGEST, LARGEST, LARGEST).clamp(max=LARGEST)


def split_heldout(host: Host, stream: str, pool: int, rest: int = 0) -> tuple[ImageSet, ImageSet]:
    """Two disjoint parts of the held-out images, the same for all users: of `pool` images, and all others.

    Where there are too few for `pool` and `rest` images, each part gets at least its half or what it asked for.
    """
    order = torch.randperm(len(host.heldout), generator=Rng(stream, host.dataset.name).torch())
    size = min(pool, max(len(order) - rest, len(order) // 2))
    rows = order.to(host.heldout.labels.device)
    return host.heldout[rows[:size]], host.heldout[rows[size:]]


def subset_means(values: Tensor, size: int, count: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Means over `count` random sets of `size` columns of `values` (R x N, on the CPU): blocks of R x sets."""
    for block in torch.arange(count).split(CHUNK):
        rows = torch.rand(len(block), values.shape[1], generator=generator).topk(size).indices
        yield values[:, rows].mean(2)


def permutation_p_value(own: Tensor, others: Tensor, decoys: int, generator: torch.Generator) -> float:
    """Chance that as many values, drawn at random from `own` and `others` together, have a mean as large.

    Exact where the values are exchangeable: the rank counts ties against the claim. Both are vectors.
    """
    everything = torch.cat([own, others]).double().cpu()[None]
    means = torch.cat(list(subset_means(everything, len(own), decoys, generator)), 1)
    rounding = ROUNDING * everything.abs().amax()
    return rank_p_value(float(everything[0, : len(own)].mean() - rounding), means[0].tolist())
