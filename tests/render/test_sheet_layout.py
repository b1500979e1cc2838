from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from camcli.render.colour_bar import ColourBar
from camcli.render.sheet_layout import (
    DPI,
    FONT,
    GAP,
    HIGHEST,
    LINE,
    ONE_COLUMN,
    PAGE_HEIGHT,
    TEXT_POINTS,
    TWO_COLUMNS,
    Cell,
    Line,
    cut_text,
    lay_out,
    plan_grid,
)
from camcli.render.sheet_painting import MAKER, draw_sheet, paint_page, write_png

BAR = ColourBar(np.stack([np.arange(256)] * 3, 1).astype(np.uint8), 0.25, 7.5)


def noise(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize(
    ("cells", "columns", "width"),
    [
        *((2, 2, ONE_COLUMN), (4, 4, ONE_COLUMN), (5, 5, TWO_COLUMNS), (8, 8, TWO_COLUMNS)),
        *((9, 5, TWO_COLUMNS), (26, 7, TWO_COLUMNS)),
    ],
)
def test_a_sheet_is_as_wide_as_one_column_of_a_paper_or_two(
    cells: int, columns: int, width: int
) -> None:
    grid = plan_grid(cells)
    assert (grid.columns, grid.width) == (columns, width)
    assert grid.columns * (grid.cell + GAP) + GAP <= width
    assert abs(ONE_COLUMN / DPI * 2.54 - 8.5) < 0.01


def test_letters_can_be_read_at_a_columns_width() -> None:
    assert TEXT_POINTS >= 6
    assert abs(FONT.size / DPI * 72 - TEXT_POINTS) < 0.1


def test_a_cell_shows_the_pixels_that_it_was_given_and_no_others() -> None:
    grid = plan_grid(2)
    original, overlay = noise(300, grid.cell), noise(300, grid.cell, 1)
    cells = [Cell(original, (Line("cat.jpg"),)), Cell(overlay, (Line("gradcam"),), BAR)]
    sheet = draw_sheet([cells], grid)
    top = GAP + LINE
    for number, pixels in enumerate((original, overlay)):
        left = GAP + number * (grid.cell + GAP)
        assert (sheet[top : top + 300, left : left + grid.cell] == pixels).all()
        assert sheet[GAP:top, left : left + grid.cell].min() < 128, "no caption"
    below = sheet[top + 300 + 6 : top + 300 + 12]
    left = 2 * GAP + grid.cell
    # the bar's colours go from one edge of the cell to the other
    assert (below[:, left] <= 2).all() and (below[:, left + grid.cell - 1] >= 253).all()
    assert (below[:, : left - 1] == 255).all()
    assert (np.diff(below[0, left : left + grid.cell, 0].astype(int)) >= 0).all()


@pytest.mark.parametrize(
    ("size", "factor"), [((30, 20), None), ((3000, 2000), None), ((400, 40), HIGHEST)]
)
def test_pictures_of_any_size_fill_their_cells(size: tuple[int, int], factor: float | None) -> None:
    grid = plan_grid(4)
    fitted = grid.fit(noise(*size))
    height, width = fitted.shape[:2]
    assert height / width == pytest.approx(size[0] / size[1], rel=0.05)
    assert (width == grid.cell) is (factor is None)
    assert height == round(HIGHEST * grid.cell)
    assert grid.fit(fitted) is fitted


def test_a_long_row_goes_on_in_the_next_line_and_a_gap_stays_empty() -> None:
    grid = plan_grid(9)
    cells: list[Cell | None] = [Cell(np.full((50, 50, 3), 9, np.uint8)) for _ in range(9)]
    cells[1] = None
    sheet = draw_sheet([cells], grid)
    edge = grid.cell
    assert len(sheet) == 3 * GAP + 2 * edge
    lefts = [GAP + column * (edge + GAP) for column in range(grid.columns)]
    inked = [[int(sheet[top + 5, left + 5, 0]) for left in lefts] for top in (GAP, 2 * GAP + edge)]
    assert inked == [[9, 255, 9, 9, 9], [9, 9, 9, 9, 255]]


def test_many_rows_break_into_pages_and_each_has_the_foot() -> None:
    grid, pixels = plan_grid(4), noise(200, 300)
    rows = [[Cell(pixels, (Line(f"{number}.jpg"),))] * 4 for number in range(30)]
    pages = list(lay_out(rows, grid, ["resnet50"], BAR))
    assert len(pages) == 3
    for page in pages:
        assert page.height <= PAGE_HEIGHT
        assert [text.text for text in page.texts][-3:] == ["0.25", "7.5", "resnet50"]
        bottoms = [placed.top + placed.height for placed in page.pictures]
        assert max(bottoms) <= page.height
        assert paint_page(page).shape == (page.height, grid.width, 3)
    names = [t.text for page in pages for t in page.texts if t.text.endswith(".jpg")]
    assert names[::4] == [f"{number}.jpg" for number in range(30)]
    (whole,) = lay_out(rows, grid, height=None)
    assert len(whole.pictures) == 120


def test_a_row_that_is_higher_than_a_page_has_one_of_its_own() -> None:
    pages = list(lay_out([[Cell(noise(10, 10))]] * 2, plan_grid(1), height=100))
    assert [len(page.pictures) for page in pages] == [1, 1]


def test_no_text_reaches_into_the_next_cell() -> None:
    grid, long = plan_grid(4), "a caption without an end " * 20
    rows = [[Cell(noise(20, 30), (Line(long, "99.9%"),))] * 4]
    (page,) = lay_out(rows, grid)
    for text in page.texts:
        assert FONT.getlength(text.text) <= grid.cell
        assert text.text.endswith("... 99.9%")


def test_what_does_not_fit_beside_its_number_stands_above_it() -> None:
    grid = plan_grid(4)
    assert grid.split(Line("cat", "9.9%")) == (Line("cat", "9.9%"),)
    assert grid.split(Line("w" * 40, "9.9%")) == (Line("w" * 40), Line("", "9.9%"))


def test_a_name_of_somebody_elses_is_one_line_of_letters() -> None:
    assert cut_text("a\nb\x1b[31m\udcff\u202e", 900, FONT) == "a b?[31m??"
    assert cut_text("wide", 1, FONT) == "..."


def test_a_png_says_how_large_it_is_printed_and_who_made_it() -> None:
    (page,) = lay_out([[Cell(noise(20, 30))]], plan_grid(4))
    content = write_png(page)
    with Image.open(BytesIO(content)) as picture:
        assert picture.info["dpi"] == pytest.approx((DPI, DPI), abs=0.1)
        assert picture.info["Software"] == MAKER
        assert (np.asarray(picture) == paint_page(page)).all()
