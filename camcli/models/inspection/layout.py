"""Measures from a layer output's shape how it is laid out as maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, floor, prod, sqrt
from typing import Any, Literal

import torch
from torch import Tensor

from camcli.errors import LayerError

Kind = Literal["nchw", "nhwc", "tokens", "channel tokens", "sequence first"]
# kinds whose places are tokens in a row, in any order
TOKENS: tuple[Kind, ...] = ("tokens", "channel tokens", "sequence first")
Size = tuple[int, int]

# rounding of both sides moves a grid by less than a cell from the input's aspect ratio
MISFIT = 1.0
MOST_EXTRA_TOKENS = 16
# the weight of a cell of misfit against extra tokens: with 25 all patch grids of strides from 8 to
# 32 and aspect ratios to 2:1 are read correctly behind 0 to 8 extra tokens; with 20 or 30 some are
# not
CELL_IN_TOKENS = 25.0
# a class token and some registers are common; with more extra tokens another reading is likelier
COMMON_EXTRA_TOKENS = 8
CONVOLUTION_STRIDES = (1, 2, 4, 8, 16, 32, 64)
PATCH_STRIDES = (8, 14, 16, 32)
COMMON_STRIDES = sorted({*CONVOLUTION_STRIDES, *PATCH_STRIDES, 12})
# the weight of an unusual stride against extra tokens: more than the common number of them
ODD_STRIDE = COMMON_EXTRA_TOKENS + 1.0
SQUARE_EXTRA_TOKENS = (0, 1, 2)
# unpadded convolutions leave 5x5 and 6x6 cells of small pictures, as in LeNet and capsule networks
FEW_TOKENS = {0, 1, 4}
READINGS = {True: ("--vit-like", "[b h w c]"), False: ("--no-vit-like", "[b c h w]")}


@dataclass(frozen=True)
class Layout:
    """Where the grid is in a layer's output.

    `kind` is `nchw` [b c h w], `nhwc` [b h w c], `tokens` [b n c], `channel tokens` [b c n] or
    `sequence first` [n b c].  The n tokens are `prefix` extra tokens, then the h*w tokens of the
    grid, then `suffix` extra tokens.  The grid's tokens are in reading order, or else `order` has
    the index of each cell's token, counted from behind the prefix; extra tokens may then lie among
    them.
    """

    kind: Kind
    grid: tuple[int, int]
    prefix: int = 0
    suffix: int = 0
    order: tuple[int, ...] = ()

    @property
    def description(self) -> str:
        """The layout in words: `14x14 tokens behind 1 extra`."""
        name = "tokens, sequence first" if self.kind == "sequence first" else self.kind
        before = f" behind {self.prefix} extra" if self.prefix else ""
        after = f" before {self.suffix} extra" if self.suffix else ""
        order = ", put in order" if self.order else ""
        return f"{_format_size(self.grid)} {name}{before}{after}{order}"


def find_tensor(output: Any) -> Tensor | None:
    """Returns a layer's output [...], or the first tensor of a tuple or list, or None."""
    parts = output if isinstance(output, tuple | list) else [output]
    return next((part for part in parts if isinstance(part, Tensor)), None)


def replace_tensor(output: Any, new: Tensor) -> Any:
    """Puts a new tensor [...] where `find_tensor` finds one in an output, whose type stays."""
    if isinstance(output, Tensor):
        return new
    position = next(i for i, part in enumerate(output) if isinstance(part, Tensor))
    # a namedtuple takes its parts as separate arguments
    build = getattr(output, "_make", type(output))
    return build([*output[:position], new, *output[position + 1 :]])


def convert_to_tokens(output: Tensor, layout: Layout) -> Tensor:
    """Lays out a layer's output as [b c n], with its extra tokens and in its own order."""
    match layout.kind:
        case "nchw":
            return output.flatten(2)
        case "nhwc":
            return output.permute(0, 3, 1, 2).flatten(2)
        case "tokens":
            return output.transpose(1, 2)
        case "sequence first":
            return output.permute(1, 2, 0)
        case "channel tokens":
            return output


