from __future__ import annotations

import numpy as np
import pytest

from camcli.errors import UnknownName
from camcli.render.colormap import COLORMAPS, LOWERS, RAISES, find_colormap
from camcli.render.colour_bar import find_range, format_number, make_bar
from camcli.render.overlay import overlay

WHITE = np.full((1, 256, 3), 255, np.uint8)


@pytest.mark.parametrize("colormap", COLORMAPS)
def test_a_bar_has_the_colours_of_the_overlay(colormap: str) -> None:
    # a map that rises evenly over the pixels of a white picture
    ramp = np.linspace(0, 4, 256, dtype=np.float32)[None]
    drawn = overlay(WHITE, ramp, 1, colormap)[0]
    bar = make_bar((0, 4), colormap)
    assert np.abs(bar.colours.astype(int) - drawn).max(0).max() <= 40  # a level beside
    assert (bar.colours == find_colormap(colormap)[:, 0]).all()
    assert (bar.low, bar.high) == (0, 4)


def test_the_bar_of_a_signed_map_is_white_at_zero_and_ends_in_its_colours() -> None:
    bar = make_bar((-2, 2), signed=True)
    assert tuple(bar.colours[0]) == LOWERS and tuple(bar.colours[-1]) == RAISES
    assert bar.colours[127].min() > 250
    ramp = np.linspace(-2, 2, 256, dtype=np.float32)[None]
    drawn = overlay(WHITE, ramp, 1, signed=True)[0]
    assert np.abs(bar.colours.astype(int) - drawn).max() <= 1


def test_a_bar_whose_opacity_follows_the_heat_begins_white() -> None:
    bar = make_bar((0, 1), "turbo", "auto")
    assert (bar.colours[0] == 255).all()
    assert (bar.colours[-1] == find_colormap("turbo")[-1, 0]).all()


@pytest.mark.parametrize(
    ("minimum", "maximum", "scale", "signed", "expected"),
    [
        (0.5, 2.0, None, False, (0.5, 2.0)),
        (-0.5, 2.0, None, False, (0.0, 2.0)),
        (-0.5, 2.0, (0.1, 9.0), False, (0.1, 9.0)),
        (-3.0, 2.0, None, True, (-3.0, 3.0)),
        (-3.0, 2.0, (0.0, 5.0), True, (-5.0, 5.0)),
        (-3.0, -1.0, None, False, None),
        (1.0, 1.0 + 1e-9, None, False, None),
        (0.0, 0.0, None, True, None),
        (float("nan"), float("nan"), None, False, None),
        (0.0, float("inf"), None, False, None),
    ],
)
def test_the_ends_are_what_the_overlay_draws_as_no_and_as_full_heat(
    minimum: float,
    maximum: float,
    scale: tuple[float, float] | None,
    signed: bool,
    expected: tuple[float, float] | None,
) -> None:
    assert find_range(minimum, maximum, scale, signed=signed) == expected
    values = np.array([[minimum, maximum]], np.float32)
    drawn = overlay(WHITE, values, 1, scale=scale, signed=signed)
    if scale is None:
        assert (drawn == WHITE).all() is np.bool_(expected is None)


def test_numbers_are_short() -> None:
    numbers = [0, 1e-30, -1e-30, 0.001234, 999999, 1e38, -123.4, 12345.6]
    written = [format_number(number) for number in numbers]
    assert written == ["0", "1.0e-30", "-1.0e-30", "1.2e-3", "1.0e6", "1.0e38", "-123", "1.2e4"]


def test_an_unknown_colour_map_is_an_error() -> None:
    with pytest.raises(UnknownName):
        make_bar((0, 1), "nonsense")
