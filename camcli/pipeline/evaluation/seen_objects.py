"""Shows a picture's objects as the network sees them through its view."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from camcli.records import Box


def see_mask(mask: NDArray[np.bool_], view: Box, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Samples a picture's mask at the centres of the network's pixels.  [h w] -> [H W]"""
    rows = np.floor(view.top + (np.arange(size[0]) + 0.5) / size[0] * view.height).astype(int)
    columns = np.floor(view.left + (np.arange(size[1]) + 0.5) / size[1] * view.width).astype(int)
    inside_rows = (rows >= 0) & (rows < mask.shape[0])
    inside_columns = (columns >= 0) & (columns < mask.shape[1])
    seen = mask[np.clip(rows, 0, mask.shape[0] - 1)][:, np.clip(columns, 0, mask.shape[1] - 1)]
    return np.asarray(seen & inside_rows[:, None] & inside_columns)


def see_boxes(boxes: NDArray[np.float64], view: Box, size: tuple[int, int]) -> NDArray[np.float64]:
    """Cuts boxes at the view's edges, in pixels of the network's input.  [n 4] -> [m 4]"""
    corner = np.array([view.left, view.top] * 2)
    scale = np.array([size[1] / view.width, size[0] / view.height] * 2)
    seen = ((boxes - corner) * scale).clip(0, np.array([size[1], size[0]] * 2))
    return np.asarray(seen[(seen[:, 2] > seen[:, 0]) & (seen[:, 3] > seen[:, 1])])
