"""How much memory a model may ask for: each tensor's size is told before it is made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from camcli.errors import ModelError
from camcli.utils.cpu import measure_free_memory

# bytes: more than any classifier takes that timm and torchvision have
LARGEST = 2**36
# tensors made while a model is built: their number, too, takes memory and time
MOST_TENSORS = 20_000
# in arguments: lengths that are this large make lists of Python's own, which nothing here sees
LARGEST_NUMBER = 2**20
# smaller tensors are not looked up
SMALL = 2**16
# what nearly all weights are made by
EMPTY = torch.ops.aten.empty.memory_format
# puts out as much as it is given, which torch says on the meta device in slow Python
BATCH_NORM = torch.ops.aten.native_batch_norm.default


@contextmanager
def limit_memory(what: str, way_on: str) -> Iterator[None]:
    """Raises ModelError before the tensors that are made meanwhile take more memory than there is.

    `what` says in the message who asks for it, and `way_on` what to do.
    """
    left = measure_free_memory()
    most = LARGEST if left is None else min(LARGEST, left)
    watch = _Watch(most)
    try:
        with watch:
            yield
    # constructors raise the error of this one again in their own words
    except Exception as error:
        if not watch.refused:
            raise
        raise ModelError(f"{what} {watch.refused}. {way_on}") from error


def check_numbers(arguments: Mapping[str, Any]) -> None:
    """Raises ModelError for a whole number in a constructor's arguments that no model has."""
    for name, value in arguments.items():
        largest = max((abs(v) for v in tree_leaves(value) if isinstance(v, int)), default=0)
        if largest > LARGEST_NUMBER:
            raise ModelError(
                f"The model is given {name}={largest:,}, and takes whole numbers up to "
                f"{LARGEST_NUMBER:,}: see --model-kwargs, the preset, and what the checkpoint says."
            )


class _TooMuch(MemoryError):
    """More than a model may ask for."""


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up what tensors take, by shapes that operations give on the meta device."""

    def __init__(self, most: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.most, self.refused = most, ""
        self.made = 0
        self.sizes: list[tuple[StorageWeakRef, int]] = []
        self.taken = 0
        # blocks repeat, and the meta device is slow: an operation is asked once about its shapes
        self.measured: dict[Any, int] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Runs an operation, unless what it would make is too large."""
        given = dict(kwargs or {})
        if not _makes_tensors(func):
            return func(*args, **given)
        size = self._measure(func, args, given)
        if size > SMALL:
            self._take(size)
        self.made += 1
        if self.made > MOST_TENSORS:
            self._refuse(f"is made of more than {MOST_TENSORS:,} tensors, as no model is")
        output = func(*args, **given)
        if size > SMALL:
            first = next(leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor))
            self.sizes.append((StorageWeakRef(first.untyped_storage()), size))  # type: ignore[no-untyped-call]
        return output

    def _measure(self, func: Any, args: Any, kwargs: dict[str, Any]) -> int:
        if func is EMPTY or func is BATCH_NORM:
            return _measure_size(func, args, kwargs)
        try:
            given = (_make_key(args), _make_key(tuple(kwargs.items())))
            key = (func, *given, torch.get_default_dtype())
            if key not in self.measured:
                self.measured[key] = _measure_size(func, args, kwargs)
            return self.measured[key]
        except (TypeError, RuntimeError):  # no key, or a tensor without strides
            return _measure_size(func, args, kwargs)

    def _take(self, size: int) -> None:
        if self.taken + size > self.most:
            # what is gone by now is looked for only then
            held = [(ref, taken) for ref, taken in self.sizes if not ref.expired()]  # type: ignore[no-untyped-call]
            self.sizes, self.taken = held, sum(taken for _, taken in held)
        if self.taken + size > self.most:
            needed, most = _format_gigabytes(self.taken + size), _format_gigabytes(self.most)
            self._refuse(f"asks for {needed} of memory or more, and {most} can be given here")
        self.taken += size

    def _refuse(self, why: str) -> None:
        self.refused = why
        raise _TooMuch(why)


def _measure_size(func: Any, args: Any, kwargs: dict[str, Any]) -> int:
    """Returns how many bytes an operation would make, 0 where that cannot be told before."""
    if func is EMPTY:
        dtype: torch.dtype = kwargs.get("dtype") or torch.get_default_dtype()
        return int(prod(args[0])) * dtype.itemsize
    if func is BATCH_NORM:
        return int(args[0].numel()) * int(args[0].itemsize)
    to_meta = {**kwargs, "device": torch.device("meta")} if _takes_device(func) else kwargs
    try:
        shapes = func(
            *tree_map_only(Tensor, _find_shape, args), **tree_map_only(Tensor, _find_shape, to_meta)
        )
    except Exception:  # operations that depend on values know no shape, and each says so otherwise
        return 0
    outputs = [leaf for leaf in tree_leaves(shapes) if isinstance(leaf, Tensor)]
    return sum(prod(output.shape) * output.itemsize for output in outputs)


@cache
def _makes_tensors(func: Any) -> bool:
    """Tells whether an operation makes tensors: views, and what is written in place, do not."""
    returned = func._schema.returns
    return bool(returned) and not any(value.alias_info for value in returned)


def _make_key(value: Any) -> Any:
    """Returns what stands for an argument: of a tensor, all that the meta device knows of it."""
    if isinstance(value, Tensor):
        return value.shape, value.stride(), value.dtype
    if isinstance(value, list | tuple):
        return tuple([_make_key(item) for item in value])
    # 1, 1.0 and True are equal, and give tensors of other types
    return type(value), value


@cache
def _takes_device(func: Any) -> bool:
    return any(argument.name == "device" for argument in func._schema.arguments)


def _find_shape(tensor: Tensor) -> Tensor:
    return torch.empty_strided(
        tensor.shape, tensor.stride(), dtype=tensor.dtype, device=torch.device("meta")
    )


def _format_gigabytes(size: int) -> str:
    return f"{size / 1e9:,.1f} GB"
