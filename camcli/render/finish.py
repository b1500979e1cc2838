"""Finishes a drawn picture: what the network did not see of it, and a caption below."""

from __future__ import annotations

from typing import get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from camcli.errors import UsageError
from camcli.records import Box, Outside
from camcli.render.letters import Letters
from camcli.render.overlay import find_seen
from camcli.render.sheet_layout import INK, PAPER, Line, cut_text

# the caption's text, in pixels, and as a share of the picture's width
SMALLEST_TEXT, TEXTS_ACROSS = 14, 40
STRIP = 1.7  # its height, in heights of the text


def show_outside(
    drawn: NDArray[np.uint8], picture: NDArray[np.uint8], box: Box, outside: Outside
) -> NDArray[np.uint8]:
    """Leaves what lies outside the view dimmed, shows it as it was, or crops it away.

    `drawn` [H W 3] is the picture [h w 3] with heat on it; a legend may stand below it.  Raises
    UsageError for another way.
    """
    if outside not in get_args(Outside):
        raise UsageError(f"outside is dim, keep or crop, not {outside!r}.")
    height, width = picture.shape[:2]
    rows, columns = find_seen(box, (height, width))
    if outside == "dim" or (rows, columns) == (slice(0, height), slice(0, width)):
        return drawn
    left = (drawn.shape[1] - width) // 2  # a wide legend has the picture in its middle
    part = drawn[:height, left : left + width]
    if outside == "crop":
        return _stack(part[rows, columns], drawn[height:])
    kept = drawn.copy()
    kept[:height, left : left + width] = picture
    kept[:height, left : left + width][rows, columns] = part[rows, columns]
    return kept


def add_caption(drawn: NDArray[np.uint8], caption: Line) -> NDArray[np.uint8]:
    """Writes a line on a strip below a picture: uint8 RGB [h w 3] -> [h + strip w 3]."""
    width = drawn.shape[1]
    text = _choose_size(width)
    strip = Image.new("RGB", (width, _measure_strip(width)), PAPER)
    font, gap = Letters(text), text // 2
    words = cut_text(caption.words, width - 2 * gap, font, caption.tail)
    font.draw(ImageDraw.Draw(strip), (gap, strip.height // 2), words, INK, "lm")
    return np.concatenate([drawn, np.asarray(strip)])


def cut_caption(captioned: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Cuts the strip of a caption away again: uint8 RGB [h + strip w 3] -> [h w 3]."""
    return captioned[: len(captioned) - _measure_strip(captioned.shape[1])]


def _choose_size(width: int) -> int:
    """Chooses the size of a caption's text for a picture of this width, in pixels."""
    return max(SMALLEST_TEXT, width // TEXTS_ACROSS)


def _measure_strip(width: int) -> int:
    return round(STRIP * _choose_size(width))


def _stack(upper: NDArray[np.uint8], lower: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Sets one picture below another, on paper as wide as the wider one."""
    if not len(lower):
        return np.ascontiguousarray(upper)
    width = max(upper.shape[1], lower.shape[1])
    paper = Image.new("RGB", (width, len(upper) + len(lower)), PAPER)
    for pixels, top in ((upper, 0), (lower, len(upper))):
        paper.paste(Image.fromarray(pixels), ((width - pixels.shape[1]) // 2, top))
    return np.asarray(paper)
