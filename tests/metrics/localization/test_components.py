"""Components and holes are those that OpenCV finds."""

from __future__ import annotations

import cv2
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from camcli.metrics.localization.components import find_components, find_holes

PROPERTY = settings(deadline=None, derandomize=True, database=None, max_examples=60)

MASKS = arrays.arrays(bool, arrays.array_shapes(min_dims=2, max_dims=2, max_side=14))


def opencv_components(mask: np.ndarray, connectivity: int) -> list[list[int]]:
    _, _, actual, _ = cv2.connectedComponentsWithStats(
        mask.astype(np.uint8), connectivity=connectivity
    )
    return sorted([x, y, x + w, y + h, area] for x, y, w, h, area in actual[1:].tolist())


def as_rows(mask: np.ndarray, *, diagonal: bool) -> list[list[int]]:
    components = find_components(mask, diagonal=diagonal)
    return sorted(np.column_stack([components.boxes, components.areas]).tolist())


@PROPERTY
@given(MASKS, st.booleans())
def test_components_are_opencvs(mask: np.ndarray, diagonal: bool) -> None:
    assert as_rows(mask, diagonal=diagonal) == opencv_components(mask, 8 if diagonal else 4)


@PROPERTY
@given(MASKS)
def test_components_and_holes_are_opencvs_contours(mask: np.ndarray) -> None:
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
    boxes = [cv2.boundingRect(contour) for contour in contours]
    ours = [*find_components(mask).boxes.tolist(), *find_holes(mask).tolist()]
    assert sorted(ours) == sorted([x, y, x + w, y + h] for x, y, w, h in boxes)


def test_large_noise_and_a_spiral() -> None:
    noise = np.random.default_rng(0).random((200, 300)) < 0.4
    assert as_rows(noise, diagonal=True) == opencv_components(noise, 8)
    spiral = np.zeros((41, 41), bool)
    for ring in range(0, 20, 2):
        spiral[ring, ring : 41 - ring] = spiral[40 - ring, ring : 41 - ring] = True
        spiral[ring : 41 - ring, 40 - ring] = spiral[ring + 2 : 41 - ring, ring] = True
        spiral[ring + 2, ring : ring + 3] = True
    assert as_rows(spiral, diagonal=False) == opencv_components(spiral, 4)


def test_the_largest_has_the_most_pixels_and_nothing_has_none() -> None:
    mask = np.zeros((5, 9), bool)
    mask[0, :] = True  # 9 pixels, and a larger box than the next one's
    mask[2:5, 2:6] = True  # 12 pixels
    assert find_components(mask).largest.tolist() == [[2, 2, 6, 5]]
    assert find_components(np.zeros((2, 3), bool)).largest.tolist() == []
    assert find_holes(np.ones((2, 3), bool)).tolist() == []


def test_rings_have_two_contours() -> None:
    ring = np.zeros((12, 12), bool)
    ring[2:10, 2:10] = True
    ring[4:8, 4:8] = False
    assert find_components(ring).boxes.tolist() == [[2, 2, 10, 10]]
    assert find_holes(ring).tolist() == [[3, 3, 9, 9]]
