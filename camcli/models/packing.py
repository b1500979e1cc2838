"""Weights laid out once for many passes, those of convolutions here; torch does so at each."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

# where it was tried
PROCESSORS = ("x86_64", "amd64")
# torch.compile's own, which other versions of torch may not have
OPERATORS = ("_reorder_convolution_weight", "_convolution_pointwise")


@dataclass
class _Seen:
    """A weight that a layer had, at which version, and as it is laid out."""

    weight: Tensor
    version: int
    laid_out: Tensor | None = None


@dataclass(frozen=True)
class Packings:
    """What was laid out, to be kept for as long as the same weights are used: about their size.

    To the last bit the same, a pass of ResNet-50 took 0.82 of the time with one picture, 0.92 with
    8, of ResNet-18 0.80 and 0.93; EfficientNet-B0 and DenseNet-121 0.94 to 1.04 (2 cores of an AMD
    EPYC, 2026-11-27).  Those in groups, depthwise ones too, were tried: 0.97 to 1.13.  So were
    kernels of 1x1 as matrix products: 1.01; and those of 3x3 by Winograd's F(4x4, 3x3) in torch's
    operations, arXiv:1509.09308: 1.8 of the time laid out takes with 64 channels, 0.8 with 512, and
    1e-5 apart (8 pictures, 2 cores of an Intel Xeon, 2026-11-28).
    """

    seen: dict[nn.Module, _Seen] = field(default_factory=dict)

    def of(
        self, layer: nn.Conv2d | nn.Linear, lay_out: Callable[[Tensor], Tensor]
    ) -> Tensor | None:
        """Returns a layer's weight laid out, from the second time on that it is asked for."""
        weight = layer.weight
        if weight.is_inference():
            # it has no version, and so nobody could tell when it changes
            return None
        seen, version = self.seen.get(layer), weight._version
        if seen is None or seen.weight is not weight or seen.version != version:
            # a single pass would only take longer
            self.seen[layer] = _Seen(weight, version)
            return None
        if seen.laid_out is None:
            seen.laid_out = lay_out(weight.detach())
        return seen.laid_out


class Packed:
    """Stands in for a convolution's `forward`, with its weight laid out where that is at hand."""

    def __init__(self, layer: nn.Conv2d, packings: Packings) -> None:
        self.layer, self.plain, self.packings = layer, layer.forward, packings

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the convolution, as it was written where a graph is recorded, among others."""
        if is_plain(*args, **kwargs):
            weight = self.packings.of(self.layer, partial(laid_out, self.layer, inputs=args[0]))
            if weight is not None:
                return convolved(self.layer, args[0], weight, self.layer.bias)
        return self.plain(*args, **kwargs)


def is_rewritable(layer: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Tells whether a layer convolves, with its weight as its class says, in float32 on a CPU."""
    # subclasses make something else of their weight
    return (
        type(layer) is nn.Conv2d
        and is_plain_weight(layer.weight)
        and layer.padding_mode == "zeros"
        and not isinstance(layer.padding, str)
    )


def is_plain_weight(weight: Tensor) -> bool:
    """Tells whether a weight is a layer's own parameter, in float32 on a CPU."""
    kind, place = weight.dtype, weight.device.type
    return type(weight) is nn.Parameter and kind == torch.float32 and place == "cpu"


def is_packable(layer: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Tells whether a layer convolves with a weight that can be laid out here."""
    return is_rewritable(layer) and layer.groups == 1 and works_here(OPERATORS)


def works_here(operators: tuple[str, ...]) -> bool:
    """Tells whether torch's oneDNN can do these, on a processor on which it was tried."""
    # a program may have switched it off
    return bool(torch.backends.mkldnn.enabled) and _is_built(operators)


@cache
def _is_built(operators: tuple[str, ...]) -> bool:
    built = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    there = all(hasattr(torch.ops.mkldnn, name) for name in operators)
    return built and there and platform.machine().lower() in PROCESSORS


def is_plain(inputs: Any = None, *more: Any, **others: Any) -> bool:
    """Tells whether inputs are what weights are laid out for: channels last, and no graph."""
    return (
        is_unrecorded(inputs, *more, **others)
        and inputs.ndim == 4
        # it answers channels last whatever it is given, and models view what they get
        and inputs.is_contiguous(memory_format=torch.channels_last)
        and not inputs.is_contiguous()
    )


def is_unrecorded(inputs: Any = None, *more: Any, **others: Any) -> bool:
    """Tells whether inputs are numbers in float32 on a CPU, of which no graph is recorded."""
    return (
        type(inputs) is Tensor
        and not more
        and not others
        and inputs.numel() > 0
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
