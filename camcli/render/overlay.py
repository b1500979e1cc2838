"""Lays a heatmap on the original picture, exactly inside the part that the network saw."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, Literal, TypeAlias

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from camcli.errors import UsageError
from camcli.methods.postprocessing import normalise, scale_to_range
from camcli.methods.postprocessing import scale_signed as signed_heat
from camcli.records import Box, Heatmap, Picture
from camcli.render.colormap import (
    MOST_OPAQUE,
    ColormapLike,
    colour_signs,
    find_colormap,
    look_up,
)

OUTSIDE = 0.4  # brightness left to what the network did not see

Scale: TypeAlias = tuple[float, float]  # the raw values of no and of full heat
Alpha: TypeAlias = float | Literal["auto"]
MapLike: TypeAlias = "Heatmap | NDArray[Any] | Tensor"


def overlay(
    picture: Picture | NDArray[np.uint8] | Image.Image,
    heatmap: MapLike,
    alpha: Alpha = 0.5,
    colormap: ColormapLike = "jet",
    *,
    box: Box | None = None,
    scale: Scale | None = None,
    signed: bool = False,
) -> NDArray[np.uint8]:
    """Lays a raw map [h w] on a picture: uint8 RGB [h w 3]; raises UsageError or UnknownName.

    Inside `box` (where it is left out, the whole picture) a pixel is `(1-alpha)*picture +
    alpha*colour`; outside it the picture is dimmed.  A map without heat leaves it as it is.  The
    colours go from the map's own least to most heat, or between the raw values of a `scale`.  Where
    alpha is `auto`, it follows the heat: none where there is none, so that the picture stays seen.

    A `signed` map, that of a value, is red where it is above zero and blue below, the more the
    further, on one scale for both; a colour map has no part in it.
    """
    check_alpha(alpha)
    # what is no colour map is an error for a map without heat, too
    table = find_colormap(colormap)
    pixels = _read_pixels(picture)
    raw = torch.from_numpy(_read_values(heatmap))
    heat = (_compute_signed_heat(raw, scale) if signed else _compute_heat(raw, scale)).numpy()
    if not heat.any():
        return pixels.copy()
    size = pixels.shape[0], pixels.shape[1]
    inside, seen = enlarge(heat, box or _make_whole_box(size), size)
    drawn = _dim_outside(pixels, seen)
    if signed:
        drawn[seen] = np.rint(paint_signs(inside, pixels[seen], alpha)).astype(np.uint8)
        return drawn
    part, colours = pixels[seen], look_up(inside, table)
    if alpha == "auto":
        share = find_opacity(inside, alpha)
        drawn[seen] = cv2.blendLinear(part, colours, 1 - share, share)
    else:
        drawn[seen] = cv2.addWeighted(part, 1 - alpha, colours, alpha, 0)
    return drawn


def find_opacity(heat: NDArray[np.float32], alpha: Alpha) -> NDArray[np.float32]:
    """Finds how much of each colour is laid on, for heat from 0 to 1."""
    most = np.float32(MOST_OPAQUE)
    return heat * most if alpha == "auto" else np.full_like(heat, alpha)


def paint_signs(
    heat: NDArray[np.float32], pixels: NDArray[np.uint8] | int = 255, alpha: Alpha = 1
) -> NDArray[np.float32]:
    """Lays heat from -1 to 1 on pixels, or on white, the more the further from zero.  -> RGB"""
    most = MOST_OPAQUE if alpha == "auto" else alpha
    share = most * np.abs(heat)[..., None]
    return np.asarray(pixels * (1 - share) + colour_signs(heat) * share, np.float32)


def _compute_signed_heat(raw: Tensor, scale: Scale | None) -> Tensor:
    return signed_heat(raw) if scale is None else signed_heat(raw, *_check_scale(scale))


def _compute_heat(raw: Tensor, scale: Scale | None) -> Tensor:
    return normalise(raw) if scale is None else scale_to_range(raw, *_check_scale(scale))


def _check_scale(scale: Scale) -> Scale:
    low, high = scale
    if not 0 <= low < high < math.inf:
        raise UsageError(f"A scale goes from 0 or more to a larger raw value, not {low} to {high}.")
    return scale


def check_alpha(alpha: Alpha) -> None:
    """Raises UsageError for what is neither a share nor `auto`."""
    if alpha != "auto" and (isinstance(alpha, str) or not 0 <= alpha <= 1):
        raise UsageError(
            f"alpha is a share from 0 (picture) to 1 (heatmap), or auto, not {alpha!r}."
        )


def resize_map(
    values: MapLike, box: Box, picture_size: tuple[int, int], outside: float = math.nan
) -> NDArray[np.float32]:
    """Enlarges a raw map [h w] to the picture's size (height, width).

    What lies `outside` the view has one value, by default NaN.
    """
    inside, seen = enlarge(_read_values(values), box, picture_size)
    everywhere = np.full(picture_size, outside, np.float32)
    everywhere[seen] = inside
    return everywhere


def enlarge(
    values: NDArray[np.float32], box: Box, picture_size: tuple[int, int]
) -> tuple[NDArray[np.float32], tuple[slice, slice]]:
    """Samples a map [h w] at the centres of the pixels in its view: float32 [rows cols], and where.

    Bilinear between the centres of the map's cells, and constant beyond the outermost ones.
    """
    rows, columns = find_seen(box, picture_size)
    wide = _interpolate(torch.from_numpy(values).T, columns, box.left, box.width).T.contiguous()
    return _interpolate(wide, rows, box.top, box.height).numpy(), (rows, columns)


def find_seen(box: Box, picture_size: tuple[int, int]) -> tuple[slice, slice]:
    """Finds the rows and columns of a picture (height, width) that lie in a view."""
    rows = _find_pixel_range(box.top, box.bottom, picture_size[0])
    return rows, _find_pixel_range(box.left, box.right, picture_size[1])


def _find_pixel_range(start: float, stop: float, count: int) -> slice:
    """The pixels whose centres lie between two edges, or the middle one where the gap has none."""
    middle = math.floor((start + stop) / 2)
    first = min(math.ceil(start - 0.5), middle)
    last = max(math.floor(stop - 0.5), middle)
    return slice(max(first, 0), min(last + 1, count))


def _interpolate(values: Tensor, pixels: slice, start: float, length: float) -> Tensor:
    """Samples a map at the pixels along its first axis: [cells n] -> [pixels n]."""
    # no product of matrices: NumPy's threads keep the cores busy afterwards, which slows
    # the model's next pass down (camviz help speed)
    before, behind, share = _find_neighbours(len(values), pixels.start, pixels.stop, start, length)
    # faster than `values[before]` (camviz help speed)
    return torch.lerp(values.index_select(0, before), values.index_select(0, behind), share)


# the pictures of a folder are of a few sizes, or all of one
@lru_cache(64)
def _find_neighbours(
    cells: int, first: int, stop: int, start: float, length: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Finds the cells on both sides of each pixel's centre, and how near it is to the second."""
    centres, last = torch.arange(first, stop) + 0.5, cells - 1
    position = ((centres.double() - start) / length * cells - 0.5).clamp(0, last)
    before = position.long()
    return before, (before + 1).clamp(max=last), (position - before).float()[:, None]


