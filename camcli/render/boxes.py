"""Finds boxes and outlines of the hot regions of a map, and draws them on the picture."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ImageColor

from camcli.errors import UsageError
from camcli.metrics.localization.components import find_components
from camcli.records import Box, HotBox

Map: TypeAlias = NDArray[np.floating[Any]]
Contour: TypeAlias = NDArray[np.float64]  # [n 2], x and y
Which = Literal["largest", "all"]

THRESHOLD = 0.2  # of the maximum, as in the CAM paper, arXiv:1512.04150
LIGHT, DARK = "#ffffff", "#000000"  # one of them is seen on any picture
THINNEST, SHARE = 2, 200  # a line's width in pixels, and as a share of the picture's shorter edge


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


def contours_of(values: Map, threshold: float = THRESHOLD) -> tuple[Contour, ...]:
    """Finds the outlines of what exceeds a share of the map's maximum.  [h w] -> n x [points 2]

    Points are x, y of pixels' centres, counted from 0 (the corner pixel's is 0, 0), on the
    outermost pixels inside; outlines of holes are among them.
    """
    mask = hot_mask(values, threshold).astype(np.uint8)
    contours, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    return tuple(np.asarray(contour, np.float64).reshape(-1, 2) for contour in contours)


def draw_boxes(
    pixels: NDArray[np.uint8], boxes: Iterable[Box], colour: str = LIGHT, width: int = 0
) -> NDArray[np.uint8]:
    """Draws boxes as frames that lie inside them, with a dark line inside.  uint8 RGB [h w 3]

    `width` is the line's in pixels, 0 for one that fits the picture.  Returns a copy.
    """
    drawn = np.ascontiguousarray(pixels).copy()
    thick = width or line_width(pixels.shape)
    for box in boxes:
        for ink, lines in ((DARK, thick + 1), (colour, thick)):
            _draw_frame(drawn, box, _parse_colour(ink), lines)
    return drawn


def _parse_colour(colour: str) -> tuple[int, int, int]:
    red, green, blue, *_ = ImageColor.getrgb(colour)
    return red, green, blue


def _draw_frame(
    pixels: NDArray[np.uint8], box: Box, colour: tuple[int, int, int], width: int
) -> None:
    """Fills the four sides of a frame that lies inside a box."""
    left, top = max(0, round(box.left)), max(0, round(box.top))
    right = min(pixels.shape[1], round(box.right))
    bottom = min(pixels.shape[0], round(box.bottom))
    across, down = min(width, right - left), min(width, bottom - top)
    if across <= 0 or down <= 0:
        return
    pixels[top : top + down, left:right] = colour
    pixels[bottom - down : bottom, left:right] = colour
    pixels[top:bottom, left : left + across] = colour
    pixels[top:bottom, right - across : right] = colour


def draw_contours(
    pixels: NDArray[np.uint8], contours: Sequence[Contour], colour: str = LIGHT, width: int = 0
) -> NDArray[np.uint8]:
    """Draws outlines, with a dark line around them.  uint8 RGB [h w 3]; returns a copy."""
    drawn = np.ascontiguousarray(pixels).copy()
    thick = width or line_width(pixels.shape)
    points = [np.rint(contour).astype(np.int32)[:, None] for contour in contours]
    for ink, lines in ((DARK, thick + 2), (colour, thick)):
        cv2.drawContours(drawn, points, -1, _parse_colour(ink), lines, cv2.LINE_8)
    return drawn


def line_width(shape: Sequence[int]) -> int:
    """Returns a width that is seen on a picture of this shape, [h w ...], in pixels."""
    return max(THINNEST, round(min(shape[:2]) / SHARE))
