"""Lays captioned pictures with their colour bars out on pages, as wide as a paper's columns.

Sizes are in pixels of which 300 make an inch.  How a page becomes pixels stands in
`sheet_painting`, and how it becomes lines and letters of a PDF or SVG in `sheet_vectors`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor

from camcli.render.letters import JOINERS, Letters

if TYPE_CHECKING:
    from camcli.render.colour_bar import ColourBar

DPI, POINTS = 300, 72  # in an inch
# of zlib, for PNG: higher ones take twice the time for hardly a smaller file
COMPRESS_LEVEL = 4
ONE_COLUMN, TWO_COLUMNS, PAGE_HEIGHT = (round(cm / 2.54 * DPI) for cm in (8.5, 17.8, 23.0))
FEW, MOST = 4, 8  # cells side by side in one column of a paper, and in two
TEXT_POINTS = 6.5
TEXT = round(TEXT_POINTS * DPI / POINTS)
FONT = Letters(TEXT)
LINE, BAR, SWATCH, GAP, WIDE_GAP = round(1.25 * TEXT), 14, 22, 14, 34
HIGHEST = 1.5  # a cell's height, in widths
PAPER, INK, FAINT = "white", "black", "#555555"


@dataclass(frozen=True)
class Line:
    """A line of a caption: words that may be cut, and behind them what must not be."""

    words: str
    tail: str = ""


@dataclass(frozen=True)
class Cell:
    """A picture uint8 RGB [h w 3], the lines above it, and what its colours mean.

    A legend has a colour `#rrggbb` and a line for each of them.
    """

    pixels: NDArray[np.uint8]
    captions: tuple[Line, ...] = ()
    bar: ColourBar | None = None
    legend: tuple[tuple[str, Line], ...] = ()


@dataclass(frozen=True)
class Grid:
    """How many cells stand side by side, how wide each is, and all together."""

    columns: int
    cell: int
    width: int

    def fit(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Resizes a picture so that it fills a cell: [h w 3] -> [h' w' 3]."""
        height, width = pixels.shape[:2]
        factor = min(self.cell / width, HIGHEST * self.cell / height)
        size = max(1, round(factor * width)), max(1, round(factor * height))
        if size == (width, height):
            return pixels
        way = Image.Resampling.LANCZOS if factor < 1 else Image.Resampling.BICUBIC
        return np.asarray(Image.fromarray(pixels).resize(size, way))

    def split(self, line: Line) -> tuple[Line, ...]:
        """Gives a tail a line of its own where both do not fit above a cell."""
        length = FONT.getlength(make_printable(f"{line.words} {line.tail}"))
        if length <= self.cell or not (line.words and line.tail):
            return (line,)
        return Line(line.words), Line("", line.tail)


@dataclass(frozen=True)
class PlacedPicture:
    """Pixels [h w 3], where their upper left corner lies, and how large they are drawn."""

    pixels: NDArray[np.uint8]
    left: int
    top: int
    width: int
    height: int


@dataclass(frozen=True)
class PlacedText:
    """A text, where its base line begins (`l`), has its middle (`m`) or ends (`r`)."""

    text: str
    x: int
    base: int
    anchor: str = "l"
    colour: str = INK


@dataclass
class Page:
    """A page: how large it is, and what stands where."""

    width: int
    height: int = GAP
    pictures: list[PlacedPicture] = field(default_factory=list)
    texts: list[PlacedText] = field(default_factory=list)


