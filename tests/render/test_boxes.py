"""Boxes and outlines of hot regions, and the frames drawn around them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from camcli.errors import UsageError
from camcli.media.annotations.outlines import find_box_of_mask
from camcli.records import Box
from camcli.render.box_drawing import draw_boxes, draw_contours, line_width
from camcli.render.boxes import boxes_of, contours_of, hot_mask

PROPERTY = settings(deadline=None, derandomize=True, database=None, max_examples=60)
MAPS = arrays.arrays(
    np.float32,
    arrays.array_shapes(min_dims=2, max_dims=2, max_side=10),
    elements=st.sampled_from([-1.0, 0.0, 0.25, 0.5, 1.0]),
)


def heat() -> np.ndarray:
    values = np.zeros((6, 10), np.float32)
    values[1:4, 2:6] = 1.0  # 12 pixels
    values[5, 8] = 2.0
    values[0, 9] = 0.4  # exactly 20 % of the maximum: not above it
    return values


def test_the_box_of_the_largest_region_and_those_of_all() -> None:
    assert [hot.box for hot in boxes_of(heat())] == [Box(2, 1, 6, 4)]
    every = boxes_of(heat(), 0.2, "all")
    assert [(hot.box, hot.area) for hot in every] == [
        (Box(2, 1, 6, 4), 12),
        (Box(8, 5, 9, 6), 1),
    ]
    assert [hot.box for hot in boxes_of(heat(), 0.19, "all")][1:] == [
        Box(9, 0, 10, 1),
        Box(8, 5, 9, 6),
    ]
    assert [hot.box for hot in boxes_of(heat(), 0.6)] == [Box(8, 5, 9, 6)]


def test_what_was_not_seen_is_cold_and_no_heat_has_no_box() -> None:
    values = heat()
    values[:, 5:] = np.nan
    assert [hot.box for hot in boxes_of(values, 0.2, "all")] == [Box(2, 1, 5, 4)]
    for cold in (np.zeros((3, 3)), -np.ones((3, 3)), np.full((3, 3), np.nan)):
        assert boxes_of(cold) == ()
        assert contours_of(cold) == ()
    assert [hot.box for hot in boxes_of(np.ones((2, 3)))] == [Box(0, 0, 3, 2)]


@PROPERTY
@given(MAPS, st.floats(0, 0.99))
def test_boxes_hold_all_that_is_hot(values: np.ndarray, threshold: float) -> None:
    mask = hot_mask(values, threshold)
    boxes = boxes_of(values, threshold, "all")
    assert sum(hot.area for hot in boxes) == mask.sum()
    covered = np.zeros_like(mask)
    for hot in boxes:
        rows = slice(int(hot.box.top), int(hot.box.bottom))
        covered[rows, int(hot.box.left) : int(hot.box.right)] = True
    assert (covered >= mask).all()
    if len(boxes) == 1:
        assert boxes[0].box == find_box_of_mask(mask)
    assert boxes_of(values, threshold) == boxes[:1]


@PROPERTY
@given(MAPS, st.floats(0, 0.99))
def test_outlines_go_through_hot_pixels_at_their_edge(values: np.ndarray, threshold: float) -> None:
    mask = hot_mask(values, threshold)
    points = [point for contour in contours_of(values, threshold) for point in contour.tolist()]
    padded = np.pad(mask, 1)
    for x, y in points:
        assert mask[int(y), int(x)]
        assert not padded[int(y) : int(y) + 3, int(x) : int(x) + 3].all()
    assert bool(points) == mask.any()


def test_an_outline_by_hand() -> None:
    (contour,) = contours_of(heat()[:5, :8])
    assert sorted(contour.tolist()) == [[2, 1], [2, 3], [5, 1], [5, 3]]


@pytest.mark.parametrize("threshold", [-0.1, 1, float("nan")])
def test_thresholds_that_are_none(threshold: float) -> None:
    with pytest.raises(UsageError, match="A threshold is a share"):
        boxes_of(heat(), threshold)
    with pytest.raises(UsageError, match=r"not in shape \[2\]"):
        boxes_of(np.zeros(2))


def test_a_frame_lies_inside_its_box() -> None:
    grey = np.full((20, 30, 3), 128, np.uint8)
    drawn = draw_boxes(grey, [Box(4, 3, 20, 15)], "#ff0000", 2)
    changed = (drawn != grey).any(2)
    assert find_box_of_mask(changed) == Box(4, 3, 20, 15)
    assert drawn[3, 4].tolist() == drawn[4, 19].tolist() == [255, 0, 0]
    # a dark line inside, and the picture as it was in the middle
    assert drawn[5, 10].tolist() == [0, 0, 0]
    assert not changed[6:12, 7:17].any()
    assert (grey == 128).all()


def test_frames_at_the_edge_and_of_one_pixel() -> None:
    grey = np.full((4, 5, 3), 128, np.uint8)
    drawn = draw_boxes(grey, [Box(0, 0, 5, 4), Box(2, 2, 3, 3), Box(9, 9, 12, 12)], width=1)
    assert drawn[0, 0].tolist() == drawn[3, 4].tolist() == drawn[2, 2].tolist() == [255] * 3


def test_an_outline_is_drawn_on_a_copy() -> None:
    grey = np.full((40, 60, 3), 128, np.uint8)
    values = np.zeros((40, 60), np.float32)
    values[10:30, 10:50] = 1
    drawn = draw_contours(grey, contours_of(values), "#00ff00", 1)
    assert drawn[10, 10].tolist() == drawn[29, 49].tolist() == drawn[20, 10].tolist() == [0, 255, 0]
    assert drawn[20, 30].tolist() == [128] * 3
    assert (grey == 128).all()
    assert line_width((100, 100)) == 2 and line_width((3000, 4000, 3)) == 15
