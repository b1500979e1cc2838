"""Draws a file that a run wrote in the terminal."""

from __future__ import annotations

from pathlib import Path

from camcli.media.pictures.color_profiles import convert_to_srgb
from camcli.media.pictures.read import open_picture
from camcli.records import MAX_PIXELS, Source
from camcli.render.terminal.capabilities import Terminal
from camcli.render.terminal.encodings import encode_picture


def draw_file(path: str, terminal: Terminal) -> str:
    """Returns the text by which a terminal draws a picture file; raises ImageError."""
    picture = open_picture(Source(Path(path)), MAX_PIXELS).decode()
    return encode_picture(convert_to_srgb(picture.canvas, picture.profile), terminal)