def convert_to_maps(output: Tensor, layout: Layout) -> Tensor:
    """Lays out a layer's output as maps [b c h w]: a view of it, if it is in reading order."""
    if not layout.order:
        if layout.kind == "nchw":
            return output
        if layout.kind == "nhwc":
            return output.permute(0, 3, 1, 2)
    tokens = convert_to_tokens(output, layout)
    (h, w), (b, c) = layout.grid, tokens.shape[:2]
    if layout.order:
        return tokens[:, :, _list_cell_indices(layout, tokens)].view(b, c, h, w)
    return tokens.narrow(2, layout.prefix, h * w).view(b, c, h, w)


def _list_cell_indices(layout: Layout, tokens: Tensor) -> Tensor:
    return torch.tensor(layout.order, device=tokens.device) + layout.prefix


def convert_from_maps(maps: Tensor, layout: Layout, like: Tensor) -> Tensor:
    """Lays out maps [n c h w] in the layer's own shape, with the extra tokens of `like`.

    `like` is an output of the layer for one picture or for n.
    """
    if not layout.order:
        if layout.kind == "nchw":
            return maps
        if layout.kind == "nhwc":
            return maps.permute(0, 2, 3, 1)
    places, n = maps.flatten(2), prod(layout.grid)
    if layout.order:
        tokens = convert_to_tokens(like, layout).expand(len(maps), -1, -1).clone()
        tokens[:, :, _list_cell_indices(layout, tokens)] = places.to(tokens.dtype)
    else:
        extra = convert_to_tokens(like, layout).expand(len(maps), -1, -1)
        before, after = extra[:, :, : layout.prefix], extra[:, :, layout.prefix + n :]
        tokens = torch.cat((before, places, after), dim=2)
    match layout.kind:
        case "nchw":
            return tokens.view(*tokens.shape[:2], *like.shape[2:])
        case "nhwc":
            return tokens.view(*tokens.shape[:2], *like.shape[1:3]).permute(0, 2, 3, 1)
        case "tokens":
            return tokens.transpose(1, 2)
        case "sequence first":
            return tokens.permute(2, 0, 1)
        case "channel tokens":
            return tokens


def find_batch_axis(shape: tuple[int, ...], batch: int) -> int:
    """Returns the axis of an output that counts its pictures: 0, or 1 if it is [n b c].

    `shape` is that of a layer's output for `batch` pictures.
    """
    return 1 if _may_be_sequence(shape, batch) else 0


def measure_layout(
    shape: tuple[int, ...], input_size: Size, *, batch: int | None = None
) -> Layout | None:
    """Finds a layout from an output's shape (batch first) and the input's size (H, W).

    Returns None if there is no grid larger than 1x1, or if the output's batch is not the given one
    (windows or heads are folded into the batch).  If a batch is given, the output may also be [n b
    c].
    """
    if batch is not None and shape[:1] != (batch,):
        return (
            _measure_sequence_first(shape, input_size) if _may_be_sequence(shape, batch) else None
        )
    if len(shape) == 4:
        return _measure_maps(shape, input_size)
    if len(shape) == 3:
        return _measure_tokens(shape, input_size)
    return None


def _may_be_sequence(shape: tuple[int, ...], batch: int) -> bool:
    """Tells whether an output may be [n b c] for this batch, and cannot be [b n c]."""
    return len(shape) == 3 and shape[0] != batch and shape[1] == batch


def _measure_sequence_first(shape: tuple[int, ...], input_size: Size) -> Layout | None:
    layout = read_tokens(shape[0], input_size)
    return replace(layout, kind="sequence first") if layout else None


