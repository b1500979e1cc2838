import time
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from camcli.errors import UnknownName, UsageError
from camcli.records import Box, Heatmap, Picture
from camcli.render.colormap import LOWERS, RAISES, apply_colormap
from camcli.render.overlay import MOST_OPAQUE, OUTSIDE, enlarge, overlay, resize_map

WHOLE = Box(0, 0, 60, 40)


def photo(height: int = 40, width: int = 60) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def hill(height: int = 5, width: int = 6) -> NDArray[np.float32]:
    return np.random.default_rng(1).random((height, width), np.float32)


def slow_sample(values: NDArray[np.float32], box: Box, y: float, x: float) -> float:
    """Bilinear, half-pixel centres, edge cells held: one point, from the definition."""
    h, w = values.shape
    v = min(max((y - box.top) / box.height * h - 0.5, 0), h - 1)
    u = min(max((x - box.left) / box.width * w - 0.5, 0), w - 1)
    i, j = min(int(v), max(h - 2, 0)), min(int(u), max(w - 2, 0))
    below, right = min(i + 1, h - 1), min(j + 1, w - 1)
    upper = values[i, j] * (1 - (u - j)) + values[i, right] * (u - j)
    lower = values[below, j] * (1 - (u - j)) + values[below, right] * (u - j)
    return float(upper * (1 - (v - i)) + lower * (v - i))


@pytest.mark.parametrize(
    "box",
    [
        WHOLE,
        Box(3.2, 1.7, 55.9, 30.1),
        Box(-20.5, 0, 80.5, 40),
        Box(0, -10, 60, 50),
        Box(10, 10, 13, 11),
        Box(-5.25, 4.5, 20.5, 44.75),
    ],
)
@pytest.mark.parametrize("shape", [(5, 6), (1, 1), (1, 7), (40, 60), (90, 33)])
def test_enlarge_is_bilinear_between_the_centres_of_cells(box: Box, shape: tuple[int, int]) -> None:
    values = hill(*shape) - 0.5
    heat, (rows, columns) = enlarge(values, box, (40, 60))
    assert heat.dtype == np.float32
    inside = [
        [box.top <= y + 0.5 <= box.bottom and box.left <= x + 0.5 <= box.right for x in range(60)]
        for y in range(40)
    ]
    seen = np.zeros((40, 60), bool)
    seen[rows, columns] = True
    assert np.array_equal(seen, inside)
    expected = [
        [slow_sample(values, box, y + 0.5, x + 0.5) for x in range(columns.start, columns.stop)]
        for y in range(rows.start, rows.stop)
    ]
    assert np.allclose(heat, expected, atol=1e-6)


def test_enlarge_agrees_with_torch_on_whole_pictures() -> None:
    heat, _ = enlarge(hill(7, 9), WHOLE, (40, 60))
    theirs = torch.nn.functional.interpolate(torch.from_numpy(hill(7, 9))[None, None], (40, 60),
        mode="bilinear", align_corners=False,
    )  # fmt: skip
    assert np.allclose(heat, theirs[0, 0], atol=1e-6)


def test_a_map_as_large_as_the_picture_is_left_as_it_is() -> None:
    assert np.array_equal(enlarge(hill(40, 60), WHOLE, (40, 60))[0], hill(40, 60))


def test_a_view_between_two_pixel_centres_shows_in_one_pixel() -> None:
    heat, seen = enlarge(hill(), Box(0.6, 0.6, 1.4, 1.4), (2, 2))
    assert heat.shape == (1, 1) and seen == (slice(1, 2), slice(1, 2))


def test_twelve_megapixels_take_a_moment() -> None:
    picture, values = np.zeros((3000, 4000, 3), np.uint8), hill(7, 7)
    started = time.perf_counter()
    overlay(picture, values, box=Box(500, 0, 3500, 3000))
    # 0.2 s on two idle cores; a loop, or gathering pixel by pixel in Python, would take minutes
    assert time.perf_counter() - started < 5


