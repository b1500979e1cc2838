"""Runs torchvision's attention in windows in one fused operation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from camcli.models.acceleration.onednn_conv import is_unrecorded
from camcli.models.state import StandIn

# torchvision's class for it
WINDOWS = "ShiftedWindowAttention"
# added where two cells of a window come from opposite edges, so that they do not attend
APART = -100.0


class FusedWindowAttention(StandIn):
    """A fused `forward` for torchvision's attention in shifted windows, arXiv:2103.14030.

    torchvision multiplies, softmaxes and multiplies in one function, so all of it is replaced.
    """

    def __init__(self, layer: nn.Module) -> None:
        self.layer, self.plain = layer, layer.forward

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Attends in one operation, unless a graph is recorded."""
        if is_unrecorded(*args, **kwargs) and args[0].ndim == 4 and not self.layer.training:
            return _attend(self.layer, args[0])
        return self.plain(*args, **kwargs)


def _attend(layer: Any, inputs: Tensor) -> Tensor:
    """Shifts the cells, attends in each window, and shifts back.  [b h w c] -> [b h w c]"""
    h, w = inputs.shape[1:3]
    high, wide = layer.window_size
    padded = F.pad(inputs, (0, 0, 0, -w % wide, 0, -h % high))
    sizes = padded.shape[1:3]
    # a single window is not shifted
    pairs = zip(layer.shift_size, layer.window_size, sizes, strict=True)
    shifts = [0 if window >= size else shift for shift, window, size in pairs]
    mask = layer.get_relative_position_bias()
    if any(shifts):
        apart = _make_attention_mask(sizes, layer.window_size, shifts)
        mask = (mask + apart[:, None]).repeat(len(inputs), 1, 1, 1)
    windows = _split_windows(_roll(padded, [-shift for shift in shifts]), high, wide)
    attended = _join_windows(_attend_in_windows(layer, windows, mask), sizes, high, wide)
    return _roll(attended, shifts)[:, :h, :w].contiguous()


def _attend_in_windows(layer: Any, windows: Tensor, mask: Tensor) -> Tensor:
    """Attends among the cells of each window, with the mask added.  [n m c] -> [n m c]"""
    n, m, _ = windows.shape
    # their forwards, not the modules: torchvision calls no module here, and hooks would fire
    stacked = layer.qkv.forward(windows).view(n, m, 3, layer.num_heads, -1)
    query, key, value = stacked.permute(2, 0, 3, 1, 4).unbind(0)
    attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    projected: Tensor = layer.proj.forward(attended.transpose(1, 2).flatten(2))
    return projected


def _split_windows(cells: Tensor, high: int, wide: int) -> Tensor:
    """Splits a picture's cells into windows.  [b h w c] -> [b*n high*wide c]"""
    b, h, w, c = cells.shape
    parts = cells.view(b, h // high, high, w // wide, wide, c).transpose(2, 3)
    return parts.reshape(-1, high * wide, c)


def _join_windows(windows: Tensor, sizes: Sequence[int], high: int, wide: int) -> Tensor:
    """Joins windows to pictures' cells again.  [b*n high*wide c] -> [b h w c]"""
    parts = windows.view(-1, sizes[0] // high, sizes[1] // wide, high, wide, windows.shape[-1])
    return parts.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def _roll(cells: Tensor, shifts: Sequence[int]) -> Tensor:
    """Rolls cells around the edges; without a shift they are not copied.  [b h w c]"""
    return cells.roll(list(shifts), (1, 2)) if any(shifts) else cells


def _make_attention_mask(
    sizes: Sequence[int], window: Sequence[int], shifts: Sequence[int]
) -> Tensor:
    """Makes the mask of cells that were no neighbours before the shift.  [n m m]"""
    rows, columns = (
        torch.bucketize(torch.arange(size), torch.tensor([size - w, size - shift]), right=True)
        for size, w, shift in zip(sizes, window, shifts, strict=True)
    )
    regions = (3 * rows[:, None] + columns)[None, :, :, None]
    inside = _split_windows(regions, window[0], window[1])[..., 0]
    return APART * (inside[:, None] != inside[:, :, None])
