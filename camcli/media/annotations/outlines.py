"""Draws the pixels that outlines cover: polygons, run lengths, bitmaps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from camcli.records import Box

Size: TypeAlias = tuple[int, int]  # height, width
Mask: TypeAlias = NDArray[np.bool_]  # [h w]
Polygon: TypeAlias = tuple[float, ...]  # x y x y ...

LONGEST_COUNT = 7  # characters of a compressed count: 35 bits


@dataclass(frozen=True)
class Polygons:
    """An object of one or more polygons, x y x y ... each; what any of them covers is the object.

    >>> Polygons(((0.0, 0.0, 2.0, 0.0, 2.0, 2.0, 0.0, 2.0),)).draw((3, 3)).astype(int).tolist()
    [[1, 1, 0], [1, 1, 0], [0, 0, 0]]
    """

    parts: tuple[Polygon, ...]

    def draw(self, size: Size) -> Mask:
        """Draws the pixels whose centres lie inside (even-odd rule).  -> bool [h w]"""
        mask = np.zeros(size, bool)
        for part in self.parts:
            mask |= draw_polygon(part, size)
        return mask

    def scale_to(self, size: Size) -> Polygons:
        """Returns what is in shares of the picture in pixels."""
        height, width = size
        edges = (width, height)
        return Polygons(
            tuple(tuple(v * edges[i % 2] for i, v in enumerate(part)) for part in self.parts)
        )

    @property
    def box(self) -> Box:
        """The smallest box around all of them."""
        x = [v for part in self.parts for v in part[::2]]
        y = [v for part in self.parts for v in part[1::2]]
        return Box(min(x), min(y), max(x), max(y))


@dataclass(frozen=True)
class RunLengths:
    """COCO's run lengths: pixels counted down the columns, outside and inside by turns.

    >>> RunLengths((1, 2, 1), (2, 2)).draw((2, 2)).astype(int).tolist()
    [[0, 1], [1, 0]]
    """

    counts: tuple[int, ...]
    size: Size

    def draw(self, size: Size) -> Mask:
        """Draws them.  -> bool [h w]; raises ValueError for another size."""
        if size != self.size:
            raise ValueError(f"run lengths of {self.size} drawn at {size}")
        inside = np.arange(len(self.counts)) % 2 == 1
        return np.repeat(inside, self.counts).reshape(size[::-1]).T

    @property
    def box(self) -> Box | None:
        """The smallest box around what is inside."""
        return find_box_of_mask(self.draw(self.size))

    @classmethod
    def from_mask(cls, mask: Mask) -> RunLengths:
        """Counts a mask's runs.  bool [h w]"""
        flat = np.concatenate([[False], np.asarray(mask, bool).T.reshape(-1)])
        changes = np.flatnonzero(flat[1:] != flat[:-1])
        edges = [0, *changes.tolist(), flat.size - 1]
        return cls(tuple(b - a for a, b in pairwise(edges)), (mask.shape[0], mask.shape[1]))

    @classmethod
    def parse(cls, counts: str | Sequence[int], size: Size) -> RunLengths:
        """Takes counts as numbers, or compressed as text; raises ValueError for a wrong sum."""
        numbers = decompress(counts) if isinstance(counts, str) else tuple(map(int, counts))
        if min(numbers, default=0) < 0 or sum(numbers) != size[0] * size[1]:
            raise ValueError(
                f"run lengths of {sum(numbers)} pixels for a mask of {size[1]} x {size[0]}"
            )
        return cls(numbers, size)


@dataclass(frozen=True, eq=False)
class Bitmap:
    """An object as a mask, bool [h w]."""

    values: Mask

    @property
    def size(self) -> Size:
        """Height and width in pixels."""
        return self.values.shape[0], self.values.shape[1]

    @property
    def box(self) -> Box | None:
        """The smallest box around it, None where it is empty."""
        return find_box_of_mask(self.values)

    def draw(self, size: Size) -> Mask:
        """Returns the mask; raises ValueError for another size."""
        if size != self.size:
            raise ValueError(f"a mask of {self.size} drawn at {size}")
        return self.values


Outline: TypeAlias = Polygons | RunLengths | Bitmap


def find_box_of_mask(mask: Mask) -> Box | None:
    """Returns the smallest box around a mask's pixels, None where there are none.  bool [h w]"""
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    if not len(rows):
        return None
    return Box(int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)


def draw_polygon(points: Polygon, size: Size) -> Mask:
    """Draws the pixels whose centres lie in a polygon x y x y ..., even-odd.  -> bool [h w]"""
    height, width = size
    corners = np.asarray(points, np.float64).reshape(-1, 2)
    crossings = np.zeros((height, width + 1), np.int32)
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, 0), strict=True):
        if y0 == y1:
            continue
        # the rows whose centres an edge passes: its lower end belongs to the next edge
        first, stop = (np.ceil(y - 0.5).clip(0, height) for y in sorted((y0, y1)))
        rows = np.arange(int(first), int(stop))
        x = x0 + (rows + 0.5 - y0) * (x1 - x0) / (y1 - y0)
        columns = np.ceil(x - 0.5).clip(0, width).astype(np.intp)
        np.add.at(crossings, (rows, columns), 1)
    return np.asarray(crossings.cumsum(1)[:, :width] % 2 == 1)


def decompress(text: str) -> tuple[int, ...]:
    """Reads COCO's compressed counts; raises ValueError.

    Each is written in groups of five bits, the lowest first, as characters from `0` on; a sixth bit
    says that more follow, and the last group's fifth is the sign.  From the fourth count on it is
    the difference to the one two before.

    >>> decompress("052M33")
    (0, 5, 2, 2, 5, 5)
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64 or shift >= 5 * LONGEST_COUNT:
            raise ValueError(f"{character!r} is no part of compressed run lengths")
        value |= (code & 31) << shift
        shift += 5
        if code & 32:
            continue
        if code & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("the compressed run lengths break off")
    return tuple(counts)


def compress(counts: Sequence[int]) -> str:
    """Writes counts as COCO's compressed text, which `decompress` reads.

    >>> compress((0, 5, 2, 2, 5, 5))
    '052M33'
    """
    text = ""
    for index, count in enumerate(counts):
        value = count - counts[index - 2] if index > 2 else count
        while True:
            group, value = value & 31, value >> 5
            is_last = value == (-1 if group & 16 else 0)
            text += chr(group + (0 if is_last else 32) + 48)
            if is_last:
                break
    return text
