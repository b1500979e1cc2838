"""What is told of a raw map, on maps worked out by hand."""

import numpy as np
import pytest

from camcli.records import Box, Statistics
from camcli.runs import describe_map


def test_a_map_worked_out_by_hand() -> None:
    values = np.array([[0, 1, -2, 1], [0, 0, 8, 4.5]], np.float32)
    # the network saw the middle of a picture 200 wide and 50 high
    actual = describe_map(values, Box(50, 10, 150, 50), (50, 200))
    assert actual.mean == 12.5 / 8
    assert actual.std == pytest.approx(np.sqrt((1 + 4 + 1 + 64 + 20.25) / 8 - (12.5 / 8) ** 2))
    assert actual.above_half == 2 / 8
    # third column of four, second row of two
    assert actual.peak == ((50 + 100 * 2.5 / 4) / 200, (10 + 40 * 1.5 / 2) / 50)


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_a_map_that_shows_nothing_has_no_peak(value: float) -> None:
    values = np.full((3, 4), value, np.float32)
    assert describe_map(values, Box(0, 0, 8, 6), (6, 8)) == Statistics(value, 0.0, 0.0, None)


def test_the_peak_does_not_depend_on_the_scale_nor_the_sizes_of_values() -> None:
    values = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)
    one, other = (describe_map(values * k, Box(0, 0, 10, 14), (14, 10)) for k in (1, 1e30))
    assert one.peak == other.peak and one.above_half == other.above_half
    assert one.peak is not None and all(0 < place < 1 for place in one.peak)
