"""Tells at next to no price whether weights or layers were changed, however somebody did that."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import ref

import numpy as np
import torch
from torch import Tensor, nn

# whose layers do the same as long as their parts and weights are the same
LIBRARIES = {"torch", "torchvision", "timm", "camcli"}
# what each module has
INTERNAL = {*vars(nn.Module()), "forward"}
CONTAINERS = (list, tuple, dict, set, frozenset)
# what holds more is told by its address alone
LONGEST, DEEPEST = 100, 4
PLAIN = (bool, int, float, complex, str, bytes, type(None))


class TensorWatch:
    """Some tensors as they are now, to be compared with what they are later.

    A version counter misses writes through `.data`, of fused optimizers and to running moments, and
    so numbers are compared, too: all of a vector, and of what is larger the first filter and the
    first number of each other one.
    Settings are what counts beside them.
    """

    def __init__(self, tensors: Sequence[Tensor | None], settings: Sequence[object] = ()) -> None:
        # kept, so that no other tensor gets the address of one that is gone
        self._tensors, self._settings = list(tensors), list(settings)
        self._marks = _list_marks(self._tensors)
        arrays: list[Any] = [t.detach().numpy() for t in self._tensors if t is not None]
        # to join vectors takes an eighth of the time of putting arrays together
        self._vectors = [array for array in arrays if array.flags.c_contiguous and array.ndim < 2]
        larger = [array for array in arrays if not array.flags.c_contiguous or array.ndim > 1]
        self._vectors += filter(None, (_lay_in_order(array[0]) for array in larger))
        self._firsts = [array[(slice(None), *[0] * (array.ndim - 1))] for array in larger]
        self._numbers = self._read_numbers()

    def is_unchanged(
        self, tensors: Sequence[Tensor | None], settings: Sequence[object] = ()
    ) -> bool:
        """Tells whether these are the same tensors, with the same numbers and settings."""
        return (
            _list_marks(tensors) == self._marks
            and list(settings) == self._settings
            and self._read_numbers() == self._numbers
        )

    def _read_numbers(self) -> bytes:
        firsts = np.concatenate(self._firsts).tobytes() if self._firsts else b""
        return b"".join([firsts, *self._vectors])


def _lay_in_order(array: Any) -> memoryview | None:
    """Views an array in the order in which it lies in memory; None where it has gaps."""
    ordered = array.transpose(sorted(range(array.ndim), key=lambda axis: -array.strides[axis]))
    return memoryview(ordered) if ordered.flags.c_contiguous and ordered.size else None


def can_watch(tensor: Tensor | None) -> bool:
    """Tells whether a tensor can be watched: plain float32 numbers in main memory, or none."""
    return tensor is None or (
        type(tensor) in (Tensor, nn.Parameter)
        and tensor.device.type == "cpu"
        and tensor.dtype == torch.float32
        and tensor.layout == torch.strided
        # a tensor of inference mode has no version
        and not tensor.is_inference()
        and tensor.ndim > 0
        and tensor.numel() > 0
    )


def _list_marks(tensors: Sequence[Tensor | None]) -> list[list[int]]:
    given = [tensor for tensor in tensors if tensor is not None]
    return [list(map(id, tensors)), [t._version for t in given], [t.data_ptr() for t in given]]


class AttributeWatch:
    """The attributes of layers that are nobody's library: they may say what a pass does."""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        self._places = [i for i, layer in enumerate(layers) if not _is_of_library(type(layer))]
        self._values = [_list_attributes(layers[i]) for i in self._places]

    def is_unchanged(self, layers: Sequence[nn.Module]) -> bool:
        """Tells whether the same layers, in the same order, have the same attributes."""
        return all(
            _list_attributes(layers[i]) == known
            for i, known in zip(self._places, self._values, strict=True)
        )


def _is_of_library(kind: type) -> bool:
    return kind.__module__.partition(".")[0] in LIBRARIES


def _list_attributes(layer: nn.Module) -> list[tuple[str, Any]]:
    return [(name, _freeze(v)) for name, v in vars(layer).items() if name not in INTERNAL]


def _freeze(value: Any, depth: int = 0) -> Any:
    """Returns what equals the same of a value that is unchanged, and keeps no layer alive."""
    kind = type(value)
    if kind in PLAIN:
        return kind, value
    if kind in CONTAINERS and depth < DEEPEST and len(value) <= LONGEST:
        items = value.items() if kind is dict else value
        return kind, *(_freeze(item, depth + 1) for item in items)
    try:
        # not equal to another one at the same address
        return id(value), ref(value)
    except TypeError:
        return id(value), kind
