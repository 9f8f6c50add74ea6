"""Aligns a suspect network's channels to those of the owner's, so that a mark can be read after a change of its form.

An owner may, before reading, fold copied channels back into one, drop those that nothing needs, put the others in the
order of the owner's network and undo their scales. Two papers do so: Li and Wang, Linear Functionality Equivalence
Attack against Deep Neural Network Watermarks and a Defense Method by Neuron Mapping, IEEE TIFS 2023, by activations,
and Jiang et al., Why Neural Structural Obfuscation Can't Kill White-Box Watermarks for Good, 2026,
https://arxiv.org/abs/2603.12679, by probing with inputs. Ours compares weights and needs no images.

The layer that carries the mark is never compared. Channels are matched by the weights that they share with channels
that are matched already, from the images forward and from the logits backward. Matched by the marked weights
themselves, an innocent network would be bent towards the mark, and the claim's null distribution would not hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy

import torch
from torch import Tensor, nn

from bench.contract.channels import Change, Channels, Slot, fold_norms

__all__ = ["align", "fold_copies", "restored"]

# Incoming weights that differ by less, relative to their length, are those of one neuron.
_EQUAL = 1e-3
_Folded = Mapping[str, tuple[str, Tensor, Tensor]]


def restored(suspect: nn.Module, reference: nn.Module, layer: str) -> nn.Module:
    """The suspect in the form of the reference, on the CPU, in eval mode.

    Batch normalisation is folded into convolutions on both sides first, and taken out again as the reference has it.

    Args:
        suspect: left as it is.
        reference: the owner's marked network.
        layer: path of the layer that carries the mark.

    Returns:
        A network of the reference's architecture; the suspect itself where its layers are not the reference's.
    """
    mine, other = deepcopy(reference).cpu().eval(), deepcopy(suspect).cpu().eval()
    form = deepcopy(mine)
    try:
        folded = fold_norms(mine)
        fold_norms(other)
        ours, theirs = Channels(mine), Channels(other)
    except ValueError:
        return suspect
    if ours.slots != theirs.slots:
        return suspect
    fold_copies(theirs, ours.sizes)
    align(theirs, ours, layer)
    tensors = _unfolded(other.state_dict(), form.state_dict(), folded)
    if any(tensors[name].shape != tensor.shape for name, tensor in form.state_dict().items()):
        return suspect
    form.load_state_dict(tensors)
    return form


def _unfolded(tensors: Mapping[str, Tensor], form: Mapping[str, Tensor], folded: _Folded) -> dict[str, Tensor]:
    """Tensors of the reference's form whose function is that of the folded `tensors`.

    scale * (W / scale x + c - m) + beta = W x + b, for the reference's scale, beta and bias c, gives the mean
    m = c + (beta - b) / scale.
    """
    new = {name: tensors.get(name, tensor) for name, tensor in form.items()}
    for conv, (norm, scale, _) in folded.items():
        divisor = scale.where(scale.abs() > 1e-12, torch.ones_like(scale))
        if len(divisor) != len(tensors[f"{conv}.weight"]):
            continue
        bias, beta = form.get(f"{conv}.bias"), form.get(f"{norm}.bias", torch.zeros_like(scale))
        new[f"{conv}.weight"] = tensors[f"{conv}.weight"] / divisor.view(-1, 1, 1, 1)
        new[f"{norm}.running_mean"] = (0 if bias is None else bias) + (beta - tensors[f"{conv}.bias"]) / divisor
        if bias is not None:
            new[f"{conv}.bias"] = bias
    return new


# ---- copies ----------------------------------------------------------------------------------------------------------
def fold_copies(channels: Channels, sizes: list[int]) -> None:
    """Fold channels of equal incoming weights, up to a scale above 0, where a group has more than `sizes` says.

    In place; what the network computes does not change. One group's copies may hide another's, so that it is done
    again until nothing is left to fold. Cancelling neurons become one that nothing takes in.
    """
    wider = [group for group, size in enumerate(sizes) if channels.sizes[group] > size]
    while wider:
        _to_unit_length(channels)
        labels = {group: _labels(channels, group) for group in wider}
        labels = {group: label for group, label in labels.items() if int(label.max()) + 1 < len(label)}
        for group, label in labels.items():
            channels.rewire(group, Change.fold(label))
        wider = [group for group in wider if channels.sizes[group] > sizes[group]] if labels else []


def _to_unit_length(channels: Channels) -> None:
    """Scale every channel so that its incoming weights have length 1."""
    for slots in channels.scaled_together().values():
        incoming = [channels.channelwise(slot) for slot in slots if slot.role == "producer"]
        if incoming:
            length = torch.cat(incoming, 1).norm(dim=1)
            channels.rescale(slots, 1 / length.where(length > 0, torch.ones_like(length)))


def _labels(channels: Channels, group: int) -> Tensor:
    """Equal numbers, 0 upwards, for channels of equal incoming weights."""
    parts = [channels.channelwise(slot) for slot in channels.of(group) if slot.role == "producer"]
    incoming = torch.cat(parts, 1).double()
    near = torch.cdist(incoming, incoming, compute_mode="donot_use_mm_for_euclid_dist") < _EQUAL
    first = near.int().argmax(1)  # of the channels near it, the first
    labels: Tensor = first.unique(return_inverse=True)[1]
    return labels


# ---- order and scale -------------------------------------------------------------------------------------------------
def align(theirs: Channels, ours: Channels, layer: str) -> None:
    """Put their channels in our order and on our scale, in place, as far as weights other than the layer's tell.

    The group that shares most weights with what is aligned comes next (Hungarian assignment of cosines). Channels
    that have no partner are dropped, or filled with zeros.
    """
    from scipy.optimize import linear_sum_assignment  # costs most of a second to import

    done: set[int] = set()
    evidence = {group: _evidence(ours, group, done, layer) for group in range(len(ours.sizes))}
    while evidence and max(evidence.values()):
        group = max(evidence, key=lambda each: evidence[each])
        del evidence[group]
        pairs = _pairs(theirs, ours, group, done, layer)
        cosines = sum(a.shape[1] * _unit(a) @ _unit(b).T for _, _, a, b in pairs)
        rows, columns = linear_sum_assignment(cosines, maximize=True)
        take = torch.full((ours.sizes[group],), -1)
        take[torch.as_tensor(columns)] = torch.as_tensor(rows)
        theirs.rewire(group, Change.select(take))
        _undo_scales(theirs, ours, group, done, layer)
        done.add(group)
        met = {slot.tensor for slot in ours.of(group)}
        for near in {slot.order for slot in ours.slots if slot.tensor in met} & set(evidence):
            evidence[near] = _evidence(ours, near, done, layer)


def _undo_scales(theirs: Channels, ours: Channels, group: int, done: set[int], layer: str) -> None:
    """By the part of most weights in each group that is scaled together."""
    scaled = theirs.scaled_together(group)
    best: dict[int, tuple[int, Tensor]] = {}
    for scale, consumed, a, b in _pairs(theirs, ours, group, done, layer):
        if scale is not None and a.shape[1] > best.get(scale, (0,))[0]:
            there, here = a.norm(dim=1), b.norm(dim=1)
            ratio = there / here if consumed else here / there
            best[scale] = a.shape[1], ratio.where((there > 0) & (here > 0), torch.ones_like(ratio)).float()
    for scale, (_, ratio) in best.items():
        theirs.rescale(scaled[scale], ratio)


def _parts(
    channels: Channels, group: int, done: set[int], layer: str
) -> dict[tuple[int | None, str, bool], list[Slot]]:
    """The slots that may be compared, by scale, module and direction (True: outgoing weights)."""
    found: dict[tuple[int | None, str, bool], list[Slot]] = {}
    for slot in channels.of(group):
        path = slot.tensor.rpartition(".")[0]
        if path != layer and _known(channels, slot, done):
            found.setdefault((slot.scale, path, slot.role == "consumer"), []).append(slot)
    return found


def _known(channels: Channels, slot: Slot, done: set[int]) -> list[tuple[int, int]]:
    """Spans (start, entries) of the tensor's other axis whose channels are aligned, or were never free."""
    start, spans = 0, []
    if (slot.tensor, 1 - slot.dim) not in channels.axes:
        return [(0, 1)]
    for group, length in channels.lengths(slot.tensor, 1 - slot.dim):
        if group is None or group in done:
            spans.append((start, length))
        start += length
    return spans


