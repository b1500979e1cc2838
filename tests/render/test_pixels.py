import numpy as np
import pytest

from camcli.records import Box
from camcli.render.overlay import OUTSIDE
from camcli.render.pixels import draw_on_grey, lay_pixels


def test_zero_is_grey_and_both_sides_have_one_scale() -> None:
    values = np.zeros((3, 1, 4), np.float32)
    values[0, 0] = 0, 2, -2, 1
    drawn = draw_on_grey(values)
    assert (drawn.shape, drawn.dtype) == ((1, 4, 3), np.uint8)
    assert drawn[0, :, 0].tolist() == [128, 255, 1, 192]
    assert (drawn[..., 1:] == 128).all()


def test_the_scale_does_not_matter_and_a_few_large_values_do_not_either() -> None:
    values = np.random.default_rng(0).standard_normal((3, 40, 50)).astype(np.float32)
    drawn = draw_on_grey(values)
    np.testing.assert_array_equal(draw_on_grey(values * 1e-20), drawn)
    values[:, 0, 0] = 1000
    apart = np.abs(draw_on_grey(values).astype(int) - drawn)[1:]
    assert apart.max() <= 4 and drawn.std() > 30


def test_grey_around_it_does_not_make_the_rest_brighter() -> None:
    values = np.random.default_rng(0).standard_normal((3, 40, 50)).astype(np.float32)
    around = np.zeros((3, 400, 500), np.float32)
    around[:, :40, :50] = values
    np.testing.assert_array_equal(draw_on_grey(around)[:40, :50], draw_on_grey(values))


@pytest.mark.parametrize("channels", [1, 2, 6])
def test_other_channels_than_colours_are_drawn_in_grey(channels: int) -> None:
    values = np.random.default_rng(0).standard_normal((channels, 5, 6)).astype(np.float32)
    drawn = draw_on_grey(values)
    assert drawn.shape == (5, 6, 3)
    assert (drawn == drawn[..., :1]).all()
    mean = values.mean(0)
    assert ((drawn[..., 0] >= 128) == (mean >= 0)).all()


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf, -np.inf])
def test_what_cannot_be_drawn_is_grey(value: float) -> None:
    assert (draw_on_grey(np.full((3, 2, 2), value, np.float32)) == 128).all()
    some = np.full((3, 2, 2), value, np.float32)
    some[:, 0, 0] = 1
    assert (draw_on_grey(some)[0, 0] == 255).all() and (draw_on_grey(some)[1] == 128).all()


@pytest.mark.parametrize(
    ("box", "rows", "columns"),
    [
        (Box(0, 0, 60, 40), slice(0, 40), slice(0, 60)),
        (Box(10, 0, 50, 40), slice(0, 40), slice(10, 50)),
        (Box(-10, 0, 70, 40), slice(0, 40), slice(0, 60)),
    ],
)
def test_pixels_lie_where_the_network_saw_them(box: Box, rows: slice, columns: slice) -> None:
    picture = np.full((40, 60, 3), 200, np.uint8)
    # the left half of what the network saw is black, the right one white
    pixels = np.zeros((20, 20, 3), np.uint8)
    pixels[:, 10:] = 255
    drawn = lay_pixels(picture, pixels, box)
    outside = np.ones((40, 60), bool)
    outside[rows, columns] = False
    assert (drawn[outside] == round(200 * OUTSIDE)).all()
    middle = round((box.left + box.right) / 2)
    assert (drawn[rows, columns.start : middle - 4] == 0).all()
    assert (drawn[rows, middle + 4 : columns.stop] == 255).all()


def test_a_view_outside_the_picture_shows_no_pixels() -> None:
    picture = np.full((4, 6, 3), 200, np.uint8)
    drawn = lay_pixels(picture, np.zeros((2, 2, 3), np.uint8), Box(10, 0, 20, 4))
    assert (drawn == round(200 * OUTSIDE)).all()
