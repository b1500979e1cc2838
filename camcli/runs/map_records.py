"""Makes what a record holds of a raw map: statistics of its values, and the values themselves."""

from __future__ import annotations

import base64
from functools import cache

import numpy as np
from numpy.typing import NDArray

from camcli.records import Box, PackedMap, Statistics

FINEST = 32  # cells along an edge, as many as a thumbnail shows
LEVELS = 2**16 - 1
LITTLE_ENDIAN = np.dtype("<u2")


def describe_map(values: NDArray[np.float32], view: Box, size: tuple[int, int]) -> Statistics:
    """Describes a raw map [h w] of a picture's `view`; `size` is the picture's height and width."""
    most = float(values.max())
    if not most > 0:
        mean, std = _compute_moments(values)
        return Statistics(mean=mean, std=std, above_half=0.0, peak=None)
    rows, columns = values.shape
    row, column = divmod(int(values.argmax()), columns)
    x, y = (column + 0.5) / columns, (row + 0.5) / rows
    across, down = view.left + x * view.width, view.top + y * view.height
    mean, std = _compute_moments(values)
    return Statistics(
        mean=mean,
        std=std,
        above_half=float((values > most / 2).mean()),
        peak=(across / size[1], down / size[0]),
        peak_in_view=(x, y),
        border_distance=_measure_border_distance(values),
    )


def _compute_moments(values: NDArray[np.float32]) -> tuple[float, float]:
    return float(values.mean(dtype=np.float64)), float(values.std(dtype=np.float64))


def _measure_border_distance(values: NDArray[np.float32]) -> float | None:
    """Measures how far the heat lies from the nearest edge of the view, on average.  [h w]"""
    heat = np.maximum(values, 0, dtype=np.float64)
    total = heat.sum()
    if not np.isfinite(total):
        return None
    distances = np.minimum.outer(*map(_measure_edge_distances, values.shape))
    return float((heat / total * distances).sum())


@cache
def _measure_edge_distances(cells: int) -> NDArray[np.float64]:
    """Measures how far the centres of cells lie from the nearer end of a row, as a share of it."""
    centres = (np.arange(cells) + 0.5) / cells
    return np.minimum(centres, 1 - centres)


def pack_map(values: NDArray[np.float32]) -> PackedMap | None:
    """Packs a raw map [h w] in 16 bits a cell; returns None if it is not finite.

    A map finer than 32 x 32 is averaged over blocks of cells.  Unpacked values differ from that by
    at most 1/131,070 of the map's range.

    >>> import numpy as np
    >>> pack_map(np.array([[0.0, 1.0]], np.float32))
    PackedMap(shape=(1, 2), low=0.0, high=1.0)
    """
    if not np.isfinite(values).all():
        return None
    # float64, in which the range of any two of float32 is finite
    small = average_cells(values.astype(np.float64))
    low, high = float(small.min()), float(small.max())
    levels = np.rint((small - low) * (LEVELS / ((high - low) or 1.0)))
    text = base64.b64encode(levels.astype(LITTLE_ENDIAN).tobytes()).decode("ascii")
    height, width = small.shape
    return PackedMap((height, width), low, high, text)


def unpack_map(packed: PackedMap) -> NDArray[np.float32]:
    """Returns the map [h w] that `pack_map` packed; raises ValueError for anything else."""
    height, width = packed.shape
    levels = np.frombuffer(base64.b64decode(packed.levels, validate=True), LITTLE_ENDIAN)
    if not (0 < height <= FINEST and 0 < width <= FINEST):
        raise ValueError(f"a packed map has 1 to {FINEST} cells along an edge")
    # float64, as in packing, since the range may be too large for float32
    values = packed.low + levels.astype(np.float64) / LEVELS * (packed.high - packed.low)
    return values.reshape(height, width).astype(np.float32)


def average_cells(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Averages a map [h w] finer than 32 x 32 over blocks of cells; other maps stay."""
    for axis in (0, 1):
        cells = values.shape[axis]
        if cells > FINEST:
            starts = np.arange(FINEST) * cells // FINEST
            sizes = np.diff([*starts, cells])
            sums = np.add.reduceat(values, starts, axis)
            values = sums / (sizes[:, None] if axis == 0 else sizes)
    return values
