"""What is told of a raw map, on maps worked out by hand."""

import numpy as np
import pytest

from camcli.records import Box, PackedMap, Statistics
from camcli.runs import describe_map, pack_map, unpack_map


def test_a_map_worked_out_by_hand() -> None:
    values = np.array([[0, 1, -2, 1], [0, 0, 8, 4.5]], np.float32)
    # the network saw the middle of a picture 200 wide and 50 high
    actual = describe_map(values, Box(50, 10, 150, 50), (50, 200))
    assert actual.mean == 12.5 / 8
    assert actual.std == pytest.approx(np.sqrt((1 + 4 + 1 + 64 + 20.25) / 8 - (12.5 / 8) ** 2))
    assert actual.above_half == 2 / 8
    # third column of four, second row of two
    assert actual.peak == ((50 + 100 * 2.5 / 4) / 200, (10 + 40 * 1.5 / 2) / 50)
    assert actual.peak_in_view == (2.5 / 4, 1.5 / 2)
    # cells lie 1/4 from the upper or lower edge, those of the outer columns 1/8 from the side
    of_heat = (1 / 4 + 1 / 8 + 8 / 4 + 4.5 / 8) / (1 + 1 + 8 + 4.5)
    assert actual.border_distance == pytest.approx(of_heat)


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_a_map_that_shows_nothing_has_no_peak(value: float) -> None:
    values = np.full((3, 4), value, np.float32)
    assert describe_map(values, Box(0, 0, 8, 6), (6, 8)) == Statistics(value, 0.0, 0.0, None)


def test_the_peak_does_not_depend_on_the_scale_nor_the_sizes_of_values() -> None:
    values = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)
    one, other = (describe_map(values * k, Box(0, 0, 10, 14), (14, 10)) for k in (1, 1e30))
    assert one.peak == other.peak and one.above_half == other.above_half
    assert one.peak is not None and all(0 < place < 1 for place in one.peak)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_a_map_is_packed_and_unpacked(scale: float) -> None:
    values = (np.random.default_rng(1).normal(size=(14, 6)) * scale).astype(np.float32)
    packed = pack_map(values)
    assert packed is not None and packed.shape == (14, 6)
    assert np.abs(unpack_map(packed) - values).max() <= np.ptp(values) / 131_070 * 1.01


def test_a_constant_map_is_packed() -> None:
    packed = pack_map(np.full((2, 3), 0.25, np.float32))
    assert packed is not None and (unpack_map(packed) == 0.25).all()


def test_a_fine_map_is_averaged_over_blocks() -> None:
    values = np.arange(64 * 48, dtype=np.float32).reshape(64, 48)
    packed = pack_map(values)
    assert packed is not None and packed.shape == (32, 32)
    small = unpack_map(packed)
    # 48 cells are blocks of one and of two; rows are pairs
    assert small[0, 0] == pytest.approx(values[:2, :1].mean(), abs=0.1)
    assert small[0, 1] == pytest.approx(values[:2, 1:3].mean(), abs=0.1)
    assert small[-1, -1] == pytest.approx(values[62:, 46:].mean(), abs=0.1)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_map_that_is_not_finite_is_not_packed(bad: float) -> None:
    assert pack_map(np.array([[0.0, bad]], np.float32)) is None


@pytest.mark.parametrize(
    "packed",
    [
        PackedMap((2, 2), 0, 1, "AAAA"),
        PackedMap((10**6, 10**6), 0, 1, ""),
        PackedMap((0, 0), 0, 1, ""),
        PackedMap((1, 1), 0, 1, "no base64"),
    ],
)
def test_what_somebody_else_wrote_is_refused(packed: PackedMap) -> None:
    with pytest.raises(ValueError):
        unpack_map(packed)


def test_the_distance_from_the_border_is_that_of_the_views_shares() -> None:
    even = describe_map(np.ones((50, 80), np.float32), Box(0, 0, 1, 1), (1, 1))
    assert even.border_distance == pytest.approx(1 / 6, abs=1e-3)
    middle, corner = np.zeros((2, 5, 7), np.float32)
    middle[2, 3] = corner[4, 0] = 3
    distances = [
        describe_map(values, Box(0, 0, 1, 1), (1, 1)).border_distance for values in (middle, corner)
    ]
    assert distances == pytest.approx([1 / 2, 1 / 14])
