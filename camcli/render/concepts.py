"""Draws concepts on the original picture, a colour each, above a legend of their classes."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageDraw

from camcli.records import Box, Concept, Picture
from camcli.render.colormap import MOST_OPAQUE
from camcli.render.letters import Letters
from camcli.render.overlay import Alpha, check_alpha, dim, enlarge
from camcli.render.sheet_layout import INK, PAPER, cut_text

# seven of Okabe's and Ito's colours and five more, in the order in which each is as far as can be
# from those before it, in the eyes of the colour-blind, too
PALETTE = (
    "#d55e00", "#56b4e9", "#f0e442", "#8400cd", "#00fccf", "#9f0162",
    "#cc79a7", "#784614", "#e69f00", "#009e73", "#e20134", "#0072b2",
)  # fmt: skip

# the legend's text, in pixels: small pictures need one that can be read, large ones are looked at
# from farther away
SMALLEST_TEXT, TEXTS_ACROSS = 14, 40
# in heights of the text
ROW, GAP, NARROWEST = 1.7, 0.7, 19
OUTLINE = "#808080"
LEAST_NAMED = 0.05  # probability of a second or third class


def make_palette(count: int) -> tuple[str, ...]:
    """Returns so many colours as `#rrggbb`: fixed ones, and beyond them hues spaced evenly."""
    more = max(count - len(PALETTE), 0)
    hues = (colorsys.hsv_to_rgb(i / more, 0.65, 0.95) for i in range(more))
    written = ("#" + "".join(f"{round(255 * part):02x}" for part in hue) for hue in hues)
    return (*PALETTE[:count], *written)


def overlay_concepts(
    picture: Picture,
    strengths: NDArray[np.float32],
    concepts: Sequence[Concept],
    alpha: Alpha = 0.5,
    *,
    box: Box,
) -> NDArray[np.uint8]:
    """Colours a picture by its strongest concepts, above their legend: uint8 RGB [H W 3].

    Strengths are [n h w].  Inside `box` the picture is grey, lest its own colours be taken for
    concepts; outside it is dimmed.  Without any strength it is left as it is.  Raises UsageError.
    """
    check_alpha(alpha)
    if not strengths.max() > 0:
        return picture.canvas.copy()
    table = np.array([ImageColor.getrgb(concept.colour) for concept in concepts], np.uint8)
    which, share, seen = _find_strongest(strengths, box, picture.size)
    part = picture.canvas[seen]
    grey = cv2.cvtColor(cv2.cvtColor(part, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    # the root, so that a concept's colour can still be told where it is weak
    opacity = np.sqrt((MOST_OPAQUE if alpha == "auto" else alpha) * share)
    drawn = picture.canvas.copy() if which.shape == picture.size else dim(picture.canvas)
    drawn[seen] = cv2.blendLinear(grey, table.take(which, 0), 1 - opacity, opacity)
    return _add_legend(drawn, concepts)


def _find_strongest(
    strengths: NDArray[np.float32], box: Box, picture_size: tuple[int, int]
) -> tuple[NDArray[np.uint16], NDArray[np.float32], tuple[slice, slice]]:
    """Finds each pixel's strongest concept, its strength as a share of its highest, and where."""
    best, seen = enlarge(strengths[0], box, picture_size)
    which = np.zeros(best.shape, np.uint16)
    # one after the other: all of them at a large picture's size would take gigabytes
    for index, strength in enumerate(strengths[1:], start=1):
        other, _ = enlarge(strength, box, picture_size)
        np.copyto(which, index, where=other > best)
        np.maximum(best, other, out=best)
    # one without any strength is nowhere the strongest, as there are others
    peaks = strengths.max((1, 2))
    return which, np.minimum(best / peaks.take(which), 1), seen


def _add_legend(pixels: NDArray[np.uint8], concepts: Sequence[Concept]) -> NDArray[np.uint8]:
    """Sets a line for each concept below a picture, in as many columns as fit."""
    picture = Image.fromarray(pixels)
    text = max(SMALLEST_TEXT, round(math.sqrt(picture.width * picture.height) / TEXTS_ACROSS))
    gap, row = round(GAP * text), round(ROW * text)
    width = max(picture.width, NARROWEST * text + 2 * gap)
    rows = math.ceil(len(concepts) / ((width - gap) // (NARROWEST * text + gap)))
    column = (width - gap) // math.ceil(len(concepts) / rows)
    sheet = Image.new("RGB", (width, picture.height + rows * row + gap), PAPER)
    sheet.paste(picture, ((width - picture.width) // 2, 0))
    draw, font = ImageDraw.Draw(sheet), Letters(text)
    for index, concept in enumerate(concepts):
        left = gap + index // rows * column
        top = picture.height + gap // 2 + index % rows * row + (row - text) // 2
        swatch = (left, top, left + text, top + text)
        draw.rectangle(swatch, concept.colour, OUTLINE, max(1, text // 16))
        room = column - gap - text - gap // 2
        words = _name_classes(concept, room, font) if concept.labels else f"concept {index + 1}"
        font.draw(draw, (left + text + gap // 2, top + text / 2), words, INK, "lm")
    return np.asarray(sheet)


def _name_classes(concept: Concept, room: float, font: Letters) -> str:
    """Names the best class, and those behind it that are likely and for which there is room."""
    classes = zip(concept.labels, concept.probabilities, strict=True)
    # of `tabby, tabby cat` the first synonym; a line break would start a new line
    best, *others = (
        (f"{' '.join(label.split(',')[0].split())} {probability:.0%}", probability)
        for label, probability in classes
    )
    words = cut_text(best[0], int(room), font)
    for name, probability in others:
        more = f"{words}, {name}"
        if probability < LEAST_NAMED or font.getlength(more) > room:
            break
        words = more
    return words
