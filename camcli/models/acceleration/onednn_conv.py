"""Prepacks the weights of convolutions once for many passes; torch does so in each pass."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from camcli.models.same_padding import pads_same

# processors on which it was measured
PROCESSORS = ("x86_64", "amd64")
# torch.compile's own, which other versions of torch may not have
OPERATORS = ("_reorder_convolution_weight", "_convolution_pointwise")
# numbers of a weight: for fewer the operation takes longer to start than torch to lay them out
FEWEST = 2**16
# numbers of an output from which it is faster however few weights there are, since torch writes the
# bias first, and a rectifier reads all of it again; where channels are joined, and depthwise
FEWEST_OUTPUTS, FEWEST_DEPTHWISE = 2**19, 2**15


class Rectifier(NamedTuple):
    """A rectifier as oneDNN calls it behind a convolution, and its limits."""

    name: str
    limits: tuple[()] | tuple[float, float] = ()

    def rectify(self, output: Tensor) -> Tensor:
        """Rectifies an output in place."""
        if not self.limits:
            return output.relu_()
        least, most = self.limits
        return F.hardtanh(output, least, most, inplace=True)


def describe_rectifier(layer: nn.Module) -> Rectifier:
    """Describes a ReLU or ReLU6."""
    if isinstance(layer, nn.ReLU6):
        return Rectifier("hardtanh", (layer.min_val, layer.max_val))
    return Rectifier("relu")


def can_replace_conv(layer: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Tells whether a layer is a plain convolution in float32 on a CPU."""
    # subclasses may use their weight in another way
    return (
        type(layer) is nn.Conv2d
        and is_plain_weight(layer.weight)
        and layer.padding_mode == "zeros"
        and not isinstance(layer.padding, str)
    )


def can_fold_conv(layer: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Tells whether a layer is such a convolution, or one that pads as TensorFlow does."""
    if not pads_same(layer):
        return can_replace_conv(layer)
    plain = layer.padding == (0, 0) and layer.dilation == (1, 1) and layer.padding_mode == "zeros"
    return plain and is_plain_weight(layer.weight)


def is_depthwise(layer: nn.Conv2d) -> bool:
    """Tells whether a convolution filters each channel by itself."""
    return layer.groups == layer.in_channels == layer.out_channels


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


def is_large(layer: nn.Conv2d, inputs: Tensor) -> bool:
    """Tells whether a convolution pays off in oneDNN's operation however few weights it has."""
    height, width = inputs.shape[2] // layer.stride[0], inputs.shape[3] // layer.stride[1]
    outputs = len(inputs) * layer.out_channels * height * width
    if layer.groups == 1:
        return outputs >= FEWEST_OUTPUTS
    return is_depthwise(layer) and outputs >= FEWEST_DEPTHWISE


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


def prepack(
    layer: nn.Conv2d, weight: Tensor, inputs: Tensor, padding: Sequence[int] | None = None
) -> Tensor:
    """Prepacks a convolution's weight for inputs of this shape; other shapes are slower.

    `padding` takes the place of the layer's own.
    """
    around = layer.padding if padding is None else padding
    shapes = around, layer.stride, layer.dilation, layer.groups, inputs.shape
    prepacked: Tensor = torch.ops.mkldnn._reorder_convolution_weight(weight, *shapes)
    return prepacked


def convolve(
    layer: nn.Conv2d,
    inputs: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    rectifier: Rectifier | None = None,
    padding: Sequence[int] | None = None,
) -> Tensor:
    """Convolves with a prepacked weight, and rectifies in the same operation.  [b c h w]

    `padding` takes the place of the layer's own.
    """
    around = layer.padding if padding is None else padding
    shapes = around, layer.stride, layer.dilation, layer.groups
    name, limits = rectifier or ("none", ())
    output: Tensor = torch.ops.mkldnn._convolution_pointwise(
        inputs, weight, bias, *shapes, name, limits, ""
    )
    return output