def _evidence(channels: Channels, group: int, done: set[int], layer: str) -> int:
    """How many numbers a channel of this group can be compared by."""
    total = 0
    for slots in _parts(channels, group, done, layer).values():
        sizes = [
            sum(length for _, length in _known(channels, slot, done)) * channels.kernel(slot) * slot.repeat
            for slot in slots
        ]
        total += sum(sizes) if sum(sizes) > 1 else 0
    return total


def _pairs(
    theirs: Channels, ours: Channels, group: int, done: set[int], layer: str
) -> list[tuple[int | None, bool, Tensor, Tensor]]:
    """(scale, outgoing?, their channels x numbers, ours) of each part of more than one number."""
    pairs = []
    for (scale, _, consumed), slots in _parts(ours, group, done, layer).items():
        a, b = (torch.cat([_compared(channels, slot, done) for slot in slots], 1) for channels in (theirs, ours))
        if a.shape[1] == b.shape[1] > 1:
            pairs.append((scale, consumed, a, b))
    return pairs


def _compared(channels: Channels, slot: Slot, done: set[int]) -> Tensor:
    """Channels x numbers, float64: the aligned entries of a slot; standard deviations instead of variances."""
    piece = channels.piece(slot).double()
    if piece.ndim > 1:
        other = 1 - slot.dim
        piece = torch.cat([piece.narrow(other, *span) for span in _known(channels, slot, done)], other)
    piece = piece.movedim(slot.dim, 0)
    piece = piece.reshape(len(piece) // slot.repeat, -1)
    return piece.sqrt() if slot.tensor.endswith("running_var") else piece


def _unit(rows: Tensor) -> Tensor:
    return nn.functional.normalize(rows, dim=1)
