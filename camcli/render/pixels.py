"""Draws the signed values of pixels on grey."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

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
