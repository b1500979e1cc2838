"""PDF, SVG and figures of matplotlib have what the page has, each picture as it is."""

from __future__ import annotations

import re

import numpy as np
import pytest
from matplotlib.image import AxesImage

from camcli.errors import UsageError
from camcli.render import charts
from camcli.render.colour_bar import ColourBar
from camcli.render.sheet_layout import Cell, Line, Page, lay_out, plan_grid
from camcli.render.sheet_painting import MAKER, paint_page
from camcli.render.sheet_vectors import make_figure, write_pdf, write_svg

# machines differ in their fonts
pytestmark = pytest.mark.filterwarnings("ignore:No font of this machine")


@pytest.fixture
def page() -> Page:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    bar = ColourBar(np.zeros((256, 3), np.uint8), 0, 1)
    cells = [Cell(pixels, (Line("a $ of_{him} 中", "9.9%"),)), Cell(pixels, (Line("map"),), bar)]
    (page,) = lay_out([cells], plan_grid(2), ["resnet50"])
    return page


def test_a_figure_has_the_pages_size_pictures_and_words(page: Page) -> None:
    figure = make_figure(page)
    width, height = figure.get_size_inches()
    assert (width * 2.54, height / width) == pytest.approx((8.5, page.height / page.width), 1e-3)
    (axes,) = figure.axes
    images = [child for child in axes.get_children() if isinstance(child, AxesImage)]
    assert len(images) == len(page.pictures) == 3
    for image, placed in zip(images, page.pictures, strict=True):
        assert (np.asarray(image.get_array()) == placed.pixels).all()
        left, right, bottom, top = image.get_extent()
        assert (left, top) == (placed.left, placed.top)
        assert (right - left, bottom - top) == (placed.width, placed.height)
    words = [text.get_text() for text in axes.texts]
    assert words == [text.text for text in page.texts]
    assert min(text.get_size() for text in axes.texts) >= 6


@pytest.mark.filterwarnings("ignore:Glyph")  # matplotlib's own word to whoever draws a figure
def test_a_figure_looks_as_the_painted_page(page: Page) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(make_figure(page))
    canvas.draw()
    drawn = np.asarray(canvas.buffer_rgba())[..., :3]
    painted = paint_page(page)
    assert drawn.shape == painted.shape
    for placed in page.pictures[:2]:
        rows = slice(placed.top + 2, placed.top + placed.height - 2)
        columns = slice(placed.left + 2, placed.left + placed.width - 2)
        assert (drawn[rows, columns] == painted[rows, columns]).mean() > 0.98


def test_a_pdf_has_a_page_each_and_is_the_same_again(page: Page) -> None:
    content = write_pdf([page, page])
    assert content.startswith(b"%PDF")
    assert len(re.findall(rb"/Type /Page\b(?!s)", content)) == 2
    assert MAKER.encode() in content
    assert content == write_pdf([page, page])


def test_an_svg_has_the_pictures_and_is_the_same_again(page: Page) -> None:
    content = write_svg(page)
    assert content.count(b"<image") == 3
    assert MAKER.encode() in content
    assert content == write_svg(page)


def test_without_matplotlib_it_says_how_to_install_it(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(charts, "find_spec", lambda _: None)
    for draw in (lambda: make_figure(page), lambda: write_pdf([page]), lambda: write_svg(page)):
        with pytest.raises(UsageError, match=r"pip install 'camviz\[figures\]'"):
            draw()
