"""Metrics of localisation: values by hand, slow replicas, properties."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from camcli.errors import UsageError
from camcli.metrics.localization.box_iou import box_iou, box_overlap
from camcli.metrics.localization.grid_pointing_game import build_grid, grid_pointing_game
from camcli.metrics.localization.heat_inside import heat_inside
from camcli.metrics.localization.max_box_accuracy import max_box_accuracy, threshold_overlaps
from camcli.metrics.localization.pixel_average_precision import pixel_average_precision
from camcli.metrics.localization.pointing_game import pointing_game, widen

PROPERTY = settings(deadline=None, derandomize=True, database=None, max_examples=60)
FEW = settings(PROPERTY, max_examples=15)

# few values, so that there are ties
VALUES = st.lists(st.integers(-2, 3), min_size=20, max_size=20)
MASK = torch.zeros(4, 5, dtype=torch.bool)
MASK[1:3, 1:4] = True


def as_map(values: list[int]) -> Tensor:
    return torch.tensor(values, dtype=torch.float32).reshape(1, 4, 5)


# --- pointing game


def test_a_peak_on_the_object_hits_and_one_beside_it_misses() -> None:
    maps = torch.zeros(3, 4, 5)
    maps[0, 1, 1] = maps[1, 0, 0] = maps[2, 3, 3] = 1
    assert pointing_game(maps, MASK).tolist() == [1, 0, 0]
    # (0, 0) is a step down and one to the right from the object: 1.41 pixels; (3, 3) is 1 away
    assert pointing_game(maps, MASK, tolerance=1).tolist() == [1, 0, 1]
    assert pointing_game(maps, MASK, tolerance=2).tolist() == [1, 1, 1]


def test_a_constant_map_points_as_chance_does() -> None:
    assert pointing_game(torch.ones(1, 4, 5), MASK).item() == pytest.approx(6 / 20)


def test_one_of_two_equal_maxima_is_half_a_hit() -> None:
    maps = torch.zeros(1, 4, 5)
    maps[0, 1, 1] = maps[0, 0, 0] = 2
    assert pointing_game(maps, MASK).item() == 0.5


@PROPERTY
@given(st.lists(st.booleans(), min_size=20, max_size=20), st.integers(0, 6))
def test_a_mask_is_widened_by_a_distance(values: list[bool], tolerance: int) -> None:
    mask = torch.tensor(values).reshape(4, 5)
    inside = mask.nonzero().tolist()
    slow = [
        [any(math.hypot(y - r, x - c) <= tolerance for r, c in inside) for x in range(5)]
        for y in range(4)
    ]
    assert widen(mask, tolerance).tolist() == slow


# --- heat inside


def test_heat_inside_counts_what_is_positive() -> None:
    maps = torch.zeros(2, 4, 5)
    maps[0, 1, 1], maps[0, 0, 0], maps[0, 2, 2], maps[0, 3, 0] = 3, 1, -7, -7
    assert heat_inside(maps, MASK).tolist() == [0.75, 0]
    assert heat_inside(torch.ones(1, 4, 5), MASK).item() == pytest.approx(0.3)


@PROPERTY
@given(VALUES, st.floats(0.01, 100))
def test_heat_inside_has_no_unit(values: list[int], factor: float) -> None:
    maps = as_map(values)
    assert heat_inside(maps * factor, MASK).item() == pytest.approx(heat_inside(maps, MASK).item())


# --- box IoU


def test_the_box_of_the_largest_hot_region() -> None:
    heat = torch.zeros(1, 6, 10)
    heat[0, 1:4, 2:6] = 1.0  # 12 pixels: 2, 1, 6, 4
    heat[0, 5, 8] = 10.0  # hotter, but 1 pixel
    heat[0, 0, 0] = 0.1
    whole = torch.tensor([[2, 1, 6, 4]])
    # the maximum is 10, so that 20 % of it is above the larger region
    assert box_iou(heat, whole).item() == 0
    assert box_iou(heat, torch.tensor([[8, 5, 9, 6]])).item() == 1
    assert box_iou(heat, whole, threshold=0.05).item() == 1
    # half of it, beside another object that is further away: the best counts
    halves = torch.tensor([[0, 5, 1, 6], [2, 1, 4, 4]])
    assert box_iou(heat, halves, threshold=0.05).item() == 0.5


def test_hot_is_what_exceeds_the_threshold() -> None:
    heat = torch.tensor([[[0.25, 1.0]]])
    one, both = torch.tensor([[1, 0, 2, 1]]), torch.tensor([[0, 0, 2, 1]])
    assert box_iou(heat, one, threshold=0.25).item() == 1
    assert box_iou(heat, both, threshold=0.24).item() == 1


def test_a_map_without_heat_has_no_box() -> None:
    assert box_iou(-torch.ones(1, 4, 5), torch.tensor([[0, 0, 5, 4]])).item() == 0


def test_overlaps_of_half_open_and_closed_boxes() -> None:
    one, other = torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[1.0, 1, 3, 3], [2, 2, 4, 4]])
    assert box_overlap(one, other)[0].tolist() == pytest.approx([1 / 7, 0])
    # with the last pixels inside: 3 x 3 pixels each, of which 2 x 2 and 1 are shared
    closed = box_overlap(one, other, extra=1)[0].tolist()
    assert closed == pytest.approx([4 / 14, 1 / 17])


# --- MaxBoxAccV2


def authors_overlaps(heat: np.ndarray, truth: list[int], thresholds: list[float]) -> list[float]:
    """The best IoU at each threshold, written step by step with OpenCV."""
    height, width = heat.shape
    grey = (heat * 255).astype(np.uint8)
    best = []
    for threshold in thresholds:
        limit = int(threshold * np.max(grey))
        _, mask = cv2.threshold(grey, limit, 255, cv2.THRESH_BINARY)
        contours, _ = cv2.findContours(mask, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
        boxes = [(0, 0, 0, 0)] if not contours else []
        for x, y, w, h in map(cv2.boundingRect, contours):
            boxes.append((x, y, min(x + w, width - 1), min(y + h, height - 1)))
        overlaps = []
        for x0, y0, x1, y1 in boxes:
            shared_w = max(0, min(x1, truth[2]) - max(x0, truth[0]) + 1)
            shared_h = max(0, min(y1, truth[3]) - max(y0, truth[1]) + 1)
            area = (x1 - x0 + 1) * (y1 - y0 + 1)
            true_area = (truth[2] - truth[0] + 1) * (truth[3] - truth[1] + 1)
            shared = shared_w * shared_h
            overlaps.append(shared / (area + true_area - shared))
        best.append(max(overlaps))
    return best


@FEW
@given(st.integers(0, 1000))
def test_overlaps_are_the_authors(seed: int) -> None:
    random = np.random.default_rng(seed)
    heat = cv2.blur(random.random((14, 17)), (3, 3))
    heat = (heat - heat.min()) / (heat.max() - heat.min())
    left, top = int(random.integers(0, 12)), int(random.integers(0, 10))
    truth = [left, top, left + int(random.integers(1, 6)), top + int(random.integers(1, 5))]
    thresholds = np.arange(0, 1, 0.02).tolist()
    ours = threshold_overlaps(torch.from_numpy(heat)[None], torch.tensor([truth]), step=0.02)[0]
    assert ours.tolist() == pytest.approx(authors_overlaps(heat, truth, thresholds))


def test_the_authors_boxes_by_hand() -> None:
    heat = torch.zeros(1, 8, 8, dtype=torch.float64)
    heat[0, 2:4, 2:5] = 1.0  # the box 2, 2, 5, 4, whose area counts as 4 x 3
    heat[0, 6, 6] = 0.5  # 127 of 255
    true = torch.tensor([[2, 2, 5, 4]])
    single = torch.tensor([[6, 6, 7, 7]])
    overlaps = threshold_overlaps(heat, torch.cat([true, single]), step=0.1)[0]
    assert overlaps.tolist() == [1] * 10
    alone = threshold_overlaps(heat, single, step=0.1)[0]
    # up to the threshold 0.4 (102) there are two boxes, from 0.5 (127) on there is one
    assert alone.tolist() == [1, 1, 1, 1, 1, 0, 0, 0, 0, 0]


def test_an_empty_map_has_the_box_of_the_corner() -> None:
    overlaps = threshold_overlaps(torch.zeros(1, 8, 8), torch.tensor([[0, 0, 1, 1]]), step=0.5)
    assert overlaps.tolist() == [[0.25, 0.25]]  # 1 pixel of 2 x 2


def test_accuracy_is_that_of_the_best_common_threshold() -> None:
    overlaps = torch.tensor([[0.8, 0.6, 0.2], [0.1, 0.6, 0.9], [0.1, 0.35, 0.9]])
    actual = max_box_accuracy(overlaps, step=1 / 3)
    # IoU 0.3: all at the second one; 0.5: two of three there; 0.7: two of three at the third
    assert actual.shares == pytest.approx((1, 2 / 3, 2 / 3))
    assert actual.thresholds == pytest.approx((1 / 3, 1 / 3, 2 / 3), abs=1e-6)
    assert actual.value == pytest.approx((1 + 2 / 3 + 2 / 3) / 3)
    with pytest.raises(UsageError, match="one or more pictures"):
        max_box_accuracy(torch.zeros(0, 3))


# --- pixel average precision


def slow_average_precision(values: list[int], mask: Tensor) -> float:
    """The definition: at each threshold that occurs, precision times the gain in recall."""
    hits = mask.flatten().tolist()
    total, before = 0.0, 0
    for threshold in sorted(set(values), reverse=True):
        taken = [hit for value, hit in zip(values, hits, strict=True) if value >= threshold]
        total += sum(taken) / len(taken) * (sum(taken) - before) / sum(hits)
        before = sum(taken)
    return total


@PROPERTY
@given(VALUES)
def test_average_precision_is_the_definition(values: list[int]) -> None:
    ours = pixel_average_precision(as_map(values), MASK).item()
    assert ours == pytest.approx(slow_average_precision(values, MASK))


def test_average_precision_of_the_best_the_worst_and_a_constant_map() -> None:
    best = MASK.float()[None]
    maps = torch.cat([best, -best, torch.zeros(1, 4, 5)])
    assert pixel_average_precision(maps, MASK).tolist() == pytest.approx([1, 0.3, 0.3])


# --- grid pointing game


def test_a_grid_is_put_together_row_by_row() -> None:
    pictures = torch.arange(4.0)[:, None, None, None].expand(4, 3, 2, 2)
    grid = build_grid(pictures)
    assert grid.shape == (3, 4, 4)
    assert grid[0, ::2, ::2].tolist() == [[0, 1], [2, 3]]


def test_heat_in_its_own_cell_counts() -> None:
    pictures = torch.zeros(9, 1, 2, 2)
    maps = torch.stack(
        [build_grid(pictures.clone().index_fill(0, torch.tensor([i]), 1))[0] for i in range(9)]
    )
    assert grid_pointing_game(maps).tolist() == [1] * 9
    assert grid_pointing_game(torch.ones(9, 6, 6)).tolist() == pytest.approx([1 / 9] * 9)
    assert grid_pointing_game(maps.roll(1, 0)).tolist() == [0] * 9


@pytest.mark.parametrize(
    ("shape", "what"), [((3, 4, 4), "4, 9, 16"), ((4, 5, 4), "sides 2 divides")]
)
def test_grids_that_are_none(shape: tuple[int, ...], what: str) -> None:
    with pytest.raises(UsageError, match=what):
        grid_pointing_game(torch.zeros(shape))


# --- what is refused


def test_empty_masks_and_boxes_are_refused() -> None:
    heat = torch.ones(1, 4, 5)
    empty = torch.zeros(4, 5, dtype=torch.bool)
    for measure in (pointing_game, heat_inside, pixel_average_precision):
        with pytest.raises(UsageError, match="The mask is empty"):
            measure(heat, empty)
        with pytest.raises(UsageError, match=r"bool and has the maps' size \[4, 5\]"):
            measure(heat, empty.T)
        with pytest.raises(UsageError, match="NaN"):
            measure(heat * torch.nan, MASK)
    for boxes, what in (
        (torch.zeros(0, 4), "n of 1 or more"),
        (torch.tensor([[2, 1, 2, 3]]), "right"),
    ):
        with pytest.raises(UsageError, match=what):
            box_iou(heat, boxes)
        with pytest.raises(UsageError, match=what):
            threshold_overlaps(heat, boxes)
    with pytest.raises(UsageError, match="tolerance"):
        pointing_game(heat, MASK, tolerance=-1)
