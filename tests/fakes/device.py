"""A device that is none: tensors compute on the CPU and say that they are on a GPU, and every mistake of one shows.

PyTorch refuses an operation on tensors of two devices, and waits for the GPU where a value is needed on the host. On a
machine without a GPU neither is seen. Here every tensor knows by its storage whether it is on the device; an operation
that mixes raises as there, and one that waits is counted.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

__all__ = ["SimulatedDevice", "simulated_gpu"]

GPU = torch.device("cuda", 0)
# Operations for which the host waits, on tensors that are on the device.
WAITING = {
    "item", "tolist", "nonzero", "argwhere", "masked_select", "unique", "unique_consecutive", "bincount", "equal",
    "allclose", "is_nonzero", "__bool__", "__int__", "__float__", "__index__", "__contains__", "_unique2",
    "unique_dim",
}  # fmt: skip
# Operations that may be given tensors of two devices.
COPYING = {
    "_has_compatible_shallow_copy_type",
    "copy_",
    "__set__",
    "_set_grad",
    "set_",
    "_make_subclass",
    "__deepcopy__",
    "backward",
    "grad",
    "__get__",
}
REFUSED = {"numpy", "__array__"}
STRICT = {"cat", "stack", "concat", "concatenate", "hstack", "vstack"}
INDEXING = {"__getitem__", "__setitem__", "index_put_", "index_put"}


class SimulatedDevice(TorchFunctionMode):
    """Scope in which `cuda` exists.

    Attributes:
        waits: operation -> how often the host waited for the device.
        sent: how many tensors were copied to the device.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()
        self.sent = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = _name(func)
        tensors = list(_tensors((args, kwargs)))
        here = [each for each in tensors if on_device(each)]
        if name == "device.__get__":
            return GPU if here else func(*args, **kwargs)
        if name == "is_cuda.__get__":
            return bool(here)
        if name in ("to", "cpu", "cuda"):
            return self._moved(func, name, args, kwargs)
        target = _device_of(kwargs)
        if target is not None:
            kwargs["device"] = torch.device("cpu")
        elif here:
            self._watch(name, args, tensors, here)
        return self._told(func(*args, **kwargs), name, args, on=bool(here) if target is None else target)

    def _watch(self, name: str, args: Any, tensors: list[Tensor], here: list[Tensor]) -> None:
        """Count what waits; raise what a GPU would."""
        short = name.rpartition(".")[0] or name
        if short in REFUSED:
            raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first.")
        if short in WAITING or (short == "where" and len(tensors) == 1 == len(args)):
            self.waits[short] += 1
        if short == "one_hot" and len(args) < 2:
            self.waits[short] += 1
        if short in INDEXING:
            index = [each for each in _tensors(args[1]) if isinstance(each, Tensor)]
            self.waits.update("mask" for each in index if each.dtype in (torch.bool, torch.uint8))
            tensors = [each for each in tensors if all(each is not other for other in index)]  # may be on the CPU
        if short in COPYING or name.endswith(("__get__", "__set__")):
            return
        others = [each for each in tensors if not on_device(each) and (each.dim() or short in STRICT)]
        if others and any(each.dim() or short in STRICT for each in here):
            shapes = ", ".join(str(tuple(each.shape)) for each in others)
            raise RuntimeError(
                f"Expected all tensors to be on the same device, but {name} got cuda:0 and cpu (of shape {shapes})."
            )

    def _moved(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        """`to`, `cpu` and `cuda`."""
        tensor, rest = args[0], list(args[1:])
        target = {"cpu": False, "cuda": True}.get(name)
        if "device" in kwargs:
            target = _device_of({"device": kwargs.pop("device")}) or False
        for place, each in enumerate(rest):
            if isinstance(each, str | torch.device):
                target = torch.device(each).type == "cuda"
                rest[place] = torch.device("cpu")
            elif isinstance(each, Tensor):
                target = on_device(each)
        before = on_device(tensor)
        found = func(tensor, *rest, **kwargs) if name == "to" else tensor
        after = before if target is None else target
        if before and not after:
            self.waits["to the CPU"] += 1
        self.sent += after and not before
        if before != after and _storage(found).data_ptr() == _storage(tensor).data_ptr():
            found = found.clone(memory_format=torch.preserve_format)
        return _mark(found, after)

    def _told(self, found: Any, name: str, args: Any, on: bool) -> Any:
        if name == "data.__set__" and on_device(args[1]):
            _mark(args[0], True)
        if on:
            for tensor in _tensors(found):
                _mark(tensor, True)
        return found


def on_device(tensor: Tensor) -> bool:
    """Whether the tensor's storage is on the simulated device."""
    with torch._C.DisableTorchFunction():
        return getattr(_storage(tensor), "simulated", False)


def _mark(tensor: Tensor, on: bool) -> Tensor:
    with torch._C.DisableTorchFunction():
        storage = _storage(tensor)
        if on or getattr(storage, "simulated", False):
            storage.simulated = on
    return tensor


def _storage(tensor: Tensor) -> torch.UntypedStorage:
    """The storage; that of what `torch.func` wraps, where it does."""
    while torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        tensor = torch._C._functorch.get_unwrapped(tensor)
    return tensor.untyped_storage()


def _name(func: Any) -> str:
    """`item`, `conv2d`, `device.__get__`."""
    name = getattr(func, "__name__", str(func))
    if name in ("__get__", "__set__"):
        return f"{getattr(func.__self__, '__name__', '')}.{name}"
    return name


def _device_of(kwargs: dict[str, Any]) -> bool | None:
    """Whether a new tensor is to be on the device; None where it is not said."""
    device = kwargs.get("device")
    return None if device is None else torch.device(device).type == "cuda"


def _tensors(found: Any) -> Iterator[Tensor]:
    """Every tensor in nested arguments."""
    if isinstance(found, Tensor):
        yield found
    elif isinstance(found, dict):
        for each in found.values():
            yield from _tensors(each)
    elif isinstance(found, list | tuple):
        for each in found:
            yield from _tensors(each)


class _Generator(torch.Generator):
    """Draws on the CPU, wherever it is asked to."""

    def __new__(cls, device: Any = "cpu") -> _Generator:
        return super().__new__(cls)


@contextmanager
def simulated_gpu() -> Iterator[SimulatedDevice]:
    """Scope with a GPU that computes on the CPU: what PyTorch asks of the driver is answered, too."""
    with (
        mock.patch("torch.cuda.synchronize"),
        mock.patch("torch.cuda.current_stream"),
        mock.patch("torch.cuda.is_bf16_supported", return_value=True),
        mock.patch("torch.autocast", return_value=nullcontext()),
        mock.patch("torch.cuda.make_graphed_callables", lambda model, sample, **_: model),
        mock.patch("torch.Generator", _Generator),
        mock.patch("bench.steps.training._seeded", _seeded),
        mock.patch.dict(os.environ),
        torch.backends.cudnn.flags(torch.backends.cudnn.enabled),
        SimulatedDevice() as device,
    ):
        yield device


@contextmanager
def _seeded(rng: Any, device: Any) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(rng.seed)
        yield