@pytest.mark.parametrize("alpha", [0, 0.3, 0.5, 1])
def test_overlay_is_the_blend_inside_and_dimmed_outside(alpha: float) -> None:
    box = Box(10.4, 5.0, 50.0, 33.6)
    values = 3 * hill() - 1
    drawn = overlay(photo(), values, alpha, "turbo", box=box)
    positive = np.maximum(values, 0)
    heat = (positive - positive.min()) / (positive.max() - positive.min())
    inside, seen = enlarge(heat, box, (40, 60))
    blend = (1 - alpha) * photo()[seen].astype(float) + alpha * apply_colormap(inside, "turbo")
    assert seen == (slice(5, 34), slice(10, 50))
    assert np.abs(drawn[seen] - blend).max() <= 0.5 + 1e-4
    outside = np.ones((40, 60), bool)
    outside[seen] = False
    assert np.abs(drawn[outside] - OUTSIDE * photo()[outside].astype(float)).max() <= 0.5 + 1e-4


def test_overlay_is_not_divided_by_its_own_maximum() -> None:
    black = np.zeros((40, 60, 3), np.uint8)
    drawn = overlay(black, hill(), alpha=0.5)
    assert 126 <= drawn.max() <= 128


def test_hottest_and_coldest_colours_stand_where_the_map_says() -> None:
    values = np.zeros((4, 6), np.float32)
    values[1, 4] = 2
    drawn = overlay(np.zeros((40, 60, 3), np.uint8), values, alpha=1)
    assert drawn[15, 45, 0] > 100 and drawn[15, 45, 2] < 40
    assert drawn[35, 5].tolist() == [0, 0, 128]


@pytest.mark.parametrize(
    "values",
    [
        np.zeros((4, 4)),
        np.full((4, 4), 7.0),
        -np.ones((4, 4)) - hill(4, 4),
        np.full((4, 4), np.nan),
        np.array([[0.0, np.inf], [1.0, 2.0]]),
        np.array([[0.0, np.nan], [1.0, 2.0]]),
    ],
)
def test_maps_without_heat_leave_the_picture_as_it_is(values: NDArray[np.float64]) -> None:
    picture = Picture(photo())
    drawn = overlay(picture, values, box=Box(10, 10, 20, 20))
    assert np.array_equal(drawn, photo())
    drawn[:] = 0
    assert picture.pixels.max() == 255


def test_with_a_scale_colours_stand_for_raw_values() -> None:
    black, values = np.zeros((1, 3, 3), np.uint8), np.array([[-1.0, 1.0, 9.0]])
    drawn = overlay(black, values, 1, "turbo", scale=(0, 2))
    assert np.array_equal(drawn, apply_colormap(np.array([[0, 0.5, 1]], np.float32), "turbo"))
    # by itself, the map would stretch over all colours
    assert np.array_equal(overlay(black, values, 1, scale=(0, 9)), overlay(black, values, 1))
    constant = overlay(black, np.full((1, 3), 1.0), 1, "turbo", scale=(0, 2))
    assert np.array_equal(constant, np.repeat(drawn[:, 1:2], 3, axis=1))


def test_with_a_scale_too_no_heat_leaves_the_picture_as_it_is() -> None:
    for values in (-hill(), np.zeros((2, 2)), np.full((2, 2), np.nan), np.full((2, 2), 0.5)):
        assert np.array_equal(overlay(photo(), values, scale=(0.5, 2)), photo())


@pytest.mark.parametrize("scale", [(1, 1), (2, 1), (-1, 1), (0, np.inf), (np.nan, 1)])
def test_what_is_no_scale_is_refused(scale: tuple[float, float]) -> None:
    with pytest.raises(UsageError, match="A scale goes"):
        overlay(photo(), hill(), scale=scale)


def test_all_kinds_of_pictures_and_maps_draw_alike() -> None:
    heatmap = Heatmap(hill(), "gradcam", ("layer4",), 3)
    expected = overlay(Picture(photo()), heatmap)
    for picture in (photo(), Image.fromarray(photo()), photo()[:, ::-1][:, ::-1]):
        for values in (hill(), torch.from_numpy(hill()).requires_grad_(), hill().astype(float)):
            assert np.array_equal(overlay(picture, values), expected)


def test_the_picture_and_the_map_are_left_alone() -> None:
    pixels, values = photo(), hill()
    overlay(pixels, values, box=Box(0, 0, 30, 30))
    assert np.array_equal(pixels, photo()) and np.array_equal(values, hill())


