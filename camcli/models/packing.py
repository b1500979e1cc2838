"""Weights of convolutions laid out once for many passes; torch does so at each, on a CPU."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from camcli.models.state import parts, standing_in

# where it was tried
PROCESSORS = ("x86_64", "amd64")
# torch.compile's own, which other versions of torch may not have
OPERATORS = ("_reorder_convolution_weight", "_convolution_pointwise")


@dataclass
class _Seen:
    """A weight that a convolution had, at which version, and as it is laid out."""

    weight: Tensor
    version: int
    laid_out: Tensor | None = None


@dataclass(frozen=True)
class Packings:
    """What was laid out, to be kept for as long as the same weights are used: about their size.

    To the last bit the same, a pass of ResNet-50 took 0.82 of the time with one picture, 0.92 with
    8, of ResNet-18 0.80 and 0.93; EfficientNet-B0 and DenseNet-121 0.94 to 1.04 (2 cores of an AMD
    EPYC, 2026-11-27).  Those in groups, depthwise ones too, were tried: 0.97 to 1.13.  So were
    MKL's for linear layers: 0.95 to 0.99, and kernels of 1x1 as matrix products: 1.01.
    """

    seen: dict[nn.Conv2d, _Seen] = field(default_factory=dict)

    def of(self, layer: nn.Conv2d, inputs: Tensor) -> Tensor | None:
        """Returns a layer's weight laid out, from the second time on that it is asked for."""
        weight = layer.weight
        version = -1 if weight.is_inference() else weight._version
        seen = self.seen.get(layer)
        if seen is None or seen.weight is not weight or seen.version != version:
            # a single pass would only take longer
            self.seen[layer] = _Seen(weight, version)
            return None
        if seen.laid_out is None:
            seen.laid_out = laid_out(layer, weight.detach(), inputs)
        return seen.laid_out


@contextmanager
def packed(module: nn.Module, packings: Packings) -> Iterator[None]:
    """Lets a model's convolutions use weights that are laid out, where no graph is recorded."""
    layers = parts(module)
    able = [layer for layer in layers if isinstance(layer, nn.Conv2d) and is_packable(layer)]
    with ExitStack() as stack:
        # where something stands in for a layer already, compiled code for one, nothing else does
        if able and not any("forward" in vars(layer) for layer in layers):
            for layer in able:
                stack.enter_context(standing_in(layer, Packed(layer, packings)))
        yield


class Packed:
    """Stands in for a convolution's `forward`, with its weight laid out where that is at hand."""

    def __init__(self, layer: nn.Conv2d, packings: Packings) -> None:
        self.layer, self.plain, self.packings = layer, layer.forward, packings

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the convolution, as it was written where a graph is recorded, among others."""
        if is_plain(*args, **kwargs):
            weight = self.packings.of(self.layer, args[0])
            if weight is not None:
                return convolved(self.layer, args[0], weight, self.layer.bias)
        return self.plain(*args, **kwargs)


def is_rewritable(layer: nn.Conv2d) -> bool:
    """Tells whether a convolution does with its weight what its class says, in float32 on a CPU."""
    # subclasses make something else of their weight
    return (
        type(layer) is nn.Conv2d
        and type(layer.weight) is nn.Parameter
        and layer.weight.dtype == torch.float32
        and layer.weight.device.type == "cpu"
        and layer.padding_mode == "zeros"
        and not isinstance(layer.padding, str)
    )


def is_packable(layer: nn.Conv2d) -> bool:
    """Tells whether a convolution's weight can be laid out here."""
    # a program may have switched oneDNN off
    enabled = bool(torch.backends.mkldnn.enabled) and works_here()
    return enabled and layer.groups == 1 and is_rewritable(layer)


@cache
def works_here() -> bool:
    """Tells whether torch's oneDNN can, on a processor on which it was tried."""
    built = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    there = all(hasattr(torch.ops.mkldnn, name) for name in OPERATORS)
    return built and there and platform.machine().lower() in PROCESSORS


def is_plain(inputs: Any = None, **others: Any) -> bool:
    """Tells whether inputs are what weights are laid out for: channels last, and no graph."""
    return (
        type(inputs) is Tensor
        and not others
        and inputs.ndim == 4
        and inputs.numel() > 0
        # it answers channels last whatever it is given, and models view what they get
        and inputs.is_contiguous(memory_format=torch.channels_last)
        and not inputs.is_contiguous()
        and inputs.dtype == torch.float32
        and inputs.device.type == "cpu"
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
    )


def laid_out(layer: nn.Conv2d, weight: Tensor, inputs: Tensor) -> Tensor:
    """Lays a convolution's weight out for inputs of this shape; of others it is put right again."""
    shapes = layer.padding, layer.stride, layer.dilation, layer.groups, inputs.shape
    found: Tensor = torch.ops.mkldnn._reorder_convolution_weight(weight, *shapes)
    return found


def convolved(
    layer: nn.Conv2d, inputs: Tensor, weight: Tensor, bias: Tensor | None, then: str = "none"
) -> Tensor:
    """Convolves with a weight that is laid out; `then` may be "relu".  [b c h w]"""
    shapes = layer.padding, layer.stride, layer.dilation, layer.groups
    output: Tensor = torch.ops.mkldnn._convolution_pointwise(
        inputs, weight, bias, *shapes, then, [], ""
    )
    return output
