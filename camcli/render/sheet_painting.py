"""Paints the pages of a sheet: pixels, and PNG of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo

from camcli.render.sheet_layout import COMPRESS_LEVEL, DPI, FONT, PAPER, Cell, Grid, Page, lay_out

if TYPE_CHECKING:
    # it brings torch, and sheets are checked without
    from camcli.render.colour_bar import ColourBar

MAKER = "camviz sheet"  # what says that a file is one, which may be replaced


def draw_sheet(
    rows: Iterable[Sequence[Cell | None]],
    grid: Grid,
    notes: Sequence[str] = (),
    bar: ColourBar | None = None,
) -> NDArray[np.uint8]:
    """Draws rows of cells on one page, however high: uint8 RGB [H W 3]."""
    (page,) = lay_out(rows, grid, notes, bar, height=None)
    return paint_page(page)


def paint_page(page: Page) -> NDArray[np.uint8]:
    """Paints a page: uint8 RGB [H W 3]."""
    paper = Image.new("RGB", (page.width, page.height), PAPER)
    for placed in page.pictures:
        picture = Image.fromarray(placed.pixels)
        if picture.size != (placed.width, placed.height):
            picture = picture.resize((placed.width, placed.height), Image.Resampling.BILINEAR)
        paper.paste(picture, (placed.left, placed.top))
    draw = ImageDraw.Draw(paper)
    for text in page.texts:
        FONT.draw(draw, (text.x, text.base), text.text, text.colour, f"{text.anchor}s")
    return np.asarray(paper)


def write_png(page: Page) -> bytes:
    """Paints a page as a PNG file that says how large it is meant to be printed."""
    content, info = BytesIO(), PngInfo()
    info.add_text("Software", MAKER)
    about = {"dpi": (DPI, DPI), "pnginfo": info, "compress_level": COMPRESS_LEVEL}
    Image.fromarray(paint_page(page)).save(content, "PNG", **about)
    return content.getvalue()
