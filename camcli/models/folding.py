"""Batch norms, and ReLUs behind them, folded into the convolutions in front, for many passes.

What can be is measured: one pass is watched, operation by operation, and a convolution is folded
whose output nothing but a batch norm has seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, TypeGuard, TypeVar

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.modules.module import _has_any_global_hook
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from camcli.models.packing import Packed, convolved, is_packable, is_plain, is_rewritable, laid_out
from camcli.models.state import left_as_found, parts, standing_in

Result = TypeVar("Result")
# a tensor that waits for what is done in it already
Waiting = dict[int, tuple[Tensor, tuple[nn.Module, ...]]]
# timm's, by its name: to import timm takes a second, which torchvision's models need not pay
NORM_AND_ACTIVATION = "BatchNormAct2d"
# as a share of the largest logit; rounding makes 1e-6
TOLERANCE = 1e-4
NOTHING: tuple[None, tuple[nn.Module, ...]] = (None, ())
LAST = torch.channels_last
IN_PLACE = "aten::relu_"
RELUS = {"aten::relu", IN_PLACE}


class Folding:
    """What of a model is folded while its passes run; nothing, where nothing was found.

    A pass of 8 pictures took 0.80 to 0.90 of the time in ResNet-18, ResNet-50, DenseNet-121,
    EfficientNet-B0 and MobileNetV3, where weights that were only laid out took 0.95 to 1.06 (2
    cores of an AMD EPYC, 2026-11-27).
    """

    def __init__(self, chains: Iterable[_Chain]) -> None:
        self.waiting: Waiting = {}
        self.forwards: dict[nn.Module, Callable[..., Any]] = {}
        for chain in chains:
            self.forwards[chain.conv] = _Folded(chain, self.waiting)
            for layer in chain.behind:
                self.forwards[layer] = _handing_on(layer, self.waiting)

    def passing(self, run: Callable[[], Result]) -> Result:
        """Runs a pass folded, and again as it was written where it took another way than before."""
        with ExitStack() as stack:
            stack.callback(self.waiting.clear)
            for layer, forward in self.forwards.items():
                stack.enter_context(standing_in(layer, forward))
            found = run()
            if not self.waiting:
                return found
        self.forwards.clear()
        return run()


def foldable(module: nn.Module, inputs: Tensor) -> Folding:
    """Finds what of a model can be folded, and shows by a dry run that it can.  [1 3 H W]"""
    layers = parts(module)
    if not _may_be(layers):
        return Folding(())
    inputs = inputs.contiguous(memory_format=LAST)
    with torch.no_grad(), left_as_found(module):
        with _watched(layers) as watch:
            wanted = module(inputs)
        folding = Folding(watch.found())
        found = folding.passing(lambda: module(inputs))
    return folding if _alike(found, wanted) else Folding(())


def _may_be(layers: Iterable[nn.Module]) -> bool:
    own = (vars(layer).get("forward") for layer in layers)
    return (
        any(map(_is_norm, layers))
        and any(isinstance(layer, nn.Conv2d) and is_rewritable(layer) for layer in layers)
        # compiled blocks run as they were written where something stands in for what is inside
        and all(forward is None or isinstance(forward, Packed) for forward in own)
        and not torch.is_autocast_enabled("cpu")
        and not _has_any_global_hook()  # type: ignore[no-untyped-call]
    )


def _alike(found: Any, wanted: Any) -> bool:
    if not isinstance(wanted, Tensor) or found.shape != wanted.shape:
        return False
    # of what is not finite no difference is small
    return bool((found - wanted).abs().max() <= TOLERANCE * wanted.abs().max())


def _is_norm(layer: nn.Module | None) -> TypeGuard[nn.BatchNorm2d]:
    if not isinstance(layer, nn.BatchNorm2d) or layer.running_mean is None:
        return False
    # subclasses make something else of their input
    known = type(layer) is nn.BatchNorm2d or type(layer).__name__ == NORM_AND_ACTIVATION
    return known and layer.running_mean.dtype == torch.float32


def _is_watched(layer: nn.Module) -> bool:
    return bool(layer._forward_pre_hooks or layer._forward_hooks)


@dataclass
class _Chain:
    """A convolution, what its output goes through, and whether anything else has seen that."""

    conv: nn.Conv2d
    output: StorageWeakRef
    norm: nn.BatchNorm2d | None = None
    relu: nn.Module | None = None
    # what the norm put out, as long as nothing but a ReLU has seen it
    normed: StorageWeakRef | None = None
    seen_elsewhere: bool = False

    @property
    def behind(self) -> tuple[nn.Module, ...]:
        """What has nothing left to do when all is folded."""
        return tuple(layer for layer in (self.norm, self.relu) if layer)


@contextmanager
def _watched(layers: Iterable[nn.Module]) -> Iterator[_Watch]:
    watch = _Watch()
    with ExitStack() as stack:
        for layer in layers:
            if _is_watched(layer):
                continue
            if isinstance(layer, nn.Conv2d) and is_rewritable(layer):
                stack.enter_context(standing_in(layer, watch.noting(layer)))
            elif _is_norm(layer) or type(layer) is nn.ReLU:
                stack.enter_context(standing_in(layer, watch.naming(layer)))
        stack.enter_context(watch)
        yield watch


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Watches in a pass what becomes of convolutions' outputs.

    Operations are looked at, not layers: what else a model does with an output is in its own code.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.chains: dict[nn.Conv2d, _Chain] = {}
        # by the storage of what they put out, which cannot be another's: a reference is kept
        self.owners: dict[int, _Chain] = {}
        self.running: nn.Module | None = None

    def found(self) -> Iterator[_Chain]:
        """Yields convolutions whose output is gone, and only a norm has seen it."""
        for chain in self.chains.values():
            if chain.normed and not _is_gone(chain.normed):
                chain.relu = None
            if chain.norm and not chain.seen_elsewhere and _is_gone(chain.output):
                yield chain

    def noting(self, conv: nn.Conv2d) -> Callable[..., Any]:
        """Returns what stands in for a convolution, and notes what it puts out."""

        def run(*args: Any, **kwargs: Any) -> Any:
            # without what stands in for it: of what will be folded no other copy is laid out
            output = nn.Conv2d.forward(conv, *args, **kwargs)
            if conv in self.chains:
                # which of its uses is which, nobody can tell later
                self.chains[conv].seen_elsewhere = True
            else:
                chain = self.chains[conv] = _Chain(conv, _weakly(output))
                self.owners[chain.output.cdata] = chain
            return output

        return run

    def naming(self, layer: nn.Module) -> Callable[..., Any]:
        """Returns what stands in for a layer, and says that it is running."""
        plain = layer.forward

        def run(*args: Any, **kwargs: Any) -> Any:
            before, self.running = self.running, layer
            try:
                return plain(*args, **kwargs)
            finally:
                self.running = before

        return run

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Runs an operation, and looks at what it is given and puts out."""
        # each once: a tensor may be given as both of two
        given = set(map(_storage, tree_leaves((args, kwargs))))
        owners = [(key, self.owners[key]) for key in given if key in self.owners]
        norming = [chain for key, chain in owners if self._norms(chain, key, func.name())]
        output = func(*args, **(kwargs or {}))
        for chain in norming:
            chain.normed = _weakly(output if isinstance(output, Tensor) else output[0])
            self.owners[chain.normed.cdata] = chain
        return output

    def _norms(self, chain: _Chain, key: int, operation: str) -> bool:
        """Notes that an operation is given a chain's tensor; tells whether it norms it."""
        if key == chain.output.cdata:
            if chain.norm is None and "batch_norm" in operation and _is_norm(self.running):
                chain.norm = self.running
                return True
            chain.seen_elsewhere = True
            return False
        first = chain.relu is None and operation in RELUS and type(self.running) is nn.ReLU
        chain.relu = self.running if first else None
        if not first or operation == IN_PLACE:
            # from here on it is anybody's
            del self.owners[key]
            chain.normed = None
        return False


