"""Traces in a pass which operations read the outputs of convolutions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from camcli.models.acceleration.faster_forwards import is_accelerated
from camcli.models.acceleration.onednn_conv import can_fold_conv
from camcli.models.state import in_this_thread, is_hooked, patch_forward

# timm's, by its name: importing timm is slow, and torchvision's models do not need it
NORM_AND_ACTIVATION = "BatchNormAct2d"
# rectifiers that oneDNN has behind a convolution, and the operations that they run
RECTIFIERS: Mapping[type[nn.Module], frozenset[str]] = {
    nn.ReLU: frozenset({"aten::relu", "aten::relu_"}),
    nn.ReLU6: frozenset({"aten::hardtanh", "aten::hardtanh_"}),
}
IN_PLACE = {"aten::relu_", "aten::hardtanh_"}


def is_norm(layer: nn.Module | None) -> TypeGuard[nn.BatchNorm2d]:
    """Tells whether a layer is a batch norm with running moments in float32."""
    if not isinstance(layer, nn.BatchNorm2d) or layer.running_mean is None:
        return False
    # subclasses may compute something else
    known = type(layer) is nn.BatchNorm2d or type(layer).__name__ == NORM_AND_ACTIVATION
    return known and layer.running_mean.dtype == torch.float32


def _is_modified(layer: nn.Module) -> bool:
    """Tells whether a layer has hooks, or a `forward` other than its class's."""
    return is_hooked(layer) or ("forward" in vars(layer) and not is_accelerated(layer))


@dataclass(eq=False)
class ConvChain:
    """A convolution, the norm and ReLU behind it, and whether anything else reads their inputs."""

    conv: nn.Conv2d
    output: StorageWeakRef | None
    norm: nn.BatchNorm2d | None = None
    relu: nn.Module | None = None
    # the output of the norm, while nothing but a ReLU has read it
    normed_output: StorageWeakRef | None = None
    is_read_elsewhere: bool = False

    @property
    def behind(self) -> tuple[nn.Module, ...]:
        """The layers that have nothing left to do when the convolution is folded."""
        return tuple(layer for layer in (self.norm, self.relu) if layer)


@contextmanager
def trace_conv_outputs(layers: Iterable[nn.Module]) -> Iterator[ConvOutputTracer]:
    """Traces the passes that run in its block; layers that were modified are left out."""
    tracer = ConvOutputTracer()
    with ExitStack() as stack:
        for layer in layers:
            if _is_modified(layer):
                continue
            if can_fold_conv(layer):
                forward = in_this_thread(tracer._record_conv(layer), otherwise=layer.forward)
                stack.enter_context(patch_forward(layer, forward))
            elif is_norm(layer) or type(layer) in RECTIFIERS:
                forward = in_this_thread(tracer._record_layer(layer), otherwise=layer.forward)
                stack.enter_context(patch_forward(layer, forward))
        stack.enter_context(tracer)
        yield tracer


class ConvOutputTracer(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Traces in a pass what reads the outputs of convolutions.

    It watches operations, not layers, because a model's own code may read an output, too.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.chains: dict[nn.Conv2d, ConvChain] = {}
        # by the storage of their outputs; a reference is kept, so that no other tensor gets it
        self.owners: dict[int, ConvChain] = {}
        self.running: nn.Module | None = None

    def list_chains(self) -> Iterator[ConvChain]:
        """Yields the convolutions whose output is gone, and which only a norm has read."""
        for chain in self.chains.values():
            if chain.normed_output and not _is_gone(chain.normed_output):
                chain.relu = None
            is_gone = chain.output is None or _is_gone(chain.output)
            if chain.norm and is_gone and not chain.is_read_elsewhere:
                yield chain

    def _record_conv(self, conv: nn.Conv2d) -> Callable[..., Any]:
        """Returns a forward for a convolution that notes its output."""

        def run(*args: Any, **kwargs: Any) -> Any:
            # the class's own forward: a weight that will be folded is not prepacked as well
            output = type(conv).forward(conv, *args, **kwargs)
            if conv in self.chains:
                # a convolution that is used twice is not folded
                self.chains[conv].is_read_elsewhere = True
            else:
                reference = _make_weak(output)
                self.chains[conv] = self.owners[reference.cdata] = ConvChain(conv, reference)
            return output

        return run

    def _record_layer(self, layer: nn.Module) -> Callable[..., Any]:
        """Returns a forward for a layer that notes that the layer is running."""
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
        """Runs an operation, and notes its inputs and outputs."""
        # each tensor once: it may be given twice
        given = set(map(_find_storage_id, tree_leaves((args, kwargs))))
        owners = [(key, self.owners[key]) for key in given if key in self.owners]
        norming = [chain for key, chain in owners if self._is_normed_by(chain, key, func.name())]
        output = func(*args, **(kwargs or {}))
        for chain in norming:
            chain.normed_output = _make_weak(output if isinstance(output, Tensor) else output[0])
            self.owners[chain.normed_output.cdata] = chain
        return output

    def _is_normed_by(self, chain: ConvChain, key: int, operation: str) -> bool:
        """Notes that an operation reads a chain's tensor; tells whether it is the chain's norm."""
        if chain.output is not None and key == chain.output.cdata:
            if chain.norm is None and "batch_norm" in operation and is_norm(self.running):
                chain.norm = self.running
                return True
            chain.is_read_elsewhere = True
            return False
        running = self.running
        rectifies = running is not None and operation in RECTIFIERS.get(type(running), ())
        first = chain.relu is None and rectifies
        chain.relu = running if first else None
        if not first or operation in IN_PLACE:
            # from here on anything may read it
            del self.owners[key]
            chain.normed_output = None
        return False


def _make_weak(tensor: Tensor) -> StorageWeakRef:
    return StorageWeakRef(tensor.untyped_storage())  # type: ignore[no-untyped-call]


def _is_gone(storage: StorageWeakRef) -> bool:
    return bool(storage.expired())  # type: ignore[no-untyped-call]


def _find_storage_id(leaf: Any) -> int:
    dense = isinstance(leaf, Tensor) and leaf.layout is torch.strided
    return int(leaf.untyped_storage()._cdata) if dense else 0
