"""What a terminal makes of the text is the picture."""

from __future__ import annotations

import re
from base64 import b64decode
from io import BytesIO

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from camcli.render.terminal.capabilities import Protocol, Terminal
from camcli.render.terminal.encodings import BELOW, MOST_COLUMNS, encode_picture

BLOCK = re.compile(r"(?:\x1b\[38;2;(\d+);(\d+);(\d+);48;2;(\d+);(\d+);(\d+)m)?▀")


def photo(height: int = 90, width: int = 120) -> NDArray[np.uint8]:
    """A picture of smooth colours, which stays itself when it is made smaller."""
    y, x = np.mgrid[0:height, 0:width]
    colours = np.stack([255 * x / width, 255 * y / height, np.full_like(x, 60)], -1)
    return colours.astype(np.uint8)


def reduce(pixels: NDArray[np.uint8], width: int, height: int) -> NDArray[np.int64]:
    image = Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS)
    return np.asarray(image).astype(np.int64)


def read_blocks(text: str) -> NDArray[np.int64]:
    rows: list[list[list[int]]] = []
    for line in text.splitlines():
        assert line.endswith("\x1b[0m")
        upper, lower, last = [], [], [0] * 6
        for match in BLOCK.finditer(line):
            last = [int(part) for part in match.groups()] if match[1] else last
            upper.append(last[:3])
            lower.append(last[3:])
        rows += [upper, lower]
    return np.array(rows)


def read_sixel(text: str) -> NDArray[np.int64]:
    match = re.fullmatch(r'\x1bPq"1;1;(\d+);(\d+)((?:#\d+;2;\d+;\d+;\d+)*)(.*)\x1b\\\n', text)
    assert match
    width, height = int(match[1]), int(match[2])
    palette = {
        int(n): [round(int(part) * 2.55) for part in parts]
        for n, *parts in re.findall(r"#(\d+);2;(\d+);(\d+);(\d+)", match[3])
    }
    drawn = np.full((height, width, 3), -1)
    for band, rows in enumerate(match[4].split("-")):
        for colour, letters in re.findall(r"#(\d+)([^#$]*)", rows):
            x = 0
            for count, letter in re.findall(r"(?:!(\d+))?([?-~])", letters):
                for _ in range(int(count or 1)):
                    for bit in range(6):
                        if (ord(letter) - 63) >> bit & 1:
                            drawn[6 * band + bit, x] = palette[int(colour)]
                    x += 1
            assert x == width
    assert (drawn >= 0).all(), "a pixel without colour"
    return drawn


def test_half_blocks_are_two_pixels_a_letter() -> None:
    text = encode_picture(photo(), Terminal("blocks", 40, 24))
    drawn = read_blocks(text)
    assert drawn.shape == (30, 40, 3)
    assert (drawn == reduce(photo(), 40, 30)).all()


def test_colours_that_stay_are_said_once() -> None:
    grey = np.full((40, 60, 3), 128, np.uint8)
    text = encode_picture(grey, Terminal("blocks", 30, 24))
    assert text.count("\x1b[38;2") == len(text.splitlines()) == 10
    assert (read_blocks(text) == 128).all()


def test_kitty_gets_a_png_in_pieces_and_answers_nothing() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    text = encode_picture(noise, Terminal("kitty", 40, 24, (10, 20)))
    pieces = re.findall(r"\x1b_G([^;]*);([^\x1b]*)\x1b\\", text)
    assert len(pieces) > 2 and all(len(data) <= 4096 for _, data in pieces)
    assert pieces[0][0] == "f=100,a=T,q=2,c=40,m=1"
    assert [keys for keys, _ in pieces[1:]] == ["q=2,m=1"] * (len(pieces) - 2) + ["q=2,m=0"]
    with Image.open(BytesIO(b64decode("".join(data for _, data in pieces)))) as picture:
        assert picture.size == (400, 300)
        assert (np.asarray(picture) == reduce(noise, 400, 300)).all()


def test_iterm2_gets_a_png_with_its_size() -> None:
    text = encode_picture(photo(), Terminal("iterm2", 40, 24, (10, 20)))
    match = re.fullmatch(r"\x1b\]1337;File=inline=1;size=(\d+);width=(\d+);.*?:(.*)\a\n", text)
    assert match and int(match[2]) == 40
    content = b64decode(match[3])
    assert len(content) == int(match[1])
    with Image.open(BytesIO(content)) as picture:
        assert (np.asarray(picture) == reduce(photo(), 400, 300)).all()


@pytest.mark.parametrize("size", [(90, 120), (64, 48), (7, 50)])
def test_sixel_draws_each_pixel_once(size: tuple[int, int]) -> None:
    text = encode_picture(photo(*size), Terminal("sixel", 12, 24, (10, 20)))
    drawn = read_sixel(text)
    expected = reduce(photo(*size), drawn.shape[1], drawn.shape[0])
    # 256 colours, in hundredths
    assert np.abs(drawn - expected).mean() < 6


@pytest.mark.parametrize("protocol", ["kitty", "iterm2", "sixel", "blocks"])
@pytest.mark.parametrize("size", [(3000, 20), (20, 3000), (1, 1), (600, 400)])
@pytest.mark.parametrize("screen", [(200, 50), (10, 4), (1, 1)])
def test_a_picture_stays_in_the_terminal(
    protocol: Protocol, size: tuple[int, int], screen: tuple[int, int]
) -> None:
    text = encode_picture(photo(*size), Terminal(protocol, *screen, (10, 20)))
    columns, rows = min(screen[0], MOST_COLUMNS), max(1, screen[1] - BELOW)
    if protocol == "blocks":
        drawn = read_blocks(text)
        assert 1 <= drawn.shape[1] <= columns and 2 <= drawn.shape[0] <= 2 * rows
    elif protocol == "sixel":
        drawn = read_sixel(text)
        assert drawn.shape[1] <= 10 * columns and drawn.shape[0] <= 20 * rows
    else:
        found = re.search(r"(?:c=|width=)(\d+)", text)
        assert found and int(found[1]) <= columns
