"""Connected components of masks, and the boxes around them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.intp]


@dataclass(frozen=True)
class Components:
    """The components of a mask: boxes [n 4] left, top, right, bottom, and areas [n] in pixels.

    The right and the bottom edge lie outside (half-open): a pixel (x, y) is x, y, x + 1, y + 1.
    Components are ordered by their first pixels, row by row.
    """

    boxes: Indices
    areas: Indices

    @property
    def largest(self) -> Indices:
        """The box [1 4] of the largest component, the first one among equals; [0 4] for none."""
        return self.boxes[self.areas.argmax()][None] if len(self.areas) else self.boxes


def find_components(mask: NDArray[np.bool_], *, diagonal: bool = True) -> Components:
    """Finds the connected components of a mask, bool [h w].

    Pixels that touch at a corner are connected, unless `diagonal` is off.

    >>> import numpy as np
    >>> mask = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 0]], bool)
    >>> find_components(mask).boxes.tolist()
    [[0, 0, 2, 2]]
    >>> find_components(mask, diagonal=False).boxes.tolist()
    [[0, 0, 1, 1], [1, 1, 2, 2]]
    """
    rows, starts, stops = _find_runs(np.asarray(mask, bool))
    upper, lower = _list_touching_runs(rows, starts, stops, mask.shape[1], diagonal)
    _, owners = np.unique(_join(len(rows), upper, lower), return_inverse=True)
    count = int(owners.max()) + 1 if len(owners) else 0
    boxes = np.empty((count, 4), np.intp)
    for column, (values, reduce, start) in enumerate(
        (
            (starts, np.minimum, mask.shape[1]),
            (rows, np.minimum, mask.shape[0]),
            (stops, np.maximum, 0),
            (rows + 1, np.maximum, 0),
        )
    ):
        boxes[:, column] = start
        reduce.at(boxes[:, column], owners, values)
    areas = np.bincount(owners, stops - starts, count).astype(np.intp)
    return Components(boxes, areas)


def find_holes(mask: NDArray[np.bool_]) -> Indices:
    """Lists a box around the pixels that surround each hole of a mask.  bool [h w] -> [n 4]

    A hole is background without a way to the outside, where touching corners are no way.  OpenCV's
    `RETR_TREE` returns the pixels around a hole as a contour of its own.
    """
    background = find_components(~np.pad(np.asarray(mask, bool), 1), diagonal=False)
    # the first component is the outside; a box is one pixel wider on each side, and the padding is
    # taken off its coordinates
    boxes: Indices = background.boxes[1:] + np.array([-2, -2, 0, 0])
    return boxes


def _find_runs(mask: NDArray[np.bool_]) -> tuple[Indices, Indices, Indices]:
    """Lists the runs of pixels in the rows of a mask: their rows, starts and stops."""
    padded = np.pad(mask, ((0, 0), (1, 1)))
    # changes are starts and stops of runs in turn
    changes = np.flatnonzero(padded[:, 1:] != padded[:, :-1])
    rows, columns = np.divmod(changes, mask.shape[1] + 1)
    return rows[::2], columns[::2], columns[1::2]


def _list_touching_runs(
    rows: Indices, starts: Indices, stops: Indices, width: int, diagonal: bool
) -> tuple[Indices, Indices]:
    """Lists pairs of runs of pixels in neighbouring rows that touch."""
    stride = width + 2
    below = (rows + 1) * stride
    start_keys, stop_keys = rows * stride + starts, rows * stride + stops
    # in the next row: the first run that ends behind this run's start, and the last run that begins
    # before its end
    first = np.searchsorted(stop_keys, below + starts, "left" if diagonal else "right")
    last = np.searchsorted(start_keys, below + stops, "right" if diagonal else "left")
    counts = np.maximum(last - first, 0)
    upper = np.repeat(np.arange(len(rows)), counts)
    before = np.repeat(counts.cumsum() - counts, counts)
    return upper, np.repeat(first, counts) + np.arange(len(upper)) - before


def _join(count: int, one: Indices, other: Indices) -> Indices:
    """Joins pairs into sets and returns each element's set, named by its least member."""
    parents = np.arange(count)
    while True:
        roots = parents[one], parents[other]
        differ = roots[0] != roots[1]
        if not differ.any():
            return parents
        one, other = one[differ], other[differ]
        low, high = np.minimum(*roots)[differ], np.maximum(*roots)[differ]
        np.minimum.at(parents, high, low)
        while ((above := parents[parents]) != parents).any():
            parents = above
