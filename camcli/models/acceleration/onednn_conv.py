"""Prepacks the weights of convolutions once for many passes; torch does so in each pass."""

from __future__ import annotations

import platform
from functools import cache
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

# processors on which it was measured
PROCESSORS = ("x86_64", "amd64")
# torch.compile's own, which other versions of torch may not have
OPERATORS = ("_reorder_convolution_weight", "_convolution_pointwise")
# numbers of a weight: for fewer the operation takes longer to start than torch to lay them out
FEWEST = 2**16


def can_replace_conv(layer: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Tells whether a layer is a plain convolution in float32 on a CPU."""
    # subclasses may use their weight in another way
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


def can_prepack(layer: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Tells whether a layer is a convolution whose weight can be prepacked here."""
    return (
        can_replace_conv(layer)
        and layer.groups == 1
        and layer.weight.numel() >= FEWEST
        and is_prepacking_supported(OPERATORS)
    )


def is_prepacking_supported(operators: tuple[str, ...]) -> bool:
    """Tells whether torch's oneDNN can prepack, on a processor on which that was measured."""
    # a program may have switched it off
    return bool(torch.backends.mkldnn.enabled) and _has_operators(operators)


@cache
def _has_operators(operators: tuple[str, ...]) -> bool:
    built = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    has_all = all(hasattr(torch.ops.mkldnn, name) for name in operators)
    return built and has_all and platform.machine().lower() in PROCESSORS


def is_plain(inputs: Any = None, *more: Any, **others: Any) -> bool:
    """Tells whether prepacked weights serve these inputs: channels last, and no graph recorded."""
    return (
        is_unrecorded(inputs, *more, **others)
        and inputs.ndim == 4
        # the operation puts out channels last for any input, and models may call `view` on that
        and inputs.is_contiguous(memory_format=torch.channels_last)
        and not inputs.is_contiguous()
    )


def is_unrecorded(inputs: Any = None, *more: Any, **others: Any) -> bool:
    """Tells whether inputs are float32 tensors on a CPU of which no graph is recorded."""
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


def prepack(layer: nn.Conv2d, weight: Tensor, inputs: Tensor) -> Tensor:
    """Prepacks a convolution's weight for inputs of this shape; other shapes are slower."""
    shapes = layer.padding, layer.stride, layer.dilation, layer.groups, inputs.shape
    prepacked: Tensor = torch.ops.mkldnn._reorder_convolution_weight(weight, *shapes)
    return prepacked


def convolve(
    layer: nn.Conv2d, inputs: Tensor, weight: Tensor, bias: Tensor | None, then: str = "none"
) -> Tensor:
    """Convolves with a prepacked weight; `then` may be "relu".  [b c h w]"""
    shapes = layer.padding, layer.stride, layer.dilation, layer.groups
    output: Tensor = torch.ops.mkldnn._convolution_pointwise(
        inputs, weight, bias, *shapes, then, [], ""
    )
    return output
