"""Draws several pictures with captions on one sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

TILE = 320  # pixels of a tile's longer edge: a dozen of them stand side by side on a screen
GAP, CAPTION, TEXT = 8, 24, 15
PAPER, INK = "white", "black"


def draw_sheet(
    tiles: Sequence[tuple[str, NDArray[np.uint8]]], columns: int | None = None
) -> NDArray[np.uint8]:
    """Draws captioned pictures in rows, nearly as wide as high: n x [h w 3] -> uint8 [H W 3].

    So many stand in a row as `columns` says, where it does.

    Each picture is reduced to at most `TILE` pixels, never enlarged; a caption that is too long
    for its tile is cut.
    """
    pictures = [_reduce(pixels) for _, pixels in tiles]
    width = max(max(picture.width for picture in pictures), TILE // 2)
    usual = sorted(picture.height for picture in pictures)[len(pictures) // 2]
    columns = columns or _count_columns(len(tiles), width + GAP, usual + CAPTION + GAP)
    # a row is as high as its highest picture: some have a legend, or show the input alone
    heights = [
        max(picture.height for picture in pictures[first : first + columns]) + CAPTION + GAP
        for first in range(0, len(pictures), columns)
    ]
    tops = [GAP, *(GAP + below for below in accumulate(heights))]
    size = (columns * (width + GAP) + GAP, tops[-1])
    sheet = Image.new("RGB", size, PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(TEXT)
    for index, ((caption, _), picture) in enumerate(zip(tiles, pictures, strict=True)):
        left = GAP + index % columns * (width + GAP)
        top = tops[index // columns]
        draw.text((left, top), cut_text(caption, width, font), INK, font)
        sheet.paste(picture, (left, top + CAPTION))
    return np.asarray(sheet)


def _count_columns(count: int, width: int, height: int) -> int:
    """Returns how many of `count` tiles stand side by side on a sheet about as wide as high."""
    return min(count, max(1, round(math.sqrt(count * height / width))))


def _reduce(pixels: NDArray[np.uint8]) -> Image.Image:
    picture = Image.fromarray(pixels)
    picture.thumbnail((TILE, TILE), Image.Resampling.LANCZOS)
    return picture


def cut_text(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """Shortens a text to a width in pixels, and marks it by three dots."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}...") > width:
        text = text[:-1]
    return f"{text}..."
