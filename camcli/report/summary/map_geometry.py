"""Measures where on the model's view the heat of a map lies, whatever its grid.

A map [h w] is read as cells of constant heat; a zone's share counts cells by the part that lies in
it, so that grids of 7x7 and 14x14 are measured alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

GRID = 16  # cells along an edge of the grid on which maps are compared


@dataclass(frozen=True)
class Zone:
    """A rectangle of the view, in shares of its width and height."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def area(self) -> float:
        """The share of the view that it covers."""
        return (self.right - self.left) * (self.bottom - self.top)


CENTRE = Zone(0.25, 0.25, 0.75, 0.75)
INSIDE = Zone(0.125, 0.125, 0.875, 0.875)  # what lies around it is the border
# sides without their corners; each place covers a sixteenth of the view
PLACES: Mapping[str, Zone] = {
    "upper left corner": Zone(0, 0, 0.25, 0.25),
    "upper right corner": Zone(0.75, 0, 1, 0.25),
    "lower left corner": Zone(0, 0.75, 0.25, 1),
    "lower right corner": Zone(0.75, 0.75, 1, 1),
    "upper edge": Zone(0.25, 0, 0.75, 0.125),
    "lower edge": Zone(0.25, 0.875, 0.75, 1),
    "left edge": Zone(0, 0.25, 0.125, 0.75),
    "right edge": Zone(0.875, 0.25, 1, 0.75),
}
FRAME = "frame"
BORDER_AREA = 1 - INSIDE.area


@dataclass(frozen=True)
class HeatPlacement:
    """Where a map's heat lies on the view, in shares of all its heat.

    `border` is the outer eighth on each side, `centre` the middle half of both edges; `spread` is
    the root mean square distance from the heat's centre, in edges of the view (0.41 for constant
    heat, 0 for a single point); `above_half` the share of places above half of the maximum.
    `places` has the corners and edges, and the border as `frame`.
    """

    border: float
    centre: float
    spread: float
    above_half: float
    places: Mapping[str, float]


def measure_placement(heat: NDArray[np.float32]) -> HeatPlacement | None:
    """Measures a map of heat [h w], from 0 on; None where there is none.

    >>> import numpy as np
    >>> corner = np.zeros((4, 4), np.float32)
    >>> corner[0, 0] = 2
    >>> measured = measure_placement(corner)
    >>> measured.places["upper left corner"], measured.border, measured.centre
    (1.0, 0.75, 0.0)
    """
    shares = share_heat(heat)
    if shares is None:
        return None
    border = 1 - sum_zone(shares, INSIDE)
    places = {name: sum_zone(shares, zone) for name, zone in PLACES.items()}
    return HeatPlacement(
        border=border,
        centre=sum_zone(shares, CENTRE),
        spread=_measure_spread(shares),
        above_half=float((shares > shares.max() / 2).mean()),
        places={**places, FRAME: border},
    )


def share_heat(heat: NDArray[np.float32]) -> Array | None:
    """Divides a map of heat [h w] by its sum; None where it is empty or constant."""
    values = heat.astype(np.float64)
    most = float(values.max())
    # rounding alone, as in a map that is drawn as empty
    if not most > 0 or most - float(values.min()) <= 1e-6 * most:
        return None
    # first by the maximum, whose sum may be beyond float64's range
    return np.asarray(values / most / float((values / most).sum()))


def sum_zone(shares: Array, zone: Zone) -> float:
    """Sums the heat [h w] inside a zone."""
    rows = _cover(shares.shape[0], zone.top, zone.bottom)
    columns = _cover(shares.shape[1], zone.left, zone.right)
    return float(rows @ shares @ columns)


def resample_heat(shares: Array, size: int = GRID) -> Array:
    """Brings a map of shares [h w] to a common grid [size size]; the sum stays 1."""
    down, across = _spread_cells(shares.shape[0], size), _spread_cells(shares.shape[1], size)
    return np.asarray(down @ shares @ across.T)


def _measure_spread(shares: Array) -> float:
    """Root mean square distance from the centre, each cell's own extent included."""
    height, width = shares.shape
    total = 0.0
    for marginal, cells in ((shares.sum(1), height), (shares.sum(0), width)):
        centres = (np.arange(cells) + 0.5) / cells
        mean = float(marginal @ centres)
        total += float(marginal @ (centres - mean) ** 2) + 1 / (12 * cells**2)
    return float(np.sqrt(total))


@cache
def _cover(cells: int, start: float, stop: float) -> Array:
    """The part of each cell along an edge that lies between two places.  [cells]"""
    edges = np.arange(cells + 1) / cells
    inside = np.minimum(edges[1:], stop) - np.maximum(edges[:-1], start)
    return np.asarray(np.clip(inside, 0, None) * cells)


@cache
def _spread_cells(cells: int, size: int) -> Array:
    """How much of each cell falls into each of the cells of another grid.  [size cells]"""
    return np.stack([_cover(cells, n / size, (n + 1) / size) for n in range(size)])
