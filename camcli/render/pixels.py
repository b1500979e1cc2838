"""Draws the signed values of pixels on grey, and lays them where the network saw them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from camcli.records import Box
from camcli.render.overlay import dim

GREY = 128
# percent of the values other than zero that are drawn in full strength: a few are far above the
# rest, and would leave nothing but grey beside them
BRIGHT = 1.0


def draw_on_grey(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Draws signed values of an input [c H W], zero in grey: uint8 RGB [H W 3].

    Three channels are red, green and blue; of any other number the mean is drawn.
    """
    colours = values if len(values) == 3 else values.mean(0, keepdims=True).repeat(3, 0)
    finite = np.nan_to_num(colours, nan=0.0, posinf=0.0, neginf=0.0)
    strengths = np.abs(finite[finite != 0])
    full = np.percentile(strengths, 100 - BRIGHT) if strengths.size else 1.0
    levels = (finite / full).clip(-1, 1) * (255 - GREY) + GREY
    return np.ascontiguousarray(levels.round().astype(np.uint8).transpose(1, 2, 0))


def lay_pixels(
    picture: NDArray[np.uint8], pixels: NDArray[np.uint8], box: Box
) -> NDArray[np.uint8]:
    """Lays drawn pixels [H W 3] on the part of a picture [h w 3] that they show; dims the rest."""
    drawn = dim(picture)
    height, width = drawn.shape[:2]
    left, top = max(0, round(box.left)), max(0, round(box.top))
    right, bottom = min(width, round(box.right)), min(height, round(box.bottom))
    if right <= left or bottom <= top:
        return drawn
    # of the network's input, the part that lies inside the picture
    across, down = pixels.shape[1] / box.width, pixels.shape[0] / box.height
    part = (
        (left - box.left) * across,
        (top - box.top) * down,
        min((right - box.left) * across, pixels.shape[1]),
        min((bottom - box.top) * down, pixels.shape[0]),
    )
    part = (max(part[0], 0), max(part[1], 0), part[2], part[3])
    image = Image.fromarray(pixels)
    size = (right - left, bottom - top)
    drawn[top:bottom, left:right] = np.asarray(image.resize(size, Image.Resampling.BICUBIC, part))
    return drawn
