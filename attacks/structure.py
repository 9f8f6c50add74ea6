"""Another network of the same function: channels reordered, rescaled, copied or added, layers inserted.

Function-preserving changes as attacks on white-box marks: Yifan Yan, Xudong Pan, Mi Zhang, Min Yang, Rethinking
White-Box Watermarks on Deep Learning Models under Neural Structural Obfuscation, USENIX Security 2023.
https://arxiv.org/abs/2303.09732 (no implementation by the authors found)
Network morphism: Tianqi Chen, Ian Goodfellow, Jonathon Shlens, Net2Net: Accelerating Learning via Knowledge Transfer,
ICLR 2016. https://arxiv.org/abs/1511.05641

Where ours differs, and why:

* Every change covers all channel groups of the network, whatever the architecture (residual additions and
  concatenations included), since the adversary does not know where the mark is. `permutation-filters` does, and
  permutes only the filters of that layer: a mark in the mean filter does not change, which proves nothing.
* Yan et al. add dummy neurons, and scale and shuffle them to hide them; here each is an attack of its own, and the two
  can be chained (`dummy-neurons=50+rescaling`). Their kernel expansion is left out.
* Batch normalisation keeps its answer to the last digit that float32 has: gamma takes up what eps changes.
* Net2Wider copies without noise and inserts the copies at the end, as in the paper's Algorithm 1; Net2Deeper inserts
  identity layers after a share of the ReLUs that directly follow a layer or its normalisation.
* Owners may align the network to their own before they read it: the judge reports both p-values.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from typing import Annotated, Literal

import torch
from torch import Tensor, fx, nn

from bench.api import (
    Adversary,
    Attack,
    AttackCard,
    Attempt,
    Change,
    Channels,
    Context,
    Field,
    Paper,
    Params,
    Variant,
    Victim,
    fold_norms,
    ladder_of,
    replace,
)

OBFUSCATION = Paper(
    title="Rethinking White-Box Watermarks on Deep Learning Models under Neural Structural Obfuscation",
    authors="Y. Yan, X. Pan, M. Zhang, M. Yang",
    year=2023,
    link="https://arxiv.org/abs/2303.09732",
)
NET2NET = Paper(
    title="Net2Net: Accelerating Learning via Knowledge Transfer",
    authors="T. Chen, I. Goodfellow, J. Shlens",
    year=2016,
    link="https://arxiv.org/abs/1511.05641",
)
_CARD = AttackCard(
    name="permutation",
    title="Permutation of the channels of every layer",
    paper=OBFUSCATION,
    stage="model",
    adversary=Adversary("white-box"),
    unit="% of channels",
    remedy=True,
    extensions=("as an attack of its own", "all channel groups of the network at once"),
    scales={"quick": {"ladder": [50, 100]}, "smoke": {"ladder": [100]}},
    tiny={"ladder": [100.0]},
)
Layer = nn.BatchNorm2d | nn.Conv2d | nn.Linear
Rate = Annotated[float, Field(gt=0, le=100)]
Growth = Annotated[float, Field(gt=0, le=400)]


def moved(size: int, percent: float, generator: torch.Generator) -> Tensor:
    """A permutation of `size` channels: round(percent * size), but at least two, go round in one random cycle."""
    chosen = torch.randperm(size, generator=generator)[: max(2, round(percent * size / 100))]
    take = torch.arange(size)
    take[chosen] = chosen.roll(1)
    return take


def added(size: int, percent: float) -> int:
    """How many channels are added to `size`: `percent` of them, at least one."""
    return max(1, round(percent * size / 100))


class PermutationParams(Params):
    """How many channels move, and of which layers."""

    ladder: tuple[Rate, ...] = Field((25.0, 50.0, 75.0, 100.0), description="% of the channels of a group that move")
    scope: Literal["all", "embedded"] = Field(
        "all", description="all channel groups, or the filters of the layer that carries the mark"
    )


class Permutation(Attack):
    """Channels change places: filters, their normalisation, and the weights that take them in."""

    card = _CARD
    Params = PermutationParams
    variants = (
        Variant(
            "permutation-filters",
            "Permutation of the embedded layer's filters alone",
            {"scope": "embedded"},
            {
                "adversary": Adversary("white-box", knows=("scheme", "layer")),
                "carriers": ("weights",),
                "extensions": ("a control: the mean of the filters does not change",),
            },
        ),
    )

    def apply(self, victim: Victim, context: Context) -> Iterator[Attempt]:
        """At each rung permute a fresh copy."""
        for percent in self.ladder:
            channels = Channels(victim.model())
            for group in self._groups(channels, victim):
                take = moved(channels.sizes[group], percent, context.rng.torch("order", group))
                channels.rewire(group, Change.select(take))
            yield Attempt(percent, model=channels.model)

    def _groups(self, channels: Channels, victim: Victim) -> list[int]:
        if self.params.scope == "all":
            return list(range(len(channels.sizes)))
        group = channels.made_by(victim.key.layer)
        if group is None:
            raise ValueError(f"Expected the filters of {victim.key.layer!r} to be free, but they are not.")
        return [group]


class RescalingParams(Params):
    """How far the scales spread."""

    ladder: tuple[Annotated[float, Field(gt=0, le=3)], ...] = Field(
        (0.1, 0.3, 1.0), description="r: scales are 10^u, u uniform in [-r, r]"
    )
    fold: bool = Field(False, description="first fold batch normalisation into the convolution before it")


class Rescaling(Attack):
    """Every channel is multiplied by a positive number, and what takes it in is divided by it."""

    card = replace(
        _CARD,
        name="rescaling",
        title="Rescaling of the channels of every layer",
        unit="decades of scale",
        scales={"quick": {"ladder": [0.3, 1.0]}, "smoke": {"ladder": [1.0]}},
        tiny={"ladder": [1.0]},
    )
    Params = RescalingParams
    variants = (
        Variant(
            "rescaling-folded",
            "Batch normalisation folded, then rescaling",
            {"fold": True},
            {"extensions": (*_CARD.extensions, "batch normalisation folded into the convolution before it")},
        ),
    )

    def apply(self, victim: Victim, context: Context) -> Iterator[Attempt]:
        """At each rung rescale a fresh copy; the scales of all rungs are powers of the same draws."""
        for decades in self.ladder:
            model = victim.model()
            if self.params.fold:
                fold_norms(model)
            channels = Channels(model)
            for number, slots in channels.scaled_together().items():
                size = channels.sizes[slots[0].order]
                exponents = 2 * torch.rand(size, generator=context.rng.torch("scale", number)) - 1
                channels.rescale(slots, 10 ** (decades * exponents))
            yield Attempt(decades, model=model)


class Net2Wider(Attack):
    """Random channels of every layer are copied, and their outgoing weights divided by the number of copies."""

    card = replace(
        _CARD,
        name="net2wider",
        title="Net2Wider: copied channels in every layer",
        paper=NET2NET,
        unit="% more channels",
        extensions=("as an attack",),
        scales={"quick": {"ladder": [10, 50]}, "smoke": {"ladder": [50]}},
        tiny={"ladder": [50.0]},
    )
    Params = ladder_of(10.0, 25.0, 50.0, gt=0, le=400, description="channels that are added, in % of a layer's")

    def apply(self, victim: Victim, context: Context) -> Iterator[Attempt]:
        """At each rung widen a fresh copy by the map g of Algorithm 1: the identity, then random channels."""
        for percent in self.ladder:
            channels = Channels(victim.model())
            for group, size in enumerate(channels.sizes):
                more = (added(size, percent),)
                chosen = torch.randint(size, more, generator=context.rng.torch("copies", group))
                channels.rewire(group, Change.copies(torch.cat([torch.arange(size), chosen])))
            yield Attempt(percent, model=channels.model, measures=parameters(channels.model))


class DummyParams(Params):
    """How many dummy neurons, and of which kind."""

    ladder: tuple[Growth, ...] = Field((10.0, 25.0, 50.0), description="channels that are added, in % of a layer's")
    kind: Literal["clique", "split"] = Field(
        "clique", description="groups of new neurons that cancel, or neurons split into several"
    )
    together: int = Field(2, ge=2, le=64, description="neurons of equal incoming weights: of a clique, or of a split")


class DummyNeurons(Attack):
    """New channels whose contributions cancel (NeuronClique), or the parts of split ones (NeuronSplit)."""

    card = replace(
        _CARD,
        name="dummy-neurons",
        title="Dummy neurons that cancel (NeuronClique)",
        unit="% more channels",
        extensions=("statistics of a dummy's batch normalisation are the layer's mean ones",),
        scales={"quick": {"ladder": [10, 50]}, "smoke": {"ladder": [50]}},
        tiny={"ladder": [50.0]},
    )
    Params = DummyParams
    variants = (
        Variant(
            "dummy-neurons-split",
            "Neurons split into several of equal incoming weights (NeuronSplit)",
            {"kind": "split"},
            {"extensions": ()},
        ),
    )

    def apply(self, victim: Victim, context: Context) -> Iterator[Attempt]:
        """At each rung add dummies to a fresh copy, at random places."""
        for percent in self.ladder:
            channels = Channels(victim.model())
            for group in range(len(channels.sizes)):
                self._grow(channels, group, percent, context.rng.torch("dummies", group))
            yield Attempt(percent, model=channels.model, measures=parameters(channels.model))

    def _grow(self, channels: Channels, group: int, percent: float, generator: torch.Generator) -> None:
        size, together = channels.sizes[group], self.params.together
        clique = self.params.kind == "clique"
        new = together if clique else together - 1  # channels that one set of equals adds
        count = -(-added(size, percent) // new)
        source = torch.randperm(size, generator=generator).repeat(-(-count // size))[:count]
        if not clique:
            source = source[:size]  # no neuron is split twice
        take = torch.cat([torch.arange(size), source.repeat_interleave(new)])
        channels.rewire(group, Change(take, torch.arange(size), torch.arange(size), torch.ones(size)))
        equals = torch.arange(size, len(take)).view(-1, new)
        if clique:
            fresh_incoming(channels, group, equals, generator)
        else:
            equals = torch.cat([source[:, None], equals], 1)
        cancelling(channels, group, equals, generator)
        channels.rewire(group, Change.select(torch.randperm(len(take), generator=generator)))


@torch.no_grad()
def fresh_incoming(channels: Channels, group: int, equals: Tensor, generator: torch.Generator) -> None:
    """Give each row of `equals` (sets x channels) incoming weights of its own, alike within the set.

    Weights are normal with the layer's standard deviation; statistics of batch normalisation are the layer's means.
    """
    for slot in channels.of(group):
        piece = channels.piece(slot)
        if slot.role == "norm":
            piece[equals] = piece.mean()
        elif slot.role == "producer" and piece.ndim > 1:
            drawn = torch.randn(len(equals), 1, *piece.shape[1:], generator=generator)
            piece[equals] = drawn.to(piece).expand(-1, equals.shape[1], *piece.shape[1:]) * piece.std()


@torch.no_grad()
def cancelling(channels: Channels, group: int, equals: Tensor, generator: torch.Generator) -> None:
    """Add random outgoing weights to each row of `equals` (sets x channels) that sum to zero over the set."""
    for slot in channels.of(group):
        if slot.role == "consumer":
            blocks = channels.piece(slot).unflatten(slot.dim, (-1, slot.repeat)).movedim(slot.dim, 0)
            drawn = torch.randn(*equals.shape, *blocks.shape[1:], generator=generator).to(blocks)
            blocks[equals] += (drawn - drawn.mean(1, keepdim=True)) * blocks.std()


def parameters(model: nn.Module) -> dict[str, float]:
    """The cost of a larger network: its parameters."""
    return {"parameters": float(sum(p.numel() for p in model.parameters()))}


class DeeperParams(Params):
    """How many layers are inserted, and of what size."""

    ladder: tuple[Rate, ...] = Field((25.0, 50.0, 100.0), description="% of the ReLUs that get an identity layer")
    kernel: Literal[1, 3] = Field(3, description="side of the inserted convolutions' filters")


class Net2Deeper(Attack):
    """Identity layers with a ReLU of their own are inserted after ReLUs, whose answers they leave as they are."""

    card = replace(
        _CARD,
        name="net2deeper",
        title="Net2Deeper: inserted identity layers",
        paper=NET2NET,
        unit="% of ReLUs",
        remedy=False,
        extensions=("as an attack",),
        scales={"quick": {"ladder": [50, 100], "kernel": 1}, "smoke": {"ladder": [100], "kernel": 1}},
        tiny={"ladder": [100.0], "kernel": 1},
    )
    Params = DeeperParams

    def apply(self, victim: Victim, context: Context) -> Iterator[Attempt]:
        """At each rung insert layers into a fresh copy; a higher rung keeps the places of the lower ones."""
        for percent in self.ladder:
            model = victim.model()
            found = sites(model)
            order = torch.randperm(len(found), generator=context.rng.torch("places")).tolist()
            for i in order[: max(1, round(percent * len(found) / 100))]:
                path, layer = found[i]
                insert(model, path, identity(layer, self.params.kernel))
            yield Attempt(percent, model=model, measures=parameters(model))


def sites(model: nn.Module) -> list[tuple[str, Layer]]:
    """Where an identity layer can be inserted: (path of the module to extend, layer that sets the channels).

    That module is a ReLU that is called once, or else the batch normalisation before it.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    nodes = [node for node in fx.Tracer().trace(model).nodes if node.op == "call_module"]
    calls = [id(modules[str(node.target)]) for node in nodes]
    found = []
    for node in nodes:
        before = node.args[0]
        if not isinstance(modules[str(node.target)], nn.ReLU) or before not in nodes:
            continue
        paths = [str(node.target), str(before.target)]
        layer = modules[paths[1]]
        once = [path for path in paths if calls.count(id(modules[path])) == 1]
        if once and (isinstance(layer, nn.BatchNorm2d) or (isinstance(layer, nn.Conv2d | nn.Linear) and once == paths)):
            found.append((once[0], layer))
    return found


@torch.no_grad()
def identity(layer: Layer, kernel: int) -> nn.Module:
    """A layer that answers its input, of the channels and the kind of `layer`'s output."""
    new: nn.Conv2d | nn.Linear
    if isinstance(layer, nn.Linear):
        size = layer.out_features
        new = nn.utils.skip_init(nn.Linear, size, size)
        nn.init.eye_(new.weight)
    else:
        size = layer.num_features if isinstance(layer, nn.BatchNorm2d) else layer.out_channels
        new = nn.utils.skip_init(nn.Conv2d, size, size, kernel, padding=kernel // 2)
        nn.init.dirac_(new.weight)
    if new.bias is not None:
        nn.init.zeros_(new.bias)
    return new


def insert(model: nn.Module, path: str, layer: nn.Module) -> None:
    """Put `layer` after the module of this path; a ReLU on either side of it."""
    parent, _, leaf = path.rpartition(".")
    module = model.get_submodule(path)
    parts = [module, layer, deepcopy(module)] if isinstance(module, nn.ReLU) else [module, nn.ReLU(), layer]
    setattr(model.get_submodule(parent), leaf, nn.Sequential(*parts).to(next(model.parameters()).device).eval())
