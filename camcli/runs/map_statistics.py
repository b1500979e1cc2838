"""Describes the values of a raw map."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from camcli.records import Box, Statistics


def describe_map(values: NDArray[np.float32], view: Box, size: tuple[int, int]) -> Statistics:
    """Describes a raw map [h w] of a picture's `view`; `size` is the picture's height and width."""
    most = float(values.max())
    return Statistics(
        mean=float(values.mean(dtype=np.float64)),
        std=float(values.std(dtype=np.float64)),
        above_half=float((values > most / 2).mean()) if most > 0 else 0.0,
        peak=_find_peak(values, view, size) if most > 0 else None,
    )


def _find_peak(
    values: NDArray[np.float32], view: Box, size: tuple[int, int]
) -> tuple[float, float]:
    rows, columns = values.shape
    row, column = divmod(int(values.argmax()), columns)
    x = view.left + (column + 0.5) / columns * view.width
    y = view.top + (row + 0.5) / rows * view.height
    return x / size[1], y / size[0]
