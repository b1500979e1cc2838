"""What the network did not see is treated as asked, and a caption stands below."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from camcli.errors import UsageError
from camcli.records import Box
from camcli.render.finish import add_caption, cut_caption, show_outside
from camcli.render.overlay import OUTSIDE, overlay
from camcli.render.sheet_layout import Line

VIEW = Box(5, 0, 25, 20)
PICTURE = np.random.default_rng(0).integers(60, 256, (20, 40, 3), np.uint8)
DRAWN = overlay(PICTURE, np.arange(12, dtype=np.float32).reshape(3, 4), box=VIEW)
SEEN = np.s_[0:20, 5:25]


def show(outside: str, drawn: NDArray[np.uint8] = DRAWN) -> NDArray[np.uint8]:
    return show_outside(drawn, PICTURE, VIEW, outside)  # type: ignore[arg-type]


def test_dimmed_is_as_it_is_drawn() -> None:
    assert show("dim") is DRAWN
    np.testing.assert_allclose(DRAWN[:, :5], OUTSIDE * PICTURE[:, :5], atol=1)


def test_kept_is_the_picture_outside_and_the_heat_inside() -> None:
    kept = show("keep")
    np.testing.assert_array_equal(kept[SEEN], DRAWN[SEEN])
    kept[SEEN] = PICTURE[SEEN]
    np.testing.assert_array_equal(kept, PICTURE)
    assert not np.array_equal(DRAWN, PICTURE)


def test_another_way_is_refused() -> None:
    with pytest.raises(UsageError, match="outside is dim, keep or crop, not 'hide'"):
        show("hide")


def test_cropped_is_the_heat_alone() -> None:
    np.testing.assert_array_equal(show("crop"), DRAWN[SEEN])


@pytest.mark.parametrize("outside", ["dim", "keep", "crop"])
def test_a_view_of_the_whole_picture_leaves_nothing_out(outside: str) -> None:
    for box in (Box(0, 0, 40, 20), Box(-10, -10, 50, 30)):
        assert show_outside(DRAWN, PICTURE, box, outside) is DRAWN  # type: ignore[arg-type]


def test_a_legend_stays_below_the_picture() -> None:
    # a wide one, with the picture in its middle
    drawn = np.full((26, 60, 3), 255, np.uint8)
    drawn[:20, 10:50] = DRAWN
    drawn[20:] = 7
    kept, cropped = show("keep", drawn), show("crop", drawn)
    np.testing.assert_array_equal(kept[:20, 10:50], show("keep"))
    assert cropped.shape == (26, 60, 3)
    np.testing.assert_array_equal(cropped[:20, 20:40], DRAWN[SEEN])
    for one in (kept, cropped):
        assert (one[20:] == 7).all() and (one[:20, :10] == 255).all()


@pytest.mark.parametrize("width", [40, 1200])
def test_a_caption_stands_below_and_is_as_wide_as_the_picture(width: int) -> None:
    pixels = np.full((30, width, 3), 99, np.uint8)
    captioned = add_caption(pixels, Line("tabby", "93.1%"))
    np.testing.assert_array_equal(captioned[:30], pixels)
    np.testing.assert_array_equal(cut_caption(captioned), pixels)
    strip = captioned[30:]
    assert strip.shape[1] == width and len(strip) >= 20
    # dark letters on white paper
    assert strip.max() == 255 and strip.min() < 60 and strip.mean() > 128
    # each frame of a video is as high, whatever its class
    other = add_caption(pixels, Line("a very long name of a class " * 9, "0.1%"))
    assert other.shape == captioned.shape and not np.array_equal(other, captioned)
