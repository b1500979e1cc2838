"""What a visitor sent as a picture: its name as text, and its pixels, within the limits.

All of it stays in memory.  Only formats that people have pictures in are tried, since each decoder
is one more that could be attacked.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from pathlib import Path

from camcli.errors import ImageError
from camcli.media.pictures.read import OpenPicture, open_content
from camcli.records import Picture, Source
from camcli.serve.limits import Limits
from camcli.serve.refusals import Refusal

UNNAMED = "picture"
LONGEST_NAME = 120  # characters
# how the formats begin; behind the fourth byte for those of ISO's container
BEGINNINGS = (
    b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"BM", b"II*\0", b"MM\0*",
)  # fmt: skip
BRANDS = (b"avif", b"avis", b"heic", b"heix", b"heim", b"heis", b"mif1", b"msf1")
FORMATS = "JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF or HEIC"

# a progressive JPEG has about ten scans; each one more costs the time of a whole picture
JPEG, SCAN, MOST_SCANS = b"\xff\xd8\xff", b"\xff\xda", 64


def clean_name(given: str) -> str:
    r"""Returns the last part of a file's name: it is text, and names nothing on the server.

    >>> clean_name("..\\..\\my cat.jpg"), clean_name("/etc/"), clean_name("\0")
    ('my cat.jpg', 'etc', 'picture')
    """
    parts = [part.strip() for part in re.split(r"[/\\]", given.replace("\0", ""))]
    name = next((part for part in reversed(parts) if part.strip(".")), UNNAMED)
    stem, dot, suffix = name.rpartition(".")
    if len(name) <= LONGEST_NAME:
        return name
    return f"{stem[: LONGEST_NAME - 9]}{dot}{suffix[:8]}" if stem else name[:LONGEST_NAME]


def read_upload(content: bytes, name: str, limits: Limits) -> Picture:
    """Decodes a picture of at most so many pixels; raises Refusal."""
    _check_kind(content)
    try:
        opened = open_content(Source(Path(name)), content, limits.max_pixels)
        _check_size(opened, limits)
        return opened.decode()
    except ImageError as error:
        raise Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, describe_problem(error, name)) from error


def _check_kind(content: bytes) -> None:
    is_riff = content[:4] == b"RIFF" and content[8:12] == b"WEBP"
    is_brand = content[4:8] == b"ftyp" and content[8:12] in BRANDS
    if not (content.startswith(BEGINNINGS) or is_riff or is_brand):
        raise Refusal(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"That is no picture: take a {FORMATS} file."
        )
    if content.startswith(JPEG) and content.count(SCAN) > MOST_SCANS:
        raise Refusal(
            HTTPStatus.UNPROCESSABLE_ENTITY, f"That picture has more than {MOST_SCANS} scans."
        )


def _check_size(opened: OpenPicture, limits: Limits) -> None:
    edge = max(opened.size)
    if edge > limits.longest_edge:
        raise Refusal(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            f"That picture has an edge of {edge:,} pixels: {limits.longest_edge:,} is the most.",
        )


LIMIT_OF_PIXELS = re.compile(r"are too many for --max-pixels (\d+)")


def describe_problem(error: ImageError, name: str) -> str:
    """Says what is wrong with a picture, in the words of a visitor who gave no options."""
    told = LIMIT_OF_PIXELS.sub(
        lambda found: f"are too many: {int(found[1]):,} is the most here", str(error)
    )
    return told.replace(repr(name), "that picture", 1)