def dim(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Darkens a picture [h w 3] to what stands outside the view."""
    return np.asarray(cv2.convertScaleAbs(pixels, alpha=OUTSIDE), np.uint8)


def _dim_outside(pixels: NDArray[np.uint8], seen: tuple[slice, slice]) -> NDArray[np.uint8]:
    """Copies a picture [h w 3], and darkens what lies outside of the rows and columns seen."""
    drawn, (rows, columns) = pixels.copy(), seen
    around = (
        np.s_[: rows.start],
        np.s_[rows.stop :],
        np.s_[rows, : columns.start],
        np.s_[rows, columns.stop :],
    )
    for part in around:
        if drawn[part].size:
            drawn[part] = dim(drawn[part])
    return drawn


def _make_whole_box(picture_size: tuple[int, int]) -> Box:
    return Box(0, 0, picture_size[1], picture_size[0])


def _read_pixels(picture: Picture | NDArray[np.uint8] | Image.Image) -> NDArray[np.uint8]:
    if isinstance(picture, Picture):
        return picture.canvas
    if isinstance(picture, Image.Image):
        picture = picture.convert("RGB")
    pixels = np.asarray(picture)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise UsageError(
            f"The picture under an overlay is uint8 RGB [h w 3], not {pixels.dtype} "
            f"{list(pixels.shape)}."
        )
    return np.ascontiguousarray(pixels)


def _read_values(heatmap: MapLike) -> NDArray[np.float32]:
    values: Any = heatmap.values if isinstance(heatmap, Heatmap) else heatmap
    if isinstance(values, Tensor):
        values = values.detach().float().cpu().numpy()
    values = np.array(values, np.float32)
    if values.ndim != 2 or values.size == 0:
        raise UsageError(f"An overlay draws one map [h w], not shape {list(values.shape)}.")
    return np.asarray(values)
