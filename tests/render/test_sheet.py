from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from camcli.render.sheet import CAPTION, GAP, TILE, draw_sheet


def tile(height: int, width: int, value: int) -> NDArray[np.uint8]:
    return np.full((height, width, 3), value, np.uint8)


@pytest.mark.parametrize(
    ("count", "columns", "rows"), [(1, 1, 1), (2, 1, 2), (3, 2, 2), (4, 2, 2), (9, 3, 3)]
)
def test_pictures_stand_in_rows_below_their_captions(count: int, columns: int, rows: int) -> None:
    height, width = 200, 300
    sheet = draw_sheet([(f"map {i}", tile(height, width, 10 + i)) for i in range(count)])
    across, down = width + GAP, height + CAPTION + GAP
    assert sheet.shape == (rows * down + GAP, columns * across + GAP, 3)
    for i in range(count):
        left, top = GAP + i % columns * across, GAP + i // columns * down
        caption, picture = sheet[top : top + CAPTION], sheet[top + CAPTION :]
        assert (picture[:height, left : left + width] == 10 + i).all()
        assert caption[:, left : left + width].min() < 128, "no ink"
    assert (sheet[:GAP] == 255).all()


def test_large_pictures_are_reduced_and_small_ones_are_not_enlarged() -> None:
    large = draw_sheet([("large", tile(1000, 500, 0))])
    assert large.shape == (TILE + CAPTION + 2 * GAP, TILE // 2 + 2 * GAP, 3)
    small = draw_sheet([("small", tile(20, 30, 0))])
    assert (small[GAP + CAPTION : GAP + CAPTION + 20, GAP : GAP + 30] == 0).all()
    assert (small[GAP + CAPTION :, GAP + 30 :] == 255).all()


def test_a_long_caption_stays_above_its_own_picture() -> None:
    sheet = draw_sheet([("a caption without an end " * 20, tile(200, 200, 0))] * 2)
    assert (sheet[:, -GAP:] == 255).all()


def test_a_row_is_as_high_as_its_highest_picture() -> None:
    pictures = [tile(100, 200, 10)] * 4 + [tile(160, 200, 20)]
    sheet = draw_sheet([(str(i), picture) for i, picture in enumerate(pictures)])
    columns = sheet.shape[1] // (200 + GAP)
    rows = -(-5 // columns)
    assert len(sheet) == GAP + (rows - 1) * (100 + CAPTION + GAP) + 160 + CAPTION + GAP
