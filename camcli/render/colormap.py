"""Colours heat by lookup tables of 256 entries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from camcli.errors import UnknownName, UsageError

# a name, a table of 256 colours, or a function of levels 0..1, as matplotlib's colour maps are
ColormapLike: TypeAlias = "str | NDArray[Any] | Sequence[Any] | Callable[[Any], Any]"

# OpenCV's, without the cyclic ones, in which least and most heat look alike
COLORMAPS = (
    "jet", "turbo", "viridis", "inferno", "magma", "plasma", "cividis", "parula", "hot", "bone",
    "pink", "cool", "rainbow", "ocean", "deepgreen", "spring", "summer", "autumn", "winter",
)  # fmt: skip
LEVELS = 256


def apply_colormap(heat: NDArray[np.float32], colormap: ColormapLike) -> NDArray[np.uint8]:
    """Colours heat from 0 to 1: [h w] -> uint8 RGB [h w 3]; raises UnknownName or UsageError."""
    return look_up(heat, find_colormap(colormap))


def look_up(heat: NDArray[np.float32], table: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Colours heat from 0 to 1 by the colours of 256 levels [256 1 3]: [h w] -> RGB [h w 3]."""
    # cut off rather than rounded, as the peers do it
    level = (255 * heat).astype(np.uint8)
    return np.asarray(cv2.applyColorMap(level, table), np.uint8)


MOST_OPAQUE = 0.75  # of full heat, where opacity follows it
RAISES, LOWERS = (215, 25, 28), (44, 80, 200)  # what raises a value, and what lowers it: RGB


def colour_signs(heat: NDArray[np.float32]) -> NDArray[np.float32]:
    """Colours heat from -1 to 1 by its sign alone: [h w] -> RGB [h w 3]."""
    raises, lowers = np.array(RAISES, np.float32), np.array(LOWERS, np.float32)
    return np.where(heat[..., None] > 0, raises, lowers)


def find_colormap(colormap: ColormapLike) -> NDArray[np.uint8]:
    """Finds the colours of 256 levels of heat: uint8 RGB [256 1 3].

    Raises UnknownName, or UsageError for what is no colour map.
    """
    if isinstance(colormap, str):
        name = colormap.lower()
        if name not in COLORMAPS:
            hint = f"All: {', '.join(COLORMAPS)}"
            raise UnknownName("colour map", colormap, COLORMAPS, hint)
        return _build_table(name)
    colours = _call_colormap(colormap) if callable(colormap) else _read_numbers(colormap)
    return np.ascontiguousarray(_check_colours(colours)[:, None])


def _call_colormap(colormap: Callable[[Any], Any]) -> NDArray[Any]:
    """Asks a function for the colours of all levels at once, or else of each."""
    levels = np.linspace(0, 1, LEVELS)
    colours = _read_numbers(colormap(levels))
    if colours.shape[:1] != (LEVELS,):
        colours = _read_numbers([colormap(level) for level in levels])
    return colours


def _read_numbers(given: Any) -> NDArray[Any]:
    try:
        return np.asarray(given)
    except ValueError:  # rows of different lengths
        return np.empty(0)


def _check_colours(colours: NDArray[Any]) -> NDArray[np.uint8]:
    """Returns colours [256 3] or [256 4], floats 0..1 or whole numbers 0..255, as uint8 RGB."""
    is_float = np.issubdtype(colours.dtype, np.floating)
    top = 1 if is_float else 255
    if colours.shape not in ((LEVELS, 3), (LEVELS, 4)) or not (
        is_float or np.issubdtype(colours.dtype, np.integer)
    ):
        raise UsageError(
            "A colour map is a name, a table of colours [256 3], or a function of levels 0..1 to "
            f"colours, as matplotlib's are; this one gives {colours.dtype} {list(colours.shape)}."
        )
    if not ((colours >= 0) & (colours <= top)).all():  # NaN, too
        raise UsageError(
            "The colours of a colour map are floats from 0 to 1 or whole numbers from 0 to 255; "
            f"this one has others, from {colours.min():.4g} to {colours.max():.4g}."
        )
    if (colours[:, 3:] != top).any():
        raise UsageError(
            "A colour map has opaque colours, and this one has others: alpha says how much of the "
            "heat is laid on."
        )
    rgb = colours[:, :3]
    return np.rint(rgb * 255).astype(np.uint8) if is_float else rgb.astype(np.uint8)


@cache
def _build_table(name: str) -> NDArray[np.uint8]:
    levels = np.arange(LEVELS, dtype=np.uint8)[:, None]
    bgr = cv2.applyColorMap(levels, getattr(cv2, f"COLORMAP_{name.upper()}"))
    return np.ascontiguousarray(bgr[..., ::-1])
