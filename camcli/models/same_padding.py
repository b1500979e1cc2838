"""Convolutions that pad as TensorFlow's "same" does: no more than is needed, an odd row behind."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TypeGuard

from torch import Tensor, nn
from torch.nn import functional as F

# timm's, which is looked for only where timm was imported: importing it is slow
TIMMS = "timm.layers.conv2d_same"


class Conv2dSame(nn.Conv2d):
    """A convolution that pads so that its grid is the inputs' divided by the stride, rounded up."""

    def forward(self, x: Tensor) -> Tensor:
        """Pads, and convolves.  [b c h w] -> [b c h/s w/s]"""
        padded = F.pad(x, find_same_padding(self, x.shape))
        output: Tensor = self._conv_forward(padded, self.weight, self.bias)
        return output


def pads_same(layer: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Tells whether a layer is such a convolution, ours or timm's."""
    timms = getattr(sys.modules.get(TIMMS), "Conv2dSame", Conv2dSame)
    return type(layer) in (Conv2dSame, timms)


def find_same_padding(layer: nn.Conv2d, shape: Sequence[int]) -> tuple[int, int, int, int]:
    """Finds how such a convolution pads inputs [b c h w]: left, right, top, bottom."""
    high, wide = (
        max((-(-side // stride) - 1) * stride + size - side, 0)
        for side, stride, size in zip(shape[-2:], layer.stride, layer.kernel_size, strict=True)
    )
    return wide // 2, wide - wide // 2, high // 2, high - high // 2
