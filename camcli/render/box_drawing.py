"""Draws boxes and outlines on the picture."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ImageColor

from camcli.records import Box

Contour: TypeAlias = NDArray[np.float64]  # [n 2], x and y


LIGHT, DARK = "#ffffff", "#000000"  # one of them is seen on any picture
THINNEST, SHARE = 2, 200  # a line's width in pixels, and as a share of the picture's shorter edge


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
