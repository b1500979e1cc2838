"""Colours heat by lookup tables of 256 entries."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from camcli.errors import UnknownName

# OpenCV's, without the cyclic ones, in which least and most heat look alike
COLORMAPS = (
    "jet", "turbo", "viridis", "inferno", "magma", "plasma", "cividis", "parula", "hot", "bone",
    "pink", "cool", "rainbow", "ocean", "deepgreen", "spring", "summer", "autumn", "winter",
)  # fmt: skip


def apply_colormap(heat: NDArray[np.float32], colormap: str) -> NDArray[np.uint8]:
    """Colours heat from 0 to 1: [h w] -> uint8 RGB [h w 3]; raises UnknownName."""
    table = find_colormap(colormap)
    # cut off rather than rounded, as the peers do it
    level = (255 * heat).astype(np.uint8)
    return np.asarray(cv2.applyColorMap(level, table), np.uint8)


RAISES, LOWERS = (215, 25, 28), (44, 80, 200)  # what raises a value, and what lowers it: RGB


def colour_signs(heat: NDArray[np.float32]) -> NDArray[np.float32]:
    """Colours heat from -1 to 1 by its sign alone: [h w] -> RGB [h w 3]."""
    raises, lowers = np.array(RAISES, np.float32), np.array(LOWERS, np.float32)
    return np.where(heat[..., None] > 0, raises, lowers)


def find_colormap(colormap: str) -> NDArray[np.uint8]:
    """Finds a colour map by its name: uint8 RGB [256 1 3]; raises UnknownName."""
    name = colormap.lower()
    if name not in COLORMAPS:
        hint = f"All: {', '.join(COLORMAPS)}"
        raise UnknownName("colour map", colormap, COLORMAPS, hint)
    return _build_table(name)


@cache
def _build_table(name: str) -> NDArray[np.uint8]:
    levels = np.arange(256, dtype=np.uint8)[:, None]
    bgr = cv2.applyColorMap(levels, getattr(cv2, f"COLORMAP_{name.upper()}"))
    return np.ascontiguousarray(bgr[..., ::-1])