def plan_grid(cells: int) -> Grid:
    """Chooses how a row of so many cells is laid out: in one column of a paper, two, or lines."""
    lines = math.ceil(cells / MOST)
    columns = math.ceil(cells / lines)
    width = ONE_COLUMN if columns <= FEW else TWO_COLUMNS
    return Grid(columns, (width - (columns + 1) * GAP) // columns, width)


def lay_out(
    rows: Iterable[Sequence[Cell | None]],
    grid: Grid,
    notes: Sequence[str] = (),
    bar: ColourBar | None = None,
    *,
    height: int | None = PAGE_HEIGHT,
) -> Iterator[Page]:
    """Lays rows of cells out on pages no higher than `height`, if that is a number.

    A row that is longer than the grid is wide goes on in the next line; None is an empty place.
    Notes, and a bar that all cells share, stand at the foot of every page.
    """
    foot = (len(notes) * LINE + GAP if notes else 0) + (BAR + LINE + GAP if bar else 0)
    page, is_first = Page(grid.width), True
    for row in rows:
        for number, start in enumerate(range(0, len(row), grid.columns)):
            line = _Line(row[start : start + grid.columns], grid)
            above = 0 if is_first else GAP if number else WIDE_GAP
            if height and not is_first and page.height + above + line.height + foot > height:
                yield _finish(page, notes, bar)
                page, above = Page(grid.width), 0
            is_first = False
            page.height += above
            line.place(page)
    yield _finish(page, notes, bar)


class _Line:
    """Cells that stand side by side."""

    def __init__(self, cells: Sequence[Cell | None], grid: Grid) -> None:
        self.grid = grid
        self.cells = [(c, grid.fit(c.pixels)) if c else None for c in cells]
        present = [cell for cell in self.cells if cell]
        self.captions = max((len(cell.captions) for cell, _ in present), default=0) * LINE
        self.pictures = max((len(pixels) for _, pixels in present), default=0)
        self.below = max((_measure_below(cell) for cell, _ in present), default=0)

    @property
    def height(self) -> int:
        """From the highest caption to the lowest number."""
        return self.captions + self.pictures + self.below

    def place(self, page: Page) -> None:
        """Sets the cells below what stands on a page."""
        for index, entry in enumerate(self.cells):
            if entry is None:
                continue
            cell, pixels = entry
            left, top = GAP + index * (self.grid.cell + GAP), page.height
            # captions stand on the picture, so that cells of fewer lines leave the gap above
            first = top + self.captions - len(cell.captions) * LINE
            for number, caption in enumerate(cell.captions):
                text = cut_text(caption.words, self.grid.cell, FONT, caption.tail)
                page.texts.append(PlacedText(text, left, first + number * LINE + TEXT - 4))
            top += self.captions
            height, width = pixels.shape[:2]
            page.pictures.append(PlacedPicture(pixels, left, top, width, height))
            if cell.bar:
                _place_bar(cell.bar, page, left, top + height + 6, self.grid.cell)
            _place_legend(cell.legend, page, left, top + height + 6, self.grid.cell)
        page.height += self.height


def _measure_below(cell: Cell) -> int:
    """Returns how high a bar or a legend is, with the gap above it."""
    if cell.bar:
        return BAR + LINE + 6
    return len(cell.legend) * LINE + 6 if cell.legend else 0


def _place_legend(
    legend: Sequence[tuple[str, Line]], page: Page, left: int, top: int, width: int
) -> None:
    """Sets a square of each colour, and what it means."""
    for number, (colour, line) in enumerate(legend):
        first = top + number * LINE
        swatch = np.array([[ImageColor.getrgb(colour)[:3]]], np.uint8)
        page.pictures.append(PlacedPicture(swatch, left, first + 4, SWATCH, SWATCH))
        indent = SWATCH + 8
        text = cut_text(line.words, width - indent, FONT, line.tail)
        page.texts.append(PlacedText(text, left + indent, first + TEXT - 2))


def _place_bar(bar: ColourBar, page: Page, left: int, top: int, width: int) -> None:
    from camcli.render.colour_bar import format_number

    page.pictures.append(PlacedPicture(bar.colours[None], left, top, width, BAR))
    low, high, font = format_number(bar.low), format_number(bar.high), FONT
    base = top + BAR + TEXT
    middle = format_number((bar.low + bar.high) / 2)
    ends = PlacedText(low, left, base), PlacedText(high, left + width, base, "r")
    page.texts.extend(ends)
    taken = font.getlength(low) + font.getlength(high) + font.getlength(middle) + 2 * TEXT
    if bar.low < 0 < bar.high and taken < width:
        page.texts.append(PlacedText(middle, left + width // 2, base, "m"))


def _finish(page: Page, notes: Sequence[str], bar: ColourBar | None) -> Page:
    """Sets the foot of a page below its cells."""
    if bar:
        width = min(page.width - 2 * GAP, ONE_COLUMN // 2)
        _place_bar(bar, page, GAP, page.height + GAP, width)
        page.height += GAP + BAR + LINE
    if notes:
        page.height += GAP
    for note in notes:
        text = cut_text(note, page.width - 2 * GAP, FONT)
        page.texts.append(PlacedText(text, GAP, page.height + TEXT - 4, colour=FAINT))
        page.height += LINE
    page.height += GAP
    return page


def cut_text(text: str, width: int, font: Letters, tail: str = "") -> str:
    """Shortens a text to a width in pixels, and marks it by three dots; a tail stays whole."""
    text = make_printable(text)
    whole = f"{text} {tail}".strip()
    if font.getlength(whole) <= width:
        return whole
    while text and font.getlength(f"{text}... {tail}".strip()) > width:
        text = text[:-1]
    return f"{text.rstrip()}... {tail}".strip() if text else tail or "..."


def make_printable(text: str) -> str:
    """Makes one line of letters of a text that others wrote."""
    line = " ".join(text.split())
    return "".join(c if c.isprintable() or c in JOINERS else "?" for c in line)
