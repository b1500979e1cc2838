"""Polygons and run lengths: values by hand, slow replicas, round trips."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from camcli.media.annotations.outlines import (
    Polygons,
    RunLengths,
    compress,
    decompress,
    draw_polygon,
    find_box_of_mask,
)
from camcli.records import Box

PROPERTY = settings(deadline=None, derandomize=True, database=None, max_examples=60)

MASKS = arrays.arrays(bool, arrays.array_shapes(min_dims=2, max_dims=2, max_side=12))


@PROPERTY
@given(st.lists(st.integers(0, 2**31), max_size=20))
def test_compressed_counts_come_back(counts: list[int]) -> None:
    assert decompress(compress(counts)) == tuple(counts)


def test_compressed_counts_by_hand() -> None:
    # 40 is 8 + 32 * 1: `X` (48 + 8 + 32) says that more follows, `1` is the rest
    assert compress((40,)) == "X1"
    # 16 has the fifth bit, which is the sign: a group of zeros has to follow
    assert compress((16,)) == "`0"
    # the fourth count is written as its difference to the second one: 2 - 5 is 29 of 32
    assert compress((0, 5, 2, 2)) == "052M"


@PROPERTY
@given(MASKS)
def test_masks_come_back_from_their_run_lengths(mask: np.ndarray) -> None:
    runs = RunLengths.from_mask(mask)
    assert sum(runs.counts) == mask.size
    assert (runs.draw(mask.shape) == mask).all()
    assert RunLengths.parse(compress(runs.counts), mask.shape) == runs
    assert runs.box == find_box_of_mask(mask)


def test_runs_are_counted_down_the_columns() -> None:
    mask = np.array([[0, 1], [0, 1], [1, 0]], bool)
    assert RunLengths.from_mask(mask).counts == (2, 3, 1)
    assert RunLengths.from_mask(mask).box == Box(0, 0, 2, 3)
    with pytest.raises(ValueError, match="drawn at"):
        RunLengths.from_mask(mask).draw((2, 3))


def is_inside(x: float, y: float, points: tuple[float, ...]) -> bool:
    """The even-odd rule: how often does a line to the left cross the polygon?"""
    corners = list(zip(points[::2], points[1::2], strict=True))
    inside = False
    for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
        if (y0 <= y) != (y1 <= y) and x0 + (y - y0) * (x1 - x0) / (y1 - y0) <= x:
            inside = not inside
    return inside


# quarters, so that nothing is rounded where edges meet centres
COORDINATES = st.integers(-8, 40).map(lambda n: n / 4 + 1 / 64)


@PROPERTY
@given(st.lists(st.tuples(COORDINATES, COORDINATES), min_size=3, max_size=7))
def test_polygons_cover_the_pixels_whose_centres_they_hold(
    corners: list[tuple[float, float]],
) -> None:
    points = tuple(v for corner in corners for v in corner)
    drawn = draw_polygon(points, (7, 9))
    slow = [[is_inside(x + 0.5, y + 0.5, points) for x in range(9)] for y in range(7)]
    assert drawn.tolist() == slow


def test_parts_of_an_object_are_joined() -> None:
    squares = Polygons(((0.0, 0.0, 2.0, 0.0, 2.0, 2.0, 0.0, 2.0), (1.0, 0.0, 3.0, 0.0, 3.0, 1.0)))
    assert squares.draw((2, 3)).astype(int).tolist() == [[1, 1, 1], [1, 1, 0]]
    assert squares.box == Box(0, 0, 3, 2)
    assert squares.scale_to((10, 100)).box == Box(0, 0, 300, 20)
