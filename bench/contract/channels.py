"""Channel groups of a network: which channels can be reordered, copied or scaled together at no change of function.

The network is traced symbolically (torch.fx). Every layer that makes channels opens a *space*; additions tie the
spaces of both sides, concatenations put spaces side by side, and batch normalisation keeps the order of the channels
but not their scale. A channel of a group is a slice of several tensors: of those that make it (weights and biases of
convolutions and linear layers, gamma and beta), of the statistics of a normalisation that it passes, and of the
weights that take it in. The channels of images and the logits are left out, and so is everything that meets an
operation which is not known here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

__all__ = ["Change", "Channels", "Slot", "fold_norms"]

Role = Literal["producer", "norm", "consumer"]
_Norms = nn.BatchNorm1d | nn.BatchNorm2d
# f(s x) = s f(x) for all s > 0, channel by channel.
_HOMOGENEOUS = (
    nn.Identity, nn.Dropout, nn.Dropout2d, nn.ReLU, nn.LeakyReLU, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool2d,
)  # fmt: skip
_ELEMENTWISE = (nn.ReLU6, nn.SiLU, nn.GELU, nn.Tanh, nn.Sigmoid, nn.Hardswish, nn.ELU)
_FUNCTIONS = {"relu", "leaky_relu", "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "dropout", "contiguous"}


@dataclass(frozen=True)
class Slot:
    """Where the channels of one group lie in one tensor.

    Attributes:
        tensor: its name in the state dict.
        dim: the axis.
        place: number of the piece of that axis, among those of other groups.
        repeat: entries a channel: pixels, where a linear layer takes flattened maps.
        role: does the tensor make the channel, normalise it, or take it in?
        order: number of the group that is reordered together.
        scale: number of the group that is scaled together; None where a scale would change the function.
    """

    tensor: str
    dim: int
    place: int
    repeat: int
    role: Role
    order: int
    scale: int | None


@dataclass(frozen=True)
class Change:
    """New channels made of a group's old ones.

    Attributes:
        take: which old channel each new one copies; -1 for a channel of zeros.
        into, source, factor: the outgoing weights of old channel `source[i]`, times `factor[i]`, are added to those
            of new channel `into[i]`.
    """

    take: Tensor
    into: Tensor
    source: Tensor
    factor: Tensor

    @classmethod
    def select(cls, take: Tensor) -> Change:
        """Each new channel is the old one `take[i]` with its outgoing weights."""
        into = torch.nonzero(take >= 0).flatten()
        return cls(take, into, take[into], torch.ones(len(into)))

    @classmethod
    def copies(cls, take: Tensor) -> Change:
        """Each new channel copies an old one; outgoing weights are divided by the number of copies (Net2Net, Eq. 1)."""
        return cls(take, torch.arange(len(take)), take, 1 / take.bincount()[take].float())

    @classmethod
    def fold(cls, label: Tensor) -> Change:
        """Channels of equal `label` (0, 1, ...) become one: the first one's, with the sum of outgoing weights."""
        first = torch.stack([torch.nonzero(label == i)[0, 0] for i in range(int(label.max()) + 1)])
        return cls(first, label, torch.arange(len(label)), torch.ones(len(label)))


