"""Finds the hot regions of a map: boxes around them, and their outlines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from camcli.errors import UsageError
from camcli.metrics.localization.components import find_components
from camcli.records import Box, HotBox
from camcli.render.box_drawing import Contour, draw_boxes, draw_contours

Map: TypeAlias = NDArray[np.floating[Any]]
Which = Literal["largest", "all"]

THRESHOLD = 0.2  # of the maximum, as in the CAM paper, arXiv:1512.04150


@dataclass(frozen=True)
class HotRegions:
    """What is hot in a picture: boxes around the regions, and their outlines."""

    boxes: tuple[HotBox, ...] = ()
    contours: tuple[Contour, ...] = ()

    def draw(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Draws the outlines, and the boxes above them.  uint8 RGB [h w 3]"""
        if self.contours:
            pixels = draw_contours(pixels, self.contours)
        return draw_boxes(pixels, (hot.box for hot in self.boxes)) if self.boxes else pixels


NO_REGIONS = HotRegions()


def boxes_of(
    values: Map, threshold: float = THRESHOLD, which: Which = "largest"
) -> tuple[HotBox, ...]:
    """Finds the boxes around what exceeds a share of the map's maximum.  [h w] at picture size

    Regions are connected, corners included; `largest` gives the one of most pixels, `all` every
    one, the largest first.  NaN, as outside the view, is cold.  A map without positive heat has no
    box.  Raises UsageError.

    >>> import numpy as np
    >>> heat = np.zeros((4, 8))
    >>> heat[1:3, 2:5] = 1
    >>> boxes_of(heat)[0].box
    Box(left=2, top=1, right=5, bottom=3)
    """
    mask = hot_mask(values, threshold)
    components = find_components(mask)
    rows = zip(components.boxes.tolist(), components.areas.tolist(), strict=True)
    # of equally large ones the first in the picture comes first
    boxes = sorted((HotBox(Box(*edges), area) for edges, area in rows), key=lambda hot: -hot.area)
    return tuple(boxes[:1] if which == "largest" else boxes)


def find_regions(
    values: Map, threshold: float = THRESHOLD, which: Which | None = "largest", *, contour: bool
) -> HotRegions:
    """Finds boxes (none without `which`) and outlines of what is hot.  [h w] at picture size

    Raises UsageError.
    """
    boxes = boxes_of(values, threshold, which) if which else ()
    return HotRegions(boxes, contours_of(values, threshold) if contour else ())


def hot_mask(values: Map, threshold: float = THRESHOLD) -> NDArray[np.bool_]:
    """Tells which places exceed a share of the map's maximum.  [h w] -> bool; raises UsageError."""
    if not 0 <= threshold < 1:
        raise UsageError(
            f"A threshold is a share of the map's maximum, from 0 to below 1, not {threshold}."
        )
    if values.ndim != 2 or not values.size:
        raise UsageError(f"Boxes are found in one map [h w], not in shape {list(values.shape)}.")
    finite = np.isfinite(values)
    heat = np.where(finite, values, 0)
    return np.asarray((heat > threshold * max(float(heat.max()), 0)) & finite)


def percentile_mask(values: Map, percentile: float) -> NDArray[np.bool_]:
    """Tells which places exceed a percentile of the map, and zero.  [h w] -> bool

    The percentile is that of what the view shows: NaN, as outside it, is left out.  Raises
    UsageError.

    >>> import numpy as np
    >>> percentile_mask(np.arange(8.0).reshape(2, 4), 75).tolist()
    [[False, False, False, False], [False, False, True, True]]
    """
    if not 0 <= percentile < 100:
        raise UsageError(f"A percentile goes from 0 to below 100, not {percentile}.")
    finite = np.isfinite(values)
    if not finite.any():
        return finite
    least = max(float(np.percentile(values[finite], percentile)), 0.0)
    return np.asarray(np.where(finite, values, 0) > least)


def contours_of(values: Map, threshold: float = THRESHOLD) -> tuple[Contour, ...]:
    """Finds the outlines of what exceeds a share of the map's maximum.  [h w] -> n x [points 2]

    Points are x, y of pixels' centres, counted from 0 (the corner pixel's is 0, 0), on the
    outermost pixels inside; outlines of holes are among them.
    """
    mask = hot_mask(values, threshold).astype(np.uint8)
    contours, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    return tuple(np.asarray(contour, np.float64).reshape(-1, 2) for contour in contours)
