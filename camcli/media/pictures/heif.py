"""HEIC and HEIF pictures, as phones save them, where pillow-heif is installed."""

from __future__ import annotations

import io
from collections.abc import Callable
from importlib.util import find_spec
from typing import BinaryIO

from PIL import Image

from camcli.errors import ImageError

SUFFIXES = frozenset({".heic", ".heif", ".hif"})
# the file's brand; AVIF, which Pillow reads, shares the last two
HEVC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx")
SHARED = (b"mif1", b"msf1")


def is_readable() -> bool:
    """Tells whether pillow-heif is installed; imports nothing."""
    return find_spec("pillow_heif") is not None


def is_heif(content: bytes) -> bool:
    """Tells by a file's first bytes whether it is HEIC or HEIF."""
    if content[4:8] != b"ftyp":
        return False
    brand, compatible = content[8:12], content[16 : int.from_bytes(content[:4], "big")]
    return brand in HEVC or (brand in SHARED and b"avif" not in compatible)


def open_heif(content: bytes) -> Image.Image:
    """Opens a HEIC or HEIF picture, upright; raises ImageError without pillow-heif."""
    try:
        # its plugin, which is not registered: Pillow belongs to the whole process
        from pillow_heif import HeifImageFile
    except ImportError as error:
        raise ImageError("it is HEIC: pip install 'camviz[heif]'") from error
    opener: Callable[[BinaryIO], Image.Image] = HeifImageFile
    return opener(io.BytesIO(content))