def test_wrong_values_are_refused() -> None:
    with pytest.raises(UsageError, match=r"not 1\.5"):
        overlay(photo(), hill(), alpha=1.5)
    with pytest.raises(UsageError, match="nan"):
        overlay(photo(), hill(), alpha=float("nan"))
    with pytest.raises(UnknownName, match="'jett'"):
        overlay(photo(), np.zeros((2, 2)), colormap="jett")
    with pytest.raises(UsageError, match=r"shape \[1, 5, 6\]"):
        overlay(photo(), hill()[None])
    with pytest.raises(UsageError, match=r"float64 \[40, 60, 3\]"):
        overlay(photo() / 255, hill())


def test_resized_map_keeps_sign_and_scale_and_says_what_was_not_seen() -> None:
    values = 100 * (hill() - 0.5)
    box = Box(15, 0, 45, 40)
    large = resize_map(values, box, (40, 60))
    assert large.dtype == np.float32 and large.shape == (40, 60)
    assert np.isnan(large[:, :15]).all() and np.isnan(large[:, 45:]).all()
    assert np.array_equal(large[:, 15:45], enlarge(values, box, (40, 60))[0])
    assert large[:, 15:45].min() < 0


# a value: what raises it, and what lowers it


def test_a_signed_map_has_two_colours_around_zero_on_one_scale() -> None:
    grey = np.full((1, 4, 3), 100, np.uint8)
    raw = np.array([[2.0, 1.0, 0.0, -2.0]], np.float32)
    drawn = overlay(grey, raw, alpha=0.5, signed=True).astype(int)[0]
    red, blue = np.array(RAISES), np.array(LOWERS)
    np.testing.assert_allclose(drawn[0], (100 + red) / 2, atol=1)
    np.testing.assert_allclose(drawn[1], 100 + (red - 100) / 4, atol=1)
    np.testing.assert_array_equal(drawn[2], [100, 100, 100])
    np.testing.assert_allclose(drawn[3], (100 + blue) / 2, atol=1)
    # half as far on a scale that goes twice as far
    wide = overlay(grey, raw, alpha=0.5, signed=True, scale=(0, 4)).astype(int)[0]
    np.testing.assert_allclose(wide[0], drawn[1], atol=1)
    np.testing.assert_allclose(wide[3], 100 + (blue - 100) / 4, atol=1)
    nothing = overlay(grey, np.zeros((1, 4), np.float32), signed=True)
    np.testing.assert_array_equal(nothing, grey)
    lowered = overlay(grey, np.full((1, 4), -3, np.float32), signed=True)
    np.testing.assert_allclose(lowered[0, 0], (100 + blue) / 2, atol=1)


def test_opacity_that_follows_the_heat_leaves_what_is_cold() -> None:
    picture, heat = photo(), np.linspace(0, 1, 60, dtype=np.float32)[None]
    drawn = overlay(picture, heat, "auto", "viridis").astype(float)
    colours = apply_colormap(np.broadcast_to(heat, (40, 60)), "viridis")
    share = MOST_OPAQUE * heat[..., None]
    expected = picture * (1 - share) + colours * share
    assert np.abs(drawn - expected).max() <= 1
    assert (drawn[:, 0] == picture[:, 0]).all()


def test_the_opacity_of_a_signed_map_follows_it_too() -> None:
    picture, heat = photo(), np.array([[-1.0, 0.0, 0.0, 0.0, 1.0]], np.float32)
    drawn = overlay(picture, heat, "auto", signed=True)
    assert (drawn == overlay(picture, heat, MOST_OPAQUE, signed=True)).all()
    assert (drawn[:, 20:40] == picture[:, 20:40]).all()


@pytest.mark.parametrize("alpha", ["much", -0.1, 1.1])
def test_an_alpha_that_is_none_is_refused(alpha: Any) -> None:
    with pytest.raises(UsageError, match="alpha is a share from 0"):
        overlay(photo(), hill(), alpha)


def test_nothing_between_two_cells_is_hotter_than_the_hotter_one() -> None:
    values = hill(7, 7)
    heat, _ = enlarge(values, WHOLE, (40, 60))
    assert values.min() <= heat.min() and heat.max() <= values.max()
    # at the centres of cells stand their own values
    centres, _ = enlarge(values, Box(0, 0, 7, 7), (7, 7))
    assert (centres == values).all()