def force_layout(
    shape: tuple[int, ...],
    input_size: Size,
    *,
    vit_like: bool | None = None,
    num_extra_tokens: int | None = None,
    layer: str = "the layer",
    batch: int | None = None,
    sequence_first: bool = False,
) -> Layout:
    """Returns a layout by the user's options, and measures what they leave open.

    `shape` is that of the layer's output, and `input_size` the (height, width) that it is of.
    `vit_like` True: channels are last, [b n c] or [b h w c]; False: maps [b c h w].
    `num_extra_tokens` come before the grid's tokens.  `sequence_first`: the output was seen to be
    [n b c].  Raises LayerError if the numbers give no grid.
    """
    output = f"{layer!r} puts out [{_format_shape(shape)}]"
    if sequence_first and len(shape) == 3:
        read = force_layout(
            (shape[1], shape[0], shape[2]),
            input_size,
            vit_like=vit_like is not False,
            num_extra_tokens=num_extra_tokens,
            layer=layer,
        )
        return replace(read, kind="sequence first")
    if batch is not None and shape[:1] != (batch,):
        raise LayerError(
            f"{output} for a batch of {batch}: windows, heads or joined frames are folded into the "
            "batch. Name the block around it instead. Layers with a grid: camviz --preview-model"
        )
    if num_extra_tokens is not None and num_extra_tokens < 0:
        raise LayerError(f"--num-extra-tokens is 0 or more, not {num_extra_tokens}.")
    if len(shape) == 3 and vit_like is False:
        raise LayerError(
            f"{output}, which are tokens, and --no-vit-like asks for maps [b c h w]. Leave it out, "
            "or name another layer."
        )
    if len(shape) == 4 and num_extra_tokens:
        raise LayerError(
            f"{output}, which are maps and have no extra tokens. Leave --num-extra-tokens"
            f" {num_extra_tokens} out, or name another layer."
        )
    if len(shape) == 3 and num_extra_tokens is not None:
        layout = _read_behind_extra(num_extra_tokens, shape, input_size, vit_like)
        if layout is None:
            raise LayerError(_explain_arithmetic(layer, shape[1], num_extra_tokens, input_size))
        return layout
    layout = _read_layout_options(shape, input_size, vit_like)
    if layout is None or prod(layout.grid) <= 1:
        raise LayerError(
            f"{output}, which is no grid larger than 1x1 for a {_format_size(input_size)} input."
            " Layers with a grid: camviz --preview-model"
        )
    if vit_like is not None and not _is_grid(layout.grid, input_size):
        option, letters = READINGS[vit_like]
        raise LayerError(
            f"{output}, which {option} reads as {letters}: {_format_size(layout.grid)} is no grid"
            f" for a {_format_size(input_size)} input. Leave {option} out, or name another layer."
        )
    return layout


def _read_layout_options(
    shape: tuple[int, ...], input_size: Size, vit_like: bool | None
) -> Layout | None:
    match len(shape), vit_like:
        case 4, True:
            return Layout("nhwc", (shape[1], shape[2]))
        case 4, False:
            return Layout("nchw", (shape[2], shape[3]))
        case 3, True:
            return read_tokens(shape[1], input_size)
        case _:
            return measure_layout(shape, input_size)


def _read_behind_extra(
    extra: int, shape: tuple[int, ...], input_size: Size, vit_like: bool | None
) -> Layout | None:
    if grid := _find_grid(shape[1] - extra, input_size):
        return Layout("tokens", grid, extra)
    if not vit_like and (grid := _find_grid(shape[2] - extra, input_size)):
        return Layout("channel tokens", grid, extra)
    return None


def _explain_arithmetic(layer: str, n: int, extra: int, input_size: Size) -> str:
    """Explains why n tokens minus the extra ones are no grid, and which number would be one."""
    others = sorted(range(MOST_EXTRA_TOKENS + 1), key=lambda other: abs(other - extra))
    near = ((other, _find_grid(n - other, input_size)) for other in others)
    nearest = next(
        (
            f" (nearest: {prod(grid)} = {_format_size(grid)} with {other} extra)"
            for other, grid in near
            if grid
        ),
        "",
    )
    return (
        f"{layer!r} puts out {n} tokens; {n} - {extra} extra = {n - extra}, which is no grid for"
        f" a {_format_size(input_size)} input{nearest}."
    )


def read_tokens(n: int, input_size: Size) -> Layout | None:
    """Reads n tokens as a few extra ones and a grid that fits the input's size (H, W), or None."""
    return _find_best_reading("tokens", n, input_size)[0]


