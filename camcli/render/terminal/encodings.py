"""Writes a picture as the text by which a terminal draws it."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from camcli.render.terminal.capabilities import Terminal

MOST_COLUMNS = 80
BELOW = 3  # rows that stay free for what is printed beside the picture
CHUNK = 4096  # letters of base64 that kitty takes at once
BAND, FIRST_SIXEL = 6, 63  # rows of pixels in a letter of sixel, and the letter of none


def encode_picture(pixels: NDArray[np.uint8], terminal: Terminal) -> str:
    """Writes a picture uint8 RGB [h w 3] for a terminal, with a line break behind it."""
    image = Image.fromarray(pixels)
    columns, rows = _fit(image.size, terminal)
    if terminal.protocol == "blocks":
        small = image.resize((columns, 2 * rows), Image.Resampling.LANCZOS)
        return "".join(_write_blocks(np.asarray(small)))
    width, height = columns * terminal.cell[0], rows * terminal.cell[1]
    # the picture's own shape, which whole letters do not have
    factor = min(width / image.width, height / image.height)
    size = max(1, round(image.width * factor)), max(1, round(image.height * factor))
    image = image.resize(size, Image.Resampling.LANCZOS)
    if terminal.protocol == "sixel":
        return f"{_write_sixel(image)}\n"
    png = _write_png(image)
    if terminal.protocol == "kitty":
        return f"{''.join(_write_kitty(png, columns))}\n"
    return _write_iterm2(png, columns)


def _fit(size: tuple[int, int], terminal: Terminal) -> tuple[int, int]:
    """Returns how many letters a picture is wide and high."""
    width, height = size
    across, down = (1, 2) if terminal.protocol == "blocks" else terminal.cell
    most_rows = max(1, terminal.rows - BELOW)
    columns = min(terminal.columns, MOST_COLUMNS)
    # as many as leave the height in the terminal
    columns = max(1, min(columns, int(most_rows * down * width / (height * across))))
    rows = max(1, min(most_rows, round(columns * across * height / (width * down))))
    return columns, rows


def _write_blocks(pixels: NDArray[np.uint8]) -> Iterator[str]:
    """Writes two pixels a letter, one above the other, in colours of 24 bits."""
    for upper, lower in zip(pixels[::2].tolist(), pixels[1::2].tolist(), strict=True):
        last = None
        for above, below in zip(upper, lower, strict=True):
            if (above, below) != last:
                yield "\x1b[38;2;{};{};{};48;2;{};{};{}m".format(*above, *below)
                last = (above, below)
            yield "▀"
        yield "\x1b[0m\n"


def _write_png(image: Image.Image) -> bytes:
    content = BytesIO()
    image.save(content, "PNG")
    return content.getvalue()


def _write_kitty(png: bytes, columns: int) -> Iterator[str]:
    """Writes kitty's protocol: q=2 has the terminal answer nothing."""
    data = b64encode(png).decode()
    for start in range(0, len(data), CHUNK):
        more = int(start + CHUNK < len(data))
        keys = f"f=100,a=T,q=2,c={columns},m={more}" if start == 0 else f"q=2,m={more}"
        yield f"\x1b_G{keys};{data[start : start + CHUNK]}\x1b\\"


def _write_iterm2(png: bytes, columns: int) -> str:
    keys = f"inline=1;size={len(png)};width={columns};preserveAspectRatio=1"
    return f"\x1b]1337;File={keys}:{b64encode(png).decode()}\a\n"


def _write_sixel(image: Image.Image) -> str:
    """Writes sixel: a palette of 256 colours, then bands of six rows, a colour after the other."""
    indexed = image.quantize(256)
    palette = np.array(indexed.getpalette(), np.int64).reshape(-1, 3)
    places = np.asarray(indexed)
    used = np.unique(places).tolist()
    colours = "".join(
        "#{};2;{};{};{}".format(c, *(round(100 * part / 255) for part in palette[c].tolist()))
        for c in used
    )
    bands = "-".join(_write_band(places[top : top + BAND]) for top in range(0, len(places), BAND))
    return f'\x1bPq"1;1;{image.width};{image.height}{colours}{bands}\x1b\\'


def _write_band(places: NDArray[np.uint8]) -> str:
    """Writes six rows of pixels: for each colour a letter a column, of six bits."""
    bits = (1 << np.arange(len(places)))[:, None]
    rows = (
        f"#{colour}{_shorten(((places == colour) * bits).sum(0).tolist())}"
        for colour in np.unique(places).tolist()
    )
    return "$".join(rows)


def _shorten(sixels: list[int]) -> str:
    """Writes letters, those that are repeated once with their number."""
    letters = []
    start = 0
    for end in range(1, len(sixels) + 1):
        if end == len(sixels) or sixels[end] != sixels[start]:
            letter, count = chr(FIRST_SIXEL + sixels[start]), end - start
            letters.append(f"!{count}{letter}" if count > 3 else letter * count)
            start = end
    return "".join(letters)