def _weakly(tensor: Tensor) -> StorageWeakRef:
    return StorageWeakRef(tensor.untyped_storage())  # type: ignore[no-untyped-call]


def _is_gone(storage: StorageWeakRef) -> bool:
    return bool(storage.expired())  # type: ignore[no-untyped-call]


def _storage(leaf: Any) -> int:
    dense = isinstance(leaf, Tensor) and leaf.layout is torch.strided
    return int(leaf.untyped_storage()._cdata) if dense else 0


class _Folded:
    """A convolution with a batch norm in its weight and bias, and perhaps a ReLU behind them."""

    def __init__(self, chain: _Chain, waiting: Waiting) -> None:
        self.chain, self.behind, self.waiting = chain, chain.behind, waiting
        self.weight, self.bias = torch.empty(0), torch.empty(0)
        # of the inputs that it is laid out for, and None where it is for all
        self.shape: torch.Size | None = torch.Size()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Convolves, norms and rectifies, and lets the output wait for those who would have."""
        if len(args) != 1 or kwargs:
            return nn.Conv2d.forward(self.chain.conv, *args, **kwargs)
        output = self._convolved(*args)
        self.waiting[id(output)] = output, self.behind
        return output

    def _convolved(self, inputs: Tensor) -> Tensor:
        conv, rectified = self.chain.conv, self.chain.relu is not None
        packs = is_packable(conv) and is_plain(inputs)
        # of another shape than it is laid out for it is no faster: the dry run's was one
        if self.shape != (shape := inputs.shape if packs else None):
            weight, self.bias = _fused(self.chain)
            self.weight = laid_out(conv, weight, inputs) if packs else weight
            self.shape = shape
        if packs:
            return convolved(conv, inputs, self.weight, self.bias, "relu" if rectified else "none")
        output: Tensor = conv._conv_forward(inputs, self.weight, self.bias)
        return output.relu_() if rectified else output


def _fused(chain: _Chain) -> tuple[Tensor, Tensor]:
    conv, norm = chain.conv, chain.norm
    # those of the batch's own moments are not taken
    assert norm and norm.running_mean is not None and norm.running_var is not None
    moments = norm.running_mean, norm.running_var, norm.eps
    weight, bias = fuse_conv_bn_weights(conv.weight, conv.bias, *moments, norm.weight, norm.bias)
    return weight.detach().contiguous(memory_format=LAST), bias.detach()


def _handing_on(layer: nn.Module, waiting: Waiting) -> Callable[..., Any]:
    plain = layer.forward
    rest: Any = layer if type(layer).__name__ == NORM_AND_ACTIVATION else None

    def run(*args: Any, **kwargs: Any) -> Any:
        tensor, behind = waiting.get(id(args[0]), NOTHING) if args else NOTHING
        if tensor is None or tensor is not args[0] or behind[0] is not layer:
            return plain(*args, **kwargs)
        del waiting[id(tensor)]
        if behind[1:]:
            waiting[id(tensor)] = tensor, behind[1:]
        return rest.act(rest.drop(tensor)) if rest else tensor

    return run