class Channels:
    """The channel groups of a network, and exact changes of it.

    Args:
        model: changed in place by the methods.

    Attributes:
        slots: of all groups, in the order of the forward pass.
        sizes: channels of each group, by its number.
        axes: by (tensor, dim), its pieces in order: slots, and lengths of what is not free.

    Raises:
        ValueError: the network cannot be traced.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        found = _Tracing(model)
        self.slots, self.sizes, self.axes = found.slots, found.sizes, found.axes
        self._together: list[list[Slot]] = [[] for _ in self.sizes]
        for slot in self.slots:
            self._together[slot.order].append(slot)

    def of(self, group: int) -> list[Slot]:
        """The slots of what is reordered together."""
        return self._together[group]

    def scaled_together(self, group: int | None = None) -> dict[int, list[Slot]]:
        """The slots of each set that is scaled together, of all groups or of one."""
        found: dict[int, list[Slot]] = {}
        for slot in self.slots if group is None else self.of(group):
            if slot.scale is not None:
                found.setdefault(slot.scale, []).append(slot)
        return found

    def made_by(self, layer: str) -> int | None:
        """The group of the channels that the layer of this path makes; None where they are not free."""
        return next((s.order for s in self.slots if (s.tensor, s.dim) == (f"{layer}.weight", 0)), None)

    def lengths(self, tensor: str, dim: int) -> list[tuple[int | None, int]]:
        """Pieces of an axis: (number of the group or None, entries)."""
        axis = self.axes[tensor, dim]
        return [(None, p) if isinstance(p, int) else (p.order, p.repeat * self.sizes[p.order]) for p in axis]

    def piece(self, slot: Slot) -> Tensor:
        """The part of the tensor that a slot names, a view."""
        parts = self._tensor(slot.tensor).split([length for _, length in self.lengths(slot.tensor, slot.dim)], slot.dim)
        return parts[slot.place]

    def channelwise(self, slot: Slot) -> Tensor:
        """The slot's part as channels x the rest."""
        piece = self.piece(slot).movedim(slot.dim, 0)
        return piece.reshape(len(piece) // slot.repeat, -1)

    def kernel(self, slot: Slot) -> int:
        """Entries of the tensor's further axes: pixels of a filter."""
        return self._tensor(slot.tensor).shape[2:].numel()

    @torch.no_grad()
    def rewire(self, group: int, change: Change) -> None:
        """Replace the channels of a group. The function stays the same if the change keeps every outgoing sum."""
        slots = self.of(group)
        new = {slot: self._changed(slot, change) for slot in slots}
        for tensor, dim in dict.fromkeys((slot.tensor, slot.dim) for slot in slots):
            lengths = [length for _, length in self.lengths(tensor, dim)]
            parts = list(self._tensor(tensor).split(lengths, dim))
            for slot in slots:
                if (slot.tensor, slot.dim) == (tensor, dim):
                    parts[slot.place] = new[slot]
            _assign(self.model, tensor, torch.cat(parts, dim))
        self.sizes[group] = len(change.take)

    @torch.no_grad()
    def rescale(self, slots: list[Slot], scales: Tensor) -> None:
        """Multiply the channels of a group that is scaled together by `scales` (above 0), and undo it downstream.

        A normalisation of s x keeps its answer with mean s m, variance s^2 v and
        gamma sqrt(s^2 v + eps) / (s sqrt(v + eps)).
        """
        for slot in slots:
            s = scales.to(self.piece(slot))
            if slot.tensor.endswith(".running_var") and slot.role == "norm":
                self._compensate(slot, s)
                s = s**2
            piece = self.piece(slot)
            s = s.repeat_interleave(slot.repeat).view(-1, *[1] * (piece.ndim - 1 - slot.dim))
            piece.div_(s) if slot.role == "consumer" else piece.mul_(s)

    def _compensate(self, slot: Slot, s: Tensor) -> None:
        path = slot.tensor.removesuffix(".running_var")
        norm: Any = self.model.get_submodule(path)
        eps, variance = norm.eps, self.piece(slot).double()
        ratio = ((s.double() ** 2 * variance + eps) / (variance + eps)).sqrt() / s.double()
        lengths = [length for _, length in self.lengths(slot.tensor, 0)]
        gamma = self._tensor(f"{path}.weight").split(lengths)[slot.place]
        gamma.mul_(ratio.to(gamma))

    def _tensor(self, name: str) -> Tensor:
        path, _, leaf = name.rpartition(".")
        tensor: Tensor = getattr(self.model.get_submodule(path), leaf)
        return tensor.detach()

    def _changed(self, slot: Slot, change: Change) -> Tensor:
        piece, dim = self.piece(slot), slot.dim
        blocks = piece.unflatten(dim, (-1, slot.repeat))
        device = piece.device
        if slot.role == "consumer":
            shape = list(blocks.shape)
            shape[dim] = len(change.take)
            factor = change.factor.to(piece).view(-1, *[1] * (blocks.ndim - 1 - dim))
            taken = blocks.index_select(dim, change.source.to(device)) * factor
            new = torch.zeros(shape, dtype=piece.dtype, device=device).index_add_(dim, change.into.to(device), taken)
        else:
            kept = (change.take >= 0).to(piece).view(-1, *[1] * (blocks.ndim - 1 - dim))
            new = blocks.index_select(dim, change.take.clamp(min=0).to(device)) * kept
        return new.flatten(dim, dim + 1)


def fold_norms(model: nn.Module) -> dict[str, tuple[str, Tensor, Tensor]]:
    """Fold every batch normalisation that alone follows a convolution into it, in place; eval mode.

    Returns:
        By the convolution's path: that of the normalisation, and what it did to the convolution's output,
        `scale * y + shift` (both of length O).

    Raises:
        ValueError: the network cannot be traced.
    """
    folded = {}
    modules = dict(model.named_modules(remove_duplicate=False))
    for first, second in _conv_norm_pairs(model):
        conv, norm = modules[first], modules[second]
        if norm.running_var is None:
            continue
        scale = (norm.running_var + norm.eps).rsqrt().detach() * (1 if norm.weight is None else norm.weight.detach())
        shift = (0 if norm.bias is None else norm.bias.detach()) - norm.running_mean * scale
        fused = fuse_conv_bn_eval(conv.eval(), norm.eval())
        _assign(model, f"{first}.weight", fused.weight.detach())
        conv.bias = fused.bias
        _substitute(model, second, nn.Identity())
        folded[first] = (second, scale, shift)
    return folded


def _conv_norm_pairs(model: nn.Module) -> Iterator[tuple[str, str]]:
    """Paths of convolutions and of the normalisations that alone take their output, each called once."""
    graph = _graph(model)
    modules = dict(model.named_modules(remove_duplicate=False))
    calls = [id(modules[str(node.target)]) for node in graph.nodes if node.op == "call_module"]
    for node in graph.nodes:
        before = node.args[0] if node.args else None
        if node.op != "call_module" or not isinstance(before, fx.Node) or before.op != "call_module":
            continue
        pair = modules[str(before.target)], modules[str(node.target)]
        once = all(calls.count(id(module)) == 1 for module in pair) and len(before.users) == 1
        if once and isinstance(pair[0], nn.Conv2d) and isinstance(pair[1], nn.BatchNorm2d):
            yield str(before.target), str(node.target)


def _graph(model: nn.Module) -> fx.Graph:
    try:
        return fx.Tracer().trace(model)
    except Exception as error:  # fx raises whatever the network's own code does with a proxy
        raise ValueError(
            f"Expected a network that torch.fx can trace, but {type(model).__name__} cannot be: {error}."
        ) from error


def _substitute(model: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, leaf = path.rpartition(".")
    setattr(model.get_submodule(parent), leaf, module)


def _assign(model: nn.Module, name: str, tensor: Tensor) -> None:
    """Put a tensor in the place of a parameter or buffer, and tell the layer of its new size."""
    path, _, leaf = name.rpartition(".")
    module = model.get_submodule(path)
    if leaf in module._parameters:
        old = module._parameters[leaf]
        tensor = nn.Parameter(tensor, requires_grad=old is None or old.requires_grad)
    setattr(module, leaf, tensor)
    if leaf == "weight" and isinstance(module, nn.Conv2d):
        module.out_channels, module.in_channels = tensor.shape[:2]
    elif leaf == "weight" and isinstance(module, nn.Linear):
        module.out_features, module.in_features = tensor.shape
    elif isinstance(module, _Norms):
        module.num_features = len(tensor)


class _Union:
    """Sets of numbered things, joined two at a time."""

    def __init__(self) -> None:
        self.parent: list[int] = []
        self.locked: set[int] = set()

    def new(self) -> int:
        self.parent.append(len(self.parent))
        return self.parent[-1]

    def root(self, i: int) -> int:
        while self.parent[i] != i:
            i = self.parent[i]
        return i

    def join(self, a: int, b: int) -> None:
        a, b = sorted((self.root(a), self.root(b)))
        self.parent[b] = a

    def free(self) -> dict[int, int]:
        """Number of the free set that each thing is in; locked ones are missing."""
        locked = {self.root(i) for i in self.locked}
        roots = dict.fromkeys(root for i in range(len(self.parent)) if (root := self.root(i)) not in locked)
        numbers = {root: number for number, root in enumerate(roots)}
        return {i: numbers[self.root(i)] for i in range(len(self.parent)) if self.root(i) in numbers}


@dataclass(frozen=True)
class _Layout:
    """The spaces whose channels lie one after the other in a value's axis 1; `flat` after flattening."""

    spaces: tuple[int, ...]
    flat: bool = False


class _Tracing:
    """Follows the channels through the graph; a value whose channels are not known is None."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.modules = dict(model.named_modules(remove_duplicate=False))
        self.space_sizes: list[int] = []
        self.order, self.scale = _Union(), _Union()
        self.pieces: dict[tuple[str, int], list[int | tuple[int, int, Role]]] = {}  # span, or (space, repeat, role)
        self.used: dict[int, list[int]] = {}  # spaces that a layer's weight meets
        values: dict[fx.Node, _Layout | None] = {}
        for node in _graph(model).nodes:
            values[node] = self._value(node, [values[n] for n in node.all_input_nodes])
        self._finish()

    def _finish(self) -> None:
        orders, scales = self.order.free(), self.scale.free()
        self.sizes = [0] * len(set(orders.values()))
        for space, number in orders.items():
            self.sizes[number] = self.space_sizes[space]
        self.axes: dict[tuple[str, int], list[int | Slot]] = {}
        for (tensor, dim), pieces in self.pieces.items():
            axis = self.axes[tensor, dim] = []
            for place, piece in enumerate(pieces):
                if isinstance(piece, int) or piece[0] not in orders:
                    axis.append(piece if isinstance(piece, int) else self.space_sizes[piece[0]] * piece[1])
                else:
                    space, repeat, role = piece
                    axis.append(Slot(tensor, dim, place, repeat, role, orders[space], scales.get(space)))
        self.slots = [slot for axis in self.axes.values() for slot in axis if isinstance(slot, Slot)]

    def _value(self, node: fx.Node, given: list[_Layout | None]) -> _Layout | None:
        if node.op == "call_module":
            module = self.modules[str(node.target)]
            if isinstance(module, nn.Conv2d | nn.Linear | _Norms):
                return self._layer(str(node.target), module, given[0] if len(given) == 1 else self._lock(given))
            if isinstance(module, _HOMOGENEOUS) and len(given) == 1:
                return given[0]
            if isinstance(module, _ELEMENTWISE) and len(given) == 1:
                return self._shaped(given[0])
            if isinstance(module, nn.Flatten) and (module.start_dim, module.end_dim) == (1, -1):
                return self._flat(given[0])
        elif node.op in ("call_function", "call_method"):
            return self._called(node, getattr(node.target, "__name__", str(node.target)), given)
        return self._lock(given)

    def _called(self, node: fx.Node, name: str, given: list[_Layout | None]) -> _Layout | None:
        if name in ("add", "iadd", "add_") and len(node.args) == 2 and len(given) == 2 and not node.kwargs:
            return self._added(given[0], given[1])
        if name == "cat" and (node.args[1:] == (1,) or node.kwargs == {"dim": 1}):
            known = [layout for layout in given if layout is not None]
            parts = node.args[0] if isinstance(node.args[0], list | tuple) else ()
            if len(known) == len(given) == len(parts) and not any(layout.flat for layout in known):
                return _Layout(tuple(space for layout in known for space in layout.spaces))
        if name == "flatten" and node.args[1:] == (1,) and not node.kwargs:
            return self._flat(given[0])
        if name in _FUNCTIONS and len(given) == 1:
            return given[0]
        return self._lock(given)

    def _lock(self, given: list[_Layout | None]) -> _Layout | None:
        """Neither order nor scale of these may change; what comes of them is not known."""
        for layout in given:
            for space in layout.spaces if layout else ():
                self.order.locked.add(space)
                self.scale.locked.add(space)
        return None

    def _shaped(self, layout: _Layout | None) -> _Layout | None:
        """After a function of each value that is not homogeneous: the scale counts."""
        self.scale.locked.update(layout.spaces if layout else ())
        return layout

    def _flat(self, layout: _Layout | None) -> _Layout | None:
        return layout and _Layout(layout.spaces, flat=True)

    def _added(self, a: _Layout | None, b: _Layout | None) -> _Layout | None:
        sizes = [[self.space_sizes[s] for s in layout.spaces] if layout else None for layout in (a, b)]
        if a is None or b is None or a.flat != b.flat or sizes[0] != sizes[1]:
            return self._lock([a, b])
        for first, second in zip(a.spaces, b.spaces, strict=True):
            self.order.join(first, second)
            self.scale.join(first, second)
        return a

    def _space(self, size: int) -> int:
        self.space_sizes.append(size)
        self.scale.new()
        return self.order.new()

    def _layer(self, path: str, module: Any, layout: _Layout | None) -> _Layout | None:
        owner = id(module.weight if module.weight is not None else module)
        known = self.used.get(owner)
        if known is not None or (isinstance(module, nn.Conv2d) and module.groups != 1):  # shared, or grouped
            return self._lock([layout, _Layout(tuple(known or ()))])
        before = len(self.space_sizes)
        answer = (
            self._norm(path, module, layout) if isinstance(module, _Norms) else self._weighted(path, module, layout)
        )
        self.used[owner] = [*(layout.spaces if layout else ()), *range(before, len(self.space_sizes))]
        return answer

    def _weighted(self, path: str, module: nn.Conv2d | nn.Linear, layout: _Layout | None) -> _Layout:
        outputs, inputs = module.weight.shape[:2]
        total = sum(self.space_sizes[space] for space in layout.spaces) if layout else 0
        flat = isinstance(module, nn.Linear)
        if layout is None or flat != layout.flat or inputs % total or (not flat and inputs != total):
            self._lock([layout])
            self.pieces[f"{path}.weight", 1] = [inputs]
        else:
            self.pieces[f"{path}.weight", 1] = [(space, inputs // total, "consumer") for space in layout.spaces]
        space = self._space(outputs)
        for leaf in ("weight",) if module.bias is None else ("weight", "bias"):
            self.pieces[f"{path}.{leaf}", 0] = [(space, 1, "producer")]
        return _Layout((space,), flat)

    def _norm(self, path: str, module: _Norms, layout: _Layout | None) -> _Layout | None:
        sizes = [self.space_sizes[space] for space in layout.spaces] if layout else []
        if layout is None or module.running_var is None or sum(sizes) != module.num_features:
            return self._lock([layout])
        after = [self._space(size) for size in sizes]
        for old, new in zip(layout.spaces, after, strict=True):
            self.order.join(old, new)
        for leaf in ("running_mean", "running_var"):
            self.pieces[f"{path}.{leaf}", 0] = [(space, 1, "norm") for space in layout.spaces]
        if module.affine:
            for leaf in ("weight", "bias"):
                self.pieces[f"{path}.{leaf}", 0] = [(space, 1, "producer") for space in after]
        else:
            self.scale.locked.update((*layout.spaces, *after))
        return _Layout(tuple(after), layout.flat)