def _measure_maps(shape: tuple[int, ...], input_size: Size) -> Layout | None:
    readings = (Layout("nchw", (shape[2], shape[3])), Layout("nhwc", (shape[1], shape[2])))
    fitting = [reading for reading in readings if _is_grid(reading.grid, input_size)]
    # min takes the first of equals, so ties are nchw
    best = min(fitting, key=lambda reading: _measure_misfit(reading.grid, input_size), default=None)
    if best and best.kind == "nchw" and _is_attention(best.grid, input_size):
        return None
    return best


def _measure_tokens(shape: tuple[int, ...], input_size: Size) -> Layout | None:
    tokens, tokens_cost = _find_best_reading("tokens", shape[1], input_size)
    if shape[1] <= MOST_EXTRA_TOKENS:
        # too few for channels: [b 1 c] is a class token alone
        return tokens
    channels, channels_cost = _find_best_reading("channel tokens", shape[2], input_size)
    tokens_cost += _score_oddity(tokens, COMMON_STRIDES, input_size)
    # 256 and 1024 are squares, but they are much more often numbers of channels
    channels_cost += _score_oddity(channels, CONVOLUTION_STRIDES, input_size)
    return channels if channels_cost + COMMON_EXTRA_TOKENS < tokens_cost else tokens


def _score_oddity(layout: Layout | None, strides: Sequence[int], input_size: Size) -> float:
    """Scores how unusual a grid's stride is; a square number may be a number of channels."""
    usual = layout and any(_has_stride(layout.grid, stride, input_size) for stride in strides)
    return 0 if usual else ODD_STRIDE


def _has_stride(grid: Size, stride: int, input_size: Size) -> bool:
    # an unpadded convolution leaves out a cell
    return all(abs(n - length / stride) <= 1 for n, length in zip(grid, input_size, strict=True))


def _find_best_reading(kind: Kind, n: int, input_size: Size) -> tuple[Layout | None, float]:
    """Reads n tokens as a few extra ones and a grid that fits; returns (None, inf) for none."""
    best, lowest = None, float("inf")
    for prefix in range(MOST_EXTRA_TOKENS + 1):
        grid = _find_grid(n - prefix, input_size)
        if grid and (cost := prefix + CELL_IN_TOKENS * _measure_misfit(grid, input_size)) < lowest:
            best, lowest = Layout(kind, grid, prefix), cost
    return best, lowest


def _find_grid(n: int, input_size: Size) -> Size | None:
    """Finds the grid of exactly n cells that fits the input's aspect ratio best, or None."""
    if n <= 1:
        return None
    height, width = input_size
    ideal, reach = sqrt(n * height / width), MISFIT * (height + width) / width
    sides = range(max(1, floor(ideal - reach)), ceil(ideal + reach) + 1)
    grids = [(h, n // h) for h in sides if n % h == 0 and _is_grid((h, n // h), input_size)]
    return min(grids, key=lambda grid: _measure_misfit(grid, input_size), default=None)


def _measure_misfit(grid: Size, input_size: Size) -> float:
    """Returns by how many cells a grid misses the input's shape: max(|h - H/s|, |w - W/s|).

    The stride s is the best possible one, which gives a closed form.
    """
    (h, w), (height, width) = grid, input_size
    return abs(h * width - w * height) / (height + width)


def _is_grid(grid: Size, input_size: Size) -> bool:
    (h, w), (height, width) = grid, input_size
    # with stride 1, padded even kernels make a grid a cell or two larger than its input
    if h * w <= 1 or h > height + 2 or w > width + 2:
        return False
    return h == w if height == width else _measure_misfit(grid, input_size) < MISFIT


def _is_attention(grid: Size, input_size: Size) -> bool:
    """Tells whether [b heads n n] looks like attention among n tokens, and not like n x n cells.

    Only square inputs need this check: n x n cells fit no other aspect ratio.
    """
    n, side = grid[0], input_size[0]
    if grid[0] != grid[1] or any(n in (side // s, -(-side // s)) for s in CONVOLUTION_STRIDES):
        return False
    counts = {(side // stride) ** 2 for stride in PATCH_STRIDES} - FEW_TOKENS
    return any(n - extra in counts for extra in SQUARE_EXTRA_TOKENS)


def _format_size(size: Size) -> str:
    return f"{size[0]}x{size[1]}"


def _format_shape(shape: tuple[int, ...]) -> str:
    return " ".join(map(str, shape))
