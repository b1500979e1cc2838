"""Where heat lies is measured alike on every grid, on maps worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from camcli.report.summary import measure_placement, resample_heat, share_heat
from camcli.report.summary.map_geometry import PLACES


@pytest.mark.parametrize("size", [1, 4, 7, 14, 32])
def test_shares_of_a_single_hot_cell_are_those_of_its_area(size: int) -> None:
    heat = np.zeros((size, size), np.float32)
    heat[0, 0] = 3
    measured = measure_placement(heat)
    if size == 1:
        assert measured is None  # constant
        return
    assert measured is not None
    inside = min(1, 0.25 * size)  # of the cell's edge that lies in the corner
    assert measured.places["upper left corner"] == pytest.approx(inside**2)
    # the part of the cell's edge behind the outer eighth
    behind = max(0, 1 - size / 8)
    assert measured.border == pytest.approx(1 - behind**2)
    assert measured.spread == pytest.approx(np.sqrt(2 / 12) / size)
    assert measured.above_half == pytest.approx(1 / size**2)


@pytest.mark.parametrize("shape", [(7, 7), (14, 9), (3, 5)])
def test_nearly_even_heat_has_the_shares_of_the_areas(shape: tuple[int, int]) -> None:
    heat = np.ones(shape, np.float32)
    heat[0, 0] += 1e-4  # no map that is constant has heat
    measured = measure_placement(heat)
    assert measured is not None
    assert measured.border == pytest.approx(1 - 0.75**2, abs=1e-3)
    assert measured.centre == pytest.approx(0.25, abs=1e-3)
    assert measured.spread == pytest.approx(np.sqrt(2 / 12), abs=1e-3)
    for name in PLACES:
        assert measured.places[name] == pytest.approx(1 / 16, abs=1e-3), name


def test_a_map_turned_around_is_hot_in_the_turned_place() -> None:
    heat = np.random.default_rng(0).random((8, 8)).astype(np.float32)
    upright, turned = measure_placement(heat), measure_placement(np.rot90(heat, 2).copy())
    assert upright is not None and turned is not None
    pairs = (("upper left corner", "lower right corner"), ("upper edge", "lower edge"))
    for one, other in (*pairs, ("left edge", "right edge")):
        assert upright.places[one] == pytest.approx(turned.places[other])
    assert upright.border == pytest.approx(turned.border)


@pytest.mark.parametrize("value", [0.0, 2.0])
def test_a_map_without_contrast_has_no_heat(value: float) -> None:
    assert measure_placement(np.full((4, 4), value, np.float32)) is None


def test_the_largest_values_do_not_overflow() -> None:
    heat = np.array([[3e38, 1e38], [3e38, 0]], np.float32)
    shares = share_heat(heat)
    assert shares is not None and shares.sum() == pytest.approx(1)


def test_another_grid_has_the_same_heat_in_the_same_places() -> None:
    shares = share_heat(np.random.default_rng(2).random((7, 7)).astype(np.float32))
    assert shares is not None
    coarse, fine = resample_heat(shares, 7), resample_heat(shares, 28)
    assert np.allclose(coarse, shares)
    assert np.allclose(fine.reshape(7, 4, 7, 4).sum((1, 3)), shares)
    assert resample_heat(shares).sum() == pytest.approx(1)
