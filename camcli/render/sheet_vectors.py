"""Draws the pages of a sheet with matplotlib, which is imported when asked for.

What can be drawn, and where, is checked without torch, before a model is loaded.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from camcli.errors import OutputError, UsageError
from camcli.render.charts import HOW_TO_INSTALL, STYLE, can_draw_charts
from camcli.render.letters import split_by_font, warn_of_missing
from camcli.render.sheet_layout import DPI, PAPER, TEXT_POINTS, Page
from camcli.render.sheet_painting import MAKER

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg", ".pdf")
ANCHORS = {"l": "left", "m": "center", "r": "right"}
# pictures apart as they are, letters as TrueType that journals take
VECTORS = {"image.composite_image": False, "pdf.fonttype": 42, "savefig.dpi": DPI}


def check_can_draw(what: str) -> None:
    """Raises UsageError where matplotlib is not installed."""
    if not can_draw_charts():
        raise UsageError(f"{what} is drawn with matplotlib: {HOW_TO_INSTALL}. A .png needs none.")


def check_sheet(path: Path, *, may_be_kind: bool = False) -> None:
    """Raises UsageError or OutputError where a sheet cannot be written to this file.

    A kind alone, such as `pdf`, may stand for a file that is named by its run.
    """
    is_kind = may_be_kind and not path.suffix
    suffix = f".{path}" if is_kind else path.suffix.lower()
    if suffix not in SUFFIXES:
        raise UsageError(f"A sheet is a .png, .svg or .pdf, and {str(path)!r} is none.")
    if suffix != ".png":
        check_can_draw(f"A {suffix}")
    if not is_kind:
        check_replaceable(path)


def check_replaceable(path: Path) -> None:
    """Raises UsageError or OutputError where a file would be lost that is no sheet."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return
    except OSError as error:
        raise OutputError(f"Cannot write {str(path)!r}: {error.strerror}.") from error
    if MAKER.encode() not in content:
        raise UsageError(
            f"{str(path)!r} is there already and no sheet of camviz, and would be lost: name "
            "another file, or remove it."
        )


def make_figure(page: Page) -> Figure:
    """Draws a page as a figure of matplotlib; raises UsageError where that is not installed."""
    check_can_draw("A figure")
    from matplotlib.figure import Figure

    with _in_style():
        figure = Figure((page.width / DPI, page.height / DPI), dpi=DPI, facecolor=PAPER)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        for placed in page.pictures:
            right, bottom = placed.left + placed.width, placed.top + placed.height
            # a colour bar is a row of pixels
            smooth = "bilinear" if len(placed.pixels) == 1 else "none"
            edges = (placed.left, right, bottom, placed.top)
            axes.imshow(placed.pixels, extent=edges, interpolation=smooth, aspect="auto")
        axes.set_xlim(0, page.width)
        axes.set_ylim(page.height, 0)
        for text in page.texts:
            axes.text(
                text.x,
                text.base,
                text.text,
                size=TEXT_POINTS,
                color=text.colour,
                ha=ANCHORS[text.anchor],
                va="baseline",
                # somebody's dollar is no formula
                parse_math=False,
                family=_list_families(text.text),
            )
    return figure


def _list_families(text: str) -> list[str]:
    """Lists our own font's family, and those that a text needs besides, which are made known."""
    from matplotlib import font_manager

    warn_of_missing(text)
    families = ["DejaVu Sans"]
    for file in dict.fromkeys(file for _, file in split_by_font(text) if file):
        known = {Path(entry.fname) for entry in font_manager.fontManager.ttflist}
        if file not in known:
            font_manager.fontManager.addfont(file)
        families.append(font_manager.get_font(file).family_name)
    return families


def write_svg(page: Page) -> bytes:
    """Draws a page as SVG; raises UsageError where matplotlib is not installed."""
    content = BytesIO()
    figure = make_figure(page)
    with _in_style():
        figure.savefig(content, format="svg", metadata={"Date": None, "Creator": MAKER})
    return content.getvalue()


def write_pdf(pages: Iterable[Page]) -> bytes:
    """Draws pages as one PDF, a page at a time; raises UsageError without matplotlib."""
    check_can_draw("A PDF")
    from matplotlib.backends.backend_pdf import PdfPages

    content = BytesIO()
    about = {"Creator": MAKER, "Producer": None, "CreationDate": None}
    with _in_style(), PdfPages(content, metadata=about) as book:
        for page in pages:
            book.savefig(make_figure(page))
    return content.getvalue()


@contextmanager
def _in_style() -> Iterator[None]:
    """Has matplotlib draw in our style, and say nothing of letters that its font has not."""
    from matplotlib import style

    with style.context(["default", STYLE, VECTORS]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield
